//! Content in gzip's coding, for who asks for it: metrics are repetitive text, and shrink to a tenth.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header::ACCEPT_ENCODING};

/// Whether `headers` prefer gzip to plain text (RFC 9110 section 12.5.3): it is acceptable, by name or by `*`, and the
/// plain text is not wanted more.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let codings: Vec<(String, f32)> = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(coding)
        .collect();
    let weight = |name: &str| codings.iter().find(|(coding, _)| coding == name).map(|(_, weight)| *weight);
    let gzip = weight("gzip").or(weight("x-gzip")).or(weight("*")).unwrap_or(0.0);
    gzip > 0.0 && gzip >= weight("identity").unwrap_or(0.0)
}

/// A coding's name and weight. One whose weight makes no sense is not wanted: plain text is always understood.
fn coding(element: &str) -> (String, f32) {
    let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
    let weight = match parameters.trim().split_once('=') {
        Some((q, weight)) if q.trim().eq_ignore_ascii_case("q") => weight.trim().parse().unwrap_or(0.0),
        _ => 1.0,
    };
    (name.trim().to_ascii_lowercase(), weight)
}

/// `text` in gzip's coding, quickly rather than tightly: a scrape must not hold up the requests of this thread.
///
/// # Errors
/// None that writing to memory has.
pub(crate) fn compress(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_wanted_where_it_is_accepted_and_nothing_is_wanted_more() {
        for (accepted, wanted) in [
            ("gzip", true),
            ("deflate, GZIP", true),
            ("x-gzip", true),
            ("gzip;q=1.0, identity; q=0.5, *;q=0", true),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", true),
            ("*", true),
            ("gzip;q=0.001", true),
            ("", false),
            ("identity", false),
            ("deflate, br", false),
            ("gzip;q=0", false),
            ("gzip; Q=0.000, *", false),
            ("*;q=0", false),
            ("gzip;q=0.5, identity", false),
            ("gzip;q=much", false),
            ("gzipped", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, accepted.parse().unwrap());
            assert_eq!(is_wanted(&headers), wanted, "{accepted}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }

    #[test]
    fn several_fields_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT_ENCODING, "br".parse().unwrap());
        headers.append(ACCEPT_ENCODING, "gzip".parse().unwrap());
        assert!(is_wanted(&headers));
    }
}
