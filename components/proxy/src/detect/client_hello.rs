//! Reading the server name out of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3).
//!
//! The message may be spread over records, and the records over packets, in any way; with a post-quantum key share it is
//! 2 KiB and more. The name is told as soon as it is there, wherever the extension stands.

/// What the bytes seen so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientHello {
    /// The beginning of a ClientHello, perhaps: the answer needs more bytes.
    NeedMore,
    /// Not a ClientHello.
    Not,
    /// A ClientHello and the host name it asks for, in lower case; none when it asks for none.
    For(Option<String>),
}

const CONTENT_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST: u8 = 0;
/// A record's plaintext is at most 2^14 octets (RFC 8446 section 5.1).
const RECORD_MAX: usize = 1 << 14;
/// No client sends a larger ClientHello; one that claims to is not one that asks for us.
const HELLO_MAX: usize = 1 << 16;

/// Looks into the first bytes of a connection.
pub fn client_hello(bytes: &[u8]) -> ClientHello {
    match parse(&mut Records::new(bytes)) {
        Ok(name) => ClientHello::For(name),
        Err(Stop::Truncated) => ClientHello::NeedMore,
        Err(Stop::Wrong) => ClientHello::Not,
    }
}

/// Whether the bytes begin as the record of a ClientHello does, whatever follows.
pub fn begins_like_hello(bytes: &[u8]) -> bool {
    bytes.starts_with(&[CONTENT_HANDSHAKE, 3])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The bytes seen so far end here.
    Truncated,
    /// This is not what a ClientHello looks like.
    Wrong,
}

fn parse(records: &mut Records<'_>) -> Result<Option<String>, Stop> {
    if records.u8()? != HANDSHAKE_CLIENT_HELLO {
        return Err(Stop::Wrong);
    }
    let length = usize::from(records.u8()?) << 16 | usize::from(records.u16()?);
    if length > HELLO_MAX {
        return Ok(None);
    }
    let mut hello = Limited { records, left: length };
    let legacy_version_major = hello.u8()?;
    if legacy_version_major != 3 {
        return Err(Stop::Wrong);
    }
    let legacy_version_minor_and_random = 1 + 32;
    hello.skip(legacy_version_minor_and_random)?;
    let session_id = usize::from(hello.u8()?);
    hello.skip(session_id)?;
    let cipher_suites = usize::from(hello.u16()?);
    hello.skip(cipher_suites)?;
    let compression_methods = usize::from(hello.u8()?);
    hello.skip(compression_methods)?;
    if hello.left == 0 {
        // TLS 1.2 allows a hello without extensions.
        return Ok(None);
    }
    let extensions = usize::from(hello.u16()?);
    if extensions != hello.left {
        return Err(Stop::Wrong);
    }
    while hello.left > 0 {
        let (kind, length) = (hello.u16()?, usize::from(hello.u16()?));
        if kind == EXTENSION_SERVER_NAME {
            return server_name(&mut hello, length);
        }
        hello.skip(length)?;
    }
    Ok(None)
}

/// The list may hold one name of each type, and there is one type.
fn server_name(hello: &mut Limited<'_, '_>, length: usize) -> Result<Option<String>, Stop> {
    let list = usize::from(hello.u16()?);
    let (kind, name) = (hello.u8()?, usize::from(hello.u16()?));
    if list + 2 != length || name + 3 > list {
        return Err(Stop::Wrong);
    }
    if kind != NAME_TYPE_HOST {
        return Ok(None);
    }
    let name = (0..name).map(|_| hello.u8()).collect::<Result<Vec<u8>, Stop>>()?;
    // What is not ASCII is no host name, hence not ours; it is the application's to judge.
    Ok(String::from_utf8(name).ok().map(|name| name.to_ascii_lowercase()))
}

/// The message inside of the records.
struct Limited<'r, 'b> {
    records: &'r mut Records<'b>,
    left: usize,
}

impl Limited<'_, '_> {
    fn u8(&mut self) -> Result<u8, Stop> {
        self.left = self.left.checked_sub(1).ok_or(Stop::Wrong)?;
        self.records.u8()
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        Ok(u16::from(self.u8()?) << 8 | u16::from(self.u8()?))
    }

    fn skip(&mut self, count: usize) -> Result<(), Stop> {
        self.left = self.left.checked_sub(count).ok_or(Stop::Wrong)?;
        self.records.skip(count)
    }
}

/// The payload of consecutive handshake records, as one sequence of bytes.
struct Records<'b> {
    bytes: &'b [u8],
    /// Of the current record.
    left: usize,
}

impl<'b> Records<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, left: 0 }
    }

    fn u8(&mut self) -> Result<u8, Stop> {
        if self.left == 0 {
            self.next_record()?;
        }
        let byte = self.take_raw()?;
        self.left -= 1;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        Ok(u16::from(self.u8()?) << 8 | u16::from(self.u8()?))
    }

    fn skip(&mut self, mut count: usize) -> Result<(), Stop> {
        while count > 0 {
            if self.left == 0 {
                self.next_record()?;
            }
            let step = count.min(self.left);
            self.bytes = self.bytes.get(step..).ok_or(Stop::Truncated)?;
            self.left -= step;
            count -= step;
        }
        Ok(())
    }

    /// Judges each byte of the header as it comes: the first wrong one decides.
    fn next_record(&mut self) -> Result<(), Stop> {
        let wrong_unless = |right: bool| if right { Ok(()) } else { Err(Stop::Wrong) };
        wrong_unless(self.take_raw()? == CONTENT_HANDSHAKE)?;
        wrong_unless(self.take_raw()? == 3)?;
        // 1 to 3 are TLS 1.0 to 1.2 and what 1.3 calls itself here; 0 is SSL 3, and 4 was a draft.
        wrong_unless(self.take_raw()? <= 4)?;
        let high = usize::from(self.take_raw()?) << 8;
        wrong_unless(high <= RECORD_MAX)?;
        let length = high | usize::from(self.take_raw()?);
        wrong_unless((1..=RECORD_MAX).contains(&length))?;
        self.left = length;
        Ok(())
    }

    fn take_raw(&mut self) -> Result<u8, Stop> {
        let (byte, rest) = self.bytes.split_first().ok_or(Stop::Truncated)?;
        self.bytes = rest;
        Ok(*byte)
    }
}

#[cfg(test)]
mod tests;
