//! Who has lately done TLS with us.

use std::{net::IpAddr, time::Duration};

use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a handshake counts as lately.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Addresses remembered at once; more only means that some greetings are held more briefly.
const MAX_PEERS: usize = 4_096;

/// The addresses that completed a handshake lately.
#[derive(Debug, Default)]
pub(crate) struct KnownPeers {
    seen: Mutex<IndexMap<IpAddr, Instant, foldhash::fast::FixedState>>,
}

impl KnownPeers {
    /// `peer` completed a handshake.
    pub(super) fn insert(&self, peer: IpAddr) {
        let now = Instant::now();
        let mut seen = self.seen.lock();
        if seen.len() >= MAX_PEERS && !seen.contains_key(&peer) {
            seen.retain(|_, since| now.duration_since(*since) < REMEMBERED_FOR);
            if seen.len() >= MAX_PEERS {
                seen.swap_remove_index(0);
            }
        }
        seen.insert(peer, now);
    }

    /// Whether `peer` did so lately.
    pub(super) fn contains(&self, peer: IpAddr) -> bool {
        self.seen.lock().get(&peer).is_some_and(|since| since.elapsed() < REMEMBERED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn peers_are_known_for_a_while_and_their_number_is_bounded() {
        let known = KnownPeers::default();
        let peer = IpAddr::from([10, 0, 0, 1]);
        known.insert(peer);
        tokio::time::advance(REMEMBERED_FOR - Duration::from_secs(1)).await;
        assert!(known.contains(peer));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!known.contains(peer));
        for number in 0..10_000_u32 {
            known.insert(IpAddr::from(number.to_be_bytes()));
        }
        assert_eq!(known.seen.lock().len(), MAX_PEERS);
        assert!(known.contains(IpAddr::from(9_999_u32.to_be_bytes())));
    }
}
