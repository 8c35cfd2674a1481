//! Every combination of good and bad certificates, over a pipe.

use std::sync::Arc;

use crate::support::{Authority, HOUR, NOW, identity, loaded, with_anchors};
use conduit_identity::{
    ALPN, ClientPeer, Crypto, HandshakeError, HandshakeFailure, Identity, Loaded, Pem, ServerPeer, UnixTime,
    accept, connect, refuse_alert,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::ServerName};
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

type Served = Result<(tokio_rustls::server::TlsStream<DuplexStream>, ClientPeer), HandshakeError>;
type Dialled = Result<(tokio_rustls::client::TlsStream<DuplexStream>, ServerPeer), HandshakeError>;

async fn shake(client: &Loaded, server: &Loaded, asked_for: &Identity) -> (Dialled, Served) {
    let (near, far) = duplex(64 * 1024);
    tokio::join!(connect(client, near, asked_for), accept(server, far))
}

/// What the client makes of a server with `pem`.
async fn client_verdict_on(
    root: &Authority,
    pem: &Pem,
    owner: &str,
    loadable_at: UnixTime,
) -> HandshakeFailure {
    let client = loaded(&root.good("web"), "web", NOW);
    let server = loaded(pem, owner, loadable_at);
    let (dialled, served) = shake(&client, &server, &identity("voting")).await;
    assert!(served.is_err(), "the client's alert reaches the server");
    dialled.unwrap_err().reason()
}

#[tokio::test]
async fn two_good_peers_know_each_other() {
    let root = Authority::new("conduit");
    let (client, server) =
        (loaded(&root.good("web"), "web", NOW), loaded(&root.good("voting"), "voting", NOW));
    let (dialled, served) = shake(&client, &server, &identity("voting")).await;
    let ((mut near, server_peer), (mut far, client_peer)) = (dialled.unwrap(), served.unwrap());
    let not_after = NOW + 26 * HOUR;
    assert_eq!(server_peer, ServerPeer { identity: identity("voting"), not_after });
    assert_eq!(client_peer, ClientPeer::Verified { identity: identity("web"), not_after });
    assert_eq!(near.get_ref().1.alpn_protocol(), Some(ALPN));
    assert_eq!(near.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let group = near.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);

    near.write_all(b"vote").await.unwrap();
    near.shutdown().await.unwrap();
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"vote");
}

