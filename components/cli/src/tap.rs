//! `conduit tap`: live requests, one line for each thing that happens to one.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use conduit_observe::tap::event::{Direction, PodError, TapEvent, What};

use crate::{
    args::Global,
    client::Client,
    output,
    resource::ResourceParser,
    stat::{Scope, Target},
    table::short_identity,
};

/// Watch requests as they happen
///
/// TYPE is deployments, statefulsets, daemonsets, jobs, cronjobs, replicationcontrollers, pods, services or namespaces,
/// or one of kubectl's short names. All filters must hold. Ends with 0 on Ctrl-C and after --max-events, with 1 when the
/// stream is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conduit tap deploy/web -n emojivoto                   what web receives and sends
  conduit tap deploy -n emojivoto --to deploy/voting    what anybody sends to voting
  conduit tap ns/emojivoto --path /api --max-rps 10     some requests of a whole namespace
  conduit tap ns/emojivoto --tls=false                  what is not encrypted")]
pub struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Requests to show a second, over all pods
    #[arg(long, value_name = "NUMBER", default_value = "1.0", value_parser = rate, allow_negative_numbers = true)]
    max_rps: String,
    /// Stop after this many lines
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    max_events: Option<u64>,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Which requests are tapped.
#[derive(Debug, clap::Args)]
pub struct Filter {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    scope: Scope,
    /// Only the proxies of pods with such labels, such as app=web,tier!=back
    #[arg(long, short = 'l', value_name = "LABELS", value_parser = crate::stat::selector)]
    selector: Option<String>,
    /// Only requests to this TYPE or TYPE/NAME
    #[arg(long, value_name = "RESOURCE", value_parser = ResourceParser, hide_possible_values = true)]
    to: Option<String>,
    /// Namespace of --to [default: --namespace]; alone: anything in it
    #[arg(long, value_name = "NAMESPACE", value_parser = crate::args::namespace)]
    to_namespace: Option<String>,
    /// Only requests with this scheme
    #[arg(long)]
    scheme: Option<String>,
    /// Only requests with this method
    #[arg(long)]
    method: Option<String>,
    /// Only requests to this authority
    #[arg(long, value_name = "HOST[:PORT]")]
    authority: Option<String>,
    /// Only requests whose path begins so
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only requests that crossed encrypted (true), otherwise (false), or with this reason, such as no_identity
    #[arg(long, value_name = "true|false|REASON")]
    tls: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line an event
    Table,
    /// The same with who told of it, the peers' identities and what is known of both ends
    Wide,
    /// One JSON object a line
    Json,
}

/// Parses requests a second. How much is allowed is the API's to say.
///
/// # Errors
/// It is no number, or none above 0.
pub fn rate(value: &str) -> Result<String, String> {
    let rate = value.parse().ok().filter(|rate: &f64| *rate > 0.0 && rate.is_finite());
    rate.map(|_| value.to_owned()).ok_or_else(|| "expected a number above 0, such as 0.5 or 10".to_owned())
}

/// Prints events until there are enough, or the user has seen enough.
///
/// # Errors
/// The API cannot be reached or declines, the stream is lost, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global).await?;
    tokio::select! {
        biased;
        () = conduit_runtime::signal::shutdown() => Ok(ExitCode::SUCCESS),
        ended = args.follow(&client) => ended.map(|()| ExitCode::SUCCESS),
    }
}

impl Args {
    async fn follow(&self, client: &Client) -> anyhow::Result<()> {
        let mut events = client.events("/api/v1/tap", &self.filter.parameters(client, &self.max_rps)).await?;
        let mut left = self.max_events.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(event) = events.next().await.context("the tap was lost")? else {
                bail!("the tap was lost: observe ended it without a reason");
            };
            match event.name.as_str() {
                "" => {
                    output::stdout(&self.line(&event.data)?)?;
                    left -= 1;
                }
                "error" => output::note(&problem(&event.data)?),
                "end" => bail!("the tap was ended: {}", event.data),
                // A newer observe has more to say.
                _ => {}
            }
        }
        Ok(())
    }

    fn line(&self, data: &str) -> anyhow::Result<String> {
        let event: TapEvent =
            serde_json::from_str(data).context("observe told something this version cannot read")?;
        Ok(match self.output {
            Format::Table => line(&event) + "\n",
            Format::Wide => line(&event) + &more(&event) + "\n",
            Format::Json => serde_json::to_string(&event)? + "\n",
        })
    }
}

