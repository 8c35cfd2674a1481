use conduit_identity::{ControlPlane, Crypto, Identity};
use proptest::prelude::*;

use super::*;
use crate::{
    crypto::{deterministic, seed_thread},
    testing::{Recording, Said, Sender, conversation, identity, ms},
};

const SUFFIX: &str = ".conduit-managed.conduit.svc.cluster.local";

fn recorded(crypto: &Crypto, client: Said, server: Said) -> Recording {
    seed_thread(1);
    conversation(crypto, &identity(), client, server)
}

/// Feeds chunk number n at n ms.
fn sniff(chunks: &[(Sender, Vec<u8>)]) -> Sniffed {
    let mut sniffer = Sniffer::new(SUFFIX);
    for (at, (sender, chunk)) in chunks.iter().enumerate() {
        feed(&mut sniffer, *sender, chunk, ms(at as u64));
    }
    sniffer.finish()
}

fn feed(sniffer: &mut Sniffer, sender: Sender, chunk: &[u8], at: Duration) {
    match sender {
        Sender::Client => sniffer.client(chunk, at),
        Sender::Server => sniffer.server(chunk, at),
    }
}

/// The same bytes in pieces whose lengths are taken from `lengths` in turn.
fn split(chunks: &[(Sender, Vec<u8>)], lengths: &[usize]) -> Recording {
    let mut lengths = lengths.iter().copied().cycle();
    let mut pieces = Recording::new();
    for (sender, chunk) in chunks {
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(lengths.next().unwrap().clamp(1, rest.len()));
            pieces.push((*sender, piece.to_vec()));
            rest = more;
        }
    }
    pieces
}

fn plain(client: &[u8], server: &[u8]) -> Recording {
    vec![(Sender::Client, client.to_vec()), (Sender::Server, server.to_vec())]
}

fn markers(sniffed: &Sniffed) -> Vec<String> {
    sniffed.markers.iter().map(|(id, _)| id.to_string()).collect()
}

#[test]
fn words_of_either_side_inside_tls_make_it_mesh_and_show_no_marker() {
    for (client, server) in [
        (Said::Words(b"op-1-2-3."), Said::Nothing),
        (Said::Nothing, Said::Words(b"op-1-2-3.")),
        (Said::Words(b"op-1-2-3."), Said::Words(b"op-1-2-3.")),
    ] {
        for crypto in [deterministic(), Crypto::shipped()] {
            let sniffed = sniff(&recorded(&crypto, client, server));
            assert_eq!(sniffed.kind, WireKind::Mesh);
            assert_eq!(sniffed.sni.as_deref(), Some(identity().as_str()));
            assert_eq!(sniffed.markers, []);
        }
    }
}

#[test]
fn a_probe_that_says_goodbye_at_once_is_a_handshake() {
    for crypto in [deterministic(), Crypto::shipped()] {
        let recording = recorded(&crypto, Said::Nothing, Said::Nothing);
        assert!(recording.len() >= 4, "client and server said goodbye: {}", recording.len());
        let sniffed = sniff(&recording);
        assert_eq!((sniffed.kind, sniffed.first_application_byte), (WireKind::Handshake, None));
        assert_eq!(sniffed.sni.as_deref(), Some(identity().as_str()));
        assert!(sniffed.agreed.is_some(), "{sniffed:?}");
    }
}

#[test]
fn a_handshake_that_the_client_ends_for_a_wrong_name_is_a_handshake() {
    let wrong = Identity::parse(&format!("api.deployment.shop{SUFFIX}")).unwrap();
    assert!(wrong.belongs_to(&ControlPlane::default()));
    let sniffed = sniff(&conversation(&deterministic(), &wrong, Said::Words(b"op-1-1-1."), Said::Nothing));
    assert_eq!((sniffed.kind, sniffed.first_application_byte), (WireKind::Handshake, None));
    assert_eq!((sniffed.sni.as_deref(), sniffed.agreed), (Some(wrong.as_str()), None));
}

