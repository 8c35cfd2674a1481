//! Reads every meshed pod's metrics again and again, into the [`Window`].
//!
//! Bounds: pods per round, readings at a time, time and bytes per reading. A pod that does not answer is asked less
//! and less often, at least every [`MAX_SKIP`] rounds, and reported. One slow pod holds up nobody but its own slot.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use conduit_identity::Clock;
use conduit_net::Net;
use conduit_runtime::drain;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    reading::{Reading, Unreadable},
    trail::Tick,
    window::{Full, Window},
};
use crate::{
    Metrics,
    inventory::{Inventory, Pod},
    proxies::Proxy,
    samples::PodName,
};

/// Rounds between two attempts at a pod that has failed for long.
const MAX_SKIP: u32 = 16;
/// The first tick: late enough that the longest window before it has a place.
const FIRST_TICK: Tick = Tick(36_000);

/// What a reading may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the beginning of one round to the next.
    pub interval: Duration,
    /// For one pod, from connecting to the last byte.
    pub deadline: Duration,
    /// Readings at a time.
    pub concurrency: usize,
    /// Octets of one pod's metrics. A label set of a proxy is about 350 octets and a histogram has 28 lines: 32 MiB are
    /// some 3,000 of them, far more than a pod has peers.
    pub max_bytes: usize,
    /// Pods in all; those beyond are reported as not read.
    pub max_pods: usize,
    /// Series in all, see [`Window`]: 100,000 busy ones take 0.4 GB. A pod that would exceed it is reported as not read.
    pub max_series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            deadline: Duration::from_millis(1500),
            concurrency: 32,
            max_bytes: 32 << 20,
            max_pods: 1000,
            max_series: 100_000,
        }
    }
}

/// The window, and the clock its times are on. Cloning shares.
#[derive(Clone)]
pub struct Shared {
    window: Arc<Mutex<Window>>,
    started: Instant,
}

impl Shared {
    /// An empty window that begins now, and will hold up to `max_series`.
    pub fn new(max_series: usize) -> Self {
        Self { window: Arc::new(Mutex::new(Window::new(max_series))), started: Instant::now() }
    }

    /// What happened in the last `window`.
    pub fn samples(&self, window: Duration) -> crate::samples::Samples {
        self.window.lock().samples(self.tick(), window)
    }

    /// What each proxy said of itself when it was last read.
    pub fn proxies(&self) -> BTreeMap<PodName, Proxy> {
        self.window.lock().proxies()
    }

    fn tick(&self) -> Tick {
        FIRST_TICK.after(self.started.elapsed())
    }
}

/// Reads the pods of an inventory.
pub struct Scraper {
    /// Where connections are opened.
    pub net: Net,
    /// Tells how old a process is.
    pub clock: Arc<dyn Clock>,
    /// Which pods there are, always the latest.
    pub inventory: watch::Receiver<Arc<Inventory>>,
    /// Where readings go.
    pub shared: Shared,
    /// What they may take.
    pub limits: Limits,
    /// Where they are counted.
    pub metrics: Metrics,
}

impl Scraper {
    /// Runs until the drain.
    pub async fn run(mut self, drain: drain::Watch) {
        let mut rounds = interval(self.limits.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = Failures::default();
        loop {
            tokio::select! {
                biased;
                () = drain.signaled() => return,
                _ = rounds.tick() => {}
            }
            // A round ends within (pods / concurrency) deadlines; the drain does not wait for it.
            tokio::select! {
                biased;
                () = drain.signaled() => return,
                () = self.round(&mut failures) => {}
            }
        }
    }

    /// Reads each pod once.
    async fn round(&mut self, failures: &mut Failures) {
        let inventory = self.inventory.borrow_and_update().clone();
        let is_read = |pod: &&Arc<Pod>| pod.running && pod.metrics().is_some();
        let meshed: Vec<Arc<Pod>> = inventory.pods.values().filter(is_read).cloned().collect();
        let (read, beyond) = meshed.split_at(meshed.len().min(self.limits.max_pods));
        {
            let mut window = self.shared.window.lock();
            window.keep(meshed.iter().map(|pod| &**pod), self.shared.tick());
            let reason = format!("over the limit of {} pods", self.limits.max_pods);
            beyond.iter().for_each(|pod| window.failed(pod, reason.clone()));
        }
        failures.begin_round(read);
        let due: Vec<_> = read.iter().filter(|pod| failures.is_due(pod)).cloned().collect();
        let reader = &*self;
        let readings = due.into_iter().map(|pod| async move {
            let result = reader.read(&pod).await;
            (pod, result)
        });
        let mut readings = stream::iter(readings).buffer_unordered(self.limits.concurrency);
        while let Some((pod, result)) = readings.next().await {
            if let Err(error) = &result {
                tracing::debug!(pod = %pod.name, %error, "metrics cannot be read");
                self.shared.window.lock().failed(&pod, error.to_string());
            }
            let counter = if result.is_ok() { &self.metrics.readings } else { &self.metrics.failures };
            counter.inc();
            failures.note(&pod, result.is_err());
        }
        let (pods, series) = self.shared.window.lock().size();
        self.metrics.pods.set(i64::try_from(pods).unwrap_or(i64::MAX));
        self.metrics.series.set(i64::try_from(series).unwrap_or(i64::MAX));
    }

    async fn read(&self, pod: &Pod) -> Result<(), ReadError> {
        let Some(addr) = pod.metrics() else { return Ok(()) };
        let fetched = timeout(self.limits.deadline, fetch(&self.net, addr, self.limits.max_bytes)).await;
        let reading = fetched.map_err(|_| ReadError::Slow { addr, deadline: self.limits.deadline })??;
        let (at, now) = (self.shared.tick(), self.clock.now());
        self.shared.window.lock().read(pod, at, now, reading)?;
        Ok(())
    }
}

/// Which pods failed lately, and how often in a row.
#[derive(Debug, Default)]
struct Failures {
    round: u32,
    /// By uid: failures in a row, and the round in which to ask again.
    pods: BTreeMap<String, (u32, u32)>,
}

impl Failures {
    fn begin_round(&mut self, pods: &[Arc<Pod>]) {
        self.round = self.round.wrapping_add(1);
        self.pods.retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
    }

