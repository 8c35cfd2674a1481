//! `conduit identity`: the certificate that a proxy really serves.

use std::{fmt::Write as _, process::ExitCode};

use clap::ValueEnum;
use conduit_observe::diagnosis::{CertificateItem, Identities, PodIdentity};

use crate::{
    args::{Global, namespace},
    client::Client,
    output,
};

/// Show the certificate that a proxy really serves
///
/// A handshake is done now with the proxy of each pod, and what it served is shown: the names it proves, who issued it, its
/// fingerprint, how long it is valid, and whether it leads to a root that the mesh trusts.
///
/// Exit code 0 when every proxy serves a certificate that is trusted and for its own identity, 1 otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conduit identity deploy/web -n emojivoto       of each pod of web
  conduit identity web-7c5d -n emojivoto         of one pod
  conduit identity web-7c5d -o json | jq -r '.pods[0].chain[0].fingerprint'")]
pub struct Args {
    /// Whose: a pod, or TYPE/NAME of a workload or a service
    #[arg(value_name = "POD")]
    resource: String,
    /// Its namespace [default: the context's]
    #[arg(long, short = 'n', value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, a paragraph for each pod
    Table,
    Json,
}

/// Prints what the proxies serve.
///
/// # Errors
/// The API cannot be reached or declines, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global).await?;
    let namespace = args.namespace.as_deref().unwrap_or(client.default_namespace()).to_owned();
    let parameters = [("resource", args.resource), ("namespace", namespace)];
    let identities: Identities = client.get("/api/v1/identity", &parameters).await?;
    output::stdout(&match args.output {
        Format::Table => identities.pods.iter().map(paragraph).collect::<Vec<_>>().join("\n"),
        Format::Json => serde_json::to_string_pretty(&identities)? + "\n",
    })?;
    Ok(if identities.pods.iter().all(is_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_right(pod: &PodIdentity) -> bool {
    pod.trusted == Some(true) && pod.name_matches
}

fn paragraph(pod: &PodIdentity) -> String {
    let mut text = format!("{}/{}\n", pod.namespace, pod.pod);
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<13} {value}");
    };
    if let Some(expected) = &pod.expected {
        line("Identity:", expected);
    }
    let Some((leaf, issuers)) = pod.chain.split_first() else {
        line("Serves:", &format!("nothing: {}", pod.problem.as_deref().unwrap_or("no certificate was sent")));
        return text;
    };
    for name in leaf.dns_names.iter().chain(&leaf.uris) {
        line("Name:", name);
    }
    line("Issuer:", &leaf.issuer);
    line("Valid:", &format!("{} to {}", leaf.not_before, leaf.not_after));
    line("Key:", &leaf.key);
    line("Serial:", &leaf.serial);
    line("Fingerprint:", &leaf.fingerprint);
    for CertificateItem { subject, not_after, .. } in issuers {
        line("Chain:", &format!("{subject}, until {not_after}"));
    }
    let trusted = match (pod.trusted, &pod.problem) {
        (Some(true), _) => "yes, it leads to a root of this mesh".to_owned(),
        (_, Some(problem)) => format!("no: {problem}"),
        _ => "unknown: the observe component has no trust bundle to judge by".to_owned(),
    };
    line("Trusted:", &trusted);
    if !pod.name_matches {
        line("Name is:", "wrong: others ask for the identity above, and will refuse this certificate");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodIdentity {
        let certificate = |subject: &str| CertificateItem {
            subject: subject.to_owned(),
            issuer: "CN=issuer".to_owned(),
            dns_names: vec!["web.deployment.shop".to_owned()],
            uris: vec!["spiffe://cluster.local/ns/shop/deployment/web".to_owned()],
            serial: "0a1b".to_owned(),
            not_before: "2026-01-01T00:00:00Z".to_owned(),
            not_after: "2026-01-02T03:00:00Z".to_owned(),
            key: "EC P-256".to_owned(),
            fingerprint: "ab".repeat(32),
        };
        PodIdentity {
            namespace: "shop".to_owned(),
            pod: "web-1".to_owned(),
            expected: Some("web.deployment.shop".to_owned()),
            chain: vec![certificate("CN=web"), certificate("CN=issuer")],
            trusted: Some(true),
            name_matches: true,
            problem: None,
        }
    }

    #[test]
    fn what_is_served_is_told_line_by_line() {
        insta::assert_snapshot!(paragraph(&pod()), @r"
        shop/web-1
          Identity:     web.deployment.shop
          Name:         web.deployment.shop
          Name:         spiffe://cluster.local/ns/shop/deployment/web
          Issuer:       CN=issuer
          Valid:        2026-01-01T00:00:00Z to 2026-01-02T03:00:00Z
          Key:          EC P-256
          Serial:       0a1b
          Fingerprint:  abababababababababababababababababababababababababababababababab
          Chain:        CN=issuer, until 2026-01-02T03:00:00Z
          Trusted:      yes, it leads to a root of this mesh
        ");
        assert!(is_right(&pod()));
    }

    #[test]
    fn what_others_would_refuse_is_said_and_is_a_failure() {
        let foreign = PodIdentity { trusted: Some(false), problem: Some("who is that".to_owned()), ..pod() };
        assert!(paragraph(&foreign).contains("Trusted:      no: who is that\n") && !is_right(&foreign));
        let wrong = PodIdentity { name_matches: false, ..pod() };
        assert!(paragraph(&wrong).contains("Name is:      wrong") && !is_right(&wrong));
        let nothing = PodIdentity { chain: Vec::new(), trusted: None, ..foreign };
        assert!(paragraph(&nothing).ends_with("Serves:       nothing: who is that\n") && !is_right(&nothing));
        let unknown = PodIdentity { trusted: None, ..pod() };
        assert!(paragraph(&unknown).contains("unknown: the observe") && !is_right(&unknown));
    }
}