#[test]
fn a_refused_hello_is_a_handshake_and_a_hello_answered_without_tls_is_plaintext() {
    let recording = recorded(&deterministic(), Said::Nothing, Said::Nothing);
    let hello = recording[0].clone();
    let refused = vec![hello.clone(), (Sender::Server, conduit_identity::refuse_alert().to_vec())];
    assert_eq!(sniff(&refused).kind, WireKind::Handshake);

    let sniffed = sniff(&[hello, (Sender::Server, b"400 Bad Request".to_vec())]);
    assert_eq!((sniffed.kind, sniffed.first_application_byte), (WireKind::Plaintext, Some(ms(1))));
    assert_eq!(sniffed.sni.as_deref(), Some(identity().as_str()));
}

#[test]
fn a_hello_cut_off_anywhere_is_a_handshake() {
    let recording = recorded(&deterministic(), Said::Nothing, Said::Nothing);
    let (_, hello) = &recording[0];
    for length in 1..hello.len() {
        let sniffed = sniff(&[(Sender::Client, hello[..length].to_vec())]);
        assert_eq!(sniffed.kind, WireKind::Handshake, "{length} octets");
        assert_eq!(sniffed.first_application_byte, None);
    }
}

#[test]
fn tls_to_another_name_is_the_applications() {
    let other = Identity::parse("shop.example.com").unwrap();
    let sniffed = sniff(&conversation(&deterministic(), &other, Said::Nothing, Said::Nothing));
    assert_eq!(sniffed.kind, WireKind::AppTls);
    assert_eq!(sniffed.sni.as_deref(), Some("shop.example.com"));
    // The suffix alone is nobody's name, and neither is one that only contains it.
    for name in [&SUFFIX[1..], &format!("web{SUFFIX}.example.com")] {
        let sniffed = sniff(&conversation(
            &deterministic(),
            &Identity::parse(name).unwrap(),
            Said::Nothing,
            Said::Nothing,
        ));
        assert_eq!(sniffed.kind, WireKind::AppTls, "{name}");
    }
}

#[test]
fn nothing_is_silent_and_words_are_plaintext_from_the_first() {
    assert_eq!(sniff(&[]).kind, WireKind::Silent);
    assert_eq!(sniff(&plain(b"", b"")).kind, WireKind::Silent);
    for client in [
        &b"GET / HTTP/1.1"[..],
        b"\x16GET",
        b"\x16\x03\x01\x00\x05hello",
        b"\x17\x03\x03\x00\x01x",
        b"\x16\x03\x05\x00\x05\x01",
        b"\x00",
    ] {
        let sniffed = sniff(&plain(client, b""));
        assert_eq!((sniffed.kind, sniffed.first_application_byte), (WireKind::Plaintext, Some(ms(0))));
    }
}

#[test]
fn a_server_that_speaks_first_is_plaintext_whatever_follows() {
    let mut recording = recorded(&deterministic(), Said::Nothing, Said::Nothing);
    recording.insert(0, (Sender::Server, b"220 op-4-4-4. ready".to_vec()));
    let sniffed = sniff(&recording);
    assert_eq!((sniffed.kind, sniffed.first_application_byte), (WireKind::Plaintext, Some(ms(0))));
    assert_eq!(markers(&sniffed), ["op-4-4-4."]);
    assert_eq!(sniffed.sni.as_deref(), Some(identity().as_str()), "the client meant something else");
}

#[test]
fn words_behind_tls_are_plaintext_since_then() {
    let mut recording = recorded(&deterministic(), Said::Nothing, Said::Nothing);
    let count = recording.len() as u64;
    recording.push((Sender::Client, b"op-1-1-1.".to_vec()));
    let sniffed = sniff(&recording);
    assert_eq!((sniffed.kind, sniffed.first_application_byte), (WireKind::Plaintext, Some(ms(count))));
    assert_eq!(markers(&sniffed), ["op-1-1-1."]);
}

