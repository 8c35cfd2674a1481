//! What goes on on a client's HTTP/1 connection: what its requests and the loop that serves it tell each other.
//!
//! A client that ends its direction while its request is under way has either left, or still waits for the response:
//! TCP does not tell. The server would see that end without us, and decides: it is passed on behind the request, and
//! the response is awaited. A client that breaks its connection has left, and the server's is broken too.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Context,
    time::Duration,
};

use conduit_identity::UnixTime;
use http::Request;
use hyper::body::{Body as _, Incoming};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::stream::{Control, Stream};

/// What goes on on a client's connection, known to the requests on it and to the loop that serves it.
#[derive(Debug)]
pub(crate) struct Activity {
    control: Control,
    /// Put to sleep after between one and two times this without a request.
    drowsy: Duration,
    under_way: AtomicU32,
    begun: AtomicU32,
    asks: AtomicBool,
    granted: Mutex<Option<Granted>>,
    /// The body of the request that began last has passed.
    arrived: AtomicBool,
    /// The server's connection, while a request is under way on it.
    upstream: Mutex<Option<Control>>,
}

/// The connection stops being HTTP.
#[derive(Debug)]
pub(crate) struct Granted {
    /// The server's connection, when it has ended being HTTP too; none when the loop that serves has it anyway.
    pub(crate) upstream: Option<oneshot::Receiver<Stream>>,
    /// When the certificates of the server's connection end.
    pub(crate) not_after: Option<UnixTime>,
}

/// A request that has not ended.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Activity>);

/// A request whose body is on its way. Dropped when all of it has passed.
#[derive(Debug)]
pub(crate) struct Arriving {
    activity: Arc<Activity>,
    begun: u32,
}

impl Activity {
    /// Of a connection that is put to sleep after between one and two times `drowsy` without a request.
    pub(crate) fn new(control: Control, drowsy: Duration) -> Arc<Self> {
        Arc::new(Self {
            control,
            drowsy,
            under_way: AtomicU32::default(),
            begun: AtomicU32::default(),
            asks: AtomicBool::default(),
            granted: Mutex::default(),
            arrived: AtomicBool::default(),
            upstream: Mutex::default(),
        })
    }

    /// Of the client's connection.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// A request begins; it ends when the value is dropped. To be called before hyper reads on.
    pub(crate) fn begin(self: &Arc<Self>, request: &Request<Incoming>) -> UnderWay {
        self.control.forget_read();
        self.under_way.fetch_add(1, SeqCst);
        self.begun.fetch_add(1, SeqCst);
        self.arrived.store(request.body().is_end_stream(), SeqCst);
        self.control.withhold_end();
        UnderWay(Arc::clone(self))
    }

    /// Of the request that began last.
    pub(crate) fn arriving(self: &Arc<Self>) -> Arriving {
        Arriving { activity: Arc::clone(self), begun: self.begun() }
    }

    /// The request is about to be sent on the connection that `upstream` is of.
    pub(crate) fn sending(&self, upstream: &Control) {
        upstream.begin_message();
        *self.upstream.lock() = Some(upstream.clone());
    }

    /// Whether a request is under way that asks the connection to become something else.
    pub(crate) fn asks(&self) -> bool {
        self.asks.load(Relaxed)
    }

    /// Says so.
    pub(crate) fn set_asks(&self, asks: bool) {
        self.asks.store(asks, Relaxed);
    }

    /// It becomes something else, after the response that is on its way.
    pub(crate) fn grant(&self, granted: Granted) {
        *self.granted.lock() = Some(granted);
    }

    /// What it becomes, if it does.
    pub(super) fn take_granted(&self) -> Option<Granted> {
        self.granted.lock().take()
    }

    /// How many requests have begun.
    pub(super) fn begun(&self) -> u32 {
        self.begun.load(SeqCst)
    }

    /// It may be put to sleep after this without a request.
    pub(super) fn drowsy(&self) -> Duration {
        self.drowsy
    }

    /// Nothing is under way, no request has begun to arrive, and no response is left to be taken.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.load(Relaxed) == 0 && !self.control.was_read() && !self.control.is_blocked()
    }

    /// The end that the client made, if it did, is made behind its request.
    pub(super) fn pass_end_on(&self) {
        if self.control.has_ended()
            && self.arrived.load(SeqCst)
            && let Some(upstream) = &*self.upstream.lock()
        {
            upstream.finish();
        }
    }

    /// The client broke its connection in the middle of something.
    pub(super) fn break_off(&self) {
        if let Some(upstream) = &*self.upstream.lock() {
            upstream.arm_reset();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.upstream.lock().take();
        self.0.under_way.fetch_sub(1, SeqCst);
        self.0.control.forget_read();
        self.0.control.tell_end();
    }
}

impl Arriving {
    /// Whether the server has not taken yet what was last written to it.
    pub(crate) fn is_held_up(&self) -> bool {
        self.activity.upstream.lock().as_ref().is_some_and(Control::is_blocked)
    }

    /// There is no more of the body for now. A client that has ended its direction has then cut it off: hyper keeps
    /// nothing back before it comes to an end.
    pub(crate) fn stalls(&self, cx: &mut Context<'_>) {
        if self.activity.control.poll_ended(cx) {
            self.activity.control.tell_end();
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let activity = &self.activity;
        // The response may have overtaken the body, and the next request have begun.
        if activity.begun() == self.begun {
            activity.arrived.store(true, SeqCst);
            activity.pass_end_on();
        }
    }
}
