//! `conduit top`: live requests, summed up by route.

use std::{cmp::Reverse, io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use conduit_observe::tap::event::{Direction, TapEvent, What};
use conduit_runtime::env;
use indexmap::IndexMap;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    args::Global,
    client::Client,
    output,
    screen::Screen,
    table::{self, NONE, short_identity},
    tap::{Filter, destination, printable, problem, rate},
};

/// How often the table is drawn anew.
const REFRESH: Duration = Duration::from_secs(1);
/// Routes that are told apart. Paths are whatever clients ask for; what is seen beyond is one route.
const MAX_ROUTES: usize = 1_000;
/// Requests under way that are remembered.
const MAX_UNDER_WAY: usize = 10_000;
/// Routes on a screen; the rest are the least frequent.
const SHOWN: usize = 40;

/// Watch the routes of requests, the most frequent first
///
/// Sums up what `conduit tap` would show, with the same filters, until Ctrl-C; on a terminal the table is live, elsewhere it
/// is printed once at the end. A request within the mesh is told of by both of its proxies: IN and OUT are two lines.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conduit top deploy/web -n emojivoto                    what web receives and sends
  conduit top ns/emojivoto --tls=false --duration 30s    what is not encrypted, for half a minute")]
pub struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Requests to look at a second, over all pods: where there are more, numbers are of these
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = rate, allow_negative_numbers = true)]
    max_rps: String,
    /// Stop after this long [default: 10s where stdout is no terminal]
    #[arg(long, value_name = "DURATION", value_parser = env::duration)]
    duration: Option<Duration>,
}

/// Shows the table until the user has seen enough.
///
/// # Errors
/// The API cannot be reached or declines, the stream is lost, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global).await?;
    let is_live = std::io::stdout().is_terminal();
    let duration = args.duration.or((!is_live).then_some(Duration::from_secs(10)));
    let mut screen = if is_live { Some(Screen::open()?) } else { None };
    let mut routes = Routes::default();
    let ended = tokio::select! {
        biased;
        () = conduit_runtime::signal::shutdown() => Ok(()),
        () = after(duration) => Ok(()),
        ended = args.follow(&client, &mut routes, &mut screen) => ended,
    };
    drop(screen);
    if ended.is_err() && routes.by_route.is_empty() {
        return ended.map(|()| ExitCode::FAILURE);
    }
    output::stdout(&routes.table())?;
    if routes.by_route.is_empty() {
        output::note("no requests found");
    }
    ended.map(|()| ExitCode::SUCCESS)
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep(duration).await,
        None => std::future::pending().await,
    }
}

impl Args {
    async fn follow(
        &self,
        client: &Client,
        routes: &mut Routes,
        screen: &mut Option<Screen>,
    ) -> anyhow::Result<()> {
        let mut events = client.events("/api/v1/tap", &self.filter.parameters(client, &self.max_rps)).await?;
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = refresh.tick() => {
                    if let Some(screen) = screen {
                        screen.show(&routes.table())?;
                    }
                    continue;
                }
            };
            let Some(event) = event.context("the tap was lost")? else {
                bail!("the tap was lost: observe ended it without a reason");
            };
            match event.name.as_str() {
                "" => {
                    let event = serde_json::from_str(&event.data);
                    routes.note(&event.context("observe told something this version cannot read")?);
                }
                // On the live screen it would be gone at once, and pods come and go.
                "error" if screen.is_none() => output::note(&problem(&event.data)?),
                "end" => bail!("the tap was ended: {}", event.data),
                // A newer observe has more to say.
                _ => {}
            }
        }
    }
}

/// What is summed up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    direction: Direction,
    source: String,
    destination: String,
    method: String,
    path: String,
    tls: String,
}

#[derive(Debug, Default)]
struct Sum {
    count: u64,
    answered: u64,
    succeeded: u64,
    best: Option<Duration>,
    worst: Option<Duration>,
    last: Option<Duration>,
}

#[derive(Debug, Default)]
struct Routes {
    by_route: IndexMap<Route, Sum>,
    /// By the event's id: which route a request is of, and its status.
    under_way: IndexMap<String, (Route, Option<u32>)>,
}

impl Routes {
    fn note(&mut self, event: &TapEvent) {
        match &event.what {
            What::Request { method, path, .. } => {
                let mut route = Route::of(event, method, path);
                if self.by_route.len() >= MAX_ROUTES && !self.by_route.contains_key(&route) {
                    route = Route::other(event);
                }
                self.by_route.entry(route.clone()).or_default().count += 1;
                if self.under_way.len() >= MAX_UNDER_WAY {
                    self.under_way.shift_remove_index(0);
                }
                self.under_way.insert(event.id.clone(), (route, None));
            }
            What::Response { status, latency_ns } => {
                let Some((route, known)) = self.under_way.get_mut(&event.id) else { return };
                *known = Some(*status);
                if let Some(sum) = self.by_route.get_mut(route) {
                    sum.took(Duration::from_nanos(*latency_ns));
                }
            }
            What::End { grpc_status, reset_error, .. } => {
                let Some((route, status)) = self.under_way.swap_remove(&event.id) else { return };
                let Some(sum) = self.by_route.get_mut(&route) else { return };
                sum.answered += 1;
                let is_success = status.is_some_and(|status| status < 500)
                    && grpc_status.is_none_or(|status| status == 0)
                    && reset_error.is_none();
                sum.succeeded += u64::from(is_success);
            }
            What::Unknown => {}
        }
    }

