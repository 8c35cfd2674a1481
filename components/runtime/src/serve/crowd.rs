//! Accepting where strangers may crowd: who asks for nothing keeps nobody out.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use conduit_net::{Accepted, Listener};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::accept_loop;
use crate::drain;

/// As [`accept_loop`], but at `limit` open connections the next one takes the seat that was [used](Seat::used) the longest
/// ago: that connection is closed. None has to give way that is [kept](Seat::keep); when all are, the next ones wait in the
/// kernel.
pub async fn accept_crowd<F, Fut>(listener: Box<dyn Listener>, limit: usize, drain: drain::Watch, handle: F)
where
    F: Fn(Accepted, Seat) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let crowd = Arc::<Mutex<Crowd>>::default();
    // One more than there are seats, for the connection that takes one from another.
    accept_loop(listener, limit + 1, drain, move |accepted| {
        let (seat, leave) = Seat::take(&crowd, limit);
        let connection = handle(accepted, seat);
        async move {
            tokio::select! {
                () = leave.notified() => {}
                () = connection => {}
            }
        }
    })
    .await;
}

/// One open connection's place among those that its listener may have open. Dropping it gives the place up.
#[derive(Debug)]
pub struct Seat {
    crowd: Arc<Mutex<Crowd>>,
    number: u64,
}

#[derive(Debug, Default)]
struct Crowd {
    /// How often a seat was taken or used: what is "long ago" is told by it.
    uses: u64,
    seats: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    used: u64,
    kept: bool,
    leave: Arc<Notify>,
}

impl Seat {
    fn take(crowd: &Arc<Mutex<Crowd>>, limit: usize) -> (Self, Arc<Notify>) {
        let leave = Arc::new(Notify::new());
        let mut taken = crowd.lock();
        if taken.seats.len() >= limit {
            taken.clear_one();
        }
        let number = taken.count();
        taken.seats.insert(number, Taken { used: number, kept: false, leave: leave.clone() });
        (Self { crowd: crowd.clone(), number }, leave)
    }

    /// Its connection asked for something just now.
    pub fn used(&self) {
        let mut crowd = self.crowd.lock();
        let now = crowd.count();
        if let Some(taken) = crowd.seats.get_mut(&self.number) {
            taken.used = now;
        }
    }

    /// Its connection never has to give way.
    pub fn keep(&self) {
        if let Some(taken) = self.crowd.lock().seats.get_mut(&self.number) {
            taken.kept = true;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.lock().seats.remove(&self.number);
    }
}

impl Crowd {
    fn count(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    fn clear_one(&mut self) {
        let may_go = self.seats.iter().filter(|(_, taken)| !taken.kept);
        let Some(oldest) = may_go.min_by_key(|(_, taken)| taken.used).map(|(number, _)| *number) else {
            return;
        };
        if let Some(taken) = self.seats.remove(&oldest) {
            taken.leave.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use conduit_net::{Io, TokioNetwork};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Answers each octet; a `k` keeps the seat.
    async fn echo(mut accepted: Accepted, seat: Seat) {
        let mut octet = [0];
        while accepted.io.read_exact(&mut octet).await.is_ok() {
            seat.used();
            if octet == *b"k" {
                seat.keep();
            }
            drop(accepted.io.write_all(&octet).await);
        }
    }

    /// What comes of `future`, which must not take long.
    async fn within<F: Future>(future: F) -> F::Output {
        tokio::time::timeout(Duration::from_secs(10), future).await.expect("nothing within 10 s")
    }

    async fn say(io: &mut Io, octet: u8) {
        io.write_all(&[octet]).await.unwrap();
        assert_eq!(within(io.read_u8()).await.unwrap(), octet);
    }

    async fn is_closed(io: &mut Io) -> bool {
        matches!(within(io.read(&mut [0])).await, Ok(0) | Err(_))
    }

    #[tokio::test]
    async fn the_next_connection_takes_the_seat_that_was_used_the_longest_ago() {
        let net = TokioNetwork::shared();
        let listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr();
        let (_trigger, watch) = drain::channel();
        let _server = tokio::spawn(accept_crowd(listener, 3, watch, echo));
        let connect = async || net.connect(addr).await.unwrap();

        let (mut kept, mut idle, mut busy) = (connect().await, connect().await, connect().await);
        say(&mut kept, b'k').await;
        say(&mut busy, b'1').await;
        say(&mut idle, b'1').await;
        say(&mut busy, b'2').await;
        let mut next = connect().await;
        say(&mut next, b'1').await;
        assert!(is_closed(&mut idle).await);
        say(&mut busy, b'3').await;
        say(&mut kept, b'2').await;

        say(&mut next, b'k').await;
        say(&mut busy, b'k').await;
        // All are kept: one more is served, and the rest waits.
        let (mut more, mut waiting) = (connect().await, connect().await);
        say(&mut more, b'k').await;
        waiting.write_all(b"1").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), waiting.read_u8()).await;
        assert!(early.is_err(), "served beyond the limit");
        drop(kept);
        assert_eq!(within(waiting.read_u8()).await.unwrap(), b'1');
    }
}
