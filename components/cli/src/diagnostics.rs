//! `conduit diagnostics`: what the parts of Conduit know, for whoever looks for a fault.

use std::{path::PathBuf, process::ExitCode};

use clap::{Subcommand, ValueEnum};
use conduit_observe::diagnosis::{Endpoints, Proxies, ProxyItem};

use crate::{
    args::{Global, namespace},
    client::Client,
    output,
    table::{self, NONE},
};

mod archive;
mod bundle;

/// Show what the parts of Conduit know, to find a fault
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the metrics of proxies, as they are
    ProxyMetrics(ProxyMetrics),
    /// Print where an authority leads, as the destination service tells proxies
    Endpoints(EndpointsArgs),
    /// Write an archive for a support request: states, metrics, logs; no keys
    Bundle(Bundle),
}

#[derive(Debug, clap::Args)]
struct ProxyMetrics {
    /// Whose: a pod, or TYPE/NAME of a workload
    #[arg(value_name = "POD")]
    resource: String,
    /// Its namespace [default: the context's]
    #[arg(long, short = 'n', value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
}

/// Print where an authority leads, as the destination service tells proxies
///
/// Exit code 0 when it is known, 1 otherwise.
#[derive(Debug, clap::Args)]
struct EndpointsArgs {
    /// What a client calls, such as web-svc.emojivoto:80
    #[arg(value_name = "AUTHORITY")]
    authority: String,
    /// Namespace of the client, which a short name is looked up in [default: the context's]
    #[arg(long, short = 'n', value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, clap::Args)]
struct Bundle {
    /// The file to write; it must not exist yet
    #[arg(long, short = 'o', value_name = "FILE", default_value = "conduit-bundle.tar.gz")]
    output: PathBuf,
}

/// Runs the subcommand.
///
/// # Errors
/// The API cannot be reached or declines, or the output cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match args.what {
        What::ProxyMetrics(args) => proxy_metrics(args, global).await,
        What::Endpoints(args) => endpoints(args, global).await,
        What::Bundle(args) => bundle::run(&args.output, global).await,
    }
}

async fn proxy_metrics(args: ProxyMetrics, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global).await?;
    let namespace = args.namespace.as_deref().unwrap_or(client.default_namespace()).to_owned();
    let pods = pods(&client, &args.resource, &namespace).await?;
    for pod in &pods {
        if pods.len() > 1 {
            output::stdout(&format!("# pod {namespace}/{pod}\n"))?;
        }
        let parameters = [("namespace", namespace.clone()), ("pod", pod.clone())];
        let text = client.bytes("/api/v1/proxy-metrics", &parameters).await?;
        output::stdout(&String::from_utf8_lossy(&text))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The pods that `resource` means; a pod is taken at its word, so that the API says what is wrong with it.
async fn pods(client: &Client, resource: &str, namespace: &str) -> anyhow::Result<Vec<String>> {
    let workload = match resource.split_once('/') {
        None => return Ok(vec![resource.to_owned()]),
        Some(("po" | "pod" | "pods", pod)) => return Ok(vec![pod.to_owned()]),
        Some((kind, name)) => {
            let kind: conduit_observe::kind::Kind = kind.parse()?;
            format!("{}/{name}", kind.short())
        }
    };
    let parameters = [("namespace", namespace.to_owned())];
    let known: Proxies = client.get("/api/v1/proxies", &parameters).await?;
    let of = |proxy: &ProxyItem| proxy.workload == workload;
    let pods: Vec<String> = known.proxies.into_iter().filter(of).map(|proxy| proxy.pod).collect();
    if pods.is_empty() {
        anyhow::bail!(
            "{workload} has no pod with a proxy in the namespace {namespace}; name another, or inject it"
        );
    }
    Ok(pods)
}

async fn endpoints(args: EndpointsArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global).await?;
    let namespace = args.namespace.as_deref().unwrap_or(client.default_namespace()).to_owned();
    let parameters = [("authority", args.authority), ("namespace", namespace)];
    let endpoints: Endpoints = client.get("/api/v1/endpoints", &parameters).await?;
    output::stdout(&match args.output {
        Format::Table => rows(&endpoints),
        Format::Json => serde_json::to_string_pretty(&endpoints)? + "\n",
    })?;
    if !endpoints.known {
        output::note(&format!(
            "the destination service knows nothing of {} from the namespace {}; proxies send such requests where the \
             application does",
            endpoints.authority, endpoints.namespace
        ));
        return Ok(ExitCode::FAILURE);
    }
    if endpoints.endpoints.is_empty() {
        output::note(&format!("{} is known, and nothing is ready behind it", endpoints.authority));
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(endpoints: &Endpoints) -> String {
    if endpoints.endpoints.is_empty() {
        return String::new();
    }
    let rows = endpoints.endpoints.iter().map(|endpoint| {
        vec![
            endpoint.address.clone(),
            endpoint.labels.get("pod").cloned().unwrap_or_else(|| NONE.to_owned()),
            endpoint.identity.clone().unwrap_or_else(|| NONE.to_owned()),
        ]
    });
    table::plain(Some(&["ADDRESS", "POD", "IDENTITY"]), rows)
}

#[cfg(test)]
mod tests {
    use conduit_observe::diagnosis::EndpointItem;

    use super::*;

    #[test]
    fn endpoints_without_an_identity_are_seen_at_once() {
        let endpoint = |address: &str, identity: Option<&str>| EndpointItem {
            address: address.to_owned(),
            identity: identity.map(str::to_owned),
            labels: [("pod".to_owned(), "web-1".to_owned())].into(),
        };
        let endpoints = Endpoints {
            version: 1,
            authority: "web:80".to_owned(),
            namespace: "shop".to_owned(),
            answered_by: "destination-1".to_owned(),
            known: true,
            service: None,
            endpoints: vec![
                endpoint("10.0.0.1:80", Some("web.deployment.shop")),
                endpoint("10.0.0.2:80", None),
            ],
        };
        insta::assert_snapshot!(rows(&endpoints), @r"
        ADDRESS       POD     IDENTITY
        10.0.0.1:80   web-1   web.deployment.shop
        10.0.0.2:80   web-1   -
        ");
    }
}
