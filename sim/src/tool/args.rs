//! What can be asked for.

use std::{collections::BTreeMap, fmt, ops::Range, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use sim::{
    plan::Plan,
    scenarios::{self, Scenario},
    shrink::{Keep, Stream},
};
use tracing_subscriber::filter::Targets;

/// Runs whole meshes on simulated hosts, time and network, and judges them.
#[derive(Debug, Parser)]
#[command(name = "sim", max_term_width = 120)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the world of a seed, or a named scenario, with Conduit and without, and judges it
    Run(Box<RunArgs>),
    /// Runs the worlds of many seeds side by side
    Sweep(SweepArgs),
    /// Runs the same in two processes, and compares what crossed the wire line by line
    Compare(CompareArgs),
    /// Tells how many seconds of a world of six pods are simulated in one second
    Speed,
    /// Lists the named scenarios
    List,
    /// Runs with Conduit only, and writes down what crossed the wire
    #[command(hide = true)]
    Trace(TraceArgs),
}

/// Which world.
#[derive(Debug, Clone, Args)]
pub(crate) struct Story {
    /// Decides everything that is not said otherwise
    #[arg(long, value_name = "N", required_unless_present = "scenario")]
    seed: Option<u64>,
    /// A named scenario instead of the world that the seed draws; `sim list` names them
    #[arg(long, value_name = "NAME", value_parser = scenario)]
    scenario: Option<&'static Scenario>,
    /// Only these faults, by their numbers in the plan; `none` for none
    #[arg(long, value_name = "FAULT,...", value_parser = faults)]
    only: Option<Faults>,
    /// Only these streams of operations, as CLIENT.STREAM; `none` for none
    #[arg(long, value_name = "STREAM,...", value_parser = streams)]
    asks: Option<Streams>,
    /// Other durations of faults, as FAULT=MILLISECONDS
    #[arg(long, value_name = "FAULT=MS,...", value_parser = lasting)]
    lasting_ms: Option<Lasting>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) story: Story,
    /// Writes down what crossed the wire with Conduit
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Prints what happened, second by second
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Prints every pod and every connection
    #[arg(long)]
    pub(crate) details: bool,
    /// Prints what processes log, such as `info,conduit_proxy=debug`, with simulated time and the host
    #[arg(long, value_name = "LEVELS")]
    pub(crate) log: Option<Targets>,
    /// Does not look for the smallest story that violates the same invariant
    #[arg(long)]
    pub(crate) no_shrink: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// From the first to before the last: `1..101` are a hundred
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    pub(crate) seeds: Seeds,
    /// Begins no more worlds after this many minutes
    #[arg(long, value_name = "M", value_parser = minutes, allow_negative_numbers = true)]
    pub(crate) minutes: Option<Duration>,
    /// Worlds at a time; each of them takes two threads [default: half of the processors]
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,
    /// Ends with the first world in which something is violated
    #[arg(long)]
    pub(crate) first: bool,
    /// Does not look for the smallest stories
    #[arg(long)]
    pub(crate) no_shrink: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) story: Story,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    pub(crate) story: Story,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
}

/// Lists in one word, each a type of its own: clap takes a `Vec` for a flag that is repeated.
#[derive(Debug, Clone)]
pub(crate) struct Faults(Vec<usize>);
#[derive(Debug, Clone)]
pub(crate) struct Streams(Vec<Stream>);
#[derive(Debug, Clone)]
pub(crate) struct Lasting(BTreeMap<usize, Duration>);
#[derive(Debug, Clone)]
pub(crate) struct Seeds(pub(crate) Range<u64>);

