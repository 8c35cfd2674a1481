use proptest::prelude::*;

use super::*;

/// As a connection is judged: packet by packet.
fn in_packets(bytes: &[u8], sizes: &[usize]) -> (Protocol, usize) {
    let mut sizes = sizes.iter().cycle();
    let (mut seen, mut end) = (0, 0);
    loop {
        end = bytes.len().min(end + sizes.next().unwrap());
        let answer = protocol(&bytes[..end], seen);
        if answer != Protocol::NeedMore || end == bytes.len() {
            return (answer, end);
        }
        seen = end;
    }
}

fn assert_is(bytes: &[u8], expected: Protocol) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    assert_eq!(protocol(bytes, 0), expected, "{shown}");
    let (answer, end) = in_packets(bytes, &[1]);
    assert_eq!(answer, expected, "{shown}, octet by octet, at {end}");
}

#[test]
fn requests_that_can_be_forwarded_are_http() {
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "POST /x?y=%20#z HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        "PUT http://other.example:81/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
        "CONNECT db.example:5432 HTTP/1.1\r\n\r\n",
        "BREW /pot HTTP/1.1\nHost: lines end anyhow\n\n",
        "GET / HTTP/1.1\r\nX-Obs: caf\u{e9}\r\n\r\n",
    ] {
        assert_is(request.as_bytes(), Protocol::Http1);
    }
}

#[test]
fn what_the_application_must_judge_is_opaque() {
    for bytes in [
        "PING\r\n\r\n",
        "get key\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / HTTP/9\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nspace : before\r\n\r\n",
        "GET example.com:80 HTTP/1.1\r\n\r\n",
        "CONNECT / HTTP/1.1\r\n\r\n",
        "CONNECT http://a/ HTTP/1.1\r\n\r\n",
        "CONNECT a:1 HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01",
        "SSH-2.0-OpenSSH_9.7\r\n",
    ] {
        assert_is(bytes.as_bytes(), Protocol::Opaque);
    }
}

#[test]
fn every_prefix_of_the_http2_preface_waits_for_the_rest() {
    for length in 0..PREFACE.len() {
        assert_eq!(protocol(&PREFACE[..length], 0), Protocol::NeedMore);
    }
    assert_is(&[PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat(), Protocol::Http2);
    assert_is(b"PRI * HTTP/2.0\r\n\r\nSMS please", Protocol::Opaque);
}

fn head(headers: usize, value: usize) -> Vec<u8> {
    let fields: String = (0..headers).map(|n| format!("x-{n}: {}\r\n", "v".repeat(value))).collect();
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn a_thousand_headers_and_a_mebibyte_are_accepted() {
    assert_eq!(in_packets(&head(1_000, 20), &[1_400]).0, Protocol::Http1);
    let large = head(1_000, 1_100);
    assert!(large.len() > 1 << 20);
    assert_eq!(in_packets(&large, &[1_400, 9]).0, Protocol::Http1);
}

#[test]
fn more_than_can_be_forwarded_is_opaque() {
    assert_eq!(in_packets(&head(MAX_HEADERS + 1, 1), &[1_400]).0, Protocol::Opaque);
    assert_eq!(in_packets(&vec![b'a'; MAX_HEAD_BYTES + 1], &[1_400]).0, Protocol::Opaque);
    let endless = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &vec![b'a'; MAX_HEAD_BYTES]].concat();
    assert_eq!(in_packets(&endless, &[64 << 10]).0, Protocol::Opaque);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_split_leads_to_the_same_answer(sizes in prop::collection::vec(1_usize..5_000, 1..10), headers in 0_usize..400) {
        prop_assert_eq!(in_packets(&head(headers, 30), &sizes).0, Protocol::Http1);
        prop_assert_eq!(in_packets(PREFACE, &sizes).0, Protocol::Http2);
    }

    #[test]
    fn no_input_makes_it_panic_or_change_its_mind(bytes in "[A-Z]{0,8} ?[ -~]{0,30}( HTTP/1\\.[01])?(\r\n[ -~]{0,20}){0,6}") {
        let bytes = bytes.as_bytes();
        let mut last = Protocol::NeedMore;
        for length in 0..=bytes.len() {
            let answer = protocol(&bytes[..length], 0);
            if last != Protocol::NeedMore {
                prop_assert_eq!(answer, last);
            }
            last = answer;
        }
    }
}
