//! `conduit demo`: a mesh on this machine, without a cluster.
//!
//! - `demo/application.rs`: emojivoto as Deployments and Services of the mesh
//! - `demo/fault.rs`: what can be broken, and how it is
//! - `demo/report.rs`: what is said besides the table
//! - `demo/file.rs`: how other commands find the demo

use std::{future::Future, io::IsTerminal, pin::Pin, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::ValueEnum;
use conduit_mesh::{Addresses, Mesh};
use conduit_net::TokioNetwork;
use conduit_observe::{
    query::{MAX_WINDOW, MIN_WINDOW},
    row::Stat,
};
use conduit_runtime::{Seed, env, signal};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{args::Global, client::Client, output, screen::Screen, table};

mod application;
mod fault;
mod file;
mod report;

use application::{Application, NAMESPACE, PARTS, VOTE_BOT};
use fault::Fault;
use file::DemoFile;

/// How often the table is refreshed.
const REFRESH: Duration = Duration::from_secs(1);
/// What the table shows while it is refreshed: long enough for a quiet edge, short enough to see things change. At the
/// default rate it holds ten rounds of votes.
const LIVE_WINDOW: Duration = Duration::from_secs(12);
/// How long the demo runs where nobody can see when it has shown enough.
const UNATTENDED: Duration = Duration::from_secs(20);
/// How long the last numbers and the last requests may take when the time is over: as long as the vote-bot waits for
/// any request.
const LAST_REQUESTS: Duration = Duration::from_secs(12);
/// How long anything may take once Ctrl-C was pressed. Three such steps follow each other.
const AT_ONCE: Duration = Duration::from_millis(250);

/// Run a small application through real sidecars on this machine
///
/// Starts a Kubernetes API in memory, Conduit's control plane, and emojivoto: every pod is its part of the application
/// and a real proxy, on a loopback address of its own, with certificates from the real CA. One vote in six is for the
/// doughnut, which always fails; that is the application's own bug.
///
/// While it runs, `conduit stat deploy -n emojivoto` and the other commands work against it from a second terminal.
///
/// Exit code 0 when every request of the application came to its right end, 1 otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conduit demo                            until Ctrl-C on a terminal, else for 20 s
  conduit demo --unmeshed voting          without a sidecar for voting
  conduit demo --fault ca-late            the CA starts when traffic has been flowing for a while
  conduit demo --duration 30s -o json     what `conduit stat authority -o json` says after 30 s")]
pub struct Args {
    /// How long to run [default: until Ctrl-C on a terminal, else 20s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// How to print the rows
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Leave out the sidecar of web, emoji, voting or vote-bot; may be repeated
    #[arg(long, value_name = "NAME", value_parser = PARTS)]
    unmeshed: Vec<String>,
    /// What pods are injected with
    #[arg(long, value_enum, default_value_t = Tls::Optional)]
    tls: Tls,
    /// Break something
    #[arg(long, value_enum)]
    fault: Option<Fault>,
    /// Requests that the vote-bot sends, a second
    #[arg(long, value_name = "NUMBER", default_value_t = 10.0, value_parser = rate, allow_negative_numbers = true)]
    rps: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
}

/// Whether pods are injected with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tls {
    /// TLS wherever both ends can
    Optional,
    /// No TLS
    Disabled,
}

/// Runs the demo.
///
/// # Errors
/// The machine has no room for it, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    cautions(&args).iter().for_each(|caution| output::note(&format!("note: {caution}")));
    output::note("starting a Kubernetes API, the control plane and emojivoto ...");
    let mut stop = std::pin::pin!(signal::shutdown());
    let started = tokio::select! {
        biased;
        // Dropping what has been started ends it.
        () = stop.as_mut() => return Ok(ExitCode::SUCCESS),
        started = Running::start(&args) => started,
    };
    let mut running = started.context("the demo cannot start")?;
    // Whatever happens to the screen, the mesh is ended in order.
    let code = running.show_and_tell(&args, global.verbose, stop).await;
    running.mesh.stop(AT_ONCE).await;
    code
}

/// What the flags lead to that one might not expect.
fn cautions(args: &Args) -> Vec<String> {
    let mut cautions = Vec::new();
    if PARTS.iter().all(|part| args.unmeshed.iter().any(|unmeshed| unmeshed == part)) {
        cautions.push(
            "every part is unmeshed: there is no proxy that could count, and the table stays empty"
                .to_owned(),
        );
    }
    cautions.extend(args.fault.zip(args.duration).and_then(|(fault, duration)| fault.caution(duration)));
    cautions
}

/// Why the showing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The time is over.
    OnTime,
    /// Somebody wants it to stop.
    Interrupted,
}

/// The mesh and its application, under traffic.
struct Running {
    mesh: Mesh,
    application: Application,
    client: Client,
    began: Instant,
    _file: Option<DemoFile>,
}

impl Running {
    async fn start(args: &Args) -> anyhow::Result<Self> {
        let addresses = Addresses::of_this_machine().await;
        let mut builder = Mesh::builder(addresses, Seed::from_os()?);
        if let Some(clock) = fault::api_clock(args.fault) {
            builder = builder.api_clock(clock);
        }
        let mut mesh = builder.start().await?;
        mesh.namespace(NAMESPACE).await?;
        if let Some(fault) = args.fault {
            fault.prepare(&mesh).await?;
        }
        if let Some(clock) = fault::ca_clock(args.fault) {
            mesh.start_ca(clock).await?;
        }
        mesh.start_destination().await?;
        mesh.start_observe().await?;

        let application = Application::new(args.tls == Tls::Optional, &args.unmeshed, args.rps)?;
        for service in application::services() {
            mesh.service(&service).await?;
        }
        let deployments: Vec<_> =
            application.deployments().into_iter().map(|part| fault::mount(args.fault, part)).collect();
        mesh.deploy(&deployments).await?;

        let api = mesh.observe_addr().context("observe has no address")?.to_string();
        let file = DemoFile::write(&api, mesh.clock().now()).await;
        let client = Client::at(TokioNetwork::shared(), api.clone());
        output::note(&format!("emojivoto runs; Conduit's API is at {api}"));
        Ok(Self { mesh, application, client, began: Instant::now(), _file: file })
    }

