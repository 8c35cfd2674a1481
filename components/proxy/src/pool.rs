//! Upstream connections kept for the next request.
//!
//! A connection belongs to the downstream connection it was opened for ([`Lanes`]) and ends with it, as it would without
//! a proxy: what the application at either end believes about its connections stays true. Only when an HTTP/1 client
//! leaves, its upstream connection is offered to others ([`Pool`]), and only for a moment: a server that is about to
//! close an idle connection must not meet a new client's first request, which could not be sent again.
//!
//! Where the client chose its server itself, as that of a headless Service does, it has to hear that the server has gone: it
//! would ask another one then, and could not after it has sent the next request ([`Lanes::has_left`]).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Context,
    time::Duration,
};

use conduit_identity::{Clock, UnixTime};
use futures::task::AtomicWaker;
use indexmap::{Equivalent, IndexMap};
use parking_lot::Mutex;
use tokio::{
    sync::{OnceCell, oneshot},
    time::{Instant, timeout},
};

use crate::{
    connect::Security,
    http::{forward::Http2, http1},
    session::TlsStatus,
    stream::{Control, Stream},
};

/// How long a connection without an owner may be given to another one: to a client that comes as soon as the one before has left.
/// Its server may close it, which costs nothing unless that crosses with a request, and none does it so soon.
const SHARED_FOR: Duration = Duration::from_millis(25);

/// How often those that nobody took are closed.
const SWEPT_EVERY: Duration = Duration::from_secs(1);

/// Connections without an owner, over all endpoints.
const SHARED_MAX: usize = 4_096;

/// A connection stops being HTTP as soon as its task runs.
const FALL_ASLEEP: Duration = Duration::from_secs(1);

/// Idle upstream connections of one downstream connection: as many as it has endpoints to balance over, between these. Fewer
/// would be opened and closed all the time.
const LANES_MIN: usize = 16;
pub(crate) const LANES_MAX: usize = 128;

/// What may share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The endpoint.
    pub(crate) addr: SocketAddr,
    /// Plaintext and TLS never mix, nor do two names at one address.
    pub(crate) security: Security,
    /// What requests name as their host; connections without one are not shared.
    pub(crate) authority: Box<str>,
}

/// A key that is only looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyRef<'a> {
    pub(crate) addr: SocketAddr,
    pub(crate) security: &'a Security,
    pub(crate) authority: &'a str,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.addr == key.addr && self.security == &key.security && self.authority == &*key.authority
    }
}

impl KeyRef<'_> {
    /// A key to keep.
    pub(crate) fn to_key(self) -> Key {
        Key { addr: self.addr, security: self.security.clone(), authority: self.authority.into() }
    }
}

/// An open HTTP/1 connection on which nothing is under way.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) sender: http1::Sender,
    /// Of the connection.
    pub(crate) control: Control,
    /// What is left of the connection when it stops being HTTP.
    pub(crate) stream: oneshot::Receiver<Stream>,
    pub(crate) tls: Arc<TlsStatus>,
    pub(crate) not_after: Option<UnixTime>,
}

/// The same without anything that speaks HTTP on it.
#[derive(Debug)]
pub(crate) struct Asleep {
    pub(crate) stream: Stream,
    pub(crate) tls: Arc<TlsStatus>,
    pub(crate) not_after: Option<UnixTime>,
}

/// A connection for the next request.
#[derive(Debug)]
pub(crate) enum Kept {
    Awake(Idle),
    Asleep(Asleep),
}

/// An open HTTP/2 connection.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) sender: Http2,
    pub(crate) tls: Arc<TlsStatus>,
    pub(crate) not_after: Option<UnixTime>,
}

/// HTTP/1 connections whose downstream connection has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    inner: Arc<Inner>,
}

/// Each with the moment from which nothing was under way on it.
type Waiting = Vec<(Idle, Instant)>;

#[derive(Debug)]
struct Inner {
    idle: Mutex<IndexMap<Key, Waiting, foldhash::fast::FixedState>>,
    per_endpoint: usize,
    clock: Arc<dyn Clock>,
}

impl Pool {
    /// An empty pool that keeps at most `per_endpoint` connections to each.
    pub(crate) fn new(per_endpoint: usize, clock: Arc<dyn Clock>) -> Self {
        Self { inner: Arc::new(Inner { idle: Mutex::default(), per_endpoint, clock }) }
    }

