//! One replica of a gateway's data plane: its table and its counters.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use super::{
    interceptor::Interceptor,
    limits::{Bucket, Windows},
    local_reply::{Failure, LocalReply},
    metering::Charges,
    network::Network,
    routing::{HeaderCase, LocalLimit, Precedence, Rule, Table},
};
use crate::{
    clock::{Clock, UnixMillis},
    lock,
};

/// Counters that all replicas of all gateways of a world share: the rate limit service and its Redis.
pub type SharedWindows = Arc<Mutex<Windows>>;

/// A handle on one replica. Clones share it. Its connections end when `stop` is cancelled.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    table: RwLock<Arc<Table>>,
    network: Network,
    clock: Clock,
    windows: SharedWindows,
    buckets: Mutex<HashMap<String, Bucket>>,
    turns: Mutex<HashMap<usize, u64>>,
    endpoints_taken: AtomicUsize,
    interceptor: Arc<dyn Interceptor>,
    stop: CancellationToken,
}

impl Proxy {
    /// A replica without configuration: it answers as a proxy that has no listener.
    pub fn new(
        network: Network,
        clock: Clock,
        windows: SharedWindows,
        interceptor: Arc<dyn Interceptor>,
        stop: CancellationToken,
    ) -> Self {
        let not_found: fn(&Failure) -> LocalReply = |_| LocalReply::empty(404);
        let empty = Table::new(Vec::new(), Precedence::default(), not_found, HeaderCase::Lower);
        Self(Arc::new(Inner {
            table: RwLock::new(Arc::new(empty)),
            network,
            clock,
            windows,
            buckets: Mutex::default(),
            turns: Mutex::default(),
            endpoints_taken: AtomicUsize::default(),
            interceptor,
            stop,
        }))
    }

    /// Takes on a configuration. Requests under way keep the old one. Buckets that the new one does not name are
    /// forgotten; those that it names anew start full.
    pub fn load(&self, table: Arc<Table>) {
        let now = self.0.clock.now_ms();
        let mut named: HashMap<&str, &LocalLimit> = HashMap::new();
        for rule in table.entries().map(|e| &e.rule) {
            named.extend(rule.local_limits.iter().map(|l| (l.bucket.as_str(), l)));
        }
        {
            let mut buckets = self.buckets();
            buckets.retain(|name, _| named.contains_key(name.as_str()));
            for (name, limit) in named {
                buckets.entry(name.to_owned()).or_insert_with(|| Bucket::new(limit.limit, now));
            }
        }
        lock(&self.0.turns).clear();
        *self.0.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn interceptor(&self) -> &Arc<dyn Interceptor> {
        &self.0.interceptor
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    pub(super) fn network(&self) -> &Network {
        &self.0.network
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(super) fn windows(&self) -> MutexGuard<'_, Windows> {
        lock(&self.0.windows)
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<String, Bucket>> {
        lock(&self.0.buckets)
    }

    pub(super) fn admit(&self, limit: &LocalLimit, units: u64) -> Result<(), Failure> {
        let now = self.time_for(&limit.bucket, limit.limit.interval_ms);
        let mut buckets = self.buckets();
        let bucket = buckets.entry(limit.bucket.clone()).or_insert_with(|| Bucket::new(limit.limit, now));
        self.0.interceptor.admission(limit, bucket.admit(now, units)).map_err(Failure::OverBucket)
    }

    fn time_for(&self, bucket: &str, window_ms: u64) -> UnixMillis {
        self.0.interceptor.limiter_time(bucket, window_ms, self.0.clock.now_ms())
    }

    /// Charges windows, and local limits that still exist.
    pub(super) fn charge(&self, charges: &Charges) {
        for window in &charges.windows {
            let limit = window.limit.limit;
            let now = self.time_for(&window.bucket, limit.seconds * 1000);
            self.windows().charge(now, &window.bucket, limit, window.hits);
        }
        for (limit, units) in &charges.buckets {
            let now = self.time_for(&limit.bucket, limit.limit.interval_ms);
            if let Some(bucket) = self.buckets().get_mut(&limit.bucket) {
                bucket.charge(now, *units);
            }
        }
    }

    pub(super) fn next_endpoint(&self) -> usize {
        self.0.endpoints_taken.fetch_add(1, Ordering::Relaxed)
    }

    /// Which backend of a rule is next: each gets exactly its share of every round, interleaved.
    pub(super) fn turn(&self, rule: &Arc<Rule>) -> Option<usize> {
        let total: u64 = rule.backends.iter().map(|b| u64::from(b.weight)).sum();
        if total == 0 {
            return None;
        }
        let mut turns = lock(&self.0.turns);
        let turn = turns.entry(Arc::as_ptr(rule) as usize).or_default();
        let mut at = *turn % total;
        *turn += 1;
        // A step that shares no divisor with the total spreads the shares over the round.
        let step = (1..=total).rev().find(|s| gcd(*s, total) == 1 && *s <= total / 2 + 1).unwrap_or(1);
        at = (at * step) % total;
        rule.backends.iter().position(|backend| match at.checked_sub(u64::from(backend.weight)) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        })
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::{
        interceptor::Passthrough,
        routing::{Backend, Target},
    };
    use super::*;
    use rstest::rstest;

    fn proxy() -> Proxy {
        let (network, clock, windows) = (Network::default(), Clock::movable(0), SharedWindows::default());
        Proxy::new(network, clock, windows, Arc::new(Passthrough), CancellationToken::new())
    }

    fn rule(weights: &[u32]) -> Arc<Rule> {
        let backends = weights.iter().map(|weight| Backend { weight: *weight, ..Backend::plain(Target::Broken) });
        Arc::new(Rule { backends: backends.collect(), ..Rule::default() })
    }

    #[rstest]
    #[case(&[1], &[10])]
    #[case(&[1, 1], &[5, 5])]
    #[case(&[9, 1], &[9, 1])]
    #[case(&[7, 3, 0], &[7, 3, 0])]
    fn backends_get_their_share(#[case] weights: &[u32], #[case] shares: &[usize]) {
        let proxy = proxy();
        let (rule, mut seen) = (rule(weights), vec![0; weights.len()]);
        for _ in 0..10 {
            seen[proxy.turn(&rule).expect("a backend")] += 1;
        }
        assert_eq!(seen, shares);
    }

    #[rstest]
    #[case(&[])]
    #[case(&[0, 0])]
    fn weight_zero_serves_nothing(#[case] weights: &[u32]) {
        let proxy = proxy();
        assert_eq!(proxy.turn(&rule(weights)), None);
    }
}
