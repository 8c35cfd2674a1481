//! The bill of materials of an image, in CycloneDX 1.5: every crate that is linked into its program, as cargo tells it, and
//! what whoever packs the image names. Crates that only ran at build time are left out.
//!
//! cargo resolves features for the whole workspace, so that a crate may be listed which this one program leaves out; none
//! that it holds is missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    args::{ImageName, PackageUrl},
    image,
};

/// Why there is no bill of materials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SbomError {
    #[error("it is not what `cargo metadata --format-version 1` prints: {0}")]
    Format(#[from] serde_json::Error),
    #[error("it has no resolved dependencies: leave --no-deps out")]
    NoResolve,
    #[error("it has no package {0}: check --cargo-package")]
    NoPackage(String),
}

/// The bill of `image`, which holds `others` and, if cargo was asked, a program: what `cargo metadata` printed, and the
/// package in there that the program was built from.
///
/// # Errors
/// The metadata is not cargo's, or knows no such package.
pub(crate) fn of(
    image: &ImageName,
    digest: &str,
    cargo: Option<(&[u8], &str)>,
    others: &[PackageUrl],
) -> Result<Vec<u8>, SbomError> {
    let (mut components, mut dependencies, mut roots) = (Vec::new(), Vec::new(), BTreeSet::new());
    if let Some((metadata, package)) = cargo {
        let metadata: Metadata = serde_json::from_slice(metadata)?;
        let linked = Linked::of(&metadata, package)?;
        components.extend(linked.packages.values().map(|it| it.component()));
        dependencies = linked.edges();
        roots.insert(linked.root.purl());
    }
    components.extend(others.iter().map(PackageUrl::component));
    components.sort_by(|a: &Component, b| a.reference.cmp(&b.reference));
    roots.extend(others.iter().map(|it| it.text.clone()));
    let reference = format!("pkg:oci/{image}@{digest}");
    dependencies.push(Dependency { reference: reference.clone(), depends_on: roots });
    Ok(image::json(&Bom {
        format: "CycloneDX",
        spec_version: "1.5",
        version: 1,
        metadata: About {
            component: Component {
                kind: "container",
                name: image.repository.clone(),
                version: image.tag.clone(),
                reference,
                purl: None,
                licenses: Vec::new(),
            },
        },
        components,
        dependencies,
    }))
}

/// The packages that end up in a program, by cargo's names for them.
struct Linked<'a> {
    root: &'a Package,
    packages: BTreeMap<&'a str, &'a Package>,
    nodes: BTreeMap<&'a str, &'a Node>,
}

impl<'a> Linked<'a> {
    fn of(metadata: &'a Metadata, root: &str) -> Result<Self, SbomError> {
        let resolve = metadata.resolve.as_ref().ok_or(SbomError::NoResolve)?;
        let known: BTreeMap<&str, &Package> =
            metadata.packages.iter().map(|it| (it.id.as_str(), it)).collect();
        let nodes: BTreeMap<&str, &Node> = resolve.nodes.iter().map(|it| (it.id.as_str(), it)).collect();
        let is_root = |package: &&Package| package.name == root && package.source.is_none();
        let root =
            metadata.packages.iter().find(is_root).ok_or_else(|| SbomError::NoPackage(root.to_owned()))?;
        let (mut packages, mut left) = (BTreeMap::new(), vec![root.id.as_str()]);
        while let Some(id) = left.pop() {
            let Some(package) = known.get(id).filter(|package| !package.runs_in_the_compiler()) else {
                continue;
            };
            if packages.insert(id, *package).is_none() {
                left.extend(nodes.get(id).into_iter().flat_map(|node| node.linked()));
            }
        }
        Ok(Self { root, packages, nodes })
    }

    fn edges(&self) -> Vec<Dependency> {
        let purl = |id: &str| self.packages.get(id).map(|package| package.purl());
        let edge = |(id, package): (&&str, &&Package)| Dependency {
            reference: package.purl(),
            depends_on: self
                .nodes
                .get(id)
                .into_iter()
                .flat_map(|node| node.linked())
                .filter_map(purl)
                .collect(),
        };
        let mut edges: Vec<Dependency> = self.packages.iter().map(edge).collect();
        edges.sort_by(|a, b| a.reference.cmp(&b.reference));
        edges
    }
}

impl Node {
    /// What its code is linked with, as opposed to what builds or tests it.
    fn linked(&self) -> impl Iterator<Item = &str> {
        let is_linked = |edge: &&Edge| edge.dep_kinds.iter().any(|it| it.kind.is_none());
        self.deps.iter().filter(is_linked).map(|edge| edge.pkg.as_str())
    }
}

