//! The model's clock: the one place that waits for time, so that the rehearsal can move it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{FutureExt, future::BoxFuture};

/// A source of now, and of delays.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Completes when the clock shows so much more than at the call.
    fn delay(&self, by: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's own time.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealClock;

impl Clock for RealClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    fn delay(&self, by: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(by).boxed()
    }
}
