//! Faults on order: what the API does wrong, to whom, how often, and proof that it did.
//!
//! A rule concerns requests of some verb, kind, namespace or name, and fires for the next so many of them or until it
//! is taken back. Rules apply in the order they were made: delays add up, and the first that decides a request's fate
//! is the last that fires for it. [`Faults::down`] and [`Faults::black_hole`] concern everybody.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    call::{Call, Verb},
    failure::Failure,
};

/// The faults of one cluster. Clones are handles on the same script.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    script: Mutex<Script>,
    mode: watch::Sender<Mode>,
}

#[derive(Debug, Default)]
struct Script {
    next_id: u64,
    rules: BTreeMap<u64, Rule>,
    watches: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Rule {
    target: Target,
    effect: Effect,
    left: Option<u64>,
    fired: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Open {
    call: Call,
    /// No fault concerns it.
    is_spared: bool,
    cut: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Up,
    Down,
    Silent,
}

impl Open {
    fn is_met_by(&self, target: &Target) -> bool {
        !self.is_spared && target.matches(&self.call)
    }
}

/// Which requests a fault concerns; what is not said does not matter.
#[derive(Debug, Clone, Default)]
pub struct Target {
    verb: Option<Verb>,
    resource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Target {
    /// Every request about objects.
    pub fn any() -> Self {
        Self::default()
    }

    /// Only requests of this verb.
    pub fn verb(mut self, verb: Verb) -> Self {
        self.verb = Some(verb);
        self
    }

    /// Only requests about this kind, by its plural: `secrets`.
    pub fn resource(mut self, plural: &str) -> Self {
        self.resource = Some(plural.to_owned());
        self
    }

    /// Only requests in this namespace.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Only requests about the object of this name.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    fn matches(&self, call: &Call) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        self.verb.is_none_or(|verb| verb == call.verb)
            && same(&self.resource, call.resource.plural)
            && same(&self.namespace, &call.namespace)
            && same(&self.name, &call.name)
    }
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It is answered with this HTTP status and changes nothing: 409, 410, 429, 500, 503.
    Fail {
        /// The HTTP status.
        code: u16,
        /// What the answer says about coming back.
        retry_after_seconds: Option<u64>,
    },
    /// It is served after this long.
    Delay(Duration),
    /// It is never answered and changes nothing.
    Hang,
    /// The connection breaks before it is served.
    Reset,
    /// It is served, but the connection breaks before the answer arrives.
    LoseReply,
    /// A list shows the state this many changes of the kind ago, as far as the history reaches.
    StaleList {
        /// How many changes are missing.
        events: usize,
    },
}

impl Effect {
    /// An error without advice about coming back.
    pub fn fail(code: u16) -> Self {
        Self::Fail { code, retry_after_seconds: None }
    }
}

/// A fault that was ordered.
#[derive(Debug)]
pub struct Injected {
    id: u64,
    fired: Arc<AtomicU64>,
    faults: Faults,
}

impl Injected {
    /// How many requests it has hit.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }

    /// Takes it back. What it has done stays counted.
    pub fn remove(&self) {
        self.faults.0.script.lock().rules.remove(&self.id);
    }
}

/// What the script says about one request.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) delay: Duration,
    pub(crate) stale_events: usize,
    pub(crate) fate: Fate,
}

#[derive(Debug, Default)]
pub(crate) enum Fate {
    #[default]
    Serve,
    Fail(Failure),
    Hang,
    Reset,
    LoseReply,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { script: Mutex::default(), mode: watch::Sender::new(Mode::Up) }))
    }

    /// Orders `effect` for the next `times` requests that `target` describes.
    pub fn inject(&self, target: Target, effect: Effect, times: u64) -> Injected {
        self.add(target, effect, Some(times))
    }

    /// Orders `effect` for every request that `target` describes, until [`Injected::remove`].
    pub fn inject_always(&self, target: Target, effect: Effect) -> Injected {
        self.add(target, effect, None)
    }

    /// Breaks every open watch that `target` describes, as a proxy in between would, and says how many those were.
    pub fn cut_watches(&self, target: &Target) -> usize {
        let script = self.0.script.lock();
        let open = script.watches.values().filter(|open| open.is_met_by(target) && !open.cut.is_cancelled());
        open.map(|open| open.cut.cancel()).count()
    }

    /// How many watches that `target` describes are open.
    pub fn open_watches(&self, target: &Target) -> usize {
        self.0.script.lock().watches.values().filter(|open| open.is_met_by(target)).count()
    }

    /// Takes the API down: watches break, requests fail to connect, until [`Faults::up`].
    pub fn down(&self) {
        self.0.mode.send_replace(Mode::Down);
        self.cut_watches(&Target::any());
    }

    /// Makes the API swallow everything without an answer, watches' events included, until [`Faults::up`]; then it goes
    /// on where it was.
    pub fn black_hole(&self) {
        self.0.mode.send_replace(Mode::Silent);
    }

    /// Ends [`Faults::down`] and [`Faults::black_hole`].
    pub fn up(&self) {
        self.0.mode.send_replace(Mode::Up);
    }

    /// Whether nobody can connect.
    pub fn is_down(&self) -> bool {
        *self.0.mode.borrow() == Mode::Down
    }

    fn add(&self, target: Target, effect: Effect, left: Option<u64>) -> Injected {
        let fired = Arc::new(AtomicU64::new(0));
        let mut script = self.0.script.lock();
        let id = script.next_id;
        script.next_id += 1;
        script.rules.insert(id, Rule { target, effect, left, fired: fired.clone() });
        Injected { id, fired, faults: self.clone() }
    }

    /// Waits while the API swallows everything.
    pub(crate) async fn deliverable(&self) {
        // The sender lives in self, so waiting cannot fail.
        drop(self.0.mode.subscribe().wait_for(|mode| *mode != Mode::Silent).await);
    }

    /// Waits until the API is taken down.
    pub(crate) async fn taken_down(&self) {
        drop(self.0.mode.subscribe().wait_for(|mode| *mode == Mode::Down).await);
    }

    pub(crate) fn judge(&self, call: &Call) -> Verdict {
        let mut verdict = Verdict::default();
        let mut script = self.0.script.lock();
        for rule in script.rules.values_mut().filter(|rule| rule.target.matches(call)) {
            let stale = matches!(rule.effect, Effect::StaleList { .. });
            if rule.left == Some(0) || stale && call.verb != Verb::List {
                continue;
            }
            rule.left = rule.left.map(|left| left - 1);
            rule.fired.fetch_add(1, Ordering::SeqCst);
            match &rule.effect {
                Effect::Delay(delay) => verdict.delay += *delay,
                Effect::StaleList { events } => verdict.stale_events += events,
                Effect::Fail { code, retry_after_seconds } => {
                    verdict.fate = Fate::Fail(Failure::scripted(*code, *retry_after_seconds));
                }
                Effect::Hang => verdict.fate = Fate::Hang,
                Effect::Reset => verdict.fate = Fate::Reset,
                Effect::LoseReply => verdict.fate = Fate::LoseReply,
            }
            if !matches!(verdict.fate, Fate::Serve) {
                break;
            }
        }
        script.rules.retain(|_, rule| rule.left != Some(0));
        verdict
    }

    /// Counts a watch among the open ones as long as the result lives; none when there are `limit` already.
    pub(crate) fn open_watch(&self, call: &Call, limit: usize, is_spared: bool) -> Option<LiveWatch> {
        let mut script = self.0.script.lock();
        if script.watches.len() >= limit {
            return None;
        }
        let id = script.next_id;
        script.next_id += 1;
        let cut = CancellationToken::new();
        script.watches.insert(id, Open { call: call.clone(), is_spared, cut: cut.clone() });
        Some(LiveWatch { id, is_spared, cut, faults: self.clone() })
    }
}

/// An open watch, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct LiveWatch {
    id: u64,
    is_spared: bool,
    cut: CancellationToken,
    faults: Faults,
}

impl LiveWatch {
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Waits while the API swallows everything, this watch's events among it.
    pub(crate) fn deliverable(&self) -> impl Future<Output = ()> + Send + 'static {
        let (faults, is_spared) = (self.faults.clone(), self.is_spared);
        async move {
            if !is_spared {
                faults.deliverable().await;
            }
        }
    }
}

impl Drop for LiveWatch {
    fn drop(&mut self) {
        self.faults.0.script.lock().watches.remove(&self.id);
    }
}
