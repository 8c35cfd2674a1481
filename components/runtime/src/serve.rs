//! The accept loop, in which nothing waits for a peer: a connection is a task of its own from its first byte on.

use std::{future::Future, io, sync::Arc, time::Duration};

use conduit_net::{Accepted, Listener};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::drain;

mod crowd;

pub use crowd::{Seat, accept_crowd};

/// How long to wait when the system is short of something. That does not go away by trying faster, and a tight loop would
/// starve the connections whose end would cure it.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the drain begins and hands each connection to `handle` in a task of its own; then waits until the last
/// of them has ended. At `limit` open connections it stops accepting until one ends: the rest wait in the kernel.
///
/// Dropping the future aborts every connection.
pub async fn accept_loop<F, Fut>(
    mut listener: Box<dyn Listener>,
    limit: usize,
    drain: drain::Watch,
    handle: F,
) where
    F: Fn(Accepted) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(limit));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.signaled() => break,
            // Reaps what ended, so that the set does not grow with the number of connections ever made.
            Some(ended) = connections.join_next(), if !connections.is_empty() => { report(ended); continue }
            accepted = next(&mut listener, &permits) => accepted,
        };
        match accepted {
            Ok((accepted, permit)) => {
                let connection = handle(accepted);
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, address = %listener.local_addr(), "cannot accept a connection");
                match is_shortage(&error) {
                    true => tokio::time::sleep(SHORTAGE_PAUSE).await,
                    // Of one connection, which is gone; the next one is not to wait for that.
                    false => tokio::task::yield_now().await,
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

#[cfg(unix)]
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

#[cfg(not(unix))]
fn is_shortage(_: &io::Error) -> bool {
    true
}

async fn next(
    listener: &mut Box<dyn Listener>,
    permits: &Arc<Semaphore>,
) -> io::Result<(Accepted, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?, permit))
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; only that connection is lost");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use conduit_net::TokioNetwork;
    use futures::future::{BoxFuture, FutureExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn echo(accepted: Accepted) {
        let (mut read, mut write) = tokio::io::split(accepted.io);
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(write.shutdown().await);
    }

    #[tokio::test]
    async fn a_silent_client_delays_nobody_and_a_drain_waits_for_the_last() {
        let net = TokioNetwork::shared();
        let listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr();
        let (trigger, watch) = drain::channel();
        let server = tokio::spawn(accept_loop(listener, 8, watch, echo));

        let silent = net.connect(addr).await.unwrap();
        let mut talking = net.connect(addr).await.unwrap();
        talking.write_all(b"hi").await.unwrap();
        let mut answer = [0; 2];
        talking.read_exact(&mut answer).await.unwrap();

        let drained = tokio::spawn(trigger.drain(Duration::from_secs(10)));
        talking.write_all(b"yo").await.unwrap();
        talking.read_exact(&mut answer).await.unwrap();
        drop((silent, talking));
        assert!(drained.await.unwrap());
        server.await.unwrap();
    }

    #[tokio::test]
    async fn at_the_limit_the_next_connection_waits_for_one_to_end() {
        let net = TokioNetwork::shared();
        let listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr();
        let (_trigger, watch) = drain::channel();
        let _server = tokio::spawn(accept_loop(listener, 1, watch, echo));

        let mut first = net.connect(addr).await.unwrap();
        first.write_all(b"1").await.unwrap();
        first.read_exact(&mut [0; 1]).await.unwrap();
        let mut second = net.connect(addr).await.unwrap();
        second.write_all(b"2").await.unwrap();
        let mut answer = [0; 1];
        let early = tokio::time::timeout(Duration::from_millis(50), second.read_exact(&mut answer)).await;
        assert!(early.is_err(), "served beyond the limit");
        drop(first);
        second.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"2");
    }

    /// Fails as it is told, then never accepts.
    struct Failing(VecDeque<io::Error>, Option<tokio::sync::oneshot::Sender<()>>);

    impl Listener for Failing {
        fn local_addr(&self) -> std::net::SocketAddr {
            ([127, 0, 0, 1], 1).into()
        }

        fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
            match self.0.pop_front() {
                Some(error) => std::future::ready(Err(error)).boxed(),
                None => {
                    drop(self.1.take());
                    std::future::pending().boxed()
                }
            }
        }
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn only_a_shortage_is_a_reason_to_wait() {
        use rustix::io::Errno;
        let aborted = [Errno::CONNABORTED, Errno::PROTO, Errno::HOSTUNREACH];
        let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        for (errors, wait) in [(&aborted[..], Duration::ZERO), (&short[..], 4 * SHORTAGE_PAUSE)] {
            let (tried, all) = tokio::sync::oneshot::channel();
            let errors = errors.iter().map(|errno| (*errno).into()).collect();
            let (_trigger, watch) = drain::channel();
            let began = tokio::time::Instant::now();
            tokio::spawn(accept_loop(Box::new(Failing(errors, Some(tried))), 8, watch, echo));
            drop(all.await);
            let waited = began.elapsed();
            assert!(wait <= waited && waited < wait + SHORTAGE_PAUSE, "{waited:?} instead of {wait:?}");
        }
    }
}
