use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

use super::*;

const NAME: &str = "web.deployment.shop.conduit-managed.conduit.svc.cluster.local";

/// What a real client sends first: without post-quantum groups some 250 octets, with one some 1,400.
fn real_hello(name: &str, post_quantum: bool, alpn: Vec<Vec<u8>>) -> Vec<u8> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let is_post_quantum = |group: rustls::NamedGroup| format!("{group:?}").contains("MLKEM");
    provider.kx_groups.retain(|group| is_post_quantum(group.name()) == post_quantum);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn large_hello(name: &str) -> Vec<u8> {
    let hello = real_hello(name, true, (0..40).map(|n| vec![b'a' + (n % 26) as u8; 200]).collect());
    assert!(hello.len() > 8 << 10, "{}", hello.len());
    hello
}

/// The same handshake bytes in records of other sizes.
fn in_records(hello: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut rest = hello;
    while let [22, 3, minor, high, low, tail @ ..] = rest {
        assert!(*minor <= 3);
        let (record, next) = tail.split_at(usize::from(*high) << 8 | usize::from(*low));
        payload.extend_from_slice(record);
        rest = next;
    }
    let mut records = Vec::new();
    let mut sizes = sizes.iter().cycle();
    let mut payload = payload.as_slice();
    while !payload.is_empty() {
        let (record, next) = payload.split_at(payload.len().min(*sizes.next().unwrap()));
        records.extend_from_slice(&[22, 3, 1, (record.len() >> 8) as u8, record.len() as u8]);
        records.extend_from_slice(record);
        payload = next;
    }
    records
}

/// Each prefix is undecided until a point, and says the same as the whole from there on.
fn assert_stable(bytes: &[u8], expected: &ClientHello) {
    let mut decided = false;
    for length in 0..=bytes.len() {
        match client_hello(&bytes[..length]) {
            ClientHello::NeedMore => assert!(!decided, "undecided again at {length}"),
            answer => {
                assert_eq!(&answer, expected, "at {length}");
                decided = true;
            }
        }
    }
    assert!(decided);
}

#[test]
fn every_prefix_of_a_hello_of_any_size_is_undecided_or_right() {
    let expected = ClientHello::For(Some(NAME.to_owned()));
    assert_stable(&real_hello(NAME, false, vec![]), &expected);
    assert_stable(&real_hello(NAME, true, vec![b"conduit/1".to_vec()]), &expected);
    assert_stable(&large_hello(NAME), &expected);
}

#[test]
fn records_of_one_octet_change_nothing() {
    let hello = real_hello(NAME, false, vec![]);
    assert_stable(&in_records(&hello, &[1]), &ClientHello::For(Some(NAME.to_owned())));
}

#[test]
fn names_are_told_in_lower_case_and_whole() {
    let shouted = real_hello(NAME, false, vec![]);
    let at = shouted.windows(NAME.len()).position(|window| window == NAME.as_bytes()).unwrap();
    let mut hello = shouted;
    hello[at..at + 3].copy_from_slice(b"WeB");
    assert_eq!(client_hello(&hello), ClientHello::For(Some(NAME.to_owned())));
    for other in [&NAME[1..], &format!("x{NAME}"), &format!("{NAME}x"), "localhost"] {
        assert_eq!(client_hello(&real_hello(other, false, vec![])), ClientHello::For(Some(other.to_owned())));
    }
}

#[test]
fn a_hello_without_a_host_name_is_a_hello() {
    assert_stable(&real_hello("127.0.0.1", false, vec![]), &ClientHello::For(None));
}

#[test]
fn what_is_not_a_hello_is_said_at_the_first_wrong_octet() {
    let hello = real_hello(NAME, false, vec![]);
    // Content type, major version, minor version, length, handshake type, client version.
    for (at, wrong) in [(0, 23), (1, 2), (2, 5), (3, 0x41), (5, 2), (9, 2)] {
        let mut bytes = hello.clone();
        bytes[at] = wrong;
        assert_eq!(client_hello(&bytes[..=at]), ClientHello::Not, "octet {at}");
        assert_eq!(client_hello(&bytes), ClientHello::Not, "octet {at}");
    }
    for plain in
        [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0", b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"SSH-2.0-x\r\n"]
    {
        assert_stable(plain, &ClientHello::Not);
    }
}

#[test]
fn an_empty_record_is_no_hello() {
    assert_eq!(client_hello(&[22, 3, 1, 0, 0]), ClientHello::Not);
}

#[test]
fn a_hello_that_claims_to_be_endless_is_not_for_us() {
    let mut hello = real_hello(NAME, false, vec![]);
    hello[6] = 0x7f;
    assert_eq!(client_hello(&hello), ClientHello::For(None));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_split_into_records_is_read_alike(sizes in prop::collection::vec(1_usize..3_000, 1..20)) {
        let records = in_records(&large_hello(NAME), &sizes);
        prop_assert_eq!(client_hello(&records), ClientHello::For(Some(NAME.to_owned())));
        for length in 0..records.len().min(600) {
            prop_assert_ne!(client_hello(&records[..length]), ClientHello::Not);
        }
    }

    #[test]
    fn no_input_makes_it_panic_or_change_its_mind(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        looks_right in any::<bool>(),
    ) {
        if looks_right && bytes.len() > 6 {
            bytes[..6].copy_from_slice(&[22, 3, 1, 0, 250, 1]);
        }
        let mut last = ClientHello::NeedMore;
        for length in 0..=bytes.len() {
            let answer = client_hello(&bytes[..length]);
            if last != ClientHello::NeedMore {
                prop_assert_eq!(&answer, &last);
            }
            last = answer;
        }
    }

    #[test]
    fn a_damaged_hello_never_makes_it_panic(at in 0_usize..250, to in any::<u8>()) {
        let mut hello = real_hello(NAME, false, vec![]);
        let at = at % hello.len();
        hello[at] = to;
        client_hello(&hello);
    }
}
