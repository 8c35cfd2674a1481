//! Writes down what pods there are and what lies in their files, as somebody would who looks into each of them all the
//! time. Knows nothing of what proxies make of it.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use conduit_identity::{ControlPlane, Identity, UnixTime, Workload, WorkloadKind};
use conduit_k8s::owned;
use conduit_mesh::{PodEvent, PodObserver, Sidecar as Injected};
use parking_lot::Mutex;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{
    crypto,
    history::{Held, PodLife, Sidecar, Trusted},
    time::elapsed,
};

/// How often files are looked at.
const PERIOD: Duration = Duration::from_millis(20);
/// The link that a kubelet swaps, and to a new name each time, when a volume changes.
const VERSION_LINK: &str = "..data";

/// The lives of all pods. Cloning shares.
#[derive(Clone)]
pub struct Recorder(Arc<Mutex<State>>);

struct State {
    control_plane: ControlPlane,
    provider: Arc<CryptoProvider>,
    pods: Vec<Entry>,
    /// Every root that lay in some pod's files, by its fingerprint.
    roots: BTreeMap<String, CertificateDer<'static>>,
}

struct Entry {
    life: PodLife,
    directory: PathBuf,
    /// When its proxy went down, unless it is up.
    down: Option<Duration>,
    /// Which version of the volume was looked at last, and what its files held.
    version: Option<PathBuf>,
    files: Files,
    /// The chain of each of the life's credentials.
    chains: Vec<Vec<CertificateDer<'static>>>,
}

#[derive(Default, PartialEq, Eq, Clone)]
struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
    anchors: Vec<u8>,
}

impl Recorder {
    /// A recorder for a world of `control_plane`.
    pub fn new(control_plane: ControlPlane) -> Self {
        let provider = crypto::deterministic().provider;
        Self(Arc::new(Mutex::new(State {
            control_plane,
            provider,
            pods: Vec::new(),
            roots: BTreeMap::new(),
        })))
    }

    /// What a mesh tells of its pods.
    pub fn observer(&self) -> PodObserver {
        let state = self.0.clone();
        Arc::new(move |event| state.lock().hear(event))
    }