impl Story {
    /// The world of a seed.
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self { seed: Some(seed), scenario: None, only: None, asks: None, lasting_ms: None }
    }

    /// The scenario, if it is one.
    pub(crate) fn scenario(&self) -> Option<&'static Scenario> {
        self.scenario
    }

    fn seed(&self) -> u64 {
        self.seed.unwrap_or(scenarios::SEED)
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Plan {
        self.scenario.map_or_else(|| Plan::of_seed(self.seed()), |scenario| (scenario.plan)(self.seed()))
    }

    /// What was asked to be kept of it.
    ///
    /// # Errors
    /// There is no such fault or stream.
    pub(crate) fn keep(&self) -> anyhow::Result<Keep> {
        let keep = Keep {
            faults: self.only.clone().map(|faults| faults.0),
            streams: self.asks.clone().map(|streams| streams.0),
            lasting: self.lasting_ms.clone().map(|lasting| lasting.0).unwrap_or_default(),
        };
        let plan = self.whole();
        let mut faults = keep.faults.iter().flatten().chain(keep.lasting.keys());
        if let Some(fault) = faults.find(|fault| **fault >= plan.faults.len()) {
            anyhow::bail!("{self} has {} faults, and none is number {fault}", plan.faults.len());
        }
        let knows = |(client, stream): &Stream| {
            plan.clients.get(*client).is_some_and(|asking| *stream < asking.asks.len())
        };
        if let Some((client, stream)) = keep.streams.iter().flatten().find(|stream| !knows(stream)) {
            anyhow::bail!("{self} has no stream {client}.{stream}");
        }
        Ok(keep)
    }

    /// The flags that say so.
    pub(crate) fn flags(&self, keep: &Keep) -> String {
        let scenario = self.scenario.map(|scenario| format!(" --scenario {}", scenario.name));
        format!("--seed {}{}{keep}", self.seed(), scenario.unwrap_or_default())
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scenario {
            Some(scenario) => write!(f, "{} of seed {}", scenario.name, self.seed()),
            None => write!(f, "seed {}", self.seed()),
        }
    }
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    scenarios::named(name).ok_or_else(|| "there is no such scenario; `sim list` names them".to_owned())
}

fn list<T>(text: &str, item: impl Fn(&str) -> Option<T>, what: &str) -> Result<Vec<T>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let item = |part: &str| item(part).ok_or_else(|| format!("{part:?} is not {what}"));
    text.split(',').map(item).collect()
}

fn faults(text: &str) -> Result<Faults, String> {
    list(text, |part| part.parse().ok(), "the number of a fault").map(Faults)
}

fn streams(text: &str) -> Result<Streams, String> {
    let stream = |part: &str| {
        let (client, stream) = part.split_once('.')?;
        Some((client.parse().ok()?, stream.parse().ok()?))
    };
    list(text, stream, "CLIENT.STREAM, such as 0.1").map(Streams)
}

fn lasting(text: &str) -> Result<Lasting, String> {
    let lasting = |part: &str| {
        let (fault, ms) = part.split_once('=')?;
        Some((fault.parse().ok()?, Duration::from_millis(ms.parse().ok()?)))
    };
    let lasting = list(text, lasting, "FAULT=MILLISECONDS, such as 0=500")?;
    Ok(Lasting(lasting.into_iter().collect()))
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let range = || {
        let (first, end) = text.split_once("..")?;
        let (first, end) = (first.parse().ok()?, end.parse().ok()?);
        (first < end).then_some(Seeds(first..end))
    };
    range().ok_or_else(|| "not A..B with A below B, such as 1..101".to_owned())
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<f64>().ok().filter(|minutes| *minutes > 0.0 && *minutes <= 10_000.0);
    let minutes = minutes.ok_or_else(|| "not a number of minutes above 0".to_owned())?;
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let words = std::iter::once("sim").chain(line.split(' '));
        Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    fn story(line: &str) -> Story {
        match parsed(line) {
            Ok(Command::Run(args)) => args.story,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, expected) in [
            ("run", "--seed <N>"),
            ("run --seed x", "invalid digit"),
            ("run --scenario nonsense", "there is no such scenario"),
            ("run --seed 1 --only a", "\"a\" is not the number of a fault"),
            ("run --seed 1 --asks 1", "\"1\" is not CLIENT.STREAM"),
            ("run --seed 1 --lasting-ms 1", "\"1\" is not FAULT=MILLISECONDS"),
            ("sweep --seeds 3", "not A..B"),
            ("sweep --seeds 3..3", "not A..B with A below B"),
            ("sweep --seeds 1..3 --minutes -1", "not a number of minutes above 0"),
            ("sweep --seeds 1..3 --minutes x", "not a number of minutes above 0"),
            ("sweep --seeds 1..3 --jobs 0", "0 is not in 1..=256"),
        ] {
            let error = parsed(line).err().unwrap_or_default();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_kept_is_said_as_it_is_read() {
        let line = "run --seed 17 --only 0 --asks 0.0 --lasting-ms 0=500";
        let story = story(line);
        let keep = story.keep().unwrap();
        assert_eq!(format!("run {}", story.flags(&keep)), line);
        assert_eq!(keep.of(&story.whole()).faults.len(), 1);
    }

    #[test]
    fn faults_and_streams_that_are_not_there_are_refused() {
        for (flags, expected) in [
            ("--only 99", "none is number 99"),
            ("--lasting-ms 99=1", "none is number 99"),
            ("--asks 9.9", "no stream 9.9"),
        ] {
            let error = story(&format!("run --seed 17 {flags}")).keep().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
