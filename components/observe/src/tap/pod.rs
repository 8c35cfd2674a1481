//! One pod's part of a tap: asks its proxy for some requests, again and again.

use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::{Identity, Store};
use conduit_net::Net;
use conduit_proto::tap::{Event, Match, ObserveRequest, event, tap_client::TapClient};
use conduit_runtime::{Backoff, Seed, grpc};
use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use rand::{RngExt, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tonic::Status;

use super::{Item, Shared};
use crate::{
    inventory::Inventory,
    samples::PodName,
    tap::event::{PodError, TapEvent},
};

/// How often a proxy is asked for more requests, each time at another point of the period: what limits their rate to the
/// batch, and keeps out of step with traffic that comes in rounds.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a proxy may take to begin.
const BEGIN_DEADLINE: Duration = Duration::from_secs(5);
/// A tap that lasted this long had begun well: what ends it is news.
const SETTLED: Duration = Duration::from_secs(10);
/// Batches of one proxy that wait for their last requests to end.
const MAX_BATCHES: usize = 64;

/// One pod's part of a tap.
pub(crate) struct PodTap {
    pub(crate) net: Net,
    pub(crate) store: Store,
    /// Which pod, by name: its address may come later than the tap.
    pub(crate) pod: PodName,
    pub(crate) inventory: watch::Receiver<Arc<Inventory>>,
    /// Which of the tap's proxies it is.
    pub(crate) number: usize,
    pub(crate) condition: Match,
    /// Requests to ask for at a time.
    pub(crate) batch: u32,
    pub(crate) shared: Arc<Shared>,
    pub(crate) items: mpsc::Sender<Item>,
    pub(crate) retry: Backoff,
    /// Decides when in each period the proxy is asked.
    pub(crate) seed: Seed,
}

/// Why a pod cannot be tapped at the moment.
#[derive(Debug, thiserror::Error)]
enum TapError {
    #[error("it has no proxy; inject it")]
    Unmeshed,
    #[error(
        "its proxy was injected without TLS, and tap answers over mutual TLS only; inject it with --tls=optional"
    )]
    WithoutTls,
    #[error("it is gone")]
    NoPod,
    #[error("it has no address yet")]
    NoAddress,
    #[error("its proxy declined: {}", .0.message())]
    Declined(Status),
    #[error("its proxy cannot be reached: {}", .0.message())]
    Unreachable(Status),
    #[error("its proxy did not answer within {BEGIN_DEADLINE:?}")]
    Slow,
    #[error("its proxy ended the tap")]
    Ended,
}

impl TapError {
    /// A status that the proxy sent, or one that stands for an error of the way to it.
    fn of(status: Status) -> Self {
        match std::error::Error::source(&status) {
            Some(_) => Self::Unreachable(status),
            None => Self::Declined(status),
        }
    }
}

/// Whoever asked for the tap is gone.
struct Gone;

impl PodTap {
    /// Tells what the proxy tells, until the tap's reader is gone. A failure is told once, and tried again.
    pub(crate) async fn run(mut self) {
        let mut told = None;
        loop {
            let began = Instant::now();
            let error = match self.tap().await {
                Ok(Gone) => return,
                Err(error) => error.to_string(),
            };
            if began.elapsed() >= SETTLED {
                self.retry.reset();
                told = None;
            }
            if told.as_ref() != Some(&error) {
                let PodName { namespace, name } = self.pod.clone();
                let report = PodError { namespace, pod: name, error: error.clone() };
                if self.items.send(Item::Error(report)).await.is_err() {
                    return;
                }
                told = Some(error);
            }
            tokio::time::sleep(self.retry.next_delay()).await;
        }
    }

