//! The model's clock: the one place that waits for time, so that the rehearsal can move it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{FutureExt, future::BoxFuture};

pub trait Clock: Send + Sync + 'static {
    fn now_ms(&self) -> u64;
    /// Completes when the clock shows so much more than at the call.
    fn delay(&self, by: Duration) -> BoxFuture<'static, ()>;
}

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
