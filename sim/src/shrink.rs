//! The smallest story in which the same thing goes wrong. Pure: who calls says what goes wrong in a story.
//!
//! What is kept of a plan is a value, [`Keep`], that a command line can say: faults and streams of operations keep their
//! numbers, whatever else is left out, so that names of operations in one report are those in another.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    check::Invariant,
    fault::{Fault, Pod, Workload},
    plan::Plan,
};

/// How often a fault is halved.
const HALVINGS: u32 = 3;
/// No fault is made shorter than this.
const SHORTEST: Duration = Duration::from_millis(200);

/// What went wrong with a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failing {
    /// An invariant is violated.
    Violates(Invariant),
    /// A run comes to no end: a panic, or a world that does not come up.
    Stops,
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violates(invariant) => invariant.fmt(f),
            Self::Stops => f.write_str("stopped"),
        }
    }
}

/// One client's stream of operations: the client's place in the plan, and the stream's in the client.
pub type Stream = (usize, usize);

/// What is kept of a plan; by default all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// These faults, by their place in the plan; none is all.
    pub faults: Option<Vec<usize>>,
    /// These streams of operations; none is all.
    pub streams: Option<Vec<Stream>>,
    /// How long faults last, where it is not what the plan says.
    pub lasting: BTreeMap<usize, Duration>,
}

impl Keep {
    /// What is left of `plan`. Servers that nobody asks for anything and that no fault is about have no pods.
    pub fn of(&self, plan: &Plan) -> Plan {
        let mut left = plan.clone();
        for (number, planned) in left.faults.iter_mut().enumerate() {
            if let Some(lasting) = self.lasting.get(&number) {
                planned.until = planned.from + *lasting;
            }
        }
        if let Some(kept) = &self.faults {
            let faults = left.faults.iter().enumerate();
            let faults = faults.filter(|(number, _)| kept.contains(number));
            left.faults = faults.map(|(_, planned)| planned.clone()).collect();
        }
        if let Some(kept) = &self.streams {
            silence(&mut left, kept);
        }
        left
    }
}

fn silence(plan: &mut Plan, kept: &[Stream]) {
    for (client, asking) in plan.clients.iter_mut().enumerate() {
        for (stream, asks) in asking.asks.iter_mut().enumerate() {
            if !kept.contains(&(client, stream)) {
                // An operation that would begin when all is over never does.
                asks.offset = plan.until;
            }
        }
    }
    let asked = |server: usize| {
        let streams = kept.iter().filter_map(|(client, stream)| plan.clients.get(*client)?.asks.get(*stream));
        streams.into_iter().any(|asks| asks.server == server)
    };
    let broken = |server: usize| plan.faults.iter().any(|planned| is_about(&planned.fault, server));
    let idle: Vec<usize> =
        (0..plan.servers.len()).filter(|server| !asked(*server) && !broken(*server)).collect();
    for server in idle {
        plan.servers[server].replicas = 0;
    }
}

fn is_about(fault: &Fault, server: usize) -> bool {
    let pod = |pod: &Pod| matches!(pod, Pod::Server(at, _) if *at == server);
    match fault {
        Fault::Partition { a, b, .. } | Fault::Slow { a, b, .. } => pod(a) || pod(b),
        Fault::CutOff(of) | Fault::Crash(of) | Fault::ProxyRestart { pod: of, .. } => pod(of),
        Fault::Reset { to, .. }
        | Fault::BlackHole { to, .. }
        | Fault::LateHello { to, .. }
        | Fault::Handshakes { to, .. } => pod(to),
        // Another workload's certificate is taken from the first server that is another.
        Fault::Secret { .. } | Fault::Impostor { .. } => true,
        Fault::SecretDeleted(of)
        | Fault::NoBundle(of)
        | Fault::OldBundle(of)
        | Fault::Renewals(of)
        | Fault::ClockJump { of, .. } => *of == Workload::Server(server),
        Fault::Rollout(at) | Fault::Stranger { to: at, .. } => *at == server,
        Fault::Takeover { from, to } => *from == server || *to == server,
        Fault::CaDown
        | Fault::CaCutOff
        | Fault::AnotherCa
        | Fault::RivalCa
        | Fault::ApiFails { .. }
        | Fault::StaleLists { .. }
        | Fault::WatchesCut { .. }
        | Fault::ApiDown { .. }
        | Fault::DestinationDown
        | Fault::DestinationCutOff
        | Fault::DestinationWrong
        | Fault::DestinationForgets { .. }
        | Fault::DestinationSlow(_) => false,
    }
}

