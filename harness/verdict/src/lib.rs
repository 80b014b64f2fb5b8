//! The pure room: what a run is planned to check, what was seen, how it is judged, and what is said about it.
//! Nothing here opens a socket or knows Kubernetes.

mod answer;
pub mod baseline;
pub mod canary;
pub mod capability;
pub mod change;
pub mod curl;
pub mod differ;
mod excerpt;
pub mod file;
pub mod folder;
pub mod front;
pub mod golden;
pub mod guides;
pub mod history;
pub mod invariant;
pub mod judge;
pub mod names;
pub mod observation;
pub mod plan;
pub mod record;
pub mod redact;
mod renamed;
pub mod render;
pub mod report;
pub mod requirements;
pub mod tests_list;
mod version;
