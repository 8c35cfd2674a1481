//! What is asked and what must come back, so that a lost, doubled or mixed-up byte is a failure.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;

/// Bytes that a POST sends.
const POST_BYTES: usize = 1024;

/// What the server answers: the method, the path and the body, as it understood them.
pub(crate) fn answer(method: &Method, path: &str, body: &[u8]) -> String {
    format!("{method} {path} {}", String::from_utf8_lossy(body))
}

/// The request of this number, and what it is answered.
pub(crate) fn request(number: u64, method: &Method, host: &str) -> (Request<Full<Bytes>>, String) {
    let path = format!("/{number}");
    let body = if *method == Method::POST { "x".repeat(POST_BYTES) } else { String::new() };
    let expected = answer(method, &path, body.as_bytes());
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method.clone();
    // A number makes a path, whatever the number is.
    *request.uri_mut() = path.parse().unwrap_or_default();
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    (request, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_an_answer_of_its_own() {
        let expected = |number, method| request(number, &method, "a:1").1;
        assert_ne!(expected(1, Method::GET), expected(2, Method::GET));
        assert_ne!(expected(1, Method::GET), expected(1, Method::POST));
    }
}