    fn take(&self, key: KeyRef<'_>) -> Option<Idle> {
        let mut idle = self.inner.idle.lock();
        let waiting = idle.get_mut(&key)?;
        let now = Instant::now();
        while let Some((idle, since)) = waiting.pop() {
            if now.duration_since(since) < SHARED_FOR && self.is_usable(&idle) {
                return Some(idle);
            }
        }
        None
    }

    fn offer(&self, key: Key, offered: Idle) {
        if !self.is_usable(&offered) || key.authority.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.inner.idle.lock();
        if idle.len() >= SHARED_MAX {
            return;
        }
        let waiting = idle.entry(key).or_default();
        waiting.retain(|(_, since)| now.duration_since(*since) < SHARED_FOR);
        if waiting.len() < self.inner.per_endpoint {
            waiting.push((offered, now));
        }
    }

    fn is_usable(&self, idle: &Idle) -> bool {
        idle.sender.is_ready() && self.is_current(idle.not_after)
    }

    fn is_current(&self, not_after: Option<UnixTime>) -> bool {
        not_after.is_none_or(|not_after| self.inner.clock.now() < not_after)
    }

    /// Closes what nobody took in time. Never returns.
    pub(crate) async fn sweep(self) {
        let mut ticks = tokio::time::interval(SWEPT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut idle = self.inner.idle.lock();
            if idle.is_empty() {
                continue;
            }
            let now = Instant::now();
            idle.retain(|_, waiting| {
                waiting.retain(|(_, since)| now.duration_since(*since) < SHARED_FOR);
                !waiting.is_empty()
            });
        }
    }
}

/// The upstream connections of one downstream connection.
#[derive(Debug)]
pub(crate) struct Lanes {
    pool: Pool,
    idle_for: Duration,
    /// How many there may be of each kind.
    room: AtomicUsize,
    http1: Mutex<Vec<Lane>>,
    http2: Mutex<Vec<(Key, Arc<OnceCell<Shared>>)>>,
    /// The last request went to the server that the client chose itself.
    is_chosen: AtomicBool,
    /// Since then a server has ended its connection.
    has_left: AtomicBool,
    waits: AtomicWaker,
}

#[derive(Debug)]
struct Lane {
    key: Key,
    kept: Kept,
    since: Instant,
}

impl Lanes {
    /// No connections yet. One that is idle for `idle_for` is not used again.
    pub(crate) fn new(pool: Pool, idle_for: Duration) -> Self {
        let room = AtomicUsize::new(LANES_MIN);
        Self {
            pool,
            idle_for,
            room,
            http1: Mutex::default(),
            http2: Mutex::default(),
            is_chosen: AtomicBool::default(),
            has_left: AtomicBool::default(),
            waits: AtomicWaker::new(),
        }
    }

    /// A server is about to be asked, which the client chose itself or did not.
    pub(crate) fn ask(&self, is_chosen: bool) {
        self.is_chosen.store(is_chosen, SeqCst);
        if self.has_left.swap(false, SeqCst) {
            self.waits.wake();
        }
    }

    /// Whether the last request went to a server that the client chose itself.
    pub(crate) fn is_chosen(&self) -> bool {
        self.is_chosen.load(SeqCst)
    }

    /// Whether the server that the client chose itself has ended its connection, and was not asked again. Only one task is woken
    /// when that changes.
    pub(crate) fn has_left(&self, cx: &Context<'_>) -> bool {
        self.waits.register(cx.waker());
        self.is_chosen() && self.has_left.load(SeqCst)
    }

    /// Looks for a connection that its server has ended: one has ended.
    pub(crate) fn one_ended(&self) {
        let is_over = |lane: &mut Lane| matches!(&lane.kept, Kept::Awake(idle) if idle.sender.is_closed());
        let http1 = self.http1.lock().extract_if(.., is_over).count();
        let is_over = |(_, cell): &mut (Key, Arc<OnceCell<Shared>>)| {
            cell.get().is_some_and(|shared| shared.sender.is_closed())
        };
        let http2 = self.http2.lock().extract_if(.., is_over).count();
        if http1 + http2 > 0 {
            self.server_left();
        }
    }

    fn server_left(&self) {
        self.has_left.store(true, SeqCst);
        self.waits.wake();
    }