/// As flags of a command line, each with a space before it.
impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |items: Vec<String>| {
            if items.is_empty() { "none".to_owned() } else { items.join(",") }
        };
        if let Some(faults) = &self.faults {
            write!(f, " --only {}", joined(faults.iter().map(ToString::to_string).collect()))?;
        }
        if let Some(streams) = &self.streams {
            let streams = streams.iter().map(|(client, stream)| format!("{client}.{stream}"));
            write!(f, " --asks {}", joined(streams.collect()))?;
        }
        if !self.lasting.is_empty() {
            let lasting =
                self.lasting.iter().map(|(fault, lasting)| format!("{fault}={}", lasting.as_millis()));
            write!(f, " --lasting-ms {}", joined(lasting.collect()))?;
        }
        Ok(())
    }
}

/// Leaves out of `plan` what `fails` can do without, beginning with `keep`: faults, then streams of operations, and then
/// most of the time that faults last. `fails` runs what is kept, and says whether the same still goes wrong; when it says
/// none, there is no time left, and the smallest story so far is the result.
pub fn shrink(plan: &Plan, keep: &Keep, fails: impl FnMut(&Plan) -> Option<bool>) -> Keep {
    let mut search = Search { plan, fails, smallest: keep.clone() };
    // Out of time is not an error.
    let _ = search.run();
    search.smallest
}

struct Search<'a, Fails> {
    plan: &'a Plan,
    fails: Fails,
    smallest: Keep,
}

