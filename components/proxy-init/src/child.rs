//! A program run to its end, or killed at a deadline.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How often an end is looked for; the programs here take milliseconds.
const LOOK: Duration = Duration::from_millis(2);

/// For a program that was killed: one that is stuck in the kernel does not end even then.
const BURIAL: Duration = Duration::from_secs(1);

/// Of what a program prints; a nat table of a pod has a few lines.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// How a program ended, and what it printed until then.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Why there is no end to report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("it cannot be started: {0}")]
    Start(#[source] io::Error),
    #[error("its end cannot be told: {0}")]
    Wait(#[source] io::Error),
    #[error("it did not end within {0:?}")]
    Deadline(Duration),
}

/// Runs `command` with `input` as its standard input.
///
/// # Errors
/// `Start` when there is no such program or it may not be run; `Wait` when the system does not say how it ended;
/// `Deadline` when it has not ended, or its output has not, after `limit`: it is killed then.
pub(crate) fn run(command: &mut Command, input: &str, limit: Duration) -> Result<Ended, RunError> {
    let until = now() + limit;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(RunError::Start)?;
    feed(&mut child, input.to_owned());
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let Some(status) = wait(&mut child, until).map_err(RunError::Wait)? else {
        kill(&mut child);
        return Err(RunError::Deadline(limit));
    };
    // What a program starts itself, such as modprobe, may outlive it and hold these open.
    let printed = |from: Receiver<String>| {
        from.recv_timeout(until.saturating_duration_since(now())).or_else(|error| match error {
            RecvTimeoutError::Timeout => Err(RunError::Deadline(limit)),
            RecvTimeoutError::Disconnected => Ok(String::new()),
        })
    };
    Ok(Ended { status, stdout: printed(stdout)?, stderr: printed(stderr)? })
}

/// In a thread of its own, because a program may print before it has read all. Neither this thread nor those that
/// collect are waited for: a program that ends or is killed ends them.
fn feed(child: &mut Child, input: String) {
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read to the end says why in its status.
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(stream) = stream {
        thread::spawn(move || {
            let mut printed = Vec::new();
            // What was read until an error is worth having.
            drop(stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut printed));
            drop(sender.send(String::from_utf8_lossy(&printed).into_owned()));
        });
    }
    receiver
}

fn wait(child: &mut Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            None if now() < until => thread::sleep(LOOK),
            ended => return Ok(ended),
        }
    }
}

fn kill(child: &mut Child) {
    // Both fail only if it has ended meanwhile.
    drop(child.kill());
    drop(wait(child, now() + BURIAL));
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing simulates an init container: its clock is the machine's"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &str, limit: Duration) -> Result<Ended, RunError> {
        run(Command::new("sh").args(["-c", script]), input, limit)
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn input_output_and_status_are_passed_on() {
        let ended = shell("tr a-z A-Z; echo problem >&2; exit 3", "rules", LONG).expect("it ends");
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("RULES", "problem\n"));
        assert_eq!(ended.status.code(), Some(3));
    }

    #[test]
    fn a_program_that_prints_before_it_reads_is_not_blocked() {
        let much = "x".repeat(500_000);
        let ended = shell("head -c 200000 /dev/zero; wc -c >&2", &much, LONG).expect("it ends");
        assert_eq!(ended.stderr.trim(), "500000");
        assert_eq!(ended.stdout.len(), 200_000);
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let error = shell("exec sleep 600", "", Duration::from_millis(50)).expect_err("it does not end");
        assert_eq!(error.to_string(), "it did not end within 50ms");
    }

    #[test]
    fn output_held_open_by_a_grandchild_is_not_waited_for_beyond_the_deadline() {
        let error = shell("sleep 3 & exit 0", "", Duration::from_millis(200)).expect_err("it stays open");
        assert!(matches!(error, RunError::Deadline(_)), "{error}");
    }

    #[test]
    fn endless_output_is_cut() {
        let ended = shell("exec yes", "", LONG).expect("it is stopped by a closed pipe");
        assert!(!ended.status.success());
        assert_eq!(ended.stdout.len() as u64, OUTPUT_BYTES_MAX);
    }

    #[test]
    fn a_program_that_is_not_there_is_told_apart() {
        let error = run(&mut Command::new("/nowhere/iptables"), "", LONG).expect_err("nothing to start");
        let RunError::Start(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
