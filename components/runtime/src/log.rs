//! Logs: tracing to stderr, one line an event, fields rather than sentences.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging to stderr. `filter` is in tracing's directive syntax (`warn,conduit_proxy=info`); one that does not
/// parse is replaced by `info` and reported, since a typo in a log level must not stop a sidecar. Returns the report.
pub fn init(filter: &str) -> Option<String> {
    let (filter, problem) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (
            EnvFilter::new("info"),
            Some(format!("log filter {filter:?} is not usable ({error}); using info")),
        ),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    if let Some(problem) = &problem {
        tracing::warn!("{problem}");
    }
    // Started twice only in a process that runs several parts; the first one's settings stay.
    drop(started);
    problem
}