#[test]
fn a_marker_inside_of_what_claims_to_be_a_record_is_found() {
    let mut recording = recorded(&deterministic(), Said::Nothing, Said::Nothing);
    recording.push((Sender::Client, b"\x17\x03\x03\x00\x09op-1-1-1.".to_vec()));
    assert_eq!(markers(&sniff(&recording)), ["op-1-1-1."]);
}

#[test]
fn a_marker_keeps_the_time_at_which_it_was_first_seen_and_directions_are_apart() {
    let recording = [
        (Sender::Client, b"op-1-".to_vec()),
        (Sender::Server, b"1-1.".to_vec()),
        (Sender::Client, b"2-3.op-1-2-".to_vec()),
        (Sender::Server, b"op-1-2-3.".to_vec()),
        (Sender::Client, b"4.".to_vec()),
    ];
    let sniffed = sniff(&recording);
    assert_eq!(markers(&sniffed), ["op-1-2-3.", "op-1-2-4."]);
    assert_eq!(sniffed.markers.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [ms(2), ms(4)]);
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut sniffer = Sniffer::new(SUFFIX);
    // A record of a ClientHello that claims to be 16 MiB long, and never ends.
    sniffer.client(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", ms(0));
    for at in 1..200 {
        sniffer.client(&[0x16; 1 << 12], ms(at));
        sniffer.server(b"op-op-op-op-op-op-op-op-op-op-op-op-op", ms(at));
    }
    assert!(sniffer.client.tail.len() < OpId::MAX_LEN && sniffer.server.tail.len() < OpId::MAX_LEN);
    assert!(sniffer.hello.is_whole());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_tells_the_same(lengths in prop::collection::vec(1_usize..700, 1..40), words in any::<bool>(), cut in 0_usize..6_000) {
        let said = if words { Said::Words(b"op-1-2-3. op-65535-65535-4294967295.") } else { Said::Nothing };
        let mut recording = recorded(&deterministic(), said, Said::Nothing);
        recording.push((Sender::Client, b"op-9-9-9.".to_vec()));
        for recording in [&recording[..], &recording[..recording.len() - 1], &cut_off(&recording, cut)] {
            let (whole, pieces) = (sniff(recording), sniff(&split(recording, &lengths)));
            prop_assert_eq!(whole.kind, pieces.kind);
            prop_assert_eq!(&whole.sni, &pieces.sni);
            prop_assert_eq!(markers(&whole), markers(&pieces));
            prop_assert_eq!(whole.first_application_byte.is_some(), pieces.first_application_byte.is_some());
        }
    }

    #[test]
    fn markers_are_found_in_any_split_as_in_the_whole(text in "[op0-9.-]{0,120}|(op-[0-9]{1,3}-[0-9]{1,2}-[0-9]{1,9}\\.|op-){0,8}", lengths in prop::collection::vec(1_usize..40, 1..20)) {
        let recording = plain(format!("x{text}").as_bytes(), b"");
        let mut expected: Vec<String> = OpId::find_all(text.as_bytes()).map(|id| id.to_string()).collect();
        expected.sort();
        expected.dedup();
        let mut found = markers(&sniff(&split(&recording, &lengths)));
        found.sort();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_input_is_too_strange(chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..20)) {
        let side = |client| if client { Sender::Client } else { Sender::Server };
        sniff(&chunks.into_iter().map(|(client, chunk)| (side(client), chunk)).collect::<Vec<_>>());
    }
}

/// The first `length` octets of both directions together.
fn cut_off(recording: &[(Sender, Vec<u8>)], mut length: usize) -> Recording {
    let mut cut = recording.to_vec();
    for (_, chunk) in &mut cut {
        chunk.truncate(length);
        length -= chunk.len();
    }
    cut
}
