//! The install: components as data, their graph, and the run that makes them ready in the order that they really need.

pub mod bundle;
pub mod component;
pub mod failure;
pub mod graph;
pub mod model;
mod nodes;
pub mod presence;
pub mod profile;
pub mod progress;
pub mod request;
pub mod run;
mod schedule;
pub mod timing;
mod work;
