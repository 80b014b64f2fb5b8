//! The stage's clock: the only code of the suites that sleeps. On a real place time is waited for.

use std::time::{Duration, Instant};

/// Seconds since the stage was opened, and the wait for a later one.
#[derive(Clone, Debug)]
pub struct Clock {
    opened: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { opened: Instant::now() }
    }

    /// When it was started.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Seconds since it was started.
    pub fn seconds(&self) -> f64 {
        self.opened.elapsed().as_secs_f64()
    }

    /// Waits until this many seconds after the start; a time that is past is no wait.
    pub async fn until(&self, seconds: f64) {
        let left = seconds - self.seconds();
        if left > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(left)).await;
        }
    }
}
