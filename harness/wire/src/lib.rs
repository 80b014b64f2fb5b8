//! The wire: a client that keeps a transcript of everything it says and hears, with bounds on all that it reads.

pub mod burst;
pub mod call;
pub mod client;
mod connection;
pub mod dial;
mod redact;
pub mod sse;
pub mod tap;

pub use burst::{Burst, Latencies};
pub use call::{Abandon, Call};
pub use client::{Arrived, Client, Next};
pub use dial::{Dial, Stream, Tcp};
pub use redact::{redacted, redacted_all};
