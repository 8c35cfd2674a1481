//! Header fields that concern one connection and must not travel to the next (RFC 9110 section 7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TE, TRANSFER_ENCODING, UPGRADE},
    request, response,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const KEEP: HeaderValue = HeaderValue::from_static("keep-alive");

/// How the connections on both sides belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// They live and die together: that one of them closes concerns the other.
    Tied,
    /// The next request may take another way.
    Loose,
}

/// What a request asks its connection to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// Nothing else: there may be another request.
    Http,
    /// Another protocol, after 101.
    Upgrade,
    /// A tunnel, after any 2xx.
    Tunnel,
}

impl Becomes {
    /// Whether a response with `status` is the beginning of it.
    pub(crate) fn is_granted_by(self, status: StatusCode) -> bool {
        match self {
            Self::Http => false,
            Self::Upgrade => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::Tunnel => status.is_success(),
        }
    }
}

/// Whether it is a call of gRPC.
pub(crate) fn is_grpc(head: &request::Parts) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    head.version == Version::HTTP_2
        && content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// Whether the target is of a form that the method takes: CONNECT asks for an authority alone and needs HTTP/1.1 or later,
/// nothing else does (RFC 9112 section 3.2).
pub(crate) fn target_fits(head: &request::Parts) -> bool {
    let is_authority = head.uri.authority().is_some() && head.uri.scheme().is_none();
    match head.method == Method::CONNECT {
        true => is_authority && head.version > Version::HTTP_10,
        false => !is_authority,
    }
}

/// Removes what concerned the client's connection alone, and tells what the request asks for. An upgrade is left as it is,
/// but one to h2c, which would take the connection out of our sight.
pub(crate) fn prepare_request(head: &mut request::Parts, tie: Tie) -> Becomes {
    if head.method == Method::CONNECT {
        return Becomes::Tunnel;
    }
    if head.version == Version::HTTP_11
        && head.headers.get(UPGRADE).is_some_and(|to| !to.as_bytes().eq_ignore_ascii_case(b"h2c"))
    {
        return Becomes::Upgrade;
    }
    strip(&mut head.headers, head.version, tie);
    Becomes::Http
}

/// Lets a request of HTTP/2 go on without an authority, as some clients send it with a `Host` field (RFC 9113 section 8.3.1).
/// hyper insists on one, unless the request seems to come from HTTP/1.
pub(crate) fn allow_no_authority(head: &mut request::Parts) {
    if head.version == Version::HTTP_2 && head.uri.authority().is_none() {
        head.version = Version::HTTP_11;
    }
}

/// Removes what concerned the server's connection alone. True when the connection becomes what the request asked for.
pub(crate) fn prepare_response(head: &mut response::Parts, asked: Becomes, tie: Tie) -> bool {
    let granted = asked.is_granted_by(head.status);
    if !granted {
        strip(&mut head.headers, head.version, tie);
        // The coding tells where the body ends, and whoever passes the message on removes the length (RFC 9112 section
        // 6.3). hyper does not send both.
        if head.headers.contains_key(TRANSFER_ENCODING) {
            head.headers.remove(CONTENT_LENGTH);
        }
    }
    granted
}

/// Whether the server says that it ends its connection with this response.
pub(crate) fn is_last(headers: &HeaderMap) -> bool {
    connection_tokens(headers).iter().any(|token| token == "close")
}

fn connection_tokens(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|token| token.trim().to_ascii_lowercase()).collect()
}

fn strip(headers: &mut HeaderMap, version: Version, tie: Tie) {
    // Few messages have any of them; the map is searched once for each otherwise.
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    if !headers.contains_key(CONNECTION) {
        headers.remove(UPGRADE);
        return;
    }
    let tokens = connection_tokens(headers);
    for token in &tokens {
        if let Ok(name) = HeaderName::from_bytes(token.as_bytes())
            && name != TE
        {
            headers.remove(name);
        }
    }
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    let has = |wanted: &str| tokens.iter().any(|token| token == wanted);
    if has("close") && tie == Tie::Tied {
        headers.insert(CONNECTION, CLOSE);
    } else if has("keep-alive") && version == Version::HTTP_10 {
        headers.insert(CONNECTION, KEEP);
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response, header::HOST};

    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> request::Parts {
        let builder =
            fields.iter().fold(Request::builder(), |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap().into_parts().0
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn what_the_connection_field_names_stays_behind() {
        let mut head = request(&[
            ("host", "a"),
            ("connection", "X-Private, close"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("x-public", "3"),
        ]);
        assert_eq!(prepare_request(&mut head, Tie::Loose), Becomes::Http);
        assert_eq!(names(&head.headers), ["host", "x-public"]);
    }

    #[test]
    fn a_close_concerns_the_other_side_when_the_two_are_tied() {
        let mut head = request(&[("connection", "close")]);
        prepare_request(&mut head, Tie::Tied);
        assert_eq!(head.headers.get(CONNECTION), Some(&CLOSE));
        let mut head = request(&[("connection", "close")]);
        prepare_request(&mut head, Tie::Loose);
        assert_eq!(head.headers.get(CONNECTION), None);
    }

    #[test]
    fn http_10_keeps_its_keep_alive() {
        let mut head = request(&[("connection", "Keep-Alive")]);
        head.version = Version::HTTP_10;
        prepare_request(&mut head, Tie::Loose);
        assert_eq!(head.headers.get(CONNECTION), Some(&KEEP));
    }

    #[test]
    fn upgrades_pass_whole_and_h2c_does_not_pass() {
        let mut websocket = request(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(prepare_request(&mut websocket, Tie::Loose), Becomes::Upgrade);
        assert_eq!(names(&websocket.headers), ["connection", "upgrade"]);
        let mut h2c = request(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("host", "a"),
        ]);
        assert_eq!(prepare_request(&mut h2c, Tie::Loose), Becomes::Http);
        assert_eq!(names(&h2c.headers), [HOST.as_str()]);
    }

    #[test]
    fn trailers_may_still_be_asked_for() {
        let mut head = request(&[("te", "trailers"), ("connection", "TE")]);
        prepare_request(&mut head, Tie::Loose);
        assert_eq!(names(&head.headers), ["te"]);
    }

    #[test]
    fn a_refused_upgrade_is_an_ordinary_response() {
        let mut refused =
            Response::builder().status(426).header(UPGRADE, "websocket").header(CONNECTION, "Upgrade");
        let mut head = std::mem::take(&mut refused).body(()).unwrap().into_parts().0;
        assert!(!prepare_response(&mut head, Becomes::Upgrade, Tie::Loose));
        assert!(names(&head.headers).is_empty());
        let mut tunnel = Response::new(()).into_parts().0;
        assert!(prepare_response(&mut tunnel, Becomes::Tunnel, Tie::Loose));
    }
}
