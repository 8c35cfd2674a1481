//! A cluster of values: what reconcile plans is carried out at once, and time is set by hand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conduit_ca::{
    Lifetimes,
    authority::Authority,
    bundle,
    inspect::Inspector,
    objects,
    reconcile::{Observed, Plan, Report, Write, reconcile},
    rotation::Step,
    state::State,
};
use conduit_identity::{
    ControlPlane, Credentials, Crypto, Identity, ManualClock, Pem, UnixTime, Workload, WorkloadKind,
};
use conduit_k8s::{
    cache::{Cache, Snapshot},
    owned::{BUNDLE_CONFIGMAP, BUNDLE_KEY, SECRET_CERT_KEY, SECRET_PRIVATE_KEY},
    owner::OwnerSnapshots,
    watch::ObjectKey,
};
use conduit_runtime::Seed;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        batch::v1::Job,
        core::v1::{ConfigMap, Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use tokio::time::Instant;

use crate::objects::{controlled_by, pod, replica_set};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

pub(crate) struct World {
    pub(crate) pods: Vec<Pod>,
    pub(crate) components: Vec<Pod>,
    pub(crate) replica_sets: Vec<ReplicaSet>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) secrets: BTreeMap<ObjectKey, Arc<Secret>>,
    pub(crate) bundles: BTreeMap<ObjectKey, Arc<ConfigMap>>,
    pub(crate) foreign: BTreeMap<ObjectKey, Instant>,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) clock: ManualClock,
    pub(crate) control_plane: ControlPlane,
    authority: Authority,
    inspector: Inspector,
    remembered: Option<State>,
    version: u64,
}