impl Filter {
    /// The parameters that say so, and how many requests a second are wanted.
    pub fn parameters(&self, client: &Client, max_rps: &str) -> Vec<(&'static str, String)> {
        let optional = [
            ("selector", &self.selector),
            ("to", &self.to),
            ("to_namespace", &self.to_namespace),
            ("scheme", &self.scheme),
            ("method", &self.method),
            ("authority", &self.authority),
            ("path", &self.path),
            ("tls", &self.tls),
        ];
        let mut parameters =
            vec![self.target.parameter(), ("max_rps", max_rps.to_owned()), self.scope.parameters(client)];
        parameters.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        parameters
    }
}

/// What an event of the API's `error` tells.
///
/// # Errors
/// It is not what this version reads.
pub fn problem(data: &str) -> anyhow::Result<String> {
    let PodError { namespace, pod, error } =
        serde_json::from_str(data).context("observe told something this version cannot read")?;
    Ok(format!("warning: {namespace}/{pod} is not tapped: {error}"))
}

/// One event as v0.5.0 writes it.
fn line(event: &TapEvent) -> String {
    let id = &event.id;
    let flow = flow(event);
    match &event.what {
        What::Request { method, authority, path, .. } => {
            let [method, authority, path] = [method, authority, path].map(|text| printable(text));
            format!("req id={id} {flow} :method={method} :authority={authority} :path={path}")
        }
        What::Response { status, latency_ns } => {
            format!("rsp id={id} {flow} :status={status} latency={}µs", latency_ns / 1000)
        }
        What::End { duration_ns, response_bytes, grpc_status, reset_error, .. } => {
            let eos = match (grpc_status, reset_error) {
                (Some(code), _) => format!(" grpc-status={}", grpc_name(*code)),
                (None, Some(code)) => format!(" reset-error={code}"),
                (None, None) => String::new(),
            };
            let duration = duration_ns / 1000;
            format!("end id={id} {flow}{eos} duration={duration}µs response-length={response_bytes}B")
        }
        What::Unknown => format!("unknown {flow}"),
    }
}

fn flow(event: &TapEvent) -> String {
    let proxy = match event.direction {
        Direction::Inbound => "in ",
        Direction::Outbound => "out",
        Direction::Unknown => "???",
    };
    let source = printable(&event.source);
    let destination = destination(event);
    format!("proxy={proxy} src={source} dst={destination} tls={}", printable(&event.tls))
}

/// The pod and port where the pod is known, else the address and port.
pub fn destination(event: &TapEvent) -> String {
    let pod = event.destination_labels.get("pod").filter(|pod| !pod.is_empty());
    match (pod, event.destination.rsplit_once(':')) {
        (Some(pod), Some((_, port))) => printable(&format!("{pod}:{port}")),
        _ => printable(&event.destination),
    }
}

/// What the wide form adds.
fn more(event: &TapEvent) -> String {
    let mut text = format!(" told_by={}", printable(&format!("{}/{}", event.namespace, event.pod)));
    for (prefix, labels) in [("src", &event.source_labels), ("dst", &event.destination_labels)] {
        for (name, value) in labels.iter().filter(|(name, _)| *name != "tls") {
            let value = if name.ends_with("_id") { short_identity(value) } else { value };
            text += &format!(" {prefix}_{}={}", printable(name), printable(value));
        }
    }
    text
}

