//! Bursts: many calls at a time, sent by the clock, as the world does, whether earlier ones are answered or not. A call that
//! goes out late (because the machine was busy) is counted from its intended time, so that stalls are not hidden
//! (coordinated omission).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::{sync::mpsc, task::JoinSet};
use verdict::history::{Ended, Exchange, Outcome};

use crate::{Call, Client};

#[derive(Clone, Debug)]
pub struct Burst {
    /// In order of sending.
    pub exchanges: Vec<Exchange>,
    /// When each should have been sent: milliseconds from the opening of the stage.
    pub intended_ms: Vec<f64>,
    /// From the first intended time to the last end.
    pub seconds: f64,
}

/// Latencies of the exchanges that have a complete response, in microseconds from their intended times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    pub count: u64,
    /// How many exchanges have no complete response.
    pub failed: u64,
    pub min_us: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

impl Burst {
    /// The latencies, to three significant digits.
    pub fn latencies(&self) -> Latencies {
        let latency = |(exchange, intended_ms): (&Exchange, &f64)| latency_us(exchange, *intended_ms);
        let latencies: Vec<u64> = self.exchanges.iter().zip(&self.intended_ms).filter_map(latency).collect();
        let mut histogram = Histogram::<u64>::new(3).expect("0 to 5 digits");
        for latency in &latencies {
            // it grows as it must; only more memory than a machine has would make it fail
            histogram.record(*latency).unwrap_or_default();
        }
        let count = latencies.len() as u64;
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latencies {
            count,
            failed: self.exchanges.len() as u64 - count,
            min_us: histogram.min(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max(),
        }
    }

    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.exchanges.len() as f64 / self.seconds } else { 0.0 }
    }

    fn of(exchanges: Vec<Exchange>, intended_ms: Vec<f64>) -> Self {
        let last = exchanges.iter().map(end_ms).fold(0.0, f64::max);
        let first = intended_ms.first().copied().unwrap_or(last);
        Self { exchanges, intended_ms, seconds: (last - first).max(0.0) / 1_000.0 }
    }
}

/// Milliseconds from the opening of the stage to the end of an exchange, as far as it is known.
fn end_ms(exchange: &Exchange) -> f64 {
    exchange.sent_ms + exchange.response().map_or(0.0, |r| r.end_ms)
}

/// Microseconds from the intended time to the end of a complete response.
fn latency_us(exchange: &Exchange, intended_ms: f64) -> Option<u64> {
    match &exchange.outcome {
        Outcome::Response(response) if response.ended == Ended::Complete => {
            Some(((end_ms(exchange) - intended_ms).max(0.0) * 1_000.0).round() as u64)
        }
        _ => None,
    }
}

/// Sends `n` calls, `rate_per_second` of them each second (0: all at once), whether earlier ones are answered or not.
pub async fn open(
    client: &Client,
    label: &str,
    rate_per_second: f64,
    n: usize,
    make_call: impl Fn(usize) -> Call,
) -> Burst {
    let offset = move |i: usize| Duration::try_from_secs_f64(i as f64 / rate_per_second).unwrap_or(Duration::ZERO);
    let begin = Instant::now();
    let begin_ms = client.now_ms();
    let mut due = pace(begin, n, offset);
    let mut sending = JoinSet::new();
    let mut intended = Vec::with_capacity(n);
    while let Some(i) = due.recv().await {
        intended.push(begin_ms + offset(i).as_secs_f64() * 1_000.0);
        let (client, label, call) = (client.clone(), label.to_owned(), make_call(i));
        sending.spawn(async move { (i, client.send(&label, call).await) });
    }
    let mut sent = sending.join_all().await;
    sent.sort_by_key(|(i, _)| *i);
    Burst::of(sent.into_iter().map(|(_, exchange)| exchange).collect(), intended)
}

/// Says when each call is due. A thread of its own: the runtime's timers are a millisecond wide.
fn pace(
    begin: Instant,
    n: usize,
    offset: impl Fn(usize) -> Duration + Send + 'static,
) -> mpsc::UnboundedReceiver<usize> {
    let (say, due) = mpsc::unbounded_channel();
    tokio::task::spawn_blocking(move || {
        for i in 0..n {
            std::thread::sleep((begin + offset(i)).saturating_duration_since(Instant::now()));
            if say.send(i).is_err() {
                break; // nobody sends any more
            }
        }
    });
    due
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use verdict::history::{Body, Request, Response};

    use super::*;

    fn exchange(sent_ms: f64, end_ms: f64, ended: Ended) -> Exchange {
        let request = Request {
            method: String::new(),
            target: String::new(),
            host: String::new(),
            headers: vec![],
            body: Body::default(),
        };
        let (status, headers, body, chunks, head_ms) = (200, vec![], Body::default(), vec![], 0.0);
        let outcome = Outcome::Response(Response { status, headers, body, chunks, ended, head_ms, end_ms });
        Exchange { id: String::new(), label: String::new(), sent_ms, request, outcome, connection: None }
    }

    #[rstest]
    #[case::on_time(100.0, 100.0, 2_500)]
    #[case::ten_milliseconds_late(110.0, 100.0, 12_500)]
    #[case::a_little_early(99.999, 100.0, 2_499)]
    fn latency_counts_from_the_intended_time(#[case] sent_ms: f64, #[case] intended_ms: f64, #[case] us: u64) {
        assert_eq!(latency_us(&exchange(sent_ms, 2.5, Ended::Complete), intended_ms), Some(us));
    }

    #[test]
    fn latencies_are_of_complete_responses_only() {
        let mut exchanges: Vec<_> = (1..=100).map(|ms| exchange(0.0, f64::from(ms), Ended::Complete)).collect();
        exchanges.push(exchange(0.0, 9_999.0, Ended::Truncated));
        let intended = vec![0.0; exchanges.len()];
        let latencies = Burst::of(exchanges, intended).latencies();
        assert_eq!((latencies.count, latencies.failed), (100, 1));
        for (got, wanted) in [
            (latencies.min_us, 1_000),
            (latencies.p50_us, 50_000),
            (latencies.p99_us, 99_000),
            (latencies.max_us, 100_000),
        ] {
            assert!(got.abs_diff(wanted) <= wanted / 1_000, "{got} for {wanted}");
        }
    }

    #[test]
    fn an_empty_burst_has_no_latencies() {
        let burst = Burst::of(vec![], vec![]);
        assert_eq!((burst.latencies().count, burst.rate()), (0, 0.0));
    }
}