impl Package {
    fn runs_in_the_compiler(&self) -> bool {
        self.targets.iter().flat_map(|target| &target.kind).any(|kind| kind == "proc-macro")
    }

    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn component(&self) -> Component {
        // Before SPDX expressions, crates separated licences by a slash.
        let expression = self.license.as_ref().map(|text| text.replace('/', " OR "));
        Component {
            kind: "library",
            name: self.name.clone(),
            version: self.version.clone(),
            reference: self.purl(),
            purl: Some(self.purl()),
            licenses: expression.map(|expression| License { expression }).into_iter().collect(),
        }
    }
}

impl PackageUrl {
    fn component(&self) -> Component {
        Component {
            kind: "library",
            name: self.name.clone(),
            version: self.version.clone(),
            reference: self.text.clone(),
            purl: Some(self.text.clone()),
            licenses: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Option<Resolve>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// Where it came from; the workspace's own came from nowhere.
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    /// `build` or `dev`; nothing for what is linked.
    kind: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bom {
    #[serde(rename = "bomFormat")]
    format: &'static str,
    spec_version: &'static str,
    version: u8,
    metadata: About,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

#[derive(Serialize)]
struct About {
    component: Component,
}

#[derive(Serialize)]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref")]
    reference: String,
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<License>,
}

#[derive(Serialize)]
struct License {
    expression: String,
}

#[derive(Serialize)]
struct Dependency {
    #[serde(rename = "ref")]
    reference: String,
    /// Each once, in order, as the schema demands.
    #[serde(rename = "dependsOn")]
    depends_on: BTreeSet<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
      "packages": [
        {"id": "1", "name": "program", "version": "0.6.0", "license": "Apache-2.0", "source": null, "targets": [{"kind": ["bin"]}]},
        {"id": "2", "name": "library", "version": "1.0.0", "license": "MIT/Apache-2.0", "source": "registry", "targets": [{"kind": ["lib"]}]},
        {"id": "3", "name": "deep", "version": "2.0.0", "license": null, "source": "registry", "targets": [{"kind": ["lib"]}]},
        {"id": "4", "name": "builder", "version": "3.0.0", "license": "MIT", "source": "registry", "targets": [{"kind": ["lib"]}]},
        {"id": "5", "name": "tester", "version": "4.0.0", "license": "MIT", "source": "registry", "targets": [{"kind": ["lib"]}]},
        {"id": "6", "name": "other", "version": "5.0.0", "license": "MIT", "source": "registry", "targets": [{"kind": ["lib"]}]},
        {"id": "7", "name": "macro", "version": "6.0.0", "license": "MIT", "source": "registry",
          "targets": [{"kind": ["proc-macro"]}]}
      ],
      "resolve": {"nodes": [
        {"id": "1", "deps": [
          {"pkg": "2", "dep_kinds": [{"kind": null}, {"kind": "dev"}]},
          {"pkg": "4", "dep_kinds": [{"kind": "build"}]},
          {"pkg": "5", "dep_kinds": [{"kind": "dev"}]}
        ]},
        {"id": "2", "deps": [
          {"pkg": "3", "dep_kinds": [{"kind": null}]}, {"pkg": "7", "dep_kinds": [{"kind": null}]}
        ]},
        {"id": "3", "deps": [{"pkg": "2", "dep_kinds": [{"kind": null}]}]},
        {"id": "4", "deps": []}, {"id": "5", "deps": []}, {"id": "6", "deps": []}, {"id": "7", "deps": []}
      ]}
    }"#;

    fn sbom(metadata: &str, package: &str) -> Result<String, String> {
        let others = ["pkg:deb/debian/libc6@2.36-9?arch=amd64".parse().expect("sound")];
        let name = "conduit/program:0.6.0".parse().expect("sound");
        of(&name, "sha256:00", Some((metadata.as_bytes(), package)), &others)
            .map(|bytes| pretty(&bytes))
            .map_err(|error| error.to_string())
    }

    fn pretty(bytes: &[u8]) -> String {
        let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        serde_json::to_string_pretty(&value).expect("JSON")
    }

    #[test]
    fn what_is_linked_is_listed_and_nothing_else() {
        insta::assert_snapshot!(sbom(METADATA, "program").expect("sound"));
    }

    #[test]
    fn without_cargo_what_is_named_is_listed() {
        let named = ["pkg:cargo/tokio@1.54.1", "pkg:cargo/bytes@1.12.0"].map(|it| it.parse().expect("sound"));
        let name = "conduit/program:0.6.0".parse().expect("sound");
        insta::assert_snapshot!(pretty(&of(&name, "sha256:00", None, &named).expect("sound")));
    }

    #[test]
    fn metadata_that_says_too_little_is_refused() {
        let errors = [
            sbom("{}", "program"),
            sbom(r#"{"packages": [], "resolve": null}"#, "program"),
            sbom(METADATA, "library"),
        ];
        insta::assert_snapshot!(errors.map(|error| error.expect_err("too little")).join("\n"));
    }
}
