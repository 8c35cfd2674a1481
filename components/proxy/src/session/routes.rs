//! The handles that one connection's requests count on, so that only the first of a kind looks them up.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Direction, TlsStatus};
use crate::metrics::{Labels, Metrics, Route};

/// Kinds of requests that one connection keeps handles for: one for each endpoint of one authority, mostly. Finding one
/// among so many compares addresses; a connection that needs more looks some of them up again.
const MAX_CACHED: usize = 64;

/// The handles of one connection, the latest first. Its lock is the connection's own, so that nobody ever waits for it
/// except two requests of one HTTP/2 connection on two workers, which does not happen: a connection stays on its worker.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<Vec<Cached>>);

#[derive(Debug)]
struct Cached {
    authority: Box<[u8]>,
    dst: Labels,
    tls: TlsStatus,
    route: Arc<Route>,
}

impl Routes {
    /// The handle for requests to `authority` as the client spelt it.
    pub(super) fn get(
        &self,
        metrics: &Metrics,
        direction: Direction,
        authority: &[u8],
        dst: &Labels,
        tls: &TlsStatus,
    ) -> Arc<Route> {
        let mut cached = self.0.lock();
        let same = |known: &Cached| known.dst.is(dst) && *known.authority == *authority && known.tls == *tls;
        match cached.iter().position(same) {
            Some(0) => {}
            Some(index) => cached.swap(0, index),
            None => {
                let route = metrics.route(direction, authority, dst, tls);
                cached.truncate(MAX_CACHED - 1);
                cached.insert(
                    0,
                    Cached { authority: authority.into(), dst: dst.clone(), tls: tls.clone(), route },
                );
            }
        }
        Arc::clone(&cached[0].route)
    }
}