    /// There are so many endpoints to balance over.
    pub(crate) fn make_room(&self, endpoints: usize) {
        self.room.fetch_max(endpoints.min(LANES_MAX), Relaxed);
    }

    /// An idle HTTP/1 connection, and the key under which it is given back.
    pub(crate) fn take(&self, key: KeyRef<'_>) -> Option<(Key, Kept)> {
        self.take_own(key).or_else(|| self.pool.take(key).map(|idle| (key.to_key(), Kept::Awake(idle))))
    }

    fn take_own(&self, key: KeyRef<'_>) -> Option<(Key, Kept)> {
        let mut own = self.http1.lock();
        while let Some(index) = own.iter().rposition(|lane| key.equivalent(&lane.key)) {
            let Lane { key, mut kept, since } = own.swap_remove(index);
            let is_usable = match &mut kept {
                Kept::Awake(idle) => self.pool.is_usable(idle),
                Kept::Asleep(asleep) => asleep.stream.is_quiet() && self.pool.is_current(asleep.not_after),
            };
            if is_usable && since.elapsed() < self.idle_for {
                return Some((key, kept));
            }
        }
        None
    }

    /// Keeps an HTTP/1 connection on which nothing is under way any more.
    pub(crate) fn put(&self, key: Key, idle: Idle) {
        if idle.sender.is_closed() {
            self.server_left();
            return;
        }
        if idle.control.is_finishing() || key.authority.is_empty() {
            return;
        }
        let mut own = self.http1.lock();
        if own.len() >= self.room.load(Relaxed) {
            own.remove(0);
        }
        own.push(Lane { key, kept: Kept::Awake(idle), since: Instant::now() });
    }

    /// Puts the HTTP/1 connections to sleep: nobody will need them for a while.
    pub(crate) async fn fall_asleep(&self) {
        let lanes = std::mem::take(&mut *self.http1.lock());
        let mut asleep = Vec::with_capacity(lanes.len());
        for Lane { key, kept, since } in lanes {
            let kept = match kept {
                Kept::Awake(Idle { sender, stream, tls, not_after, .. }) => {
                    // A connection whose last sender is gone stops being HTTP at once.
                    drop(sender);
                    match timeout(FALL_ASLEEP, stream).await {
                        Ok(Ok(stream)) => Kept::Asleep(Asleep { stream, tls, not_after }),
                        _ => continue,
                    }
                }
                asleep => asleep,
            };
            asleep.push(Lane { key, kept, since });
        }
        *self.http1.lock() = asleep;
    }

    /// Closes those of the sleeping connections that their servers closed, and has the task woken when another one is.
    pub(crate) fn poll_asleep(&self, cx: &mut Context<'_>) {
        let mut is_over = |lane: &mut Lane| match &mut lane.kept {
            Kept::Awake(_) => false,
            Kept::Asleep(asleep) => asleep.stream.poll_wake(cx).is_ready(),
        };
        if self.http1.lock().extract_if(.., &mut is_over).count() > 0 {
            self.server_left();
        }
    }

    /// The place of the one HTTP/2 connection, which several requests may want to open at once. One that fell back is
    /// not found again: it is not what its key says.
    pub(crate) fn shared(&self, key: KeyRef<'_>) -> Arc<OnceCell<Shared>> {
        let mut lanes = self.http2.lock();
        let is_as_asked = |key: &Key, shared: &Shared| Security::of(&shared.tls) == key.security;
        lanes.retain(|(key, cell)| {
            cell.get().is_none_or(|shared| self.is_open(shared) && is_as_asked(key, shared))
        });
        if let Some((_, cell)) = lanes.iter().find(|(own, _)| key.equivalent(own)) {
            return cell.clone();
        }
        if lanes.len() >= self.room.load(Relaxed) {
            lanes.remove(0);
        }
        let cell = Arc::default();
        lanes.push((key.to_key(), Arc::clone(&cell)));
        cell
    }

    fn is_open(&self, shared: &Shared) -> bool {
        !shared.sender.is_closed() && self.pool.is_current(shared.not_after)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for Lane { key, kept, since } in self.http1.get_mut().drain(..) {
            match kept {
                Kept::Awake(idle) if since.elapsed() < SHARED_FOR => self.pool.offer(key, idle),
                _ => {}
            }
        }
    }
}
