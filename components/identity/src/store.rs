//! What this process presents and trusts right now, replaced as a whole when the files change.
//!
//! The store always has an answer: credentials, or the reason why there are none. It never forgets working credentials
//! because new ones do not load, and it judges what it holds against the clock at each question, so that a certificate
//! that expires (or a clock that is set) needs no timer to be noticed.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{Clock, Credentials, Crypto, Identity, LoadError, Loaded, Pem};

/// Our own side of TLS. Cheap to clone; clones share what they hold.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// None when TLS is disabled.
    own: Option<Own>,
    held: ArcSwap<Held>,
    version: watch::Sender<Version>,
    /// One load at a time: the last to start is the last to be stored.
    loading: Mutex<()>,
}

struct Own {
    identity: Identity,
    crypto: Crypto,
    clock: Arc<dyn Clock>,
}

enum Held {
    Nothing(Unusable),
    Credentials(Arc<Loaded>),
}

/// Counts the changes of a store's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(pub u64);

/// Why we cannot do TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unusable {
    /// It is off for this pod.
    Disabled,
    /// The files are not there.
    NoConfig,
    /// The files are unreadable, do not belong together, or are for a wrong root or name.
    BadCredentials,
    /// The certificate is past.
    Expired,
    /// The certificate is not yet valid.
    ClockSkew,
}

impl Unusable {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 5] =
        [Self::Disabled, Self::NoConfig, Self::BadCredentials, Self::Expired, Self::ClockSkew];

    /// The value of the `tls` label in metrics, tap, stat and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::NoConfig => "no_config",
            Self::BadCredentials => "bad_credentials",
            Self::Expired => "expired",
            Self::ClockSkew => "clock_skew",
        }
    }
}

impl Store {
    /// The store of a process that was told not to use TLS: it never holds anything.
    pub fn disabled() -> Self {
        Self::with(None, Unusable::Disabled)
    }

    /// The store of a process that is `identity`; it holds nothing yet.
    pub fn new(identity: Identity, crypto: Crypto, clock: Arc<dyn Clock>) -> Self {
        Self::with(Some(Own { identity, crypto, clock }), Unusable::NoConfig)
    }

    fn with(own: Option<Own>, reason: Unusable) -> Self {
        let held = ArcSwap::from_pointee(Held::Nothing(reason));
        Self(Arc::new(Inner { own, held, version: watch::Sender::default(), loading: Mutex::default() }))
    }

    /// Who this process is: known before it has certificates, none when TLS is disabled.
    pub fn identity(&self) -> Option<&Identity> {
        self.0.own.as_ref().map(|own| &own.identity)
    }

    /// What to do TLS with at this moment. Cheap enough to ask for each connection, and to be asked each time: an answer
    /// that is kept grows stale.
    ///
    /// # Errors
    /// Why there is nothing: go on in plaintext, and say so.
    pub fn current(&self) -> Result<Arc<Loaded>, Unusable> {
        let own = self.0.own.as_ref().ok_or(Unusable::Disabled)?;
        match &**self.0.held.load() {
            Held::Nothing(reason) => Err(*reason),
            Held::Credentials(loaded) => {
                let now = own.clock.now();
                if now > loaded.credentials.not_after() {
                    Err(Unusable::Expired)
                } else if now < loaded.credentials.not_before() {
                    Err(Unusable::ClockSkew)
                } else {
                    Ok(loaded.clone())
                }
            }
        }
    }

    /// What is held, whether it is valid at this moment or not: for showing it.
    pub fn held(&self) -> Option<Credentials> {
        match &**self.0.held.load() {
            Held::Nothing(_) => None,
            Held::Credentials(loaded) => Some(loaded.credentials.clone()),
        }
    }

    /// Takes new credentials over. Connections that stand keep the old ones.
    ///
    /// # Errors
    /// What is wrong with them. What was held stays held; a store that held nothing remembers the reason.
    pub fn load(&self, pem: &Pem) -> Result<(), LoadError> {
        let own = self.0.own.as_ref().ok_or(LoadError::Disabled)?;
        let _one_at_a_time = self.0.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = Credentials::load(pem, &own.identity, own.clock.now(), &own.crypto)
            .and_then(|credentials| Loaded::new(credentials, &own.crypto, own.clock.clone()));
        match loaded {
            Ok(loaded) => {
                self.0.held.store(Arc::new(Held::Credentials(Arc::new(loaded))));
                self.0.version.send_modify(|version| version.0 += 1);
                Ok(())
            }
            Err(error) => {
                self.remember(error.unusable());
                Err(error)
            }
        }
    }

    /// Tells of each change of the credentials held. Whoever only wants to use them asks [`Store::current`].
    pub fn subscribe(&self) -> watch::Receiver<Version> {
        self.0.version.subscribe()
    }

    /// Remembers why there is nothing, unless there is something.
    pub(crate) fn remember(&self, reason: Unusable) {
        if self.0.own.is_some() && self.held().is_none() {
            self.0.held.store(Arc::new(Held::Nothing(reason)));
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Store");
        shown.field("identity", &self.identity());
        match self.current() {
            Ok(loaded) => shown.field("credentials", &loaded.credentials),
            Err(reason) => shown.field("unusable", &reason),
        };
        shown.finish()
    }
}
