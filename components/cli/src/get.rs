//! `conduit get pods`: what runs, meshed or not.

use std::process::ExitCode;

use clap::{
    ValueEnum,
    builder::{PossibleValue, PossibleValuesParser},
};
use conduit_observe::api::{PodItem, Pods};

use crate::{
    args::Global,
    client::Client,
    output,
    stat::Scope,
    table::{self, NONE},
};

/// List pods, and whether they are in the mesh
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to list
    #[arg(value_name = "RESOURCE", value_parser = resources(), ignore_case = true)]
    resource: String,
    #[command(flatten)]
    scope: Scope,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Name)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One namespace/pod a line
    Name,
    /// With status, address, owner, mesh and TLS
    Wide,
    Json,
    Yaml,
}

fn resources() -> PossibleValuesParser {
    [PossibleValue::new("pods").aliases(["pod", "po"])].into()
}

/// Prints the pods.
///
/// # Errors
/// The API cannot be reached or declines, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global).await?;
    let parameters = match args.scope.parameters(&client) {
        ("namespace", namespace) => vec![("namespace", namespace)],
        _ => Vec::new(),
    };
    let pods: Pods = client.get("/api/v1/pods", &parameters).await?;
    output::stdout(&render(&pods, args.output)?)?;
    if pods.pods.is_empty() {
        output::note("no pods found");
    }
    Ok(ExitCode::SUCCESS)
}

fn render(pods: &Pods, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Name => pods.pods.iter().map(|pod| format!("{}/{}\n", pod.namespace, pod.name)).collect(),
        Format::Wide => wide(&pods.pods),
        Format::Json => serde_json::to_string_pretty(pods)? + "\n",
        Format::Yaml => serde_saphyr::to_string(pods)?,
    })
}

fn wide(pods: &[PodItem]) -> String {
    let none = || NONE.to_owned();
    let rows = pods.iter().map(|pod| {
        vec![
            format!("{}/{}", pod.namespace, pod.name),
            pod.status.clone(),
            pod.ip.clone().unwrap_or_else(none),
            pod.owner.clone().unwrap_or_else(none),
            if pod.meshed { "yes" } else { "no" }.to_owned(),
            if pod.tls { "optional" } else { NONE }.to_owned(),
        ]
    });
    table::plain(Some(&["NAME", "STATUS", "IP", "OWNER", "MESHED", "TLS"]), rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Pods {
        let pod = |name: &str, meshed: bool| PodItem {
            namespace: "emojivoto".to_owned(),
            name: name.to_owned(),
            status: "Running".to_owned(),
            ip: meshed.then(|| "10.0.0.7".to_owned()),
            owner: meshed.then(|| "deployment/web".to_owned()),
            meshed,
            tls: meshed,
        };
        Pods { version: 1, pods: vec![pod("web-1", true), pod("redis", false)] }
    }

    #[test]
    fn names_are_one_a_line() {
        assert_eq!(render(&pods(), Format::Name).unwrap(), "emojivoto/web-1\nemojivoto/redis\n");
    }

    #[test]
    fn wide_says_what_is_meshed() {
        insta::assert_snapshot!(render(&pods(), Format::Wide).unwrap(), @r"
        NAME              STATUS    IP         OWNER            MESHED   TLS
        emojivoto/web-1   Running   10.0.0.7   deployment/web   yes      optional
        emojivoto/redis   Running   -          -                no       -
        ");
    }

    #[test]
    fn only_pods_are_listed() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            _args: Args,
        }
        let parse = |text| <Line as clap::Parser>::try_parse_from(["get", text]);
        assert!(["pods", "pod", "po", "PO"].into_iter().all(|text| parse(text).is_ok()));
        assert!(parse("deploy").unwrap_err().to_string().contains("[possible values: pods]"));
    }
}
