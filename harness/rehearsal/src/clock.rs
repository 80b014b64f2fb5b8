//! The clock of a world: one source of "now" for windows, buckets, route timeouts and delays, real or moved by hand.
//!
//! A movable clock stands still until it is told to move, and delays that wait on it complete at that moment.
//! Sockets, watches and tokio's own time stay real (product.md section 10, "Clock").

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{oneshot, watch};

use crate::lock;

/// Milliseconds since the Unix epoch.
pub type UnixMillis = u64;

/// A handle on a world's time. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    Real,
    Movable(Mutex<Hands>, watch::Sender<u64>),
}

#[derive(Debug)]
struct Hands {
    now: UnixMillis,
    order: u64,
    /// Delays that wait for the clock to be moved, by deadline and then by arrival.
    parked: BTreeMap<(UnixMillis, u64), oneshot::Sender<()>>,
}

impl Clock {
    pub fn real() -> Self {
        Self(Arc::new(Kind::Real))
    }

    pub fn movable(now: UnixMillis) -> Self {
        let hands = Hands { now, order: 0, parked: BTreeMap::new() };
        Self(Arc::new(Kind::Movable(Mutex::new(hands), watch::Sender::default())))
    }

    pub fn movable_from_now() -> Self {
        Self::movable(machine_now())
    }

    pub fn now_ms(&self) -> UnixMillis {
        match &*self.0 {
            Kind::Real => machine_now(),
            Kind::Movable(hands, _) => lock(hands).now,
        }
    }

    /// How many delays wait for the clock to be moved; 0 on real time.
    pub fn parked(&self) -> usize {
        match &*self.0 {
            Kind::Real => 0,
            Kind::Movable(hands, _) => {
                let mut hands = lock(hands);
                hands.parked.retain(|_, wake| !wake.is_closed());
                hands.parked.len()
            }
        }
    }

    /// Waits until at least `delays` delays wait for the clock to be moved. On real time it waits for ever: the caller
    /// bounds it.
    pub async fn until_parked(&self, delays: usize) {
        let Kind::Movable(_, parkings) = &*self.0 else { return std::future::pending().await };
        let mut parkings = parkings.subscribe();
        while self.parked() < delays {
            if parkings.changed().await.is_err() {
                return;
            }
        }
    }

    /// Moves the clock forward to `to` and completes every delay that ends by then, in the order of their ends.
    /// Returns `false`, and does nothing, on real time. A clock never goes back: an earlier `to` is "now".
    pub fn advance_to(&self, to: UnixMillis) -> bool {
        let Kind::Movable(hands, _) = &*self.0 else { return false };
        let mut hands = lock(hands);
        let now = hands.now.max(to);
        hands.now = now;
        while let Some(parked) = hands.parked.first_entry().filter(|parked| parked.key().0 <= now) {
            _ = parked.remove().send(()); // the waiter may have left
        }
        true
    }

    pub fn advance_by(&self, by: Duration) -> bool {
        self.advance_to(self.now_ms().saturating_add(millis(by)))
    }

    /// Completes when this clock shows `by` more than now. The delay counts from the call, not from the first poll.
    pub fn delay(&self, by: Duration) -> impl Future<Output = ()> + Send + 'static {
        let waiting = match &*self.0 {
            Kind::Real => None,
            Kind::Movable(..) if by.is_zero() => None,
            Kind::Movable(hands, parkings) => {
                let mut hands = lock(hands);
                let (wake, woken) = oneshot::channel();
                hands.order += 1;
                let (at, order) = (hands.now.saturating_add(millis(by)), hands.order);
                hands.parked.insert((at, order), wake);
                parkings.send_replace(order);
                Some(woken)
            }
        };
        let real = matches!(&*self.0, Kind::Real);
        let deadline = tokio::time::Instant::now().checked_add(by);
        let clock = self.clone(); // keeps the hands alive, so that the sender is never dropped unsent
        async move {
            match (waiting, deadline) {
                (Some(woken), _) => _ = woken.await,
                (None, Some(deadline)) if real && !by.is_zero() => tokio::time::sleep_until(deadline).await,
                (None, _) => {}
            }
            drop(clock);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn machine_now() -> UnixMillis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

impl model::Clock for Clock {
    fn now_ms(&self) -> u64 {
        Self::now_ms(self)
    }

    fn delay(&self, by: Duration) -> BoxFuture<'static, ()> {
        Self::delay(self, by).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_movable_clock_stands_until_it_is_moved() {
        let clock = Clock::movable(1_000);
        assert_eq!(clock.now_ms(), 1_000);
        assert!(clock.advance_by(Duration::from_millis(500)));
        assert_eq!(clock.now_ms(), 1_500);
        assert!(clock.advance_to(200), "an earlier time is accepted");
        assert_eq!(clock.now_ms(), 1_500, "and changes nothing");
        assert!(!Clock::real().advance_to(u64::MAX));
    }

    #[tokio::test]
    async fn delays_end_when_the_clock_has_moved_past_them_and_not_before() {
        let clock = Clock::movable(0);
        let mut short = Box::pin(clock.delay(Duration::from_secs(10)));
        let mut long = Box::pin(clock.delay(Duration::from_secs(60)));
        assert_eq!(clock.parked(), 2);
        clock.advance_to(9_999);
        assert!(short.as_mut().now_or_never().is_none());
        clock.advance_to(10_000);
        assert!(short.as_mut().now_or_never().is_some());
        assert!(long.as_mut().now_or_never().is_none());
        assert_eq!(clock.parked(), 1);
        drop(long);
        assert_eq!(clock.parked(), 0, "a waiter that left is not parked");
        assert!(Clock::real().delay(Duration::ZERO).now_or_never().is_some());
        assert!(clock.delay(Duration::ZERO).now_or_never().is_some());
    }
}
