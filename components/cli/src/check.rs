//! `conduit check`: is everything as it must be?
//!
//! - `check/catalogue.rs`: which checks there are; `docs/CHECKS.md` explains each
//! - `check/kubernetes.rs`: what the Kubernetes API is asked; `check/mesh.rs`: judging what observe tells (pure)
//! - `check/report.rs`: what came of them, for people and programs

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::ValueEnum;
use conduit_identity::{Clock as _, SystemClock, UnixTime};
use conduit_net::TokioNetwork;
use conduit_observe::{
    api,
    diagnosis::{ControlPlaneState, Proxies},
};
use tokio::time::Instant;

use crate::{
    args::{Global, namespace},
    client::Client,
    cluster, output,
    version::VERSION,
};

pub mod catalogue;
mod kubernetes;
mod mesh;
pub mod report;

use catalogue::API;
use report::{Grade, Outcome};

/// The code for what failed.
const FAILED: u8 = 2;
/// From the end of one look to the beginning of the next, with `--wait`.
const PAUSE: Duration = Duration::from_secs(1);
/// What is longer is for ever, and no moment that a clock can name.
const MAX_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(100);

/// Check that Conduit can be installed, runs, and keeps its promise
///
/// Checks the Kubernetes API, what this user may do, the control plane, versions, certificates and clocks; with --proxy the
/// proxies as well, with --pre what an installation needs instead. What does not pass is told with what to do, and with a
/// place in docs/CHECKS.md. Against a demo, what is about Kubernetes is left out.
///
/// Exit code 0 when nothing failed (there may be warnings), 2 when something did, 1 when the checks could not be run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conduit check --pre               before installing
  conduit check --wait 2m           after installing, until all is well or the time is over
  conduit check --proxy -A -o short what is wrong with the proxies of all namespaces
  conduit check -o json | jq -r '.categories[].checks[] | select(.result != \"success\") | .id'")]
pub struct Args {
    /// Check what an installation needs
    #[arg(long, conflicts_with_all = ["proxy", "namespace", "expected_version"])]
    pre: bool,
    /// Check the proxies as well
    #[arg(long)]
    proxy: bool,
    /// Only the proxies of this namespace [default: of all]
    #[arg(long, short = 'n', value_name = "NAMESPACE", value_parser = namespace, requires = "proxy")]
    namespace: Option<String>,
    /// The proxies of all namespaces, which is the default
    #[arg(long, short = 'A', conflicts_with = "namespace", requires = "proxy")]
    all_namespaces: bool,
    /// The version that this program is to have
    #[arg(long, value_name = "VERSION")]
    expected_version: Option<String>,
    /// Go on until nothing fails, for so long at most, such as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = conduit_runtime::env::duration, default_value = "0s")]
    wait: Duration,
    /// What makes the exit code 2
    #[arg(long, value_name = "GRADE", value_enum, default_value_t = FailOn::Error)]
    fail_on: FailOn,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Something that is broken
    Error,
    /// A warning too
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Every check, by category
    Table,
    /// Only what did not pass
    Short,
    Json,
}

/// Runs the checks and prints what came of them.
///
/// # Errors
/// There is nothing to check, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let end = Instant::now() + args.wait.min(MAX_WAIT);
    let outcomes = loop {
        let outcomes = look(&args, global).await?;
        if args.code(report::worst(&outcomes)) == ExitCode::SUCCESS || Instant::now() >= end {
            break outcomes;
        }
        let failed = outcomes.iter().find(|outcome| outcome.grade == report::worst(&outcomes));
        spin(failed.map_or("", |outcome| outcome.check.description), PAUSE.min(end - Instant::now())).await;
    };
    output::stdout(&match args.output {
        Format::Table => report::table(&outcomes),
        Format::Short => report::short(&outcomes),
        Format::Json => report::json(&outcomes)?,
    })?;
    Ok(args.code(report::worst(&outcomes)))
}

impl Args {
    fn code(&self, worst: Grade) -> ExitCode {
        let failing = match self.fail_on {
            FailOn::Error => Grade::Error,
            FailOn::Warning => Grade::Warning,
        };
        if worst >= failing { FAILED.into() } else { ExitCode::SUCCESS }
    }
}

