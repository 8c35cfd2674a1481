//! Stdout is data, stderr is everything else. Either may be a pipe that its reader has closed.

use std::io::{self, Write};

/// Writes `text` to stdout, as it is.
///
/// # Errors
/// Stdout cannot be written. A closed pipe is told apart by [`is_closed_pipe`].
pub fn stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a line to stderr.
pub fn note(line: &str) {
    // A report that nobody can read must not change what the command does.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes an error to stderr.
pub fn error(message: &str) {
    note(&format!("error: {message}"));
}

/// Whether the reader of our output is gone.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(closed))
}
