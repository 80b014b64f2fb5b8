//! The data plane: what every dialect is translated to, and the proxy that carries it out on loopback sockets.

pub mod bodies;
mod exchange;
pub mod limits;
pub mod matching;
pub mod network;
mod picking;
pub mod pool;
pub mod proxy;
mod rewrite;
pub mod routing;
pub mod transform;
mod upstream;
pub mod usage;
pub mod words;
