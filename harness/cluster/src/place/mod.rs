//! Places: where a cluster comes from, and how everything that a run made there goes away again.

pub mod child;
pub mod doctor;
pub mod egress;
pub mod engine;
#[cfg(test)]
pub(crate) mod fakes;
pub mod image;
pub mod kind;
pub mod name;
pub mod processes;
pub mod sweep;