    async fn show_and_tell(
        &mut self,
        args: &Args,
        verbose: bool,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<ExitCode> {
        match self.show(args, verbose, stop.as_mut()).await? {
            Ended::Interrupted => self.conclude(args, AT_ONCE).await,
            Ended::OnTime => tokio::select! {
                biased;
                () = stop => Ok(ExitCode::SUCCESS),
                code = self.conclude(args, LAST_REQUESTS) => code,
            },
        }
    }

    /// Shows what happens until the time is over or `stop` comes.
    async fn show(
        &mut self,
        args: &Args,
        verbose: bool,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<Ended> {
        let is_watched = std::io::stdout().is_terminal() && args.output != Format::Json;
        let end = match args.duration {
            Some(duration) => Some(self.began + duration),
            None if is_watched => None,
            None => Some(self.began + UNATTENDED),
        };
        // Logs would be written over the table, and the table over them.
        let mut screen = if is_watched && !verbose { Some(Screen::open()?) } else { None };
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.as_mut() => return Ok(Ended::Interrupted),
                () = at(end) => return Ok(Ended::OnTime),
                _ = refresh.tick() => {}
            }
            let shown = async {
                fault::advance(args.fault, self.began.elapsed(), &mut self.mesh).await?;
                match &mut screen {
                    Some(screen) => screen.show(&self.live_text(args).await),
                    None => Ok(()),
                }
            };
            tokio::select! {
                biased;
                () = stop.as_mut() => return Ok(Ended::Interrupted),
                shown = shown => shown?,
            }
        }
    }

    async fn live_text(&self, args: &Args) -> String {
        let table = match self.stat(LIVE_WINDOW).await {
            Ok(stat) if stat.rows.is_empty() => "waiting for the first numbers ...\n".to_owned(),
            Ok(stat) => table::stat(&stat.rows, args.style()),
            Err(error) => format!("no numbers: {error:#}\n"),
        };
        let elapsed_s = self.began.elapsed().as_secs();
        let fault = args.fault.map(|fault| format!("; {}", fault.description())).unwrap_or_default();
        let application = report::application(&self.application.counted());
        format!("conduit demo, {elapsed_s} s{fault}\n\n{table}\n{application}\n\nCtrl-C ends\n")
    }

    /// Prints the rows of the whole run, ends the traffic, and says how the application fared; each step within
    /// `patience`.
    async fn conclude(&mut self, args: &Args, patience: Duration) -> anyhow::Result<ExitCode> {
        match tokio::time::timeout(patience, self.stat(self.began.elapsed())).await {
            Ok(stat) => {
                let stat = stat?;
                output::stdout(&args.render(&stat)?)?;
                report::plaintext(&stat).iter().for_each(|line| output::note(line));
            }
            Err(_) => output::note("no numbers in time"),
        }
        self.mesh.stop_pods(NAMESPACE, VOTE_BOT, patience).await?;
        let counted = self.application.counted();
        output::note(&report::application(&counted));
        Ok(if counted.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn stat(&self, window: Duration) -> anyhow::Result<Stat> {
        let window_s = window.clamp(MIN_WINDOW, MAX_WINDOW).as_secs();
        let parameters = [
            ("type", "authority".to_owned()),
            ("namespace", NAMESPACE.to_owned()),
            ("window", format!("{window_s}s")),
        ];
        self.client.get("/api/v1/stat", &parameters).await
    }
}

impl Args {
    fn style(&self) -> table::Style {
        table::Style { wide: self.output == Format::Wide, ..table::Style::default() }
    }

    fn render(&self, stat: &Stat) -> anyhow::Result<String> {
        Ok(match self.output {
            Format::Table | Format::Wide => table::stat(&stat.rows, self.style()),
            Format::Json => serde_json::to_string_pretty(stat)? + "\n",
        })
    }
}

/// Waits until `end`; for ever without one.
async fn at(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn duration(value: &str) -> Result<Duration, String> {
    match env::duration(value)? {
        Duration::ZERO => Err("expected more than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// The most that makes sense with every part in one process and one thread.
const MAX_RPS: f64 = 10_000.0;

fn rate(value: &str) -> Result<f64, String> {
    let expected = || format!("expected a number above 0 and up to {MAX_RPS}");
    value.parse().ok().filter(|rps: &f64| *rps > 0.0 && *rps <= MAX_RPS).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_shows_nothing_is_told_beforehand() {
        let cautions = |line: &str| {
            let line = Line::try_parse_from(["demo"].into_iter().chain(line.split_whitespace()));
            cautions(&line.expect("it is sound").args)
        };
        let all = "--unmeshed web --unmeshed emoji --unmeshed voting";
        assert_eq!(cautions(all), [""; 0]);
        assert!(cautions(&format!("{all} --unmeshed vote-bot"))[0].contains("unmeshed"));
        assert!(cautions("--fault ca-late --duration 6s")[0].contains("--duration 16s"));
        for fine in ["", "--fault ca-late", "--fault ca-late --duration 16s", "--fault ca-down --duration 6s"]
        {
            assert_eq!(cautions(fine), [""; 0], "{fine}");
        }
    }
}
