//! Bursts: many calls at a time, with latencies that count from when a call should have been sent.