#[tokio::test]
async fn nothing_is_ever_resumed() {
    let root = Authority::new("conduit");
    let (client, server) =
        (loaded(&root.good("web"), "web", NOW), loaded(&root.good("voting"), "voting", NOW));
    for _ in 0..3 {
        let (dialled, served) = shake(&client, &server, &identity("voting")).await;
        let ((mut near, _), (mut far, _)) = (dialled.unwrap(), served.unwrap());
        // A ticket would arrive with the first byte.
        far.write_all(b"x").await.unwrap();
        near.read_u8().await.unwrap();
        assert_eq!(near.get_ref().1.tls13_tickets_received(), 0);
        assert_eq!(near.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_server_of_another_root_is_untrusted() {
    let (ours, theirs) = (Authority::new("conduit"), Authority::new("other"));
    let verdict = client_verdict_on(&ours, &theirs.good("voting"), "voting", NOW).await;
    assert_eq!(verdict, HandshakeFailure::Untrusted);
}

#[tokio::test]
async fn a_server_of_another_name_is_not_the_one_asked_for() {
    let root = Authority::new("conduit");
    assert_eq!(
        client_verdict_on(&root, &root.good("emoji"), "emoji", NOW).await,
        HandshakeFailure::WrongName
    );
}

#[tokio::test]
async fn an_expired_server_is_expired() {
    let root = Authority::new("conduit");
    let pem = root.leaf().named(identity("voting").as_str()).valid(NOW - 9 * HOUR, NOW - HOUR).issue();
    assert_eq!(client_verdict_on(&root, &pem, "voting", NOW - 2 * HOUR).await, HandshakeFailure::Expired);
}

#[tokio::test]
async fn a_server_from_the_future_is_not_yet_valid() {
    let root = Authority::new("conduit");
    let pem = root.leaf().named(identity("voting").as_str()).valid(NOW + HOUR, NOW + 9 * HOUR).issue();
    assert_eq!(client_verdict_on(&root, &pem, "voting", NOW + 2 * HOUR).await, HandshakeFailure::NotYetValid);
}

/// What the server makes of a client with `pem`; the connection stands whatever it is.
async fn server_verdict_on(root: &Authority, pem: &Pem, loadable_at: UnixTime) -> ClientPeer {
    let client = loaded(pem, "web", loadable_at);
    // The client trusts the server even if the server does not trust it.
    let crypto = Crypto::shipped();
    let server = loaded(&root.good("voting"), "voting", NOW);
    let both = [pem.anchors.clone(), root.root()].concat();
    let credentials =
        conduit_identity::Credentials::load(&with_anchors(pem, both), &identity("web"), loadable_at, &crypto)
            .unwrap();
    let clock = Arc::new(conduit_identity::ManualClock::at(NOW));
    let client = Loaded::new(credentials, &crypto, clock).map_or(client, |loaded| loaded);
    let (dialled, served) = shake(&client, &server, &identity("voting")).await;
    let ((mut near, _), (mut far, peer)) = (dialled.unwrap(), served.unwrap());
    near.write_all(b"still encrypted").await.unwrap();
    near.shutdown().await.unwrap();
    let mut heard = String::new();
    far.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "still encrypted");
    peer
}

#[tokio::test]
async fn a_client_of_another_root_is_served_unauthenticated() {
    let (ours, theirs) = (Authority::new("conduit"), Authority::new("other"));
    assert_eq!(server_verdict_on(&ours, &theirs.good("web"), NOW).await, ClientPeer::Unauthenticated);
}

#[tokio::test]
async fn an_expired_client_is_served_unauthenticated() {
    let root = Authority::new("conduit");
    let pem = root.leaf().named(identity("web").as_str()).valid(NOW - 9 * HOUR, NOW - HOUR).issue();
    assert_eq!(server_verdict_on(&root, &pem, NOW - 2 * HOUR).await, ClientPeer::Unauthenticated);
}

#[tokio::test]
async fn a_client_from_the_future_is_served_unauthenticated() {
    let root = Authority::new("conduit");
    let pem = root.leaf().named(identity("web").as_str()).valid(NOW + HOUR, NOW + 9 * HOUR).issue();
    assert_eq!(server_verdict_on(&root, &pem, NOW + 2 * HOUR).await, ClientPeer::Unauthenticated);
}

/// A TLS client that is not Conduit's.
async fn foreign_client(root: &Authority, alpn: &[&[u8]]) -> (Option<Vec<u8>>, ClientPeer) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&root.root()).unwrap()).unwrap();
    let time = Arc::new(Fixed);
    let mut config = ClientConfig::builder_with_details(Crypto::shipped().provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|token| token.to_vec()).collect();
    let server = loaded(&root.good("voting"), "voting", NOW);
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from(identity("voting").to_string()).unwrap();
    let (dialled, served) =
        tokio::join!(TlsConnector::from(Arc::new(config)).connect(name, near), accept(&server, far));
    let token = dialled.unwrap().get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    (token, served.unwrap().1)
}

#[derive(Debug)]
struct Fixed;

