//! Telling HTTP/1 and HTTP/2 from everything else.
//!
//! HTTP/1 is only what the server behind would take: the whole first head is parsed by the same rules. If anything is
//! wrong with it the connection is opaque, and the application, not the proxy, judges what it is sent.

use http::Uri;

/// What the bytes seen so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The beginning of HTTP, perhaps: the answer needs more bytes.
    NeedMore,
    /// HTTP/1.0 or HTTP/1.1, and a first request that can be forwarded.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// Something else.
    Opaque,
}

/// Header fields of one message.
pub const MAX_HEADERS: usize = 1_024;

/// Bytes of one head. Beyond them the first request of a connection is opaque, and a later one is answered with 431.
pub const MAX_HEAD_BYTES: usize = 2 << 20;

/// Below this size the head is parsed each time that more of it has come; above, only when its end is in sight, so that
/// a megabyte in small packets is not parsed a thousand times.
const PARSE_EAGERLY: usize = 8 << 10;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest URI that hyper takes.
const MAX_URI_BYTES: usize = (u16::MAX - 1) as usize;

/// Looks into the first bytes of a connection, of which the first `seen` were looked into before in vain.
pub fn protocol(bytes: &[u8], seen: usize) -> Protocol {
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        return if common == PREFACE.len() { Protocol::Http2 } else { Protocol::NeedMore };
    }
    if seen >= PARSE_EAGERLY && !ends_between(bytes, seen) {
        return if bytes.len() > MAX_HEAD_BYTES { Protocol::Opaque } else { Protocol::NeedMore };
    }
    // Few requests have many headers: the large array is made only for those.
    let mut few = [httparse::EMPTY_HEADER; 64];
    match http1(bytes, &mut few) {
        Some(protocol) => protocol,
        None => {
            let mut many = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
            http1(bytes, &mut many).unwrap_or(Protocol::Opaque)
        }
    }
}

/// Whether an empty line may end after the first `seen` bytes.
fn ends_between(bytes: &[u8], seen: usize) -> bool {
    let tail = &bytes[seen.saturating_sub(3)..];
    tail.windows(2).any(|pair| pair == b"\n\n") || tail.windows(3).any(|three| three == b"\n\r\n")
}

/// None when there are more headers than `headers` holds.
fn http1<'b>(bytes: &'b [u8], headers: &mut [httparse::Header<'b>]) -> Option<Protocol> {
    let mut request = httparse::Request::new(headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > MAX_HEAD_BYTES => Some(Protocol::Opaque),
        Ok(httparse::Status::Complete(_)) => {
            Some(if can_be_forwarded(&request) { Protocol::Http1 } else { Protocol::Opaque })
        }
        Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD_BYTES => Some(Protocol::Opaque),
        Ok(httparse::Status::Partial) => Some(Protocol::NeedMore),
        Err(httparse::Error::TooManyHeaders) => None,
        Err(_) => Some(Protocol::Opaque),
    }
}

/// Whether the rest of the way takes this request too: hyper's own checks of framing and target, and ours of CONNECT.
fn can_be_forwarded(request: &httparse::Request<'_, '_>) -> bool {
    let (Some(method), Some(path), Some(version)) = (request.method, request.path, request.version) else {
        return false;
    };
    let Ok(uri) = Uri::try_from(path) else { return false };
    path.len() <= MAX_URI_BYTES
        && target_fits(method, &uri, version)
        && framing_is_sound(request.headers, version)
}

/// CONNECT asks for an authority and needs HTTP/1.1; nothing else asks for an authority alone (RFC 9112 section 3.2).
fn target_fits(method: &str, uri: &Uri, version: u8) -> bool {
    let is_authority = uri.authority().is_some() && uri.scheme().is_none();
    if method == "CONNECT" { is_authority && version == 1 } else { !is_authority }
}

/// A message with both a coding and a length is legal, but only sound ones are let through: who reads them differently
/// from the proxy can be tricked (RFC 9112 section 6.1).
fn framing_is_sound(headers: &[httparse::Header<'_>], version: u8) -> bool {
    let named =
        |name: &'static str| headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    let coding_is_sound = named("transfer-encoding")
        .next_back()
        .is_none_or(|coding| version == 1 && ends_in_chunked(coding.value));
    let mut lengths = named("content-length").map(|header| content_length(header.value));
    let lengths_agree = match lengths.next() {
        None => true,
        Some(None) => false,
        Some(first) => lengths.all(|length| length == first),
    };
    coding_is_sound && lengths_agree
}

fn ends_in_chunked(value: &[u8]) -> bool {
    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

fn content_length(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok()?;
    // from_str would take a sign. The largest values mean something else to hyper.
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|length| plain && *length < u64::MAX - 2)
}

#[cfg(test)]
mod tests;