impl<Fails: FnMut(&Plan) -> Option<bool>> Search<'_, Fails> {
    fn run(&mut self) -> Option<()> {
        let all = (0..self.plan.faults.len()).collect();
        let faults = self.smallest.faults.clone().unwrap_or(all);
        self.without(faults, |keep, faults| keep.faults = Some(faults))?;
        let streams = self.plan.clients.iter().enumerate();
        let all =
            streams.flat_map(|(client, asking)| (0..asking.asks.len()).map(move |stream| (client, stream)));
        let streams = self.smallest.streams.clone().unwrap_or_else(|| all.collect());
        self.without(streams, |keep, streams| keep.streams = Some(streams))?;
        let faults = self.smallest.faults.clone().unwrap_or_default();
        faults.into_iter().try_for_each(|fault| self.shorter(fault))
    }

    /// Leaves out parts, the largest first: all of them, halves, quarters, single ones.
    fn without<T: Clone + PartialEq>(&mut self, mut kept: Vec<T>, put: fn(&mut Keep, Vec<T>)) -> Option<()> {
        let mut size = kept.len();
        while size > 0 {
            let mut at = 0;
            while at < kept.len() {
                let mut fewer = kept.clone();
                fewer.drain(at..kept.len().min(at + size));
                let mut keep = self.smallest.clone();
                put(&mut keep, fewer.clone());
                if self.accepts(keep)? {
                    kept = fewer;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        Some(())
    }

    fn shorter(&mut self, fault: usize) -> Option<()> {
        let Some(planned) = self.plan.faults.get(fault) else { return Some(()) };
        let lasts = planned.until.saturating_sub(planned.from);
        let mut lasts = self.smallest.lasting.get(&fault).copied().unwrap_or(lasts);
        for _ in 0..HALVINGS {
            lasts /= 2;
            // To whole milliseconds, which is what a command line can say.
            lasts = Duration::from_millis(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
            let mut keep = self.smallest.clone();
            keep.lasting.insert(fault, lasts);
            if lasts < SHORTEST || !self.accepts(keep)? {
                break;
            }
        }
        Some(())
    }

    fn accepts(&mut self, keep: Keep) -> Option<bool> {
        let fails = (self.fails)(&keep.of(self.plan))?;
        if fails {
            self.smallest = keep;
        }
        Some(fails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Protocol,
        plan::{Client, Server},
        testing::ms,
        workload::Style,
    };

    const CUT: Fault = Fault::WatchesCut { is_compacted: false };

    /// Three faults, and two clients of two streams each to two servers.
    fn plan() -> Plan {
        let client = |name| {
            let client = Client::new("shop", name).asks(0, Protocol::Http1, Style::Fresh);
            client.asks(1, Protocol::Http1, Style::Fresh)
        };
        let server = |name| Server::new("shop", name, &[Protocol::Http1]);
        Plan {
            servers: vec![server("a"), server("b")],
            clients: vec![client("c"), client("d")],
            ..Plan::quiet(1)
        }
        .fault(ms(12_000), ms(20_000), Fault::CaDown)
        .fault(ms(13_000), ms(14_000), CUT)
        .fault(ms(15_000), ms(16_000), Fault::DestinationDown)
    }

    fn asks(plan: &Plan, client: usize, stream: usize) -> bool {
        plan.clients[client].asks[stream].offset < plan.until
    }

    fn has(plan: &Plan, fault: &Fault) -> bool {
        plan.faults.iter().any(|planned| planned.fault == *fault)
    }

    #[test]
    fn only_what_it_takes_is_kept() {
        let fails = |plan: &Plan| {
            let down = plan.faults.iter().find(|planned| planned.fault == Fault::CaDown);
            let is_long = down.is_some_and(|down| down.until - down.from >= ms(2_000));
            Some(is_long && has(plan, &Fault::DestinationDown) && asks(plan, 1, 0))
        };
        let kept = shrink(&plan(), &Keep::default(), fails);
        assert_eq!(kept.to_string(), " --only 0,2 --asks 1.0 --lasting-ms 0=2000,2=250");
        assert_eq!(fails(&kept.of(&plan())), Some(true));
        assert_eq!(kept.of(&plan()).servers.iter().map(|server| server.replicas).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn what_fails_by_itself_needs_nothing() {
        let kept = shrink(&plan(), &Keep::default(), |_| Some(true));
        assert_eq!(kept.to_string(), " --only none --asks none");
        assert_eq!(kept.of(&plan()).faults, []);
    }

    #[test]
    fn what_needs_everything_stays_as_it_is() {
        let whole = plan();
        let all = |plan: &Plan| {
            let lasting = |plan: &Plan| -> Duration { plan.faults.iter().map(|p| p.until - p.from).sum() };
            let streams = (0..2).all(|client| (0..2).all(|stream| asks(plan, client, stream)));
            Some(lasting(plan) == lasting(&whole) && streams)
        };
        let kept = shrink(&whole, &Keep::default(), all);
        assert_eq!(kept, Keep::default());
        assert_eq!(kept.to_string(), "");
    }

    #[test]
    fn without_time_the_smallest_so_far_is_the_result() {
        let mut runs = 0;
        let kept = shrink(&plan(), &Keep::default(), |plan| {
            runs += 1;
            (runs <= 3).then(|| has(plan, &CUT))
        });
        assert_eq!(kept.to_string(), " --only 1,2");
    }

    #[test]
    fn shrinking_goes_on_from_what_was_kept() {
        let begin = Keep { faults: Some(vec![1, 2]), ..Keep::default() };
        let kept = shrink(&plan(), &begin, |plan| {
            assert!(!has(plan, &Fault::CaDown));
            Some(has(plan, &Fault::DestinationDown))
        });
        assert_eq!(kept.faults, Some(vec![2]));
    }
}
