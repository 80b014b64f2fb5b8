//! The wire against servers on loopback; nothing here sleeps.

mod burst;
mod client;
mod http2;
mod reuse;
mod served;
