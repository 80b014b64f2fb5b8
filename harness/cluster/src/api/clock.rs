//! The one clock of this room: deadlines, bounds on single requests, and the pauses before asking again.
//!
//! Nothing else here sleeps. The time is tokio's, so that unit tests can pause it.

use std::time::Duration;

use tokio::time::Instant;

use super::failure::{ApiFailure, FailureKind};

#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    began: Instant,
    at: Instant,
}

impl Deadline {
    pub fn within(within: Duration) -> Self {
        let began = Instant::now();
        // A year is for ever here, and does not overflow.
        Self { began, at: began + within.min(Duration::from_secs(365 * 24 * 3600)) }
    }

    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }

    /// Runs a future until the deadline; `None` when that came first.
    pub async fn bound<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.at, future).await.ok()
    }
}

/// Pauses that double, from the first to the longest, and never reach over a deadline.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(3))
    }
}

impl Backoff {
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Pauses, at most until the deadline. Returns `false` when the deadline has passed afterwards.
    pub async fn pause(&mut self, deadline: Deadline) -> bool {
        let pause = self.next.min(deadline.left());
        self.next = (self.next * 2).min(self.longest);
        tokio::time::sleep(pause).await;
        !deadline.passed()
    }
}

/// Since when nobody listens where the API server should.
#[derive(Debug, Default)]
pub(crate) struct Absence(Option<Deadline>);

impl Absence {
    /// Whether this has been the only answer for so long that nobody will come back.
    pub(crate) fn lasts(&mut self, failure: &ApiFailure, longest: Duration) -> bool {
        if !matches!(failure.kind, FailureKind::NobodyListens(_)) {
            self.0 = None;
            return false;
        }
        self.0.get_or_insert_with(|| Deadline::within(longest)).passed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(SECOND, SECOND * 3);
        let deadline = Deadline::within(SECOND * 100);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let before = Instant::now();
            assert!(backoff.pause(deadline).await);
            seen.push(before.elapsed().as_secs());
        }
        assert_eq!(seen, [1, 2, 3, 3]);
        backoff.reset();
        let before = Instant::now();
        backoff.pause(deadline).await;
        assert_eq!(before.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_at_the_deadline() {
        let mut backoff = Backoff::new(SECOND * 60, SECOND * 60);
        let deadline = Deadline::within(SECOND * 5);
        assert!(!backoff.pause(deadline).await, "the deadline has passed");
        assert_eq!(deadline.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_ends_what_never_ends() {
        let deadline = Deadline::within(SECOND * 7);
        assert!(deadline.bound(std::future::pending::<()>()).await.is_none());
        assert_eq!(deadline.elapsed().as_secs(), 7);
        assert_eq!(Deadline::within(SECOND).bound(async { 3 }).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_absence_lasts_from_its_beginning_and_ends_with_any_other_word() {
        let gone = ApiFailure::new("x", FailureKind::NobodyListens("http://127.0.0.1:1".into()));
        let late = ApiFailure::new("x", FailureKind::Unanswered("late".into()));
        let mut absence = Absence::default();
        assert!(!absence.lasts(&gone, SECOND * 10));
        tokio::time::advance(SECOND * 9).await;
        assert!(!absence.lasts(&gone, SECOND * 10));
        assert!(!absence.lasts(&late, SECOND * 10));
        tokio::time::advance(SECOND * 9).await;
        assert!(!absence.lasts(&gone, SECOND * 10), "it began anew");
        tokio::time::advance(SECOND * 10).await;
        assert!(absence.lasts(&gone, SECOND * 10));
    }
}
