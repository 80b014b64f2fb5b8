//! The limit room: the arithmetic of token and request budgets, pure, on a time that is passed in.
//!
//! Two kinds, because the gateways count differently: [`Windows`] is the rate limit service behind Envoy (fixed windows
//! on Unix time, checked before and charged after), [`Bucket`] is agentgateway's local limiter (refilled at fixed
//! instants after its creation). Sources: docs/facts/envoy-ai-gateway.md E5, docs/facts/agentgateway.md A8,
//! recordings `envoy-ai-gateway/token-limit.txt` and `agentgateway-kind/06-budget.txt`.

use std::collections::HashMap;

use crate::clock::UnixMillis;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimit {
    pub hits: u64,
    /// Length of a window in seconds; windows start at multiples of it since the Unix epoch.
    pub seconds: u64,
}

impl WindowLimit {
    fn window(&self, now: UnixMillis) -> u64 {
        now / 1000 / self.seconds.max(1)
    }

    /// Whole seconds until the window of `now` ends, at least 1.
    pub fn reset_seconds(&self, now: UnixMillis) -> u64 {
        let seconds = self.seconds.max(1);
        seconds - (now / 1000) % seconds
    }
}

/// What a limiter said about one request: the state before the request's own charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowState {
    pub limit: WindowLimit,
    pub over: bool,
    pub remaining: u64,
    pub reset: u64,
}

impl WindowState {
    /// The three `x-ratelimit-*` headers (draft-03), for example `70, 70;w=3600`.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        let WindowLimit { hits, seconds } = self.limit;
        [
            ("x-ratelimit-limit", format!("{hits}, {hits};w={seconds}")),
            ("x-ratelimit-remaining", self.remaining.to_string()),
            ("x-ratelimit-reset", self.reset.to_string()),
        ]
    }

    /// Of several budgets the one that is reported: an overspent one, else the one with least left.
    pub fn tightest(states: impl IntoIterator<Item = WindowState>) -> Option<WindowState> {
        states.into_iter().min_by_key(|s| (!s.over, s.remaining, s.reset))
    }
}

/// Whether a budget is overspent: strictly more than the limit was counted (docs/facts/envoy-ai-gateway.md E5).
fn is_over(spent: u64, limit: &WindowLimit) -> bool {
    spent > limit.hits
}

/// The counters of the rate limit service: one number per bucket and window. They outlive configuration changes.
#[derive(Debug, Default)]
pub struct Windows {
    spent: HashMap<String, (u64, u64)>,
}

impl Windows {
    /// Counts `hits` of a request and says how the budget stands. With 0 hits nothing is counted, only asked.
    pub fn ask(&mut self, now: UnixMillis, bucket: &str, limit: WindowLimit, hits: u64) -> WindowState {
        let spent = self.charge(now, bucket, limit, hits);
        WindowState {
            limit,
            over: is_over(spent, &limit),
            remaining: limit.hits.saturating_sub(spent),
            reset: limit.reset_seconds(now),
        }
    }

    /// Counts `hits` after a response, in the window of `now`. Returns what the window has spent.
    pub fn charge(&mut self, now: UnixMillis, bucket: &str, limit: WindowLimit, hits: u64) -> u64 {
        let window = limit.window(now);
        if hits == 0 {
            return self.spent.get(bucket).filter(|(w, _)| *w == window).map_or(0, |(_, spent)| *spent);
        }
        let (at, spent) = self.spent.entry(bucket.to_owned()).or_insert((window, 0));
        if *at != window {
            (*at, *spent) = (window, 0);
        }
        *spent = spent.saturating_add(hits);
        *spent
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketLimit {
    /// Most that the bucket holds, and what it starts with: the limit plus the burst.
    pub capacity: u64,
    pub per_fill: u64,
    /// Milliseconds between refills, counted from the bucket's creation.
    pub interval_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketDenial {
    pub limit: u64,
    pub remaining: u64,
    pub reset: u64,
}

impl BucketDenial {
    /// The three `x-ratelimit-*` headers, for example `70`.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        [
            ("x-ratelimit-limit", self.limit.to_string()),
            ("x-ratelimit-remaining", self.remaining.to_string()),
            ("x-ratelimit-reset", self.reset.to_string()),
        ]
    }
}

/// A local bucket of one proxy replica. It starts full, is refilled at fixed instants, and knows no debt.
#[derive(Clone, Debug)]
pub struct Bucket {
    limit: BucketLimit,
    created: UnixMillis,
    fills: u64,
    available: u64,
}

impl Bucket {
    pub fn new(limit: BucketLimit, now: UnixMillis) -> Self {
        Self { limit, created: now, fills: 0, available: limit.capacity }
    }

