//! Kubernetes: the API as checks need it, the places where a cluster comes from, the install graph, intents written as manifests, waits and evidence.

pub mod api;
pub mod environment;
pub mod evidence;
pub mod gateway;
pub mod install;
pub mod intents;
pub mod name;
pub mod place;
pub mod pool;
pub mod programs;
pub mod rights;
pub mod run;
pub mod shared;
