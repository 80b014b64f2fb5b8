//! The stage's clock: the only code of the suites that sleeps. On a real place time is waited for; in a rehearsal the
//! world's own clock is moved, and no time passes.

use std::{
    sync::Mutex,
    sync::PoisonError,
    time::{Duration, Instant},
};

/// Seconds since the stage was opened, and the wait for a later one.
#[derive(Debug)]
pub struct Clock {
    opened: Instant,
    world: Option<rehearsal::clock::Clock>,
    moved: Mutex<f64>,
}

impl Clock {
    /// A clock that starts now, on real time or on that of a rehearsed world.
    pub fn start(world: Option<rehearsal::clock::Clock>) -> Self {
        Self { opened: Instant::now(), world, moved: Mutex::new(0.0) }
    }

    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Seconds since it was started, with those by which it was moved.
    pub fn seconds(&self) -> f64 {
        self.opened.elapsed().as_secs_f64() + *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds that have passed, those by which it was moved left out.
    pub fn elapsed(&self) -> f64 {
        self.opened.elapsed().as_secs_f64()
    }

    /// Seconds that pass until a time on this clock: none where it is moved.
    pub fn would_take(&self, until: f64) -> f64 {
        if self.world.is_some() { 0.0 } else { (until - self.seconds()).max(0.0) }
    }

    pub fn moved_ms(&self) -> f64 {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) * 1000.0
    }

    /// Goes on at so many seconds after the start; a time that is past is no wait.
    pub async fn until(&self, seconds: f64) {
        let left = seconds - self.seconds();
        if left <= 0.0 {
            return;
        }
        match &self.world {
            Some(world) => {
                world.advance_by(Duration::from_secs_f64(left));
                *self.moved.lock().unwrap_or_else(PoisonError::into_inner) += left;
            }
            None => tokio::time::sleep(Duration::from_secs_f64(left)).await,
        }
    }

    /// Lets others proceed before the next look. A rehearsal's time stands still meanwhile, and its look comes sooner.
    pub async fn pause(&self, seconds: f64) {
        let pause = if self.world.is_some() { 0.005 } else { seconds };
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[tokio::test]
    async fn a_rehearsed_minute_takes_no_time_and_moves_the_world() {
        let world = rehearsal::clock::Clock::movable(1_000);
        let clock = Clock::start(Some(world.clone()));
        clock.until(60.0).await;
        assert!(clock.seconds() >= 60.0 && clock.opened().elapsed() < Duration::from_secs(60));
        assert!(world.now_ms() >= 60_000);
        let before = world.now_ms();
        clock.until(30.0).await;
        assert_eq!(world.now_ms(), before, "what is past is no wait");
        assert!(clock.elapsed() < 60.0);
    }

    #[rstest]
    #[case::real(None, 59.0..=60.0)]
    #[case::moved(Some(rehearsal::clock::Clock::movable(1_000)), 0.0..=0.0)]
    fn a_wait_takes_time_where_time_passes(
        #[case] world: Option<rehearsal::clock::Clock>,
        #[case] seconds: std::ops::RangeInclusive<f64>,
    ) {
        let clock = Clock::start(world);
        assert!(seconds.contains(&clock.would_take(60.0)));
        assert!(clock.would_take(-1.0).abs() < f64::EPSILON, "what is past is no wait");
    }
}
