//! What processes of a world log.

use std::fmt;

use sim::time::elapsed;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{format::Writer, time::FormatTime},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Where turmoil says which host it is that runs.
const HOSTS: &str = "turmoil";

/// Simulated time.
struct Elapsed;

impl FormatTime for Elapsed {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        write!(to, "{:>10.6}", elapsed().as_secs_f64())
    }
}

/// Prints it to stderr from now on.
///
/// # Errors
/// Something prints it already.
pub(super) fn start(levels: &Targets) -> anyhow::Result<()> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_timer(Elapsed);
    let levels = levels.clone().with_target(HOSTS, LevelFilter::INFO);
    Ok(tracing_subscriber::registry().with(lines).with(levels).try_init()?)
}
