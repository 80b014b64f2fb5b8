//! Programs of this machine that the harness calls: a container engine, kind, helm; and the processes of runs.

pub mod child;
pub mod engine;
#[cfg(test)]
pub(crate) mod fakes;
pub mod helm;
pub mod image;
pub mod kind;
pub mod processes;
