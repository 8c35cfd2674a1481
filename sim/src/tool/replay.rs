//! One world.

use std::{fs, time::Instant};

use anyhow::Context;
use sim::{judge::judge, timeline};

use super::{args::RunArgs, log, report, shrinking};

/// Runs it, says what happened, and writes the trace if one is wanted. Whether nothing went wrong.
///
/// # Errors
/// What was asked for is not there, or the trace cannot be written.
#[allow(clippy::disallowed_methods, reason = "the tool measures itself")]
pub(super) fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let keep = args.story.keep()?;
    let plan = keep.of(&args.story.whole());
    println!("{}", args.story);
    args.log.as_ref().map_or(Ok(()), log::start)?;
    let begun = Instant::now();
    let judged = judge(&plan, args.trace.is_some());
    let took = begun.elapsed();
    if let Ok(verdict) = &judged {
        if let Some(file) = &args.trace {
            let lines = verdict.trace.lines().join("\n") + "\n";
            fs::write(file, lines)
                .with_context(|| format!("the trace cannot be written to {}", file.display()))?;
        }
        if args.timeline {
            print!("{}", timeline::of(&plan, verdict));
        }
        if args.details {
            report::details(verdict);
        }
        report::world(&plan, verdict, took);
    }
    let wrong = report::wrong(&judged, args.story.scenario());
    if let Some(failing) = wrong.failing.first().filter(|_| !args.no_shrink) {
        shrinking::shrink(&args.story, &keep, *failing);
    }
    Ok(wrong.is_nothing())
}
