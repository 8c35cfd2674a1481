use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use super::*;
use crate::testing::{Recording, Said, Sender, conversation, identity};

fn talk(seed: u64) -> Recording {
    seed_thread(seed);
    conversation(&deterministic(), &identity(), Said::Words(b"GET /"), Said::Words(b"200"))
}

fn of(recording: &Recording, wanted: Sender) -> Vec<u8> {
    let sent = recording.iter().filter(|(sender, _)| *sender == wanted);
    sent.flat_map(|(_, chunk)| chunk.clone()).collect()
}

#[test]
fn one_seed_gives_the_same_bytes_in_both_directions() {
    let (once, again) = (talk(7), talk(7));
    assert!(of(&once, Sender::Client).len() > 2_000, "there was no handshake");
    assert!(of(&once, Sender::Server).len() > 2_000, "there was no handshake");
    assert_eq!(once, again);
}

#[test]
fn another_seed_gives_other_bytes_in_both_directions() {
    let (seven, eight) = (talk(7), talk(8));
    assert_ne!(of(&seven, Sender::Client), of(&eight, Sender::Client));
    assert_ne!(of(&seven, Sender::Server), of(&eight, Sender::Server));
}

#[test]
fn a_thread_that_was_never_seeded_draws_as_from_zero() {
    let unseeded = std::thread::spawn(|| {
        conversation(&deterministic(), &identity(), Said::Words(b"GET /"), Said::Words(b"200"))
    });
    assert_eq!(unseeded.join().unwrap(), talk(0));
}

#[test]
fn what_both_sides_send_first_is_as_large_as_what_is_shipped() {
    let first = |crypto: &Crypto, wanted| {
        let recording = conversation(crypto, &identity(), Said::Nothing, Said::Nothing);
        // The first record is the Hello, and the first bytes tell its length.
        let bytes = of(&recording, wanted);
        usize::from(bytes[3]) << 8 | usize::from(bytes[4])
    };
    for (sender, over) in [(Sender::Client, 1_216), (Sender::Server, 1_120)] {
        let (ours, shipped) = (first(&deterministic(), sender), first(&Crypto::shipped(), sender));
        assert!(ours > over, "{ours}");
        assert!(ours.abs_diff(shipped) <= 8, "{sender:?}: {ours} octets, shipped are {shipped}");
    }
}

#[test]
fn a_key_whose_signatures_would_differ_is_refused() {
    let ecdsa = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
    let key = PrivateKeyDer::try_from(ecdsa).unwrap();
    assert!(deterministic().provider.key_provider.load_private_key(key).is_err());
}

#[test]
fn a_share_of_another_size_or_of_low_order_is_refused() {
    for share in [vec![0; X25519_LEN], vec![9; CIPHERTEXT_LEN], vec![0; CIPHERTEXT_LEN + X25519_LEN], vec![]]
    {
        assert!(Padded.start().unwrap().complete(&share).is_err(), "{} octets", share.len());
    }
    assert!(Padded.start_and_complete(&[1; 5]).is_err());
    assert!(Plain.start().unwrap().complete(&[0; X25519_LEN]).is_err());
}
