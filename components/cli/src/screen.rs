//! A terminal's second screen, on which a text is shown in place of the one before. What was on the terminal comes back
//! when it is left.

use std::fmt::Write as _;

use crate::output;

/// The control sequences are those of ECMA-48; the second screen is xterm's, and every terminal's since.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The second screen, until it is dropped.
pub(crate) struct Screen(());

impl Screen {
    /// Enters it.
    pub(crate) fn open() -> anyhow::Result<Self> {
        output::stdout(ENTER)?;
        Ok(Self(()))
    }

    /// Shows `text` instead of what is there. Lines are overwritten where they stand, so that nothing flickers.
    pub(crate) fn show(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(output::stdout(&frame(text))?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal is gone when this fails, and with it what was to be restored.
        let _ = output::stdout(LEAVE);
    }
}

fn frame(text: &str) -> String {
    let mut frame = HOME.to_owned();
    for line in text.lines() {
        // Writing to a String cannot fail.
        let _ = write!(frame, "{line}{CLEAR_LINE}\r\n");
    }
    frame + CLEAR_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_text_leaves_nothing_of_a_longer_one() {
        assert_eq!(frame("a\nb\n"), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J");
    }
}