impl rustls::time_provider::TimeProvider for Fixed {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        Some(rustls_pki_types::UnixTime::since_unix_epoch(NOW.0))
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_served_unauthenticated() {
    let (_, peer) = foreign_client(&Authority::new("conduit"), &[ALPN]).await;
    assert_eq!(peer, ClientPeer::Unauthenticated);
}

#[tokio::test]
async fn no_alpn_is_no_reason_to_refuse() {
    assert_eq!(foreign_client(&Authority::new("conduit"), &[]).await.0, None);
}

#[tokio::test]
async fn an_unknown_alpn_is_no_reason_to_refuse() {
    assert_eq!(foreign_client(&Authority::new("conduit"), &[b"conduit/9", b"h2"]).await.0, None);
}

#[tokio::test]
async fn our_alpn_is_chosen_among_others() {
    let (token, _) = foreign_client(&Authority::new("conduit"), &[b"conduit/9", ALPN]).await;
    assert_eq!(token.as_deref(), Some(ALPN));
}

#[tokio::test]
async fn the_refusal_makes_a_client_fail_at_once() {
    let root = Authority::new("conduit");
    let client = loaded(&root.good("web"), "web", NOW);
    let (near, mut far) = duplex(64 * 1024);
    let server = async {
        far.write_all(refuse_alert()).await.unwrap();
        far.shutdown().await.unwrap();
        far.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let name = identity("voting");
    let (dialled, ()) = tokio::join!(connect(&client, near, &name), server);
    assert_eq!(dialled.unwrap_err().reason(), HandshakeFailure::Refused);
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_a_protocol_failure() {
    let root = Authority::new("conduit");
    let client = loaded(&root.good("web"), "web", NOW);
    let (near, mut far) = duplex(64 * 1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let failure = connect(&client, near, &identity("voting")).await.unwrap_err();
    assert_eq!(failure.reason(), HandshakeFailure::Protocol);
}

#[tokio::test]
async fn a_peer_that_hangs_up_is_a_reset() {
    let root = Authority::new("conduit");
    let client = loaded(&root.good("web"), "web", NOW);
    let (near, far) = duplex(64 * 1024);
    drop(far);
    let failure = connect(&client, near, &identity("voting")).await.unwrap_err();
    assert_eq!(failure.reason(), HandshakeFailure::Reset);
}

#[tokio::test]
async fn a_clock_that_moves_on_fails_the_next_handshake() {
    let root = Authority::new("conduit");
    let (web, web_clock) = crate::support::store("web");
    let (voting, _) = crate::support::store("voting");
    web.load(&root.good("web")).unwrap();
    voting.load(&root.good("voting")).unwrap();
    let (client, server) = (web.current().unwrap(), voting.current().unwrap());
    assert!(shake(&client, &server, &identity("voting")).await.0.is_ok());
    web_clock.advance(27 * HOUR);
    let failure = shake(&client, &server, &identity("voting")).await.0.unwrap_err();
    assert_eq!(failure.reason(), HandshakeFailure::Expired);
}

/// Presents `chain` and signs with a key that is not the chain's.
#[tokio::test]
async fn a_client_that_does_not_hold_its_certificates_key_is_refused() {
    let root = Authority::new("conduit");
    let stolen = CertificateDer::pem_slice_iter(&root.good("web").chain).map(Result::unwrap).collect();
    let provider = Crypto::shipped().provider;
    let own = root.good("emoji");
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(&own.key).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let forged = rustls::sign::CertifiedKey::new(stolen, key);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&root.root()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_details(provider, Arc::new(Fixed))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(forged)));
    let server = loaded(&root.good("voting"), "voting", NOW);
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from(identity("voting").to_string()).unwrap();
    let (_, served) =
        tokio::join!(TlsConnector::from(Arc::new(config)).connect(name, near), accept(&server, far));
    assert!(served.is_err());
}

#[tokio::test]
async fn what_is_no_client_hello_fails_without_a_panic() {
    let root = Authority::new("conduit");
    let server = loaded(&root.good("voting"), "voting", NOW);
    for (sent, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], HandshakeFailure::Protocol),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", HandshakeFailure::Protocol),
        (b"\x16\x03\x01", HandshakeFailure::Reset),
        (b"", HandshakeFailure::Reset),
    ] {
        let (mut near, far) = duplex(64 * 1024);
        near.write_all(sent).await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(accept(&server, far).await.unwrap_err().reason(), expected, "{sent:?}");
    }
}
