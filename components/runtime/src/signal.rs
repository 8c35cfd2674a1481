//! The operating system's request to stop.

use std::io;

/// From this call on, SIGTERM, SIGINT and SIGHUP (Ctrl-C where there are none) do not end the process: they end the
/// future. A SIGHUP that this process was told to ignore, as `nohup` does, stays ignored. To be called before anything is
/// begun that must end in order. Within a runtime.
pub fn shutdown() -> impl Future<Output = ()> + Send {
    let (terminate, interrupt, hangup) = (terminations(), interrupts(), hangups());
    async move {
        tokio::select! {
            () = first(terminate, "SIGTERM") => {}
            () = first(interrupt, "an interrupt") => {}
            () = first(hangup, "SIGHUP") => {}
        }
    }
}

/// Waits for the first of `signals`, for ever when there will be none.
async fn first(signals: io::Result<Signals>, name: &'static str) {
    match signals {
        Ok(mut signals) => drop(signals.recv().await),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => std::future::pending().await,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for {name}: it ends this process at once");
            std::future::pending().await
        }
    }
}

#[cfg(unix)]
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

#[cfg(unix)]
fn terminations() -> io::Result<Signals> {
    signal(SignalKind::terminate())
}

#[cfg(unix)]
fn interrupts() -> io::Result<Signals> {
    signal(SignalKind::interrupt())
}

/// The terminal is gone.
#[cfg(unix)]
fn hangups() -> io::Result<Signals> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match is_ignored(&status, HANGUP) {
        true => Err(io::ErrorKind::Unsupported.into()),
        false => signal(SignalKind::hangup()),
    }
}

/// SIGHUP's number, on every Unix.
#[cfg(unix)]
const HANGUP: u32 = 1;

/// Whether a process ignores a signal, by the mask in its `/proc/<pid>/status` (proc_pid_status(5)).
#[cfg(unix)]
fn is_ignored(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}

#[cfg(windows)]
use tokio::signal::windows::{CtrlC as Signals, ctrl_c};

#[cfg(windows)]
fn terminations() -> io::Result<Signals> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(windows)]
fn interrupts() -> io::Result<Signals> {
    ctrl_c()
}

#[cfg(windows)]
fn hangups() -> io::Result<Signals> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_before_it_is_waited_for_ends_the_wait_and_not_the_process() {
        for signal in [Signal::TERM, Signal::INT] {
            let stop = shutdown();
            kill_process(getpid(), signal).unwrap();
            tokio::time::timeout(std::time::Duration::from_secs(20), stop)
                .await
                .expect("the signal is heard");
        }
    }

    #[test]
    fn what_nohup_ignores_stays_ignored() {
        assert!(is_ignored("Name:\tconduit\nSigIgn:\t0000000000001001\n", HANGUP));
        assert!(!is_ignored("Name:\tconduit\nSigIgn:\t0000000000001000\n", HANGUP));
        assert!(!is_ignored("", HANGUP));
    }
}