    fn table(&self) -> String {
        let mut routes: Vec<_> = self.by_route.iter().collect();
        routes.sort_by_key(|(_, sum)| Reverse(sum.count));
        let titles = [
            "PROXY",
            "SOURCE",
            "DESTINATION",
            "METHOD",
            "PATH",
            "COUNT",
            "BEST",
            "WORST",
            "LAST",
            "SUCCESS",
            "TLS",
        ];
        table::plain(Some(&titles), routes.into_iter().take(SHOWN).map(|(route, sum)| line(route, sum)))
    }
}

impl Route {
    fn of(event: &TapEvent, method: &str, path: &str) -> Self {
        // Ports of clients are another for each connection.
        let address = event.source.rsplit_once(':').map_or(event.source.as_str(), |(ip, _)| ip);
        let proven = event.source_labels.get("client_id").map(|id| short_identity(id));
        let source = match event.direction {
            Direction::Outbound => &event.pod,
            Direction::Inbound | Direction::Unknown => proven.unwrap_or(address),
        };
        let destination = match event.direction {
            Direction::Inbound => event.pod.clone(),
            Direction::Outbound | Direction::Unknown => destination(event),
        };
        let [source, method, path, tls] = [source, method, path, &event.tls].map(printable);
        Self { direction: event.direction, source, destination, method, path, tls }
    }

    /// Where everything goes that is too much to be told apart.
    fn other(event: &TapEvent) -> Self {
        let [source, destination, method, path, tls] = ["*"; 5].map(str::to_owned);
        Self { direction: event.direction, source, destination, method, path, tls }
    }
}

impl Sum {
    fn took(&mut self, latency: Duration) {
        self.best = Some(self.best.map_or(latency, |best| best.min(latency)));
        self.worst = Some(self.worst.map_or(latency, |worst| worst.max(latency)));
        self.last = Some(latency);
    }
}

fn line(route: &Route, sum: &Sum) -> Vec<String> {
    let took = |latency: Option<Duration>| {
        latency.map_or_else(|| NONE.to_owned(), |latency| format!("{:.1}ms", latency.as_secs_f64() * 1e3))
    };
    let direction = match route.direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
        Direction::Unknown => "?",
    };
    let Route { source, destination, method, path, tls, .. } = route;
    let success = match sum.answered {
        0 => NONE.to_owned(),
        #[expect(clippy::cast_precision_loss, reason = "counts of what a person watches")]
        answered => {
            let percent = table::honest(sum.succeeded as f64 / answered as f64 * 100.0, 0.01);
            format!("{percent:.2}%")
        }
    };
    let mut cells = vec![direction.to_owned()];
    cells.extend([source, destination, method, path].map(Clone::clone));
    cells.push(sum.count.to_string());
    cells.extend([sum.best, sum.worst, sum.last].map(took));
    cells.extend([success, tls.clone()]);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, what: What) -> TapEvent {
        TapEvent {
            id: id.to_owned(),
            namespace: "shop".to_owned(),
            pod: "web-1".to_owned(),
            direction: Direction::Outbound,
            source: "10.0.0.1:40000".to_owned(),
            source_labels: [].into(),
            destination: "10.0.0.2:8080".to_owned(),
            destination_labels: [("pod".to_owned(), "api-1".to_owned())].into(),
            tls: "true".to_owned(),
            what,
        }
    }

    fn request(path: &str) -> What {
        let [method, scheme, authority] = ["GET", "http", "api"].map(str::to_owned);
        What::Request { method, scheme, authority, path: path.to_owned() }
    }

    fn end(grpc_status: Option<u32>) -> What {
        What::End { duration_ns: 1, since_response_ns: 1, response_bytes: 1, grpc_status, reset_error: None }
    }

    #[test]
    fn requests_of_a_route_are_summed_up() {
        let mut routes = Routes::default();
        for (id, path, status, ms, grpc) in [
            ("1", "/a", 200, 3, None),
            ("2", "/b", 200, 5, Some(2)),
            ("3", "/a", 503, 1, None),
            ("4", "/a", 200, 2, Some(0)),
        ] {
            routes.note(&event(id, request(path)));
            routes.note(&event(id, What::Response { status, latency_ns: ms * 1_000_000 }));
            routes.note(&event(id, end(grpc)));
        }
        routes.note(&event("5", request("/a\u{1b}[2J")));
        // Of a request that began before anybody looked.
        routes.note(&event("0", end(None)));
        insta::assert_snapshot!(routes.table(), @r"
        PROXY   SOURCE   DESTINATION   METHOD   PATH          COUNT   BEST    WORST   LAST    SUCCESS   TLS
        out     web-1    api-1:8080    GET      /a            3       1.0ms   3.0ms   2.0ms   66.67%    true
        out     web-1    api-1:8080    GET      /b            1       5.0ms   5.0ms   5.0ms   0.00%     true
        out     web-1    api-1:8080    GET      /a\u{1b}[2J   1       -       -       -       -         true
        ");
    }

    #[test]
    fn what_strangers_ask_for_takes_no_more_than_its_room() {
        let mut routes = Routes::default();
        for number in 0..MAX_UNDER_WAY + 10 {
            routes.note(&event(&number.to_string(), request(&format!("/{number}"))));
        }
        assert_eq!(routes.by_route.len(), MAX_ROUTES + 1);
        assert_eq!(routes.under_way.len(), MAX_UNDER_WAY);
        let counts: u64 = routes.by_route.values().map(|sum| sum.count).sum();
        assert_eq!(counts, MAX_UNDER_WAY as u64 + 10);
    }
}
