//! Conversations over real TLS, recorded for tests: what the proxies would put on the wire, chunk by chunk.

use std::{sync::Arc, time::Duration};

use conduit_identity::{
    ControlPlane, Credentials, Crypto, Identity, Loaded, ManualClock, Pem, UnixTime, Workload, WorkloadKind,
    accept, connect,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

/// In the certificates' time.
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// Who sent a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Server,
}

/// The chunks of a connection, in the order in which they crossed.
pub(crate) type Recording = Vec<(Sender, Vec<u8>)>;

/// What one end says inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing: it closes after the handshake.
    Nothing,
    /// These words.
    Words(&'static [u8]),
}

/// The name that [`conversation`]'s server proves.
pub(crate) fn identity() -> Identity {
    let workload =
        Workload { namespace: "shop".to_owned(), kind: WorkloadKind::Deployment, name: "web".to_owned() };
    Identity::of(&workload, &ControlPlane::default())
}

/// A mesh handshake to `asked`, what `client` and then `server` say, and an orderly end.
pub(crate) fn conversation(crypto: &Crypto, asked: &Identity, client: Said, server: Said) -> Recording {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (client_io, near) = duplex(1 << 16);
        let (far, server_io) = duplex(1 << 16);
        let loaded = loaded(crypto);
        let talk_client = async {
            let Ok((mut tls, _)) = connect(&loaded, client_io, asked).await else { return };
            say(&mut tls, client).await;
            if server != Said::Nothing {
                listen(&mut tls).await;
            }
            tls.shutdown().await.unwrap();
            listen(&mut tls).await;
        };
        let talk_server = async {
            let Ok((mut tls, _)) = accept(&loaded, server_io).await else { return };
            if client != Said::Nothing {
                listen(&mut tls).await;
            }
            say(&mut tls, server).await;
            listen(&mut tls).await;
            // The client may be gone: it has said all it had to say.
            let _ = tls.shutdown().await;
        };
        let (recording, (), ()) = tokio::join!(relay(near, far), talk_client, talk_server);
        recording
    })
}

async fn say(io: &mut (impl AsyncWrite + Unpin), said: Said) {
    if let Said::Words(words) = said {
        io.write_all(words).await.unwrap();
        io.flush().await.unwrap();
    }
}

async fn listen(io: &mut (impl AsyncRead + Unpin)) {
    let _ = io.read(&mut [0; 4096]).await;
}

/// Passes bytes on and keeps them.
async fn relay(mut near: DuplexStream, mut far: DuplexStream) -> Recording {
    let mut recording = Recording::new();
    let (mut from_client, mut from_server) = ([0; 1 << 14], [0; 1 << 14]);
    let (mut client_open, mut server_open) = (true, true);
    while client_open || server_open {
        tokio::select! {
            biased;
            Ok(count) = near.read(&mut from_client), if client_open => {
                client_open = count > 0;
                recording.push((Sender::Client, from_client[..count].to_vec()));
                let _ = if client_open { far.write_all(&from_client[..count]).await } else { far.shutdown().await };
            }
            Ok(count) = far.read(&mut from_server), if server_open => {
                server_open = count > 0;
                recording.push((Sender::Server, from_server[..count].to_vec()));
                let _ = if server_open { near.write_all(&from_server[..count]).await } else { near.shutdown().await };
            }
            else => break,
        }
    }
    recording.retain(|(_, chunk)| !chunk.is_empty());
    recording
}

fn loaded(crypto: &Crypto) -> Loaded {
    let credentials = Credentials::load(&pem(), &identity(), NOW, crypto).unwrap();
    Loaded::new(credentials, crypto, Arc::new(ManualClock::at(NOW))).unwrap()
}

/// A root, an issuer and a leaf, always the same octets.
fn pem() -> Pem {
    let (root_key, issuer_key, leaf_key) = (key(1), key(2), key(3));
    let root = params(1, true);
    let anchors = root.self_signed(&root_key).unwrap().pem();
    let issuer = params(2, true);
    let issuer_pem = issuer.signed_by(&issuer_key, &Issuer::new(root, root_key)).unwrap().pem();
    let mut leaf = params(3, false);
    leaf.subject_alt_names = vec![SanType::DnsName(identity().as_str().try_into().unwrap())];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(issuer, issuer_key)).unwrap().pem();
    Pem {
        chain: format!("{leaf}{issuer_pem}").into_bytes(),
        key: leaf_key.serialize_pem().into_bytes(),
        anchors: anchors.into_bytes(),
    }
}

fn params(serial: u64, is_authority: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name = DistinguishedName::new();
    if is_authority {
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {serial}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    }
    params
}

/// PKCS#8 around an Ed25519 seed (RFC 8410 section 7).
fn key(seed: u8) -> KeyPair {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend([seed; 32]);
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519).unwrap()
}

/// For histories: a moment in milliseconds.
pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
