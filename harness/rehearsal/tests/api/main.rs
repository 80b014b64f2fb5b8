//! The API server as its clients see it: through the kube client and through plain HTTP on loopback.

mod admission;
mod apply;
mod bad_input;
mod forward;
mod objects;
mod pods;
mod watch;
mod world;
