//! `conduit stat`: traffic in numbers.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use clap::ValueEnum;
use conduit_observe::{
    request,
    row::{Row, Stat, Unscraped},
};

use conduit_runtime::signal;
use tokio::time::MissedTickBehavior;

use crate::{
    args::{Global, namespace},
    client::Client,
    output,
    resource::ResourceParser,
    screen::Screen,
    table,
};

/// How often `--watch` asks again: as often as proxies are read.
const WATCH: Duration = Duration::from_secs(2);

/// Show success rates, request rates, latencies and how much of the traffic is TLS
///
/// TYPE is deployments, statefulsets, daemonsets, jobs, cronjobs, replicationcontrollers, pods, services, authorities,
/// namespaces or all, or one of kubectl's short names (deploy, sts, ds, cj, rc, po, svc, au, ns).
///
/// A row is about what arrives. With --to it is about what leaves for that resource, with --from about what arrives from
/// that one, with both about what goes from the one to the other.
///
/// TLS is the share of responses that crossed between pods encrypted, and of connections where there are no responses.
/// Opaque TCP of a row that has responses is not in it; TLS_CONN of -o wide counts every connection, those of the kubelet's
/// probes among them, which are never encrypted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conduit stat deploy -n emojivoto                  every deployment of a namespace
  conduit stat deploy/web -n emojivoto -o wide      with peers and reasons for plaintext
  conduit stat po -n emojivoto --from deploy/web    the pods that web calls
  conduit stat au -n emojivoto                      by the name that clients use
  conduit stat po -n emojivoto -l app=web-svc       the pods with a label
  conduit stat all -A                               everything
  conduit stat deploy -A --sort-by tls -w           the least encrypted first, live")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    scope: Scope,
    /// Only what has a running pod with such labels, such as app=web,tier!=back
    #[arg(long, short = 'l', value_name = "LABELS", value_parser = selector)]
    selector: Option<String>,
    /// How far back to look: up to 10m
    #[arg(long, short = 't', value_name = "DURATION", default_value = "1m", value_parser = window)]
    time_window: String,
    /// Only requests to this TYPE or TYPE/NAME
    #[arg(long, value_name = "RESOURCE", value_parser = ResourceParser, hide_possible_values = true)]
    to: Option<String>,
    /// Namespace of --to [default: --namespace]; alone: anything in it
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    to_namespace: Option<String>,
    /// Only requests from this TYPE or TYPE/NAME
    #[arg(long, value_name = "RESOURCE", value_parser = ResourceParser, hide_possible_values = true)]
    from: Option<String>,
    /// Namespace of --from [default: --namespace]; alone: anything in it
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    from_namespace: Option<String>,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Leave out the line with the columns' names
    #[arg(long)]
    no_headers: bool,
    /// Which rows come first: those with most of it, or by name
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t = Column::Name)]
    sort_by: Column,
    /// Show it again and again, until Ctrl-C
    #[arg(long, short = 'w')]
    watch: bool,
}

/// By what rows are put in order. Rows without a number come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Column {
    Name,
    /// The lowest first: what fails is what one looks for
    Success,
    Rps,
    P50,
    P95,
    P99,
    /// The lowest first: what is not encrypted is what one looks for
    Tls,
}

/// What a command is about.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// TYPE or TYPE/NAME
    #[arg(value_name = "RESOURCE", value_parser = ResourceParser, hide_possible_values = true)]
    pub resource: String,
    /// Name of the resource, when it does not follow a slash
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Parses how far back to look.
///
/// # Errors
/// It is no duration.
pub fn window(value: &str) -> Result<String, String> {
    request::window(value).map(|_| value.to_owned()).map_err(|invalid| invalid.remedy)
}

/// Parses conditions on labels.
///
/// # Errors
/// They are none.
pub fn selector(value: &str) -> Result<String, String> {
    request::selector(value).map(|_| value.to_owned()).map_err(|invalid| invalid.remedy)
}

impl Target {
    /// The parameter that says so.
    pub fn parameter(&self) -> (&'static str, String) {
        let name = self.name.iter().map(|name| format!("/{name}"));
        ("type", [self.resource.clone()].into_iter().chain(name).collect())
    }
}

