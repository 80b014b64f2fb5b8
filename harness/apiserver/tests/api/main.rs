//! The API server as its clients see it: through the kube client and through plain HTTP on loopback.

mod apply;
mod bad_input;
mod forward;
mod objects;
mod pods;
mod store;
mod watch;
mod world;
