//! The data plane: what every dialect is translated to, and the proxy that carries it out on loopback sockets.

pub(crate) mod ai;
pub mod bodies;
mod exchange;
mod ext_proc;
pub mod interceptor;
mod json_text;
pub mod limits;
pub mod local_reply;
pub mod matching;
pub mod metering;
pub mod network;
pub mod pool;
pub mod proxy;
pub mod routing;
mod server;
pub mod transform;
pub mod upstream;
pub mod usage;
