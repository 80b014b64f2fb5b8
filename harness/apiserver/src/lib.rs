//! A Kubernetes API server in the process: one store of objects, and the part of the API that kube and kubectl need.
//!
//! It knows the kinds of Kubernetes. Everything else is handed in: definitions of custom resources ([`Definitions`]), clock,
//! webhooks and faults ([`Hooks`]), and how pods are reached ([`ServerOptions`]).

mod admission;
mod apply;
mod builtin;
mod definition;
mod failure;
mod fields;
mod hooks;
mod http;
mod kind;
mod lifecycle;
mod meta;
mod names;
pub mod patch;
mod pods;
mod resource;
mod schema;
pub mod selector;
mod short_form;
mod state;
mod store;
mod write;

pub use failure::Failure;
pub use hooks::{Denial, Fault, Hooks, NoHooks};
pub use http::{LARGEST_BODY, Server, ServerOptions};
pub use kind::{Kind, kinds};
pub use lifecycle::Propagation;
pub use meta::{name, resource_version};
pub use pods::{NoPods, PodDialer};
pub use schema::rules::holds;
pub use short_form::{BadShortForm, Definitions};
pub use state::{Change, WatchEvent};
pub use store::{Object, Rules, Store, Subscription};
