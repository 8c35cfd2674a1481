//! One connection: two queues of segments on their way, and what each end has done with it. Pure: no clock, no waiting.

use std::{collections::VecDeque, net::SocketAddr, task::Waker, time::Duration};

use bytes::Bytes;

use super::rule::Fate;

/// Bytes that may be on their way in one direction before a writer has to wait: what a Linux socket buffers unasked.
const WINDOW: usize = 208 * 1024;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }
}

#[derive(Debug)]
pub(super) enum What {
    Data(Bytes),
    Fin,
}

/// Something on its way to an end.
#[derive(Debug)]
struct Segment {
    at: Duration,
    what: What,
}

/// What an end knows and has done.
#[derive(Debug, Default)]
pub(super) struct End {
    /// On the way to this end, or waiting to be read there.
    incoming: VecDeque<Segment>,
    queued: usize,
    last_arrival: Duration,
    /// From when on it knows of a reset.
    reset: Option<Duration>,
    has_shut_down: bool,
    has_seen_end: bool,
    /// When its process let go of it.
    pub(super) closed: Option<Duration>,
    /// When its host died under it.
    pub(super) died: Option<Duration>,
    pub(super) reader: Option<Waker>,
    /// The other end's process waits for room in `incoming`.
    pub(super) writer: Option<Waker>,
}

/// What became of an attempt to read.
pub(super) enum Read {
    Data(Bytes),
    End,
    Reset,
    /// Something is on its way and arrives then.
    At(Duration),
    Nothing,
}

pub(super) struct Connection {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) fate: Option<Fate>,
    ends: [End; 2],
    /// Bytes of both directions.
    pub(super) carried: u64,
    /// Bytes of the server.
    pub(super) answered: u64,
    /// Nothing arrives at either end any more.
    pub(super) is_stalled: bool,
}

impl Connection {
    pub(super) fn new(client: SocketAddr, server: SocketAddr, fate: Option<Fate>) -> Self {
        let ends = [End::default(), End::default()];
        Self { client, server, fate, ends, carried: 0, answered: 0, is_stalled: false }
    }

    pub(super) fn address(&self, side: Side) -> SocketAddr {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    pub(super) fn is_within_a_host(&self) -> bool {
        self.client.ip() == self.server.ip()
    }

    pub(super) fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side.index()]
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.closed.is_some() || end.died.is_some())
    }

    /// Takes the next bytes for `side`, at most `room`.
    pub(super) fn read(&mut self, side: Side, now: Duration, passes: bool, room: usize) -> Read {
        let passes = passes && !self.is_stalled;
        let end = self.end(side);
        if end.reset.is_some_and(|at| at <= now) {
            return Read::Reset;
        }
        if end.has_seen_end {
            return Read::End;
        }
        let Some(next) = end.incoming.front_mut() else {
            return end.reset.map_or(Read::Nothing, Read::At);
        };
        if next.at > now {
            let soonest = end.reset.map_or(next.at, |reset| reset.min(next.at));
            return Read::At(soonest);
        }
        if !passes {
            return Read::Nothing;
        }
        match &mut next.what {
            What::Fin => {
                end.has_seen_end = true;
                end.incoming.pop_front();
                Read::End
            }
            What::Data(bytes) => {
                let taken = bytes.split_to(bytes.len().min(room));
                if bytes.is_empty() {
                    end.incoming.pop_front();
                }
                end.queued -= taken.len();
                Read::Data(taken)
            }
        }
    }

    /// How many bytes `side` may write now: none when it has to wait.
    ///
    /// # Errors
    /// It may never write again: it knows of a reset, or has ended its direction.
    pub(super) fn room(&mut self, side: Side, now: Duration) -> Result<usize, Broken> {
        let end = self.end(side);
        if end.reset.is_some_and(|at| at <= now) {
            return Err(Broken::Reset);
        }
        if end.has_shut_down {
            return Err(Broken::ShutDown);
        }
        Ok(WINDOW.saturating_sub(self.end(side.other()).queued))
    }

    /// Sends something from `side`, which arrives at `at` or behind what was sent before.
    pub(super) fn send(&mut self, side: Side, at: Duration, what: What) {
        if let What::Data(bytes) = &what {
            self.carried += bytes.len() as u64;
            self.answered += if side == Side::Server { bytes.len() as u64 } else { 0 };
        } else {
            self.end(side).has_shut_down = true;
        }
        let end = self.end(side.other());
        if end.closed.is_some() || end.died.is_some() {
            return;
        }
        let at = at.max(end.last_arrival);
        end.last_arrival = at;
        if let What::Data(bytes) = &what {
            end.queued += bytes.len();
        }
        end.incoming.push_back(Segment { at, what });
    }

    /// Whether `side` would still read what was sent to it.
    pub(super) fn has_unread(&mut self, side: Side) -> bool {
        self.end(side).incoming.iter().any(|segment| matches!(segment.what, What::Data(_)))
    }

    pub(super) fn has_ended(&mut self, side: Side) -> bool {
        self.end(side).has_shut_down
    }

    /// Lets `side` know of a reset from `at` on; what it has not read by then is lost to it.
    pub(super) fn reset(&mut self, side: Side, at: Duration) {
        let end = self.end(side);
        end.reset = Some(end.reset.map_or(at, |before| before.min(at)));
    }
}

/// Why nothing can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Reset,
    ShutDown,
}
