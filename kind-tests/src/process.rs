//! Programs that are started, fed and waited for, each with a deadline.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// How often to look whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a program said.
#[derive(Debug)]
pub struct Output {
    /// What it wrote to its stdout.
    pub stdout: String,
    /// What it wrote to its stderr.
    pub stderr: String,
    /// Its exit code; none when it was ended by a signal.
    pub code: Option<i32>,
}

/// Runs `command` with `input` on its stdin to its end.
///
/// # Errors
/// It cannot be started, or has not ended within `deadline`; it is ended then.
pub fn run(command: &mut Command, input: &str, deadline: Duration) -> Result<Output, String> {
    let name = format!("{command:?}");
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
    let readers = [reader(child.stdout.take()), reader(child.stderr.take())];
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // Whoever does not want it closes the pipe.
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    }
    let code = wait(&mut child, deadline);
    let [stdout, stderr] = readers.map(|reader| reader.join().expect("reading does not panic"));
    match code {
        Some(code) => Ok(Output { stdout, stderr, code }),
        None => Err(format!("not within {deadline:?}: {name}\n{stdout}{stderr}")),
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read until it broke is what there is.
            drop(pipe.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Its exit code; none when it had to be killed.
fn wait(child: &mut Child, deadline: Duration) -> Option<Option<i32>> {
    let status = poll(deadline, || child.try_wait().expect("it is our child"));
    if status.is_none() {
        drop(child.kill());
        drop(child.wait());
    }
    status.map(|status| status.code())
}

/// What `look` finds, at the latest by `deadline`.
pub fn poll<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What `look` finds, which says what is in the way as long as it finds nothing.
///
/// # Panics
/// It has found nothing by `deadline`.
#[track_caller]
pub fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    let found = poll(deadline, || look().map_err(|reason| last = reason).ok());
    found.unwrap_or_else(|| panic!("not within {deadline:?}: {what}; at last: {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_fed_and_heard() {
        let output = run(&mut Command::new("cat"), "hello", Duration::from_secs(20)).unwrap();
        assert_eq!((output.stdout.as_str(), output.code), ("hello", Some(0)));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let error = run(Command::new("sleep").arg("1000"), "", Duration::from_millis(10)).unwrap_err();
        assert!(error.contains("not within 10ms"), "{error}");
    }
}