/// Which namespaces a command looks at.
#[derive(Debug, clap::Args)]
pub struct Scope {
    /// Namespace of the resource [default: the context's]
    #[arg(long, short = 'n', value_name = "NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,
    /// Look at every namespace
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

impl Scope {
    /// The parameters that say so.
    pub fn parameters(&self, client: &Client) -> (&'static str, String) {
        match self.all_namespaces {
            true => ("all_namespaces", "true".to_owned()),
            false => {
                ("namespace", self.namespace.as_deref().unwrap_or(client.default_namespace()).to_owned())
            }
        }
    }

    /// What to say when nothing was found: whoever forgot `-n` looks into a namespace without knowing.
    pub fn no_traffic(&self, client: &Client) -> String {
        match self.parameters(client) {
            ("namespace", name) => {
                format!("no traffic found in the namespace {name}; -n names another, -A looks everywhere")
            }
            _ => "no traffic found".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}

/// Prints the rows.
///
/// # Errors
/// The API cannot be reached or declines, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global).await?;
    if !args.watch {
        let stat = args.ask(&client).await?;
        output::stdout(&args.render(&stat)?)?;
        args.notes(&stat, &client).iter().for_each(|line| output::note(line));
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        biased;
        () = signal::shutdown() => Ok(ExitCode::SUCCESS),
        ended = args.watch(&client) => ended.map(|()| ExitCode::SUCCESS),
    }
}

impl Args {
    async fn ask(&self, client: &Client) -> anyhow::Result<Stat> {
        let mut stat: Stat = client.get("/api/v1/stat", &self.parameters(client)).await?;
        self.sort_by.sort(&mut stat.rows);
        Ok(stat)
    }

    /// Shows one answer after the other: on a terminal in the same place, elsewhere with a line between them.
    async fn watch(&self, client: &Client) -> anyhow::Result<()> {
        let mut screen = if std::io::stdout().is_terminal() { Some(Screen::open()?) } else { None };
        let mut next = tokio::time::interval(WATCH);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            next.tick().await;
            let stat = self.ask(client).await?;
            let text = self.render(&stat)?;
            match &mut screen {
                Some(screen) => screen.show(&(text + &self.notes(&stat, client).join("\n")))?,
                None => output::stdout(&format!("{text}\n"))?,
            }
        }
    }

    fn parameters(&self, client: &Client) -> Vec<(&'static str, String)> {
        let optional = [
            ("selector", &self.selector),
            ("to", &self.to),
            ("to_namespace", &self.to_namespace),
            ("from", &self.from),
            ("from_namespace", &self.from_namespace),
        ];
        let mut parameters = vec![
            self.target.parameter(),
            ("window", self.time_window.clone()),
            self.scope.parameters(client),
        ];
        parameters.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        parameters
    }

    fn render(&self, stat: &Stat) -> anyhow::Result<String> {
        Ok(match self.output {
            Format::Table | Format::Wide => table::stat(&stat.rows, self.style()),
            Format::Json => serde_json::to_string_pretty(stat)? + "\n",
            Format::Yaml => serde_saphyr::to_string(stat)?,
        })
    }

    fn style(&self) -> table::Style {
        let kind = self.target.resource.to_ascii_lowercase();
        table::Style {
            // A namespace is in no namespace.
            namespaces: self.scope.all_namespaces
                && !matches!(kind.as_str(), "ns" | "namespace" | "namespaces"),
            typed: kind == "all",
            wide: self.output == Format::Wide,
            headers: !self.no_headers,
        }
    }

