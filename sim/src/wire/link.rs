//! What lies between two hosts, as a function of the seed, the link and the time: never of a draw per message, so that
//! two runs of one seed meet the same network although they send different messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// How long a link keeps one latency.
const EPISODE: Duration = Duration::from_millis(250);

/// All links of a world.
#[derive(Debug)]
pub(super) struct Links {
    seed: u64,
    /// The shortest and the longest latency, one way.
    latency: (Duration, Duration),
    cut: BTreeSet<(IpAddr, IpAddr)>,
    slow: BTreeMap<(IpAddr, IpAddr), Duration>,
}

impl Links {
    pub(super) fn new(seed: u64, latency: (Duration, Duration)) -> Self {
        Self { seed, latency, cut: BTreeSet::new(), slow: BTreeMap::new() }
    }

    /// One way, at `now`.
    pub(super) fn latency(&self, from: IpAddr, to: IpAddr, now: Duration) -> Duration {
        if from == to {
            return Duration::ZERO;
        }
        let (low, high) = self.latency;
        let spread = u64::try_from((high - low).as_micros()).unwrap_or_default() + 1;
        let episode = now.as_micros() / EPISODE.as_micros();
        let draw = mix(self.seed ^ hash(from.min(to)) ^ hash(from.max(to)).rotate_left(17) ^ episode as u64);
        let extra = self.slow.get(&(from, to)).copied().unwrap_or_default();
        low + Duration::from_micros(draw % spread) + extra
    }

    /// Whether packets get from one to the other.
    pub(super) fn passes(&self, from: IpAddr, to: IpAddr) -> bool {
        !self.cut.contains(&(from, to))
    }

    pub(super) fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.cut.insert((from, to));
    }

    pub(super) fn mend(&mut self, from: IpAddr, to: IpAddr) {
        self.cut.remove(&(from, to));
    }

    pub(super) fn slow(&mut self, from: IpAddr, to: IpAddr, by: Duration) {
        if by.is_zero() {
            self.slow.remove(&(from, to));
        } else {
            self.slow.insert((from, to), by);
        }
    }
}

fn hash(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => mix(u64::from(u32::from(ip))),
        IpAddr::V6(ip) => mix(u128::from(ip) as u64 ^ (u128::from(ip) >> 64) as u64),
    }
}

/// SplitMix64's finalizer: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