/// Fast, and the same each time.
pub(crate) fn crypto() -> Crypto {
    Crypto::custom(Crypto::shipped().provider, conduit_identity::KeyAlgorithm::Ed25519)
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Lifetimes::default())
    }

    pub(crate) fn with(lifetimes: Lifetimes) -> Self {
        Self {
            pods: Vec::new(),
            components: Vec::new(),
            replica_sets: Vec::new(),
            jobs: Vec::new(),
            secrets: BTreeMap::new(),
            bundles: BTreeMap::new(),
            foreign: BTreeMap::new(),
            authority: Authority::new("conduit", &crypto(), lifetimes.clone(), &Seed::fixed(1)),
            lifetimes,
            clock: ManualClock::at(NOW),
            control_plane: ControlPlane::default(),
            inspector: Inspector::new(crypto()),
            remembered: None,
            version: 0,
        }
    }

    /// A world in which the Deployments `names` of namespace `shop` run, and everything is settled.
    pub(crate) fn settled(names: &[&str]) -> Self {
        let mut world = Self::new();
        world.deploy(names);
        world.settle();
        world
    }

    pub(crate) fn deploy(&mut self, names: &[&str]) {
        for name in names {
            let set = format!("{name}-1");
            self.replica_sets.push(replica_set(
                "shop",
                &set,
                Some(controlled_by(WorkloadKind::Deployment, name)),
            ));
            let owner = controlled_by(WorkloadKind::ReplicaSet, &set);
            self.pods.push(pod("shop", &format!("{set}-a"), Some(owner)));
        }
    }

    /// Another process takes over: it knows what is stored, and nothing else.
    pub(crate) fn restart(&mut self) {
        self.inspector = Inspector::new(crypto());
        self.remembered = None;
        self.authority = Authority::new("conduit", &crypto(), self.lifetimes.clone(), &Seed::fixed(2));
    }

    pub(crate) fn now(&self) -> UnixTime {
        conduit_identity::Clock::now(&self.clock)
    }

    pub(crate) fn plan(&mut self) -> Plan {
        let stored = self.state();
        if stored.is_some() {
            self.remembered.clone_from(&stored);
        }
        let owners = OwnerSnapshots {
            replica_sets: Cache::fixed(self.replica_sets.clone()).snapshot(),
            jobs: Cache::fixed(self.jobs.clone()).snapshot(),
        };
        let observed = Observed {
            pods: &Cache::fixed(self.pods.clone()).snapshot(),
            components: &Cache::fixed(self.components.clone()).snapshot(),
            owners: &owners,
            secrets: &Snapshot::new(self.secrets.clone()),
            bundles: &Snapshot::new(self.bundles.clone()),
            foreign: &self.foreign,
            state: stored.as_ref(),
            remembers: self.remembered.is_some(),
        };
        let now = conduit_identity::Clock::now(&self.clock);
        reconcile(&observed, &mut self.inspector, now, &self.control_plane, &self.lifetimes)
    }

    pub(crate) fn reports(&mut self) -> Vec<Report> {
        self.plan().reports.into_iter().collect()
    }

    /// Reconciles until there is nothing to write, and tells what was written.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..10 {
            let plan = self.plan();
            if plan.writes.is_empty() {
                return told;
            }
            let alone = matches!(plan.writes.first(), Some(Write::Root(_)));
            for write in plan.writes.into_iter().take(if alone { 1 } else { usize::MAX }) {
                told.push(tell(&write));
                self.carry_out(&write);
            }
        }
        panic!("it does not settle: {told:#?}");
    }

    fn carry_out(&mut self, write: &Write) {
        let now = self.now();
        match write {
            Write::Root(step) => {
                let key = objects::root_key(&self.control_plane);
                let state = self.state().or_else(|| self.remembered.clone());
                let next = self.authority.step(step, state.as_ref(), now).unwrap();
                let before = self.secrets.get(&key).map(AsRef::as_ref);
                let secret = objects::root(&next, &self.control_plane, before);
                self.put_secret(key, secret);
            }
            Write::Bundle { key, pem } => {
                let map =
                    objects::bundle(key, pem, &self.control_plane, self.bundles.get(key).map(AsRef::as_ref));
                self.put_bundle(key.clone(), map);
            }
            Write::Leaf { key, wanted, .. } => {
                let state = self.state().unwrap();
                let signer = self.authority.signer(&state).unwrap().unwrap();
                let uri = wanted.workload.spiffe(&self.control_plane);
                let leaf = self.authority.leaf(&signer, wanted.identity.as_str(), &uri, now).unwrap();
                let before = self.secrets.get(key).map(AsRef::as_ref);
                let secret =
                    objects::leaf(key, &leaf, &bundle::of(&state), wanted, &self.control_plane, before);
                self.put_secret(key.clone(), secret);
            }
        }
    }

    pub(crate) fn put_secret(&mut self, key: ObjectKey, mut secret: Secret) {
        self.stamp(&mut secret.metadata);
        self.secrets.insert(key, Arc::new(secret));
    }

    pub(crate) fn put_bundle(&mut self, key: ObjectKey, mut map: ConfigMap) {
        self.stamp(&mut map.metadata);
        self.bundles.insert(key, Arc::new(map));
    }

    fn stamp(&mut self, meta: &mut ObjectMeta) {
        self.version += 1;
        meta.resource_version = Some(self.version.to_string());
    }

    pub(crate) fn state(&self) -> Option<State> {
        let secret = self.secrets.get(&objects::root_key(&self.control_plane))?;
        Some(objects::read_root(secret).unwrap())
    }

    pub(crate) fn bundle(&self, namespace: &str) -> String {
        let map = &self.bundles[&ObjectKey::new(namespace, BUNDLE_CONFIGMAP)];
        map.data.as_ref().unwrap()[BUNDLE_KEY].clone()
    }

    pub(crate) fn secret(&self, owner: &str) -> &Secret {
        &self.secrets[&secret_key(owner)]
    }

    /// What a proxy of the Deployment `owner` makes of what is mounted.
    pub(crate) fn credentials(&self, owner: &str) -> Result<Credentials, conduit_identity::LoadError> {
        let secret = self.secret(owner).data.as_ref().unwrap();
        let field = |name: &str| secret[name].0.clone();
        let pem = Pem {
            chain: field(SECRET_CERT_KEY),
            key: field(SECRET_PRIVATE_KEY),
            anchors: self.bundle("shop").into_bytes(),
        };
        let identity = Identity::of(&deployment(owner), &self.control_plane);
        Credentials::load(&pem, &identity, self.now(), &crypto())
    }
}

pub(crate) fn deployment(name: &str) -> Workload {
    Workload { namespace: "shop".into(), kind: WorkloadKind::Deployment, name: name.into() }
}

pub(crate) fn secret_key(owner: &str) -> ObjectKey {
    ObjectKey::new("shop", deployment(owner).secret_name())
}

pub(crate) fn tell(write: &Write) -> String {
    match write {
        Write::Root(Step::Create { adopted }) => format!("root: create, adopting {}", adopted.len()),
        Write::Root(Step::Restore) => "root: restore".into(),
        Write::Root(Step::Publish) => "root: published".into(),
        Write::Root(Step::Issue { .. }) => "root: new issuer".into(),
        Write::Root(Step::Rotate) => "root: new root".into(),
        Write::Root(Step::Forget { .. }) => "root: forget one".into(),
        Write::Bundle { key, pem } => format!("bundle: {key}, {} roots", pem.matches("BEGIN").count()),
        Write::Leaf { key, reason, .. } => format!("leaf: {key}, {}", reason.label()),
    }
}
