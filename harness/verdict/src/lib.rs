//! The pure room: what a run is planned to check, what was seen, how it is judged, and what is said about it.
//! Nothing here opens a socket or knows Kubernetes.

pub mod history;
pub mod judge;
pub mod plan;
pub mod record;
