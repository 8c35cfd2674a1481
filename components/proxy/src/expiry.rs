//! Waiting for a moment of wall-clock time, which may be set while one waits.

use std::{sync::Arc, time::Duration};

use conduit_identity::{Clock, UnixTime};

/// How often the clock is asked: one that is set, or runs faster than tokio's, is noticed within this time.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// Waits until `clock` shows `moment`; for ever without one. Cancel safe.
pub(crate) async fn reached(clock: Arc<dyn Clock>, moment: Option<UnixTime>) {
    let Some(moment) = moment else { return std::future::pending().await };
    loop {
        let left = moment.since(clock.now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(ASK_EVERY)).await;
    }
}
