//! An archive that can be given away: nothing in it is a private key.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};

/// How each kind of private key begins in PEM (RFC 7468 section 10 and 11, and the older forms).
const KEY_MARK: &str = "PRIVATE KEY-----";
/// What a key looks like inside JSON's or YAML's base64 of a PEM file: `-----BEGIN` at the three places it can be at.
const HIDDEN_BEGIN: [&str; 3] = ["LS0tLS1CRUdJT", "0tLS0tQkVHSU", "tLS0tLUJFR0lO"];

/// Writes files into a compressed archive, under one folder.
pub(super) struct Archive<W: Write> {
    tar: tar::Builder<GzEncoder<W>>,
    modified: u64,
}

impl<W: Write> Archive<W> {
    /// An empty archive, of files that were last modified at `modified`, in seconds since 1970.
    pub(super) fn new(to: W, modified: u64) -> Self {
        Self { tar: tar::Builder::new(GzEncoder::new(to, Compression::default())), modified }
    }

    /// Adds a file; what could be a private key is replaced.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let content = without_keys(content);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.modified);
        self.tar.append_data(&mut header, format!("conduit-bundle/{name}"), &content[..])
    }

    /// Writes the end.
    pub(super) fn finish(self) -> io::Result<W> {
        self.tar.into_inner()?.finish()
    }
}

/// Line by line: a PEM block is dropped from its first line to its last, and so is a line that hides one in base64.
fn without_keys(content: &[u8]) -> Vec<u8> {
    const REMOVED: &str = "[a private key was removed]";
    let text = String::from_utf8_lossy(content);
    if !text.contains(KEY_MARK) && !HIDDEN_BEGIN.iter().any(|mark| text.contains(mark)) {
        return content.to_vec();
    }
    let (mut kept, mut inside) = (String::new(), false);
    for line in text.split_inclusive('\n') {
        let hides = HIDDEN_BEGIN.iter().any(|mark| line.contains(mark));
        let marks = line.matches(KEY_MARK).count();
        if inside || hides || marks > 0 {
            if !inside {
                kept.push_str(REMOVED);
                kept.push('\n');
            }
            // A block begins and ends with the mark; both may be on one line, as in JSON.
            inside = if marks % 2 == 1 { !inside } else { inside };
        } else {
            kept.push_str(line);
        }
    }
    kept.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn keys_are_taken_out_however_they_are_written() {
        let begin = ["-----BEGIN EC ", KEY_MARK].concat();
        let end = ["-----END EC ", KEY_MARK].concat();
        let removed = "[a private key was removed]\n";
        for (given, kept) in [
            (format!("a\n{begin}\nMIIsecret\n{end}\nb\n"), format!("a\n{removed}b\n")),
            (format!("a\n\"{begin}\\nMIIsecret\\n{end}\"\nb\n"), format!("a\n{removed}b\n")),
            (format!("a\n{begin}\nMIIsecret that never ends"), format!("a\n{removed}")),
            ("a\ntls.key: LS0tLS1CRUdJTiBQUklWQVRF\nb".to_owned(), format!("a\n{removed}b")),
            ("nothing\n".to_owned(), "nothing\n".to_owned()),
        ] {
            assert_eq!(String::from_utf8(without_keys(given.as_bytes())).unwrap(), kept);
        }
    }

    #[test]
    fn what_goes_in_comes_out_under_one_folder() {
        let mut archive = Archive::new(Vec::new(), 1_800_000_000);
        archive.add("a/b.txt", b"content").unwrap();
        let bytes = archive.finish().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let mut entries = tar.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(entry.path().unwrap().to_string_lossy(), "conduit-bundle/a/b.txt");
        assert_eq!((text.as_str(), entry.header().mode().unwrap()), ("content", 0o600));
        assert!(entries.next().is_none());
    }
}
