//! Applications that ask.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use http::uri::Authority;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use conduit_net::Net;
use conduit_runtime::drain;

use super::{
    AppError, Context, DRAIN_LIMIT,
    line::Line,
    request::{Problem, Request},
};
use crate::history::{Op, OpId, Outcome, Protocol};

/// Who a client is.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// Its number in the world.
    pub number: u16,
    /// The pod's address.
    pub ip: IpAddr,
}

/// Operations at regular times. Its place in the client's list is its number.
#[derive(Debug, Clone)]
pub struct Stream {
    /// `namespace/name` of the Service.
    pub service: String,
    /// The name that is resolved for each connection, and asked for in HTTP.
    pub host: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// The Service's port for it.
    pub port: u16,
    /// From one start to the next.
    pub period: Duration,
    /// The first start, from the start of the run.
    pub offset: Duration,
    /// Between how many bytes each operation's payload has; more than [`MAX_PAYLOAD`](super::MAX_PAYLOAD) is that.
    pub lengths: RangeInclusive<usize>,
    /// How operations use connections.
    pub style: Style,
    /// How long the client waits for each answer, all that comes before it included.
    pub deadline: Duration,
    /// How many operations there are.
    pub count: u32,
}

/// How operations use connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Each opens one.
    Fresh,
    /// All use the same until it breaks: HTTP/2 and gRPC at once, everything else one after the other.
    Kept,
}

/// Starts the operations of `streams` at their times until the drain begins, finishes what is under way then, for at most
/// [`DRAIN_LIMIT`], and ends; it does not end before, or it would be started again.
///
/// A client that starts late begins with the first operations whose time is still to come.
///
/// # Errors
/// A stream's host is no name.
pub async fn client(
    net: Net,
    info: ClientInfo,
    streams: Vec<Stream>,
    context: Context,
    drain: drain::Watch,
) -> Result<(), AppError> {
    let mut running = start(&net, &info, streams, &context, &drain)?;
    drain.signaled().await;
    // Dropping the set afterwards ends what takes too long.
    drop(tokio::time::timeout(DRAIN_LIMIT, async { while running.join_next().await.is_some() {} }).await);
    Ok(())
}

/// Starts each stream in a task that ends with the stream.
pub(super) fn start(
    net: &Net,
    info: &ClientInfo,
    streams: Vec<Stream>,
    context: &Context,
    drain: &drain::Watch,
) -> Result<JoinSet<()>, AppError> {
    let mut running = JoinSet::new();
    for (number, stream) in streams.into_iter().enumerate() {
        let line = Line {
            net: net.clone(),
            tls: context.tls.clone(),
            host: stream.host.clone(),
            port: stream.port,
            authority: Authority::try_from(format!("{}:{}", stream.host, stream.port))?,
            protocol: stream.protocol,
            style: stream.style,
            log: context.log.clone(),
            one: tokio::sync::Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            shared: Mutex::new((0, None)),
        };
        let number = u16::try_from(number)?;
        let asking = Asking { info: info.clone(), number, stream, context: context.clone(), line };
        running.spawn(Arc::new(asking).run(drain.clone()));
    }
    Ok(running)
}

/// A stream that runs.
struct Asking {
    info: ClientInfo,
    number: u16,
    stream: Stream,
    context: Context,
    line: Line,
}

impl Asking {
    async fn run(self: Arc<Self>, drain: drain::Watch) {
        let mut under_way = JoinSet::new();
        for number in self.first()..self.stream.count {
            let wait = self.starts(number).saturating_sub(self.context.time.now());
            let mut start = std::pin::pin!(tokio::time::sleep(wait));
            loop {
                tokio::select! {
                    biased;
                    () = drain.signaled() => break,
                    () = start.as_mut() => break,
                    // Reaps what ended, so that the set does not grow with the number of operations.
                    Some(_) = under_way.join_next(), if !under_way.is_empty() => {}
                }
            }
            if drain.is_signaled() {
                break;
            }
            under_way.spawn(self.clone().operation(number));
        }
        while under_way.join_next().await.is_some() {}
    }

    fn starts(&self, number: u32) -> Duration {
        self.stream.offset.saturating_add(self.stream.period.saturating_mul(number))
    }

    /// The first operation whose time has not passed.
    fn first(&self) -> u32 {
        let late = self.context.time.now().saturating_sub(self.stream.offset);
        let passed = late.as_nanos().div_ceil(self.stream.period.as_nanos().max(1));
        u32::try_from(passed).unwrap_or(u32::MAX)
    }

    async fn operation(self: Arc<Self>, number: u32) {
        let (stream, context) = (&self.stream, &self.context);
        let id = OpId { client: self.info.number, stream: self.number, number };
        let op = Op {
            client: self.info.ip,
            service: stream.service.clone(),
            protocol: stream.protocol,
            started: context.time.now(),
            ended: None,
            outcome: Outcome::Unfinished,
            deadline: stream.deadline,
        };
        context.log.begin(id, op);
        let request = Request::draw(&context.seed, id, stream.protocol, &stream.lengths);
        let outcome = match tokio::time::timeout(stream.deadline, self.line.ask(&request)).await {
            Ok(Ok(())) => Outcome::Answered,
            Ok(Err(Problem::Wrong(how))) => Outcome::Wrong(how),
            Ok(Err(Problem::Failed(why) | Problem::Unsent(why))) => Outcome::Failed(why),
            Err(_) => Outcome::Failed(format!("no answer within {:?}", stream.deadline)),
        };
        context.log.end(id, context.time.now(), outcome);
    }
}