    fn refill(&mut self, now: UnixMillis) {
        let due = now.saturating_sub(self.created) / self.limit.interval_ms.max(1);
        let fresh = due.saturating_sub(self.fills);
        if fresh > 0 {
            self.fills = due;
            self.available =
                self.available.saturating_add(fresh.saturating_mul(self.limit.per_fill)).min(self.limit.capacity);
        }
    }

    /// Lets a request pass while at least one unit is there, and takes `units` of it (0 reserves nothing).
    pub fn admit(&mut self, now: UnixMillis, units: u64) -> Result<(), BucketDenial> {
        self.refill(now);
        if self.available >= units.max(1) {
            self.available -= units;
            return Ok(());
        }
        let next = self.created + (self.fills + 1).saturating_mul(self.limit.interval_ms.max(1));
        // A reply is never written in the very instant of a refill, so a whole interval is never reported.
        let reset = next.saturating_sub(now).saturating_sub(1) / 1000;
        Err(BucketDenial { limit: self.limit.capacity, remaining: self.available, reset })
    }

    /// Takes what a reply cost. What is not there is forgiven.
    pub fn charge(&mut self, now: UnixMillis, units: u64) {
        self.refill(now);
        self.available = self.available.saturating_sub(units);
    }

    pub fn available(&mut self, now: UnixMillis) -> u64 {
        self.refill(now);
        self.available
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const HOUR: u64 = 3600;
    const NOON: UnixMillis = 1_795_262_400_000; // 2026-11-21T12:00:00Z, the start of an hour

    /// Equal to the limit still passes, so a limit of 70 lets eleven calls of 7 through.
    #[rstest]
    #[case(70, 7, 11)]
    #[case(75, 7, 11)]
    #[case(14, 7, 3)]
    #[case(7, 7, 2)]
    #[case(1, 7, 1)]
    #[case(69, 7, 10)]
    fn sequential_calls_until_a_window_is_overspent(#[case] limit: u64, #[case] cost: u64, #[case] passes: usize) {
        let (mut windows, limit) = (Windows::default(), WindowLimit { hits: limit, seconds: HOUR });
        let mut passed = 0;
        while !windows.ask(NOON, "route/user-a", limit, 0).over && passed < 1000 {
            windows.charge(NOON, "route/user-a", limit, cost);
            passed += 1;
        }
        assert_eq!(passed, passes);
    }

    #[rstest]
    #[case(70, 7, 10)]
    #[case(75, 7, 11)]
    #[case(14, 7, 2)]
    #[case(7, 7, 1)]
    #[case(1, 7, 1)]
    #[case(10, 7, 2)]
    fn sequential_calls_until_a_bucket_is_empty(#[case] limit: u64, #[case] cost: u64, #[case] passes: usize) {
        let mut bucket = Bucket::new(BucketLimit { capacity: limit, per_fill: limit, interval_ms: 60_000 }, NOON);
        let mut passed = 0;
        while bucket.admit(NOON, 0).is_ok() && passed < 1000 {
            bucket.charge(NOON, cost);
            passed += 1;
        }
        assert_eq!(passed, passes);
        let denial = bucket.admit(NOON + 500, 0).expect_err("empty");
        assert_eq!((denial.limit, denial.remaining, denial.reset), (limit, 0, 59));
    }

    #[test]
    fn the_state_is_the_one_before_the_charge_and_never_negative() {
        let (mut windows, limit) = (Windows::default(), WindowLimit { hits: 70, seconds: HOUR });
        let mut remaining = Vec::new();
        for _ in 0..12 {
            remaining.push(windows.ask(NOON, "b", limit, 0).remaining);
            windows.charge(NOON, "b", limit, 7);
        }
        assert_eq!(remaining, [70, 63, 56, 49, 42, 35, 28, 21, 14, 7, 0, 0]);
        let state = windows.ask(NOON + 1_400_000, "b", limit, 0);
        assert_eq!(
            state.headers().map(|(_, v)| v),
            ["70, 70;w=3600".to_owned(), "0".to_owned(), "2200".to_owned()],
            "the same words as in token-limit.txt"
        );
    }

    #[rstest]
    #[case::same_window(NOON + 3_599_999, true)]
    #[case::next_window(NOON + 3_600_000, false)]
    fn a_window_turns_on_the_clock_hour(#[case] at: UnixMillis, #[case] over: bool) {
        let (mut windows, limit) = (Windows::default(), WindowLimit { hits: 7, seconds: HOUR });
        windows.charge(NOON + 3_599_000, "b", limit, 8);
        assert_eq!(windows.ask(at, "b", limit, 0).over, over);
        assert_eq!(limit.reset_seconds(NOON), HOUR);
        assert_eq!(limit.reset_seconds(NOON + 3_599_999), 1);
    }

    #[test]
    fn users_have_buckets_of_their_own_and_requests_can_be_what_is_counted() {
        let (mut windows, limit) = (Windows::default(), WindowLimit { hits: 2, seconds: 60 });
        let ask = |w: &mut Windows, user: &str| w.ask(NOON, user, limit, 1).over;
        assert_eq!([(); 3].map(|()| ask(&mut windows, "a")), [false, false, true]);
        assert!(!ask(&mut windows, "b"));
    }

    #[rstest]
    #[case::before(4_999, false)]
    #[case::at_the_refill(5_000, true)]
    fn a_bucket_is_refilled_at_fixed_instants_without_debt(#[case] after: u64, #[case] open: bool) {
        let mut bucket = Bucket::new(BucketLimit { capacity: 10, per_fill: 10, interval_ms: 5_000 }, NOON);
        bucket.charge(NOON + 1, 700); // one reply far over the budget
        assert!(bucket.admit(NOON + 2, 0).is_err());
        assert_eq!(bucket.admit(NOON + after, 0).is_ok(), open);
        assert_eq!(bucket.available(NOON + 20_000), 10, "never more than the capacity");
    }

    #[test]
    fn a_request_unit_is_taken_at_admission() {
        let mut bucket = Bucket::new(BucketLimit { capacity: 3, per_fill: 2, interval_ms: 1_000 }, NOON);
        assert_eq!([(); 4].map(|()| bucket.admit(NOON, 1).is_ok()), [true, true, true, false]);
        assert_eq!([(); 3].map(|()| bucket.admit(NOON + 1_000, 1).is_ok()), [true, true, false]);
    }

    #[test]
    fn the_tightest_budget_is_reported() {
        let state =
            |over, remaining| WindowState { limit: WindowLimit { hits: 70, seconds: 60 }, over, remaining, reset: 3 };
        assert_eq!(WindowState::tightest([state(false, 7), state(false, 3)]), Some(state(false, 3)));
        assert_eq!(WindowState::tightest([state(false, 0), state(true, 0)]), Some(state(true, 0)));
        assert_eq!(WindowState::tightest([]), None);
    }
}
