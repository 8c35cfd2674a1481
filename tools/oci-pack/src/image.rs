//! An image's documents, by the OCI image specification 1.1 and by what `docker load` has always read, and the archive
//! that holds them.
//!
//! Documents are structs and not maps of JSON, because the order of keys in those depends on what else is built with this
//! program, and a digest on the order of keys.

use std::{collections::BTreeMap, io::Write};

use flate2::{Compression, GzBuilder};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    args::{Architecture, ImageName, ImagePath},
    layer::Tar,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The one time there is.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What programs find others by, in a container whose manifest does not say.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image consists of.
pub(crate) struct Image<'a> {
    pub(crate) name: &'a ImageName,
    pub(crate) architecture: Architecture,
    pub(crate) entrypoint: &'a ImagePath,
    pub(crate) user: u32,
    pub(crate) labels: BTreeMap<String, String>,
    /// Its only layer, as a tar archive.
    pub(crate) layer: Vec<u8>,
}

/// An image ready to be loaded.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    digest: String,
}

impl Archive {
    pub(crate) fn of(image: &Image<'_>) -> Self {
        let mut blobs = Blobs::default();
        let config = blobs.add(CONFIG, json(&image.config()));
        let layer = blobs.add(LAYER, gzip(&image.layer));
        let for_docker = json(&[DockerManifest {
            config: Blobs::path(&config.digest),
            repo_tags: [image.name.to_string()],
            layers: [Blobs::path(&layer.digest)],
        }]);
        let manifest = Manifest { schema_version: 2, media_type: MANIFEST, config, layers: [layer] };
        let manifest = blobs.add(MANIFEST, json(&manifest));
        let digest = manifest.digest.clone();
        let index = Index { schema_version: 2, media_type: INDEX, manifests: [image.named(manifest)] };
        Self { bytes: blobs.archive(&json(&index), &for_docker), digest }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Of the manifest, which is what a registry and `kubectl` show as the image's.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }
}

impl Image<'_> {
    fn config(&self) -> Config {
        Config {
            created: CREATED,
            architecture: self.architecture.as_str(),
            os: "linux",
            config: Execution {
                user: self.user.to_string(),
                env: [PATH],
                entrypoint: [self.entrypoint.to_string()],
                working_dir: "/",
                labels: self.labels.clone(),
            },
            rootfs: RootFs { kind: "layers", diff_ids: [digest(&self.layer)] },
            history: [History { created: CREATED, created_by: "oci-pack" }],
        }
    }

    /// Loaders take the name from one of these, depending on their kind.
    fn named(&self, manifest: Descriptor) -> NamedDescriptor {
        NamedDescriptor {
            manifest,
            annotations: BTreeMap::from([
                ("io.containerd.image.name", self.name.with_registry()),
                ("org.opencontainers.image.ref.name", self.name.tag.clone()),
            ]),
            platform: Platform { architecture: self.architecture.as_str(), os: "linux" },
        }
    }
}

/// Contents by their digests.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    fn add(&mut self, media_type: &'static str, content: Vec<u8>) -> Descriptor {
        let digest = digest(&content);
        let size = content.len();
        self.0.insert(digest.clone(), content);
        Descriptor { media_type, digest, size }
    }

    fn path(digest: &str) -> String {
        format!("blobs/{}", digest.replace(':', "/"))
    }

    /// The layout first, so that a reader of streams knows early what it reads.
    fn archive(&self, index: &[u8], for_docker: &[u8]) -> Vec<u8> {
        let mut archive = Tar::new();
        archive.file("oci-layout", &json(&LayoutVersion { version: "1.0.0" }), 0o644);
        archive.file("index.json", index, 0o644);
        archive.file("manifest.json", for_docker, 0o644);
        archive.directory("blobs");
        archive.directory("blobs/sha256");
        for (digest, content) in &self.0 {
            archive.file(&Self::path(digest), content, 0o644);
        }
        archive.finish()
    }
}

/// `sha256:` and the hash in hexadecimal.
pub(crate) fn digest(content: &[u8]) -> String {
    let hex = Sha256::digest(content).iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    format!("sha256:{hex}")
}

#[expect(clippy::expect_used, reason = "a broken invariant of ours")]
pub(crate) fn json<T: Serialize + ?Sized>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("keys are strings, and memory takes all bytes")
}

#[expect(clippy::expect_used, reason = "a broken invariant of ours")]
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    writer.write_all(content).and_then(|()| writer.finish()).expect("writing to memory does not fail")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u8,
    media_type: &'static str,
    manifests: [NamedDescriptor; 1],
}

#[derive(Serialize)]
struct NamedDescriptor {
    #[serde(flatten)]
    manifest: Descriptor,
    annotations: BTreeMap<&'static str, String>,
    platform: Platform,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: usize,
}

#[derive(Serialize)]
struct Platform {
    architecture: &'static str,
    os: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u8,
    media_type: &'static str,
    config: Descriptor,
    layers: [Descriptor; 1],
}

#[derive(Serialize)]
struct Config {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    config: Execution,
    rootfs: RootFs,
    history: [History; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    user: String,
    env: [&'static str; 1],
    entrypoint: [String; 1],
    working_dir: &'static str,
    labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: [String; 1],
}

#[derive(Serialize)]
struct History {
    created: &'static str,
    created_by: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: [String; 1],
    layers: [String; 1],
}

#[derive(Serialize)]
struct LayoutVersion {
    #[serde(rename = "imageLayoutVersion")]
    version: &'static str,
}