/// Everything, once.
async fn look(args: &Args, global: &Global) -> anyhow::Result<Vec<Outcome>> {
    let net = TokioNetwork::shared();
    if !args.pre
        && let Some(client) = Client::without_kubernetes(&net, global).await
    {
        return Ok(conduit(args, Ok(client)).await);
    }
    let (client, _) = cluster::connect(&net, global).await?;
    let namespace = &global.conduit_namespace;
    let mut outcomes = kubernetes::kubernetes(&client).await;
    if report::worst(&outcomes) == Grade::Error {
        return Ok(outcomes);
    }
    if args.pre {
        outcomes.extend(kubernetes::pre_install(&client, namespace).await);
        return Ok(outcomes);
    }
    outcomes.extend(kubernetes::permissions(&client, namespace).await);
    let found = Client::find(global).await;
    let mut own = conduit(args, found).await;
    if let Some(api) = own.iter_mut().find(|outcome| outcome.check == API && outcome.grade != Grade::Success)
        && let Some(command) = kubernetes::observe_pods(&client, namespace).await
    {
        api.hint = Some(command);
    }
    outcomes.extend(own);
    Ok(outcomes)
}

/// What is asked of Conduit itself.
async fn conduit(args: &Args, client: anyhow::Result<Client>) -> Vec<Outcome> {
    let expected = args.expected_version.as_deref();
    let asked = async {
        let client = client?;
        let version: api::Version = client.get("/api/v1/version", &[]).await?;
        let before = SystemClock.now();
        let state: ControlPlaneState = client.get("/api/v1/control-plane", &[]).await?;
        let ahead_ms = ahead(state.now_ms, before, SystemClock.now());
        let parameters: Vec<_> =
            args.namespace.iter().map(|namespace| ("namespace", namespace.clone())).collect();
        let proxies = match args.proxy {
            true => Some(client.get::<Proxies>("/api/v1/proxies", &parameters).await?),
            false => None,
        };
        anyhow::Ok((version, state, ahead_ms, proxies))
    };
    let (version, state, ahead_ms, proxies) = match asked.await {
        Ok(answers) => answers,
        Err(error) => {
            let hint = "conduit install | kubectl apply -f - installs it; -c names its namespace";
            let mut outcomes = vec![Outcome::not(API, Grade::Error, format!("{error:#}"), hint)];
            outcomes.extend(mesh::versions(VERSION, expected, None));
            return outcomes;
        }
    };
    let mut outcomes = vec![Outcome::ok(API)];
    outcomes.extend(mesh::control_plane(&state, ahead_ms));
    outcomes.extend(mesh::versions(VERSION, expected, Some(&version.version)));
    outcomes.sort_by_key(|outcome| outcome.check.category);
    if let Some(proxies) = proxies {
        let now = UnixTime(Duration::from_millis(state.now_ms));
        outcomes.extend(mesh::proxies(&proxies.proxies, &version.version, now));
    }
    outcomes
}

/// How far a clock is ahead of ours that showed `now_ms` at some moment between `before` and `after`: zero when it may
/// agree.
fn ahead(now_ms: u64, before: UnixTime, after: UnixTime) -> i64 {
    let ms = |time: UnixTime| i64::try_from(time.0.as_millis()).unwrap_or(i64::MAX);
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    match (now - ms(after), now - ms(before)) {
        (ahead, _) if ahead > 0 => ahead,
        (_, behind) if behind < 0 => behind,
        _ => 0,
    }
}

/// Waits, and shows on a terminal what for.
async fn spin(what: &str, pause: Duration) {
    if !io::stderr().is_terminal() {
        return tokio::time::sleep(pause).await;
    }
    let end = Instant::now() + pause;
    for sign in ['|', '/', '-', '\\'].into_iter().cycle() {
        draw(&format!("\r\x1b[K{sign} waiting: {what}"));
        if Instant::now() >= end {
            break;
        }
        tokio::time::sleep(TURN.min(end - Instant::now())).await;
    }
    draw("\r\x1b[K");
}

fn draw(text: &str) {
    let mut stderr = io::stderr().lock();
    // Nobody misses a spinner that cannot be shown.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_within_the_answer_s_time_agrees() {
        let at = UnixTime::from_secs;
        assert_eq!(ahead(101_500, at(101), at(102)), 0);
        assert_eq!(ahead(103_000, at(101), at(102)), 1_000);
        assert_eq!(ahead(99_000, at(101), at(102)), -2_000);
    }
}
