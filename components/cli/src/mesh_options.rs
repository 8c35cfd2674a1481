//! The flags that `install` and `inject` share: what the mesh is, and where its images are.

use std::fmt;

use clap::{Args, ValueEnum};
use conduit_identity::ControlPlane;
use conduit_k8s::owned;

use crate::version::VERSION;

/// Whether traffic is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Tls {
    /// Wherever both ends can; plaintext otherwise
    Optional,
    /// Never
    #[default]
    Disabled,
}

impl Tls {
    /// As in the `conduit.io/tls` annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optional => owned::TLS_OPTIONAL,
            Self::Disabled => owned::TLS_DISABLED,
        }
    }
}

/// When the images are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[allow(missing_docs, reason = "they are Kubernetes' own words")]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        })
    }
}

/// Flags about the mesh as a whole.
#[derive(Debug, Clone, Args)]
pub struct MeshOptions {
    /// Encrypt traffic between pods
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub tls: Tls,
    /// What workload identities end in
    #[arg(long, value_name = "DOMAIN", default_value = "svc.cluster.local", value_parser = domain)]
    pub trust_domain: String,
    /// DNS zone of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = domain)]
    pub cluster_domain: String,
    /// Tag of Conduit's images
    #[arg(long, short = 'v', value_name = "VERSION", default_value = VERSION, value_parser = tag)]
    pub conduit_version: String,
    /// Put in front of the names of Conduit's images, such as registry.example.com:5000/mirror
    #[arg(long, value_name = "REGISTRY", default_value = "", value_parser = registry, hide_default_value = true)]
    pub registry: String,
    /// When images are pulled
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    pub image_pull_policy: PullPolicy,
    /// Port of the destination service
    #[arg(long, value_name = "PORT", default_value_t = owned::PORT_DESTINATION, value_parser = port)]
    pub api_port: u16,
}

impl MeshOptions {
    /// The control plane in `namespace` that these options are for.
    pub fn control_plane(&self, namespace: &str) -> ControlPlane {
        ControlPlane { namespace: namespace.to_owned(), trust_domain: self.trust_domain.clone() }
    }

    /// The whole name of an image; one with a tag or a digest is whole already.
    pub fn image(&self, name: &str) -> String {
        let last = name.rsplit('/').next().unwrap_or(name);
        if last.contains([':', '@']) {
            return name.to_owned();
        }
        let slash = if self.registry.is_empty() { "" } else { "/" };
        format!("{}{slash}{name}:{}", self.registry, self.conduit_version)
    }
}

/// Parses a port that something can listen on.
///
/// # Errors
/// It is none.
pub fn port(value: &str) -> Result<u16, String> {
    let port = value.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| "not a port: use a number from 1 to 65535".to_owned())
}

fn domain(value: &str) -> Result<String, String> {
    let inner = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if value.len() <= 120 && value.split('.').all(label) {
        Ok(value.to_owned())
    } else {
        Err("not a DNS name: use lower-case labels joined by dots, at most 120 characters, such as svc.cluster.local".to_owned())
    }
}

/// Parses the name of an image.
///
/// # Errors
/// It is none.
pub fn image(value: &str) -> Result<String, String> {
    let inner = |octet: u8| octet.is_ascii_alphanumeric() || b"._-/:@".contains(&octet);
    let valid =
        !value.is_empty() && value.bytes().all(inner) && value.split('/').all(|part| !part.is_empty());
    let expected = "not an image: use a name such as conduit/proxy, with or without a tag or digest";
    valid.then(|| value.to_owned()).ok_or_else(|| expected.to_owned())
}

fn tag(value: &str) -> Result<String, String> {
    let inner = |octet: u8| octet.is_ascii_alphanumeric() || b"_.-".contains(&octet);
    let valid =
        (1..=128).contains(&value.len()) && value.bytes().all(inner) && !value.starts_with(['.', '-']);
    valid.then(|| value.to_owned()).ok_or_else(|| {
        "not a version: use at most 128 letters, digits, dots, dashes and underscores, a letter or digit first".to_owned()
    })
}

fn registry(value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Ok(String::new());
    }
    let trimmed = value.strip_suffix('/').unwrap_or(value);
    let (host, path) = trimmed.split_once('/').map_or((trimmed, None), |(host, path)| (host, Some(path)));
    let name = |part: &str| {
        let inner = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
        !part.is_empty() && part.bytes().all(inner)
    };
    let (host, port) = host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
    let port_is_sound = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if name(host) && port_is_sound && path.is_none_or(|path| path.split('/').all(name)) {
        Ok(trimmed.to_owned())
    } else {
        Err("not a registry: use host, host:port or host/path without a scheme, such as registry.example.com:5000/mirror".to_owned())
    }
}

/// Parses a log filter, as the components do.
///
/// # Errors
/// It is none.
pub fn log_filter(value: &str) -> Result<String, String> {
    match conduit_runtime::log::check(value) {
        Ok(()) if !value.trim().is_empty() => Ok(value.to_owned()),
        _ => Err("not a log filter: use a level or a list such as warn,conduit_proxy=info".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: MeshOptions,
    }

    fn parse(args: &[&str]) -> Result<MeshOptions, String> {
        let args = std::iter::once("test").chain(args.iter().copied());
        Line::try_parse_from(args).map(|line| line.options).map_err(|error| error.to_string())
    }

    #[test]
    fn images_are_named_by_registry_name_and_version() {
        let image = |args: &[&str], name| parse(args).expect("the flags are sound").image(name);
        assert_eq!(image(&["-v", "1.2"], "conduit/ca"), "conduit/ca:1.2");
        let elsewhere = ["--registry", "r.io:5000/x/", "-v", "1"];
        assert_eq!(image(&elsewhere, "mine/p"), "r.io:5000/x/mine/p:1");
        for whole in ["h:1/p:dev", "p@sha256:00"] {
            assert_eq!(image(&elsewhere, whole), whole);
        }
    }

    #[test]
    fn bad_values_are_refused_with_flag_value_and_remedy() {
        let bad = [
            ["--tls", "on"],
            ["--trust-domain", "Cluster.local"],
            ["--conduit-version", "a b"],
            ["--registry", "https://r.io"],
            ["--registry", "r.io:x"],
            ["--image-pull-policy", "Sometimes"],
            ["--api-port", "0"],
        ];
        let errors: Vec<String> = bad
            .iter()
            .map(|args| {
                let error = parse(args).expect_err(args[1]);
                assert!(error.contains(args[0]) && error.contains(args[1]), "{error}");
                error.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
            })
            .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }
}