    fn is_due(&self, pod: &Pod) -> bool {
        self.pods.get(&pod.uid).is_none_or(|(_, due)| *due <= self.round)
    }

    fn note(&mut self, pod: &Pod, failed: bool) {
        if !failed {
            self.pods.remove(&pod.uid);
            return;
        }
        let (count, due) = self.pods.entry(pod.uid.clone()).or_default();
        // A pod that is just starting fails once or twice, and is asked again at once.
        let skip = 1_u32.checked_shl(count.saturating_sub(2)).unwrap_or(MAX_SKIP).clamp(1, MAX_SKIP);
        (*count, *due) = (*count + 1, self.round.saturating_add(skip));
    }
}

/// Why a pod's metrics are missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{addr} did not answer within {deadline:?}")]
    Slow { addr: SocketAddr, deadline: Duration },
    #[error("{addr} cannot be reached: {source}")]
    Unreachable { addr: SocketAddr, source: std::io::Error },
    #[error("{addr} broke off: {source}")]
    Http { addr: SocketAddr, source: hyper::Error },
    #[error("{addr} answered {status} instead of metrics")]
    Status { addr: SocketAddr, status: StatusCode },
    #[error("{addr} sends over {max_bytes} octets of metrics")]
    TooLong { addr: SocketAddr, max_bytes: usize },
    #[error("{addr} cannot be asked: {source}")]
    Request { addr: SocketAddr, source: http::Error },
    #[error("{addr} sent metrics that cannot be used: {source}")]
    Unreadable { addr: SocketAddr, source: Unreadable },
    #[error(transparent)]
    Full(#[from] Full),
}

/// A proxy's metrics, read while they come: only the few lines that matter are kept. The caller owns the deadline.
async fn fetch(net: &Net, addr: SocketAddr, max_bytes: usize) -> Result<Reading, ReadError> {
    let mut reading = Reading::default();
    let unreadable = |source| ReadError::Unreadable { addr, source };
    exchange(net, addr, max_bytes, |data| reading.feed(data).map_err(unreadable)).await?;
    reading.finish().map_err(unreadable)
}

/// What `addr` serves as its metrics, as it is. The caller owns the deadline.
///
/// # Errors
/// It cannot be reached, or serves something else, or more than `max_bytes`.
pub(crate) async fn text(net: &Net, addr: SocketAddr, max_bytes: usize) -> Result<Vec<u8>, ReadError> {
    let mut text = Vec::new();
    exchange(net, addr, max_bytes, |data| {
        text.extend_from_slice(data);
        Ok(())
    })
    .await?;
    Ok(text)
}

/// One connection, one request; `each` is given the answer as it comes.
async fn exchange(
    net: &Net,
    addr: SocketAddr,
    max_bytes: usize,
    mut each: impl FnMut(&[u8]) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let io = net.connect(addr).await.map_err(|source| ReadError::Unreachable { addr, source })?;
    let http = |source| ReadError::Http { addr, source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(http)?;
    let exchange = async {
        let request = Request::get("/metrics")
            .header(header::HOST, addr.to_string())
            .header(header::ACCEPT, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|source| ReadError::Request { addr, source })?;
        let response = sender.send_request(request).await.map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(ReadError::Status { addr, status: response.status() });
        }
        let (mut body, mut octets) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(http)?;
            let data = frame.data_ref().map_or(&[][..], |data| data);
            octets += data.len();
            if octets > max_bytes {
                return Err(ReadError::TooLong { addr, max_bytes });
            }
            each(data)?;
        }
        Ok(())
    };
    // The connection is driven only as long as its one exchange takes; how it ends shows there.
    let drive = async {
        drop(connection.await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        result = exchange => result,
        () = drive => Err(ReadError::Slow { addr, deadline: Duration::ZERO }),
    }
}

#[cfg(test)]
mod tests;
