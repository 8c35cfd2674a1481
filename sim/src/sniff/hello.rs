//! The ClientHello with which a connection begins (RFC 8446 section 4.1.2), out of the payload of its records.

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Octets of a handshake message's header: its type, and a length of three.
const HEADER: usize = 4;
/// No client sends more; what claims to is kept no longer, and asks for nobody.
const HELLO_MAX: usize = 1 << 16;

/// A ClientHello, as far as it is there.
#[derive(Debug, Clone)]
pub(super) enum Hello {
    /// These octets are there.
    Partly(Vec<u8>),
    /// All of it was; it asks for this name.
    Whole(Option<String>),
}

impl Default for Hello {
    fn default() -> Self {
        Self::Partly(Vec::new())
    }
}

impl Hello {
    /// Takes in more of the handshake. False: this is no ClientHello.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        let Self::Partly(message) = self else { return true };
        message.extend_from_slice(bytes);
        let [kind, high, middle, low, body @ ..] = message.as_slice() else {
            return message.first().is_none_or(|kind| *kind == CLIENT_HELLO);
        };
        if *kind != CLIENT_HELLO {
            return false;
        }
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        if length > HELLO_MAX {
            *self = Self::Whole(None);
            return true;
        }
        let Some(body) = body.get(..length) else { return true };
        match server_name(body) {
            Parsed::Name(name) => *self = Self::Whole(Some(name)),
            Parsed::NoName => *self = Self::Whole(None),
            Parsed::Wrong => return false,
        }
        true
    }

    /// Whether any of it is there.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self, Self::Partly(message) if message.is_empty())
    }

    /// Whether all of it was.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// The name it asks for, as far as it is there.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Whole(name) => name.clone(),
            Self::Partly(message) => match server_name(message.get(HEADER..)?) {
                Parsed::Name(name) => Some(name),
                Parsed::NoName | Parsed::Wrong => None,
            },
        }
    }
}

enum Parsed {
    Name(String),
    NoName,
    /// It ends too early, or its lengths contradict each other.
    Wrong,
}

fn server_name(body: &[u8]) -> Parsed {
    match extensions(body) {
        None => Parsed::Wrong,
        Some(mut rest) => loop {
            if rest.0.is_empty() {
                return Parsed::NoName;
            }
            match (rest.u16(), rest.vector16()) {
                (Some(SERVER_NAME), Some(list)) => return host(Octets(list)),
                (Some(_), Some(_)) => {}
                _ => return Parsed::Wrong,
            }
        },
    }
}

/// What follows everything that has a fixed place. TLS 1.2 allows a hello without extensions.
fn extensions(body: &[u8]) -> Option<Octets<'_>> {
    let mut octets = Octets(body);
    let version_and_random = 2 + 32;
    octets.take(version_and_random)?.first().filter(|major| **major == 3)?;
    let session_id = octets.u8()?;
    octets.take(usize::from(session_id))?;
    octets.vector16()?;
    let compression_methods = octets.u8()?;
    octets.take(usize::from(compression_methods))?;
    if !octets.0.is_empty() {
        octets.u16()?;
    }
    Some(octets)
}

fn host(mut list: Octets<'_>) -> Parsed {
    let mut host = || {
        list.u16()?;
        Some((list.u8()?, list.vector16()?))
    };
    match host() {
        None => Parsed::Wrong,
        Some((HOST_NAME, name)) => match std::str::from_utf8(name) {
            Ok(name) => Parsed::Name(name.to_ascii_lowercase()),
            Err(_) => Parsed::NoName,
        },
        Some(_) => Parsed::NoName,
    }
}

struct Octets<'b>(&'b [u8]);

impl<'b> Octets<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from(self.u8()?) << 8 | u16::from(self.u8()?))
    }

    fn vector16(&mut self) -> Option<&'b [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}
