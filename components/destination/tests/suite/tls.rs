//! TLS and plaintext on one port.

use std::{path::Path, sync::Arc, time::Duration};

use conduit_identity::{
    ControlPlane, Credentials, Crypto, HandshakeFailure, Identity, Loaded, ManualClock, Pem, UnixTime,
};
use conduit_proto::destination::{destination_client::DestinationClient, get_request::Target};
use conduit_runtime::grpc;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use time::OffsetDateTime;
use tokio::{io::AsyncReadExt, time::timeout};

use crate::world::{Destination, NOW, SOON, Watching, World, files};

const HOUR: Duration = Duration::from_secs(3600);

fn identity(component: &str) -> Identity {
    let control_plane = ControlPlane::default();
    Identity::of(&control_plane.component(component), &control_plane)
}

/// A root that issues from itself.
struct Authority {
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date(NOW - HOUR), date(NOW + 100 * HOUR));
        let root = params.self_signed(&key).unwrap().pem();
        Self { root, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, identity: &Identity, ends: UnixTime) -> Pem {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date(NOW - HOUR), date(ends));
        params.subject_alt_names = vec![SanType::DnsName(identity.as_str().try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Pem {
            chain: params.signed_by(&key, &self.issuer).unwrap().pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            anchors: self.root.clone().into_bytes(),
        }
    }

    /// A proxy's credentials.
    fn proxy(&self) -> Loaded {
        let (name, crypto) = (identity("proxy"), Crypto::shipped());
        let credentials = Credentials::load(&self.issue(&name, NOW + HOUR), &name, NOW, &crypto).unwrap();
        Loaded::new(credentials, &crypto, Arc::new(ManualClock::at(NOW))).unwrap()
    }
}

fn date(at: UnixTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.as_secs()).unwrap()).unwrap()
}

fn mount(directory: &Path, pem: &Pem) {
    let files = files(directory);
    std::fs::write(&files.anchors, &pem.anchors).unwrap();
    std::fs::write(&files.key, &pem.key).unwrap();
    std::fs::write(&files.cert, &pem.chain).unwrap();
}

async fn secured(destination: &Destination, proxy: &Loaded) -> Result<Watching, HandshakeFailure> {
    let io = destination.connect().await;
    let server = identity("destination");
    let handshake = conduit_identity::connect(proxy, io, &server);
    let (stream, _) = timeout(SOON, handshake).await.expect("no silence").map_err(|error| error.reason())?;
    let stream = Mutex::new(Some(stream));
    let connect: grpc::Connect = Arc::new(move || {
        let stream = stream.lock().take();
        Box::pin(async move {
            let stream = stream.ok_or(std::io::ErrorKind::NotConnected)?;
            Ok(Box::new(stream) as Box<dyn grpc::Transport>)
        })
    });
    let client = DestinationClient::new(grpc::Channel::new("destination", connect).unwrap());
    Ok(Watching::open(client, Target::Authority("nobody".into())).await.unwrap())
}

#[tokio::test]
async fn tls_is_refused_at_once_until_there_are_credentials_and_plaintext_never_is() {
    let (world, authority, mount_point) =
        (World::new().await, Authority::new(), tempfile::tempdir().unwrap());
    let configure = |config: &mut conduit_destination::Config| config.files = Some(files(mount_point.path()));
    let destination = world.destination_with(configure, ManualClock::at(NOW)).await;
    let proxy = authority.proxy();

    assert_eq!(secured(&destination, &proxy).await.err(), Some(HandshakeFailure::Refused));
    destination.authority("nobody").await.until(&["unknown"]).await;
    assert!(destination.admin("/ready").await.contains("tls: no_config"));

    mount(mount_point.path(), &authority.issue(&identity("destination"), NOW + HOUR));
    let mut watching = timeout(SOON, async {
        loop {
            if let Ok(watching) = secured(&destination, &proxy).await {
                return watching;
            }
        }
    })
    .await
    .unwrap();
    watching.until(&["unknown"]).await;
    destination.authority("nobody").await.until(&["unknown"]).await;
    let metrics = destination.admin("/metrics").await;
    for line in [
        "connections_total{tls=\"true\"} 1\n",
        "connections_total{tls=\"no_proxy_tls\"} 2\n",
        "tls_reloads_total{status=\"reloaded\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    let ready = destination.admin("/ready").await;
    assert!(ready.contains("tls: destination.deployment.conduit."), "{ready}");
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_it_stands_on() {
    let (world, authority, mount_point) =
        (World::new().await, Authority::new(), tempfile::tempdir().unwrap());
    mount(mount_point.path(), &authority.issue(&identity("destination"), NOW + Duration::from_secs(1)));
    let clock = ManualClock::at(NOW);
    let configure = |config: &mut conduit_destination::Config| config.files = Some(files(mount_point.path()));
    let destination = world.destination_with(configure, clock.clone()).await;
    let mut watching = secured(&destination, &authority.proxy()).await.unwrap();
    watching.until(&["unknown"]).await;
    clock.advance(Duration::from_secs(2));
    assert!(!watching.more().await, "the stream ends");
    assert_eq!(secured(&destination, &authority.proxy()).await.err(), Some(HandshakeFailure::Refused));
    destination.authority("nobody").await.until(&["unknown"]).await;
}

#[tokio::test]
async fn who_is_silent_or_talks_nonsense_delays_nobody() {
    let world = World::new().await;
    let destination = world.destination().await;
    let mut silent = destination.connect().await;
    let mut odd = destination.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut odd, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    destination.authority("nobody").await.until(&["unknown"]).await;
    let mut answer = Vec::new();
    timeout(SOON, odd.read_to_end(&mut answer)).await.expect("it is hung up on").ok();
    timeout(SOON, silent.read_to_end(&mut answer)).await.expect("it is hung up on").ok();
}
