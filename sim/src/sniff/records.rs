//! TLS records (RFC 8446 section 5), cut out of a stream that comes in any pieces. Keeps a header, and no payload.

use std::time::Duration;

pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;
const CHANGE_CIPHER_SPEC: u8 = 20;

/// What protection adds in every suite of TLS 1.3: the true content type, and a tag of 16 octets (RFC 8446 section 5.2).
const SEAL: usize = 1 + 16;
/// A protected record with an alert in it, without padding.
pub(super) const SEALED_ALERT: usize = 2 + SEAL;
/// A protected record that is full.
pub(super) const SEALED_FULL: usize = (1 << 14) + SEAL;
/// What no record exceeds (RFC 8446 section 5.2).
const LENGTH_MAX: usize = (1 << 14) + 256;

const HEADER: usize = 5;

/// The records of one direction.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    header: [u8; HEADER],
    /// Octets of the header that are there.
    filled: usize,
    /// Octets of the payload that are still to come.
    left: usize,
    /// When the first octet of all crossed.
    first: Option<Duration>,
    /// When the first octet of the current record crossed.
    record: Duration,
}

/// What comes out of a stream of records.
#[derive(Debug)]
pub(super) enum Record<'b> {
    /// A record's header is whole; its first octet crossed at `at`.
    Begins { content: u8, length: usize, at: Duration },
    /// Some of its payload.
    Payload { content: u8, bytes: &'b [u8] },
}

impl Records {
    /// When the first octet crossed.
    pub(super) fn began(&self) -> Option<Duration> {
        self.first
    }

    /// Whether anything crossed.
    pub(super) fn is_begun(&self) -> bool {
        self.first.is_some()
    }

    /// Takes in `bytes`; `each` says whether to go on.
    ///
    /// # Errors
    /// These are no records, or `each` says no: since when. Nothing is to be fed after that.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        at: Duration,
        mut each: impl FnMut(Record<'_>) -> bool,
    ) -> Result<(), Duration> {
        while let Some((byte, rest)) = bytes.split_first() {
            self.first.get_or_insert(at);
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                (self.left, bytes) = (self.left - payload.len(), rest);
                self.goes_on(each(Record::Payload { content: self.header[0], bytes: payload }))?;
                continue;
            }
            bytes = rest;
            if self.filled == HEADER || self.filled == 0 {
                (self.filled, self.record) = (0, at);
            }
            self.header[self.filled] = *byte;
            self.filled += 1;
            self.goes_on(self.is_right())?;
            if self.filled == HEADER {
                self.left = self.length();
                let begins = Record::Begins { content: self.header[0], length: self.left, at: self.record };
                self.goes_on(each(begins))?;
            }
        }
        Ok(())
    }

    fn goes_on(&self, right: bool) -> Result<(), Duration> {
        if right { Ok(()) } else { Err(self.record) }
    }

    /// Judges the last octet of the header.
    fn is_right(&self) -> bool {
        match self.filled {
            1 => (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&self.header[0]),
            2 => self.header[1] == 3,
            3 => self.header[2] <= 4,
            4 => usize::from(self.header[3]) << 8 <= LENGTH_MAX,
            _ => self.length() <= LENGTH_MAX,
        }
    }

    fn length(&self) -> usize {
        usize::from(self.header[3]) << 8 | usize::from(self.header[4])
    }
}
