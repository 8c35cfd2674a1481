//! The same world in two processes: nothing that differs between them may decide anything.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::Context;
use sim::{check::determinism, world};

use super::args::{Story, TraceArgs};

/// Runs two processes of this program, and prints the first difference of what crossed the wire. Whether there is none.
///
/// # Errors
/// A process cannot be started or fails, or its trace cannot be read.
pub(super) fn run(story: &Story) -> anyhow::Result<bool> {
    let flags = story.flags(&story.keep()?);
    let directory = Scratch::new()?;
    let files = ["once", "again"].map(|name| directory.0.join(name));
    let children = files.each_ref().map(|file| start(&flags, file));
    for child in children {
        let status = child?.wait().context("a process of the comparison is lost")?;
        anyhow::ensure!(status.success(), "a process of the comparison ended with {status}");
    }
    let [once, again] = files.map(|file| {
        fs::read_to_string(&file).with_context(|| format!("no trace can be read from {}", file.display()))
    });
    let (once, again) = (once?, again?);
    let violations = determinism::check(&once, &again);
    for violation in &violations {
        println!("{story}: {violation}");
        println!("  replay: cargo run -p sim --release -- compare {flags}");
    }
    if violations.is_empty() {
        println!("{story}: {} lines, the same in both processes", once.lines().count());
    }
    Ok(violations.is_empty())
}

fn start(flags: &str, file: &Path) -> anyhow::Result<Child> {
    let own = std::env::current_exe().context("this program cannot be found")?;
    let mut command = Command::new(own);
    command.arg("trace").arg("--to").arg(file).args(flags.split(' '));
    command.spawn().context("a process for the comparison cannot be started")
}

/// Runs a story with Conduit, and writes its trace.
///
/// # Errors
/// The run comes to no end, or the trace cannot be written.
pub(super) fn trace(args: &TraceArgs) -> anyhow::Result<bool> {
    let plan = args.story.keep()?.of(&args.story.whole());
    let (_, trace) = world::with_conduit(&plan, true)?;
    let lines = trace.lines().join("\n") + "\n";
    fs::write(&args.to, lines)
        .with_context(|| format!("the trace cannot be written to {}", args.to.display()))?;
    Ok(true)
}

/// A directory of this process alone, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("conduit-sim-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is in nobody's way.
        let _ = fs::remove_dir_all(&self.0);
    }
}