/// What clients and servers choose may hold anything; a terminal must not obey it, and a line stays one line.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// The names of <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>, as v0.5.0 wrote them.
fn grpc_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| format!("Code({code})"), |name| (*name).to_owned())
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
        Command::try_parse_from(["tap"].into_iter().chain(line.split(' '))).unwrap().args
    }

    fn event(direction: Direction, what: What) -> TapEvent {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let id = "web.deployment.emojivoto.conduit-managed.conduit.svc.cluster.local";
        let pod = if direction == Direction::Outbound { "voting-1" } else { "" };
        TapEvent {
            id: "1:7".to_owned(),
            namespace: "emojivoto".to_owned(),
            pod: "web-1".to_owned(),
            direction,
            source: "[fd00::1]:40000".to_owned(),
            source_labels: labels(&[("tls", "true"), ("client_id", id)]),
            destination: "[fd00::2]:8080".to_owned(),
            destination_labels: labels(&[("pod", pod), ("deployment", "voting")]),
            tls: "true".to_owned(),
            what,
        }
    }

    fn end(grpc_status: Option<u32>, reset_error: Option<u32>) -> What {
        What::End {
            duration_ns: 2_000_001_000,
            since_response_ns: 1,
            response_bytes: 11,
            grpc_status,
            reset_error,
        }
    }

    fn request(method: &str, path: &str) -> What {
        What::Request {
            method: method.to_owned(),
            scheme: "http".to_owned(),
            authority: "voting-svc:8080".to_owned(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn lines_are_those_of_v0_5_with_every_second_and_method() {
        let lines = [
            event(Direction::Outbound, request("PROPFIND", "/vote")),
            event(Direction::Inbound, What::Response { status: 200, latency_ns: 1_500_000_000 }),
            event(Direction::Outbound, end(Some(2), None)),
            event(Direction::Outbound, end(Some(99), None)),
            event(Direction::Outbound, end(None, Some(8))),
            event(Direction::Outbound, end(None, None)),
            event(Direction::Unknown, What::Unknown),
        ];
        let lines: Vec<String> = lines.iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        req id=1:7 proxy=out src=[fd00::1]:40000 dst=voting-1:8080 tls=true :method=PROPFIND :authority=voting-svc:8080 :path=/vote
        rsp id=1:7 proxy=in  src=[fd00::1]:40000 dst=[fd00::2]:8080 tls=true :status=200 latency=1500000µs
        end id=1:7 proxy=out src=[fd00::1]:40000 dst=voting-1:8080 tls=true grpc-status=Unknown duration=2000001µs response-length=11B
        end id=1:7 proxy=out src=[fd00::1]:40000 dst=voting-1:8080 tls=true grpc-status=Code(99) duration=2000001µs response-length=11B
        end id=1:7 proxy=out src=[fd00::1]:40000 dst=voting-1:8080 tls=true reset-error=8 duration=2000001µs response-length=11B
        end id=1:7 proxy=out src=[fd00::1]:40000 dst=voting-1:8080 tls=true duration=2000001µs response-length=11B
        unknown proxy=??? src=[fd00::1]:40000 dst=[fd00::2]:8080 tls=true
        ");
    }

    #[test]
    fn wide_adds_who_told_and_who_talked() {
        let event = event(Direction::Outbound, What::Unknown);
        assert_eq!(
            more(&event),
            " told_by=emojivoto/web-1 src_client_id=web.deployment.emojivoto dst_deployment=voting dst_pod=voting-1"
        );
    }

    #[test]
    fn what_others_choose_cannot_steer_the_terminal() {
        let event = event(Direction::Outbound, request("GET", "/\u{1b}[2J\nreq"));
        assert!(line(&event).ends_with(r":path=/\u{1b}[2J\nreq"));
    }

    #[test]
    fn json_is_one_object_a_line_and_read_back() {
        let event = event(Direction::Inbound, end(None, None));
        let line = parse("po -o json").line(&serde_json::to_string(&event).unwrap()).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<TapEvent>(&line).unwrap(), event);
    }

    #[test]
    fn filters_become_parameters() {
        let client = Client::at(TokioNetwork::shared(), "127.0.0.1:1".to_owned());
        let args = parse("deploy web -n shop -l app=web --to svc/db --method get --path /a --max-rps 5");
        let parameters: Vec<_> = args
            .filter
            .parameters(&client, &args.max_rps)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let expected =
            "type=deploy/web max_rps=5 namespace=shop selector=app=web to=svc/db method=get path=/a";
        assert_eq!(parameters.join(" "), expected);
    }

    #[test]
    fn a_pod_that_is_missed_is_a_warning() {
        let data = r#"{"namespace":"shop","pod":"web-1","error":"it has no proxy; inject it"}"#;
        assert_eq!(problem(data).unwrap(), "warning: shop/web-1 is not tapped: it has no proxy; inject it");
    }
}
