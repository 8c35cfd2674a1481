//! Logs: tracing to stderr, one line an event, fields rather than sentences.

use std::{fmt::Display, io::IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Starts logging to stderr. `filter` is a level, or a list of levels by target (`warn,conduit_proxy=info`); one that does
/// not parse is replaced by `info` and reported, since a typo in a log level must not stop a sidecar. Returns the report.
pub fn init(filter: &str) -> Option<String> {
    let (filter, problem) = match parse(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (Targets::new().with_default(LevelFilter::INFO), Some(format!("{error}; using info"))),
    };
    let lines = fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let started = tracing_subscriber::registry().with(lines).with(filter).try_init();
    if let Some(problem) = &problem {
        tracing::warn!("{problem}");
    }
    // Started twice only in a process that runs several parts; the first one's settings stay.
    drop(started);
    problem
}

/// Whether [`init`] takes `filter` as it is.
///
/// # Errors
/// What is wrong with it.
pub fn check(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

/// Filters by spans and their fields would need regular expressions: half a megabyte in each sidecar.
fn parse(filter: &str) -> Result<Targets, String> {
    let unusable = |problem: &dyn Display| format!("log filter {filter:?} is not usable ({problem})");
    match filter.contains('[') {
        true => Err(unusable(&"there is no filter by span")),
        false => filter.parse().map_err(|error| unusable(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_by_target() {
        let targets = parse("warn,conduit_proxy=info,h2=off").unwrap();
        for (target, level, shown) in [
            ("conduit_proxy::pool", tracing::Level::INFO, true),
            ("conduit_proxy::pool", tracing::Level::DEBUG, false),
            ("hyper", tracing::Level::WARN, true),
            ("hyper", tracing::Level::INFO, false),
            ("h2::proto", tracing::Level::ERROR, false),
        ] {
            assert_eq!(targets.would_enable(target, &level), shown, "{target} {level}");
        }
        for sound in ["info", "off", "DEBUG", "conduit_proxy=trace", "warn, conduit_proxy=info"] {
            assert_eq!(check(sound), Ok(()), "{sound}");
        }
        for unsound in ["conduit_proxy=loud", "a=b=c", "proxy[span]=debug"] {
            assert!(check(unsound).unwrap_err().contains(unsound));
        }
    }
}