    /// Looks into the files of all pods again and again; never ends.
    pub async fn watch(self) {
        loop {
            self.look();
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn look(&self) {
        let State { provider, pods, roots, .. } = &mut *self.0.lock();
        for entry in pods.iter_mut().filter(|entry| entry.life.until.is_none()) {
            entry.look(provider, roots);
        }
    }

    /// Notes that the clock of a Deployment's pods, `namespace/name`, is wrong by so much from now on.
    pub fn clock(&self, workload: &str, error_ms: i64) {
        let now = elapsed();
        for entry in self.0.lock().pods.iter_mut().filter(|entry| entry.life.workload == workload) {
            entry.life.skew.push((now, error_ms));
        }
    }

    /// Notes how wrong the clock of a Deployment's pods was when they began.
    pub fn clock_from_the_start(&self, workload: &str, error_ms: i64) {
        for entry in self.0.lock().pods.iter_mut().filter(|entry| entry.life.workload == workload) {
            entry.life.skew.insert(0, (Duration::ZERO, error_ms));
        }
    }

    /// Everything so far.
    pub fn lives(&self) -> Vec<PodLife> {
        let now = elapsed();
        let state = self.0.lock();
        let life = |entry: &Entry| {
            let mut life = entry.life.clone();
            life.outages.extend(entry.down.map(|since| (since, now)));
            // Only now is every root known that a chain may lead to.
            for (held, chain) in life.credentials.iter_mut().zip(&entry.chains) {
                held.root = root_of(chain, held.not_before, &state.roots, &state.provider);
            }
            life
        };
        state.pods.iter().map(life).collect()
    }

    /// When the proxies that run now began to: the pods' lives, each with that moment.
    pub fn running(&self) -> Vec<(PodLife, Duration)> {
        let state = self.0.lock();
        let running = state.pods.iter().filter(|entry| {
            entry.life.until.is_none() && entry.down.is_none() && entry.life.sidecar != Sidecar::Absent
        });
        let since = |life: &PodLife| life.outages.last().map_or(life.from, |(_, until)| *until);
        running.map(|entry| (entry.life.clone(), since(&entry.life))).collect()
    }
}

impl State {
    fn hear(&mut self, event: PodEvent) {
        let now = elapsed();
        let (name, change): (_, fn(&mut Entry, Duration)) = match event {
            PodEvent::Began { namespace, name, deployment, sidecar, ip, identity_dir } => {
                let workload = Workload {
                    namespace: namespace.clone(),
                    kind: WorkloadKind::Deployment,
                    name: deployment.clone(),
                };
                let sidecar = match sidecar {
                    Injected::Absent => Sidecar::Absent,
                    Injected::Plaintext => Sidecar::Plaintext,
                    Injected::Tls => Sidecar::Tls,
                };
                let identity = (sidecar == Sidecar::Tls)
                    .then(|| Identity::of(&workload, &self.control_plane).to_string());
                let life = PodLife {
                    ip,
                    name,
                    workload: format!("{namespace}/{deployment}"),
                    sidecar,
                    identity,
                    from: now,
                    until: None,
                    outages: Vec::new(),
                    credentials: Vec::new(),
                    trusted: Vec::new(),
                    skew: Vec::new(),
                };
                let down = (sidecar != Sidecar::Absent).then_some(now);
                let (files, chains) = (Files::default(), Vec::new());
                let mut entry = Entry { life, directory: identity_dir, down, version: None, files, chains };
                entry.look(&self.provider, &mut self.roots);
                self.pods.push(entry);
                return;
            }
            PodEvent::ProxyUp { name } => (name, |entry, now| {
                entry.life.outages.extend(entry.down.take().map(|since| (since, now)));
            }),
            PodEvent::ProxyGone { .. } => return,
            PodEvent::ProxyDown { name } => (name, |entry, now| {
                if entry.life.sidecar != Sidecar::Absent {
                    entry.down.get_or_insert(now);
                }
            }),
            PodEvent::Ended { name, .. } => (name, |entry, now| {
                entry.life.until = Some(now);
                entry.life.outages.extend(entry.down.take().map(|since| (since, now)));
            }),
        };
        if let Some(entry) = self.pods.iter_mut().find(|entry| entry.life.name == name) {
            change(entry, now);
        }
    }
}

impl Entry {
    fn look(&mut self, provider: &CryptoProvider, known: &mut BTreeMap<String, CertificateDer<'static>>) {
        // Without the link there are no files either, so that nothing has changed where there was none before.
        let version = fs::read_link(self.directory.join(VERSION_LINK)).ok();
        if version == self.version {
            return;
        }
        self.version = version;
        let read = |name: &str| fs::read(self.directory.join(name)).unwrap_or_default();
        let files = Files {
            chain: read(owned::SECRET_CERT_KEY),
            key: read(owned::SECRET_PRIVATE_KEY),
            anchors: read(owned::BUNDLE_KEY),
        };
        if files == self.files {
            return;
        }
        let now = elapsed();
        self.trust(certificates(&files.anchors), now, known);
        if (&files.chain, &files.key) != (&self.files.chain, &self.files.key) {
            if let Some(last) = self.life.credentials.last_mut() {
                last.until.get_or_insert(now);
            }
            let chain = certificates(&files.chain);
            if let Some(held) = held(&chain, &files.key, provider, now) {
                self.life.credentials.push(held);
                self.chains.push(chain);
            }
        }
        self.files = files;
    }

    fn trust(
        &mut self,
        anchors: Vec<CertificateDer<'static>>,
        now: Duration,
        known: &mut BTreeMap<String, CertificateDer<'static>>,
    ) {
        let roots: BTreeMap<String, CertificateDer<'static>> =
            anchors.into_iter().map(|root| (fingerprint(&root), root)).collect();
        let trusted = &mut self.life.trusted;
        for left in trusted.iter_mut().filter(|is| is.until.is_none() && !roots.contains_key(&is.root)) {
            left.until = Some(now);
        }
        for (root, der) in roots {
            if !trusted.iter().any(|is| is.root == root && is.until.is_none()) {
                trusted.push(Trusted { root: root.clone(), from: now, until: None });
            }
            known.insert(root, der);
        }
    }
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

fn fingerprint(der: &[u8]) -> String {
    format!("{:02x?}", conduit_identity::Fingerprint::of(der).as_bytes()).replace([' ', ',', '[', ']'], "")
}

/// What a chain says, if it says anything; its root is found out later.
fn held(
    chain: &[CertificateDer<'static>],
    key: &[u8],
    provider: &CryptoProvider,
    now: Duration,
) -> Option<Held> {
    let parsed: Vec<X509Certificate<'_>> =
        chain.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
    let names = parsed.first()?.subject_alternative_name().ok()??;
    let identity = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    })?;
    let seconds = |at: i64| UnixTime::from_secs(u64::try_from(at).unwrap_or_default());
    let begins = parsed.iter().map(|certificate| certificate.validity().not_before.timestamp()).max()?;
    let ends = parsed.iter().map(|certificate| certificate.validity().not_after.timestamp()).min()?;
    let key = PrivateKeyDer::from_pem_slice(key).ok();
    let matches_key = key.is_some_and(|key| CertifiedKey::from_der(chain.to_vec(), key, provider).is_ok());
    Some(Held {
        from: now,
        until: None,
        identity,
        root: String::new(),
        not_before: seconds(begins),
        not_after: seconds(ends),
        matches_key,
    })
}

/// The fingerprint of the root that a chain leads to, or `elsewhere`.
fn root_of(
    chain: &[CertificateDer<'static>],
    not_before: UnixTime,
    roots: &BTreeMap<String, CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> String {
    let at = rustls_pki_types::UnixTime::since_unix_epoch(not_before.0 + Duration::from_secs(1));
    let leads_to = |root: &CertificateDer<'static>| {
        let anchor = anchor_from_trusted_cert(root).ok()?;
        let leaf = EndEntityCert::try_from(chain.first()?).ok()?;
        let algorithms = provider.signature_verification_algorithms.all;
        let usage = KeyUsage::server_auth();
        leaf.verify_for_usage(algorithms, &[anchor], &chain[1..], at, usage, None, None).ok()?;
        Some(())
    };
    let found = roots.iter().find(|(_, root)| leads_to(root).is_some());
    found.map_or_else(|| "elsewhere".to_owned(), |(fingerprint, _)| fingerprint.clone())
}