    /// One connection to the proxy, from its beginning to its end.
    async fn tap(&self) -> Result<Gone, TapError> {
        let mut client = TapClient::new(self.channel()?);
        let mut next = Instant::now();
        let mut moments = Moments { period: next, rng: self.seed.fork("moments").rng() };
        let mut batches = Batches::default();
        let mut admitted = BTreeSet::new();
        loop {
            tokio::select! {
                () = sleep_until(next), if batches.wants_more() => {
                    next = moments.next(Instant::now());
                    let request = ObserveRequest { limit: self.batch, r#match: Some(self.condition.clone()) };
                    let begun = timeout(BEGIN_DEADLINE, client.observe(request)).await;
                    let events = begun.map_err(|_| TapError::Slow)?.map_err(TapError::of)?.into_inner();
                    batches.begin(events.boxed(), self.batch);
                }
                event = batches.next() => match event? {
                    Some(event) if self.is_wanted(&event, &mut admitted) => {
                        let event = TapEvent::of(&self.pod, self.number, event);
                        if self.items.send(Item::Event(Box::new(event))).await.is_err() {
                            return Ok(Gone);
                        }
                    }
                    Some(_) => {}
                    None => return Err(TapError::Ended),
                },
                () = self.items.closed() => return Ok(Gone),
            }
        }
    }

    /// A connection to the pod's proxy, which must prove to be the pod's.
    fn channel(&self) -> Result<grpc::Channel, TapError> {
        let pod = self.inventory.borrow().pods.get(&self.pod).cloned().ok_or(TapError::NoPod)?;
        if !pod.meshed {
            return Err(TapError::Unmeshed);
        }
        let identity = pod.identity.clone().ok_or(TapError::WithoutTls)?;
        let addr = SocketAddr::new(pod.ip.ok_or(TapError::NoAddress)?, pod.tap_port);
        let (net, store) = (self.net.clone(), self.store.clone());
        let connect: grpc::Connect =
            Arc::new(move || connect(net.clone(), store.clone(), addr, identity.clone()).boxed());
        grpc::Channel::new(&addr.to_string(), connect).map_err(|_| TapError::NoAddress)
    }

    /// Whether the event is of a request that the tap's rate admits.
    fn is_wanted(&self, event: &Event, admitted: &mut BTreeSet<u64>) -> bool {
        match &event.event {
            Some(event::Event::RequestInit(_)) => {
                let admits = self.shared.admits();
                if admits {
                    admitted.insert(event.id);
                }
                admits
            }
            Some(event::Event::ResponseEnd(_)) => admitted.remove(&event.id),
            _ => admitted.contains(&event.id),
        }
    }
}

async fn connect(
    net: Net,
    store: Store,
    addr: SocketAddr,
    identity: Identity,
) -> io::Result<Box<dyn grpc::Transport>> {
    let loaded = store.current().map_err(|reason| {
        io::Error::other(format!("observe holds no usable certificate ({})", reason.label()))
    })?;
    let io = net.connect(addr).await?;
    let (io, _) = conduit_identity::connect(&loaded, io, &identity).await.map_err(io::Error::other)?;
    Ok(Box::new(io))
}

/// When a proxy is asked: once in each period, at a random point of it.
struct Moments {
    /// When the present period began.
    period: Instant,
    rng: StdRng,
}

impl Moments {
    /// The moment in the next period, which begins `now` where the present one has been missed.
    fn next(&mut self, now: Instant) -> Instant {
        self.period = (self.period + PERIOD).max(now);
        self.period + PERIOD.mul_f64(self.rng.random_range(0.0..1.0))
    }
}

/// What a proxy told, with the number of the batch; none for the batch's end.
type Told = (u64, Option<Result<Event, Status>>);

/// The batches of requests that a proxy was asked for.
#[derive(Default)]
struct Batches {
    open: SelectAll<BoxStream<'static, Told>>,
    latest: u64,
    /// Requests that the latest one has still to begin.
    missing: u32,
}

impl Batches {
    fn wants_more(&self) -> bool {
        self.missing == 0 && self.open.len() < MAX_BATCHES
    }

    fn begin(&mut self, events: BoxStream<'static, Result<Event, Status>>, limit: u32) {
        self.latest += 1;
        self.missing = limit;
        let number = self.latest;
        let tagged = events.map(Some).chain(stream::iter([None])).map(move |event| (number, event));
        self.open.push(tagged.boxed());
    }

    /// The next event; none when the proxy ended the latest batch before it was full. Pending without a batch.
    async fn next(&mut self) -> Result<Option<Event>, TapError> {
        loop {
            match self.open.next().await {
                None => std::future::pending().await,
                Some((number, None)) if number == self.latest && self.missing > 0 => return Ok(None),
                Some((_, None)) => {}
                Some((_, Some(Err(status)))) => return Err(TapError::of(status)),
                Some((number, Some(Ok(event)))) => {
                    let begins = matches!(event.event, Some(event::Event::RequestInit(_)));
                    if begins && number == self.latest {
                        self.missing = self.missing.saturating_sub(1);
                    }
                    return Ok(Some(event));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_asked_once_a_period_and_at_every_point_of_it() {
        let start = Instant::now();
        let mut moments = Moments { period: start, rng: Seed::fixed(1).rng() };
        let mut quarters = [0; 4];
        for period in 1..=1000 {
            let begins = start + PERIOD * period;
            let point = moments.next(start).duration_since(begins).div_duration_f64(PERIOD);
            assert!((0.0..1.0).contains(&point), "{point}");
            quarters[(0..3).find(|quarter| point < f64::from(quarter + 1) / 4.0).unwrap_or(3) as usize] += 1;
        }
        assert!(quarters.iter().all(|count| (200..300).contains(count)), "{quarters:?}");
        let late = start + PERIOD * 5000;
        assert!(moments.next(late) >= late, "what was missed is not made up for");
    }
}
