//! Which requests a tap wants: a tree of conditions, read once from the caller's message. Pure.

use std::net::{IpAddr, SocketAddr};

use conduit_proto::tap::{self as proto, r#match as kinds};

use crate::metrics::Labels;

/// Conditions within conditions, and conditions in all, that one tap may have: each request is held against all of them.
const MAX_DEPTH: usize = 16;
const MAX_CONDITIONS: usize = 256;

/// What is known of a request when a tap is asked about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) labels: &'a Labels,
    /// The `tls` label of the connection that carries it between pods.
    pub(crate) tls: &'a str,
    pub(crate) scheme: &'a str,
    pub(crate) method: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) path: &'a str,
}

/// A condition on requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Source(Tcp),
    Destination(Tcp),
    Label { key: String, value: String },
    Scheme(String),
    Method(String),
    Authority(Text),
    Path(Text),
}

/// A condition on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tcp {
    Network { ip: IpAddr, bits: u8 },
    Ports { min: u16, max: u16 },
}

/// A condition on a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    Exact(String),
    Prefix(String),
}

/// Why a message is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("a match, or a part of one, is missing")]
    Missing,
    #[error("{0:?} is not a network: write ip/bits with at least one bit")]
    Network(String),
    #[error("ports {min} to {max} are not a range: the first is 1 to 65535, the last is 0 or not below it")]
    Ports { min: u32, max: u32 },
    #[error("a label needs a key and a value")]
    Label,
    #[error("the match has more than {MAX_CONDITIONS} conditions or is nested deeper than {MAX_DEPTH}")]
    TooLarge,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong with it; the caller is told.
    pub(crate) fn read(message: Option<&proto::Match>) -> Result<Self, Invalid> {
        let mut left = MAX_CONDITIONS;
        Self::read_at(message, MAX_DEPTH, &mut left)
    }

    fn read_at(message: Option<&proto::Match>, depth: usize, left: &mut usize) -> Result<Self, Invalid> {
        *left = left.checked_sub(1).ok_or(Invalid::TooLarge)?;
        let depth = depth.checked_sub(1).ok_or(Invalid::TooLarge)?;
        match message.and_then(|message| message.r#match.as_ref()).ok_or(Invalid::Missing)? {
            kinds::Match::All(seq) => Ok(Self::All(read_all(seq, depth, left)?)),
            kinds::Match::Any(seq) => Ok(Self::Any(read_all(seq, depth, left)?)),
            kinds::Match::Not(inner) => Ok(Self::Not(Box::new(Self::read_at(Some(inner), depth, left)?))),
            kinds::Match::Source(tcp) => Ok(Self::Source(Tcp::read(tcp)?)),
            kinds::Match::Destination(tcp) => Ok(Self::Destination(Tcp::read(tcp)?)),
            kinds::Match::Http(http) => Self::read_http(http),
            kinds::Match::DestinationLabel(label) if label.key.is_empty() || label.value.is_empty() => {
                Err(Invalid::Label)
            }
            kinds::Match::DestinationLabel(label) => {
                Ok(Self::Label { key: label.key.clone(), value: label.value.clone() })
            }
        }
    }

    fn read_http(http: &kinds::Http) -> Result<Self, Invalid> {
        match http.r#match.as_ref().ok_or(Invalid::Missing)? {
            kinds::http::Match::Scheme(scheme) => Ok(Self::Scheme(scheme.clone())),
            kinds::http::Match::Method(method) => Ok(Self::Method(method.clone())),
            kinds::http::Match::Authority(text) => Ok(Self::Authority(Text::read(text)?)),
            kinds::http::Match::Path(text) => Ok(Self::Path(Text::read(text)?)),
        }
    }

    /// Whether a request fulfils it.
    pub(crate) fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(facts)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(facts)),
            Self::Not(condition) => !condition.holds(facts),
            Self::Source(tcp) => tcp.holds(facts.source),
            Self::Destination(tcp) => tcp.holds(facts.destination),
            // No label of a destination: what became of this request.
            Self::Label { key, value } if key == "tls" => facts.tls == value,
            Self::Label { key, value } => facts.labels.get(key) == Some(value),
            // Methods are case sensitive (RFC 9110 section 9.1), schemes and hosts are not (section 4.2.3); callers
            // have long written both in capitals.
            Self::Method(method) => facts.method == method,
            Self::Scheme(scheme) => facts.scheme.eq_ignore_ascii_case(scheme),
            Self::Authority(text) => text.holds_ignoring_case(facts.authority),
            Self::Path(text) => text.holds(facts.path),
        }
    }
}

fn read_all(seq: &kinds::Seq, depth: usize, left: &mut usize) -> Result<Vec<Condition>, Invalid> {
    seq.matches.iter().map(|message| Condition::read_at(Some(message), depth, left)).collect()
}

impl Tcp {
    fn read(tcp: &kinds::Tcp) -> Result<Self, Invalid> {
        match tcp.r#match.as_ref().ok_or(Invalid::Missing)? {
            kinds::tcp::Match::Network(network) => {
                read_network(network).ok_or_else(|| Invalid::Network(network.chars().take(64).collect()))
            }
            kinds::tcp::Match::Ports(kinds::PortRange { min, max }) => {
                read_ports(*min, *max).ok_or(Invalid::Ports { min: *min, max: *max })
            }
        }
    }

    fn holds(self, addr: SocketAddr) -> bool {
        match self {
            Self::Network { ip, bits } => prefix(ip, bits) == prefix(addr.ip().to_canonical(), bits),
            Self::Ports { min, max } => (min..=max).contains(&addr.port()),
        }
    }
}

fn read_network(network: &str) -> Option<Tcp> {
    let (ip, bits) = network.split_once('/')?;
    let (ip, bits) = (ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
    let max = if ip.is_ipv4() { 32 } else { 128 };
    (1..=max).contains(&bits).then_some(Tcp::Network { ip, bits })
}

fn read_ports(min: u32, max: u32) -> Option<Tcp> {
    let max = if max == 0 { min } else { max };
    let (min, max) = (u16::try_from(min).ok()?, u16::try_from(max).ok()?);
    (min > 0 && min <= max).then_some(Tcp::Ports { min, max })
}

/// The first `bits` of an address, and how long it is: addresses of different families have nothing in common.
fn prefix(ip: IpAddr, bits: u8) -> (bool, u128) {
    let bits = u32::from(bits);
    match ip {
        IpAddr::V4(ip) => {
            (true, u128::from(ip.to_bits().checked_shr(32_u32.saturating_sub(bits)).unwrap_or(0)))
        }
        IpAddr::V6(ip) => (false, ip.to_bits().checked_shr(128_u32.saturating_sub(bits)).unwrap_or(0)),
    }
}

impl Text {
    fn read(text: &kinds::StringMatch) -> Result<Self, Invalid> {
        match text.r#match.as_ref().ok_or(Invalid::Missing)? {
            kinds::string_match::Match::Exact(exact) => Ok(Self::Exact(exact.clone())),
            kinds::string_match::Match::Prefix(prefix) => Ok(Self::Prefix(prefix.clone())),
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix),
        }
    }

    fn holds_ignoring_case(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text.eq_ignore_ascii_case(exact),
            Self::Prefix(prefix) => {
                text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            }
        }
    }
}

#[cfg(test)]
mod tests;