    /// What a reader of the table should know besides.
    fn notes(&self, stat: &Stat, client: &Client) -> Vec<String> {
        let mut notes = Vec::new();
        if stat.rows.is_empty() {
            notes.push(self.scope.no_traffic(client));
        }
        notes.extend(unscraped(&stat.unscraped));
        notes
    }
}

impl Column {
    /// Puts rows in order within their kinds; of those that are equal, the order stays.
    fn sort(self, rows: &mut [Row]) {
        let (of, sign): (fn(&Row) -> Option<f64>, f64) = match self {
            Self::Name => return,
            Self::Success => (|row| row.success, 1.0),
            Self::Rps => (|row| row.rps, -1.0),
            Self::P50 => (|row| row.latency_ms.p50, -1.0),
            Self::P95 => (|row| row.latency_ms.p95, -1.0),
            Self::P99 => (|row| row.latency_ms.p99, -1.0),
            Self::Tls => (|row| row.tls, 1.0),
        };
        let key = |row: &Row| of(row).map_or(f64::INFINITY, |value| sign * value);
        rows.chunk_by_mut(|one, other| one.kind == other.kind)
            .for_each(|rows| rows.sort_by(|one, other| key(one).total_cmp(&key(other))));
    }
}

/// That numbers are missing, if any are.
pub fn unscraped(missing: &[Unscraped]) -> Option<String> {
    let (count, pod) = (missing.len(), missing.first()?);
    let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    let Unscraped { namespace, pod, reason, .. } = pod;
    Some(format!("warning: the numbers lack {count} pod(s): {namespace}/{pod}: {reason}{more}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use conduit_net::TokioNetwork;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Args {
        Command::try_parse_from(["stat"].into_iter().chain(line.split(' '))).unwrap().args
    }

    fn parameters(line: &str) -> String {
        let client = Client::at(TokioNetwork::shared(), "127.0.0.1:1".to_owned());
        let pairs = parse(line).parameters(&client).into_iter();
        pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn flags_become_parameters() {
        assert_eq!(parameters("po -l app=web"), "type=po window=1m namespace=default selector=app=web");
        assert_eq!(parameters("deploy web"), "type=deploy/web window=1m namespace=default");
        assert_eq!(
            parameters("po -A -t 10m --to svc/db --to-namespace data --from deploy/web"),
            "type=po window=10m all_namespaces=true to=svc/db to_namespace=data from=deploy/web"
        );
    }

    #[test]
    fn rows_are_put_in_order_within_their_kinds() {
        use conduit_observe::{
            kind::Kind,
            row::{Bytes, Counts, Latency},
        };
        let row = |kind, name: &str, rps, tls| Row {
            kind,
            namespace: "shop".into(),
            name: name.into(),
            meshed: None,
            running: None,
            success: None,
            rps,
            latency_ms: Latency::default(),
            bytes: Bytes::default(),
            tls,
            counts: Counts::default(),
            plaintext: [].into(),
            peers: [].into(),
        };
        let rows = [
            row(Kind::Deployment, "idle", None, None),
            row(Kind::Deployment, "quiet", Some(1.0), Some(0.5)),
            row(Kind::Deployment, "busy", Some(9.0), Some(1.0)),
            row(Kind::Pod, "pod", Some(99.0), Some(0.0)),
        ];
        let sorted = |column: Column| {
            let mut rows = rows.to_vec();
            column.sort(&mut rows);
            rows.into_iter().map(|row| row.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sorted(Column::Name), "idle quiet busy pod");
        assert_eq!(sorted(Column::Rps), "busy quiet idle pod");
        assert_eq!(sorted(Column::Tls), "quiet busy idle pod");
    }

    #[test]
    fn what_is_missing_is_told_beside_the_table() {
        let pod = |name: &str| Unscraped {
            namespace: "shop".into(),
            pod: name.into(),
            reason: "no answer".into(),
            since_ms: None,
        };
        let note = unscraped(&[pod("a"), pod("b")]);
        assert_eq!(note.unwrap(), "warning: the numbers lack 2 pod(s): shop/a: no answer (and 1 more)");
    }

    #[test]
    fn json_and_yaml_carry_the_whole_answer() {
        let stat = Stat {
            version: 1,
            window_ms: 60_000,
            covered_ms: 5_000,
            rows: Vec::new(),
            unscraped: Vec::new(),
        };
        let json = parse("po -o json").render(&stat).unwrap();
        assert_eq!(serde_json::from_str::<Stat>(&json).unwrap(), stat);
        insta::assert_snapshot!(parse("po -o yaml").render(&stat).unwrap(), @r"
        version: 1
        window_ms: 60000
        covered_ms: 5000
        rows: []
        ");
    }
}
