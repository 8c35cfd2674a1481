//! `conduit edges`: who talks to whom, and whether that is encrypted.

use std::process::ExitCode;

use clap::{
    ValueEnum,
    builder::{PossibleValue, PossibleValuesParser},
};
use conduit_observe::edges::{Edge, Edges, End, Side};

use crate::{
    args::Global,
    client::Client,
    output,
    stat::{Scope, unscraped, window},
    table::{self, NONE, honest, listed, short_identity},
};

/// Show who talks to whom, with both ends' identities, and whether that is encrypted or why not
///
/// An edge is shown when something crossed between its ends within the window. A client that has no proxy and sends in the
/// clear is not known by name: all such clients of a server are one line, whose CLIENT is `?`.
///
/// TLS is the share of responses that crossed encrypted, and of connections where there are no responses. SINCE is for how
/// long all of it, or nothing of it, has been so: `-` when it was never seen otherwise, within ten minutes at most.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conduit edges -n emojivoto             every edge with an end in a namespace
  conduit edges -A -o wide               everywhere, with identities and connections
  conduit edges pods -n emojivoto        pod by pod")]
pub struct Args {
    /// What the ends are
    #[arg(value_name = "ENDS", value_parser = ends(), default_value = "workloads", ignore_case = true)]
    ends: String,
    #[command(flatten)]
    scope: Scope,
    /// How far back to look: up to 10m
    #[arg(long, short = 't', value_name = "DURATION", default_value = "1m", value_parser = window)]
    time_window: String,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Leave out the line with the columns' names
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    /// With identities, connections, and whose proxies told
    Wide,
    Json,
    Yaml,
}

fn ends() -> PossibleValuesParser {
    [PossibleValue::new("workloads").aliases(["workload"]), PossibleValue::new("pods").aliases(["pod", "po"])]
        .into()
}

/// Prints the edges.
///
/// # Errors
/// The API cannot be reached or declines, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global).await?;
    let kind = if args.ends.to_ascii_lowercase().starts_with("po") { "pod" } else { "workload" };
    let parameters =
        [("type", kind.to_owned()), ("window", args.time_window.clone()), args.scope.parameters(&client)];
    let edges: Edges = client.get("/api/v1/edges", &parameters).await?;
    output::stdout(&args.render(&edges)?)?;
    if edges.edges.is_empty() {
        output::note(&args.scope.no_traffic(&client));
    }
    unscraped(&edges.unscraped).iter().for_each(|line| output::note(line));
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn render(&self, edges: &Edges) -> anyhow::Result<String> {
        Ok(match self.output {
            Format::Table | Format::Wide => self.table(&edges.edges),
            Format::Json => serde_json::to_string_pretty(edges)? + "\n",
            Format::Yaml => serde_saphyr::to_string(edges)?,
        })
    }

    fn table(&self, edges: &[Edge]) -> String {
        let is_wide = self.output == Format::Wide;
        let mut titles = vec!["CLIENT", "SERVER", "TLS", "RPS", "SINCE", "PLAINTEXT"];
        if is_wide {
            titles.extend(["CONNECTIONS", "CLIENT_ID", "SERVER_ID", "TOLD_BY"]);
        }
        let rows = edges.iter().map(|edge| {
            let mut cells = cells(edge);
            if is_wide {
                cells.extend(wide(edge));
            }
            cells
        });
        table::plain((!self.no_headers).then_some(&titles[..]), rows)
    }
}

fn cells(edge: &Edge) -> Vec<String> {
    vec![
        end(&edge.client),
        end(&edge.server),
        format!("{:.0}%", honest(edge.tls * 100.0, 1.0)),
        edge.rps.map_or_else(|| NONE.to_owned(), |rps| format!("{rps:.1}rps")),
        edge.since_ms.map_or_else(|| NONE.to_owned(), since),
        listed(table::reasons(&edge.plaintext)),
    ]
}

fn wide(edge: &Edge) -> [String; 4] {
    let identity = |end: &End| end.identity.as_deref().map_or(NONE, short_identity).to_owned();
    let side = |side: &Side| match side {
        Side::Client => "client".to_owned(),
        Side::Server => "server".to_owned(),
    };
    [
        format!("{:.0}", edge.connections),
        identity(&edge.client),
        identity(&edge.server),
        listed(edge.told_by.iter().map(side).collect()),
    ]
}

/// `namespace/kind/name` of an object; what is none of the cluster's as clients called it.
fn end(end: &End) -> String {
    match end.kind {
        None if end.name.is_empty() => "?".to_owned(),
        None => end.name.clone(),
        Some(kind) => format!("{}/{}/{}", end.namespace, kind.short(), end.name),
    }
}

fn since(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use conduit_observe::kind::Kind;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Args {
        Command::try_parse_from(["edges"].into_iter().chain(line.split_whitespace())).unwrap().args
    }

    fn of(kind: Option<Kind>, name: &str, identity: bool) -> End {
        let namespace = kind.map(|_| "shop".to_owned()).unwrap_or_default();
        let identity =
            identity.then(|| format!("{name}.deployment.shop.conduit-managed.conduit.svc.cluster.local"));
        End { kind, namespace, name: name.to_owned(), meshed: identity.is_some(), identity }
    }

    fn edges() -> Edges {
        let encrypted = Edge {
            client: of(Some(Kind::Deployment), "web", true),
            server: of(Some(Kind::Deployment), "api", true),
            tls: 1.0,
            rps: Some(2.04),
            connections: 3.0,
            plaintext: [].into(),
            since_ms: Some(95_000),
            told_by: [Side::Client, Side::Server].into(),
        };
        let clear = Edge {
            client: of(None, "", false),
            tls: 0.0,
            rps: None,
            plaintext: [("no_proxy_tls".to_owned(), 3.0)].into(),
            since_ms: None,
            told_by: [Side::Server].into(),
            ..encrypted.clone()
        };
        Edges {
            version: 1,
            window_ms: 1,
            covered_ms: 1,
            edges: vec![encrypted, clear],
            unscraped: Vec::new(),
        }
    }

    #[test]
    fn both_ends_and_the_reason_are_shown() {
        insta::assert_snapshot!(parse("").render(&edges()).unwrap(), @r"
        CLIENT            SERVER            TLS    RPS      SINCE   PLAINTEXT
        shop/deploy/web   shop/deploy/api   100%   2.0rps   1m35s   -
        ?                 shop/deploy/api   0%     -        -       no_proxy_tls=3
        ");
        insta::assert_snapshot!(parse("po -o wide --no-headers").render(&edges()).unwrap(), @r"
        shop/deploy/web   shop/deploy/api   100%   2.0rps   1m35s   -                3   web.deployment.shop   api.deployment.shop   client,server
        ?                 shop/deploy/api   0%     -        -       no_proxy_tls=3   3   -                     api.deployment.shop   server
        ");
    }

    #[test]
    fn json_and_yaml_carry_the_whole_answer() {
        let json = parse("-o json").render(&edges()).unwrap();
        assert_eq!(serde_json::from_str::<Edges>(&json).unwrap(), edges());
        assert!(parse("-o yaml").render(&edges()).unwrap().contains("no_proxy_tls: 3"));
    }
}
