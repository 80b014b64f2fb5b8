//! The API server of the rehearsal: one store of objects, and the part of the Kubernetes API that kube and kubectl need.

mod admission;
mod apply;
mod builtin;
mod definition;
mod failure;
mod fields;
mod http;
mod kind;
mod lifecycle;
mod meta;
mod names;
mod own;
pub mod patch;
mod pods;
mod resource;
mod schema;
pub mod selector;
mod state;
mod store;
mod webhooks;
mod write;

pub use admission::UnknownFields;
pub use failure::{Cause, Details, Failure};
pub use http::{Hooks, LARGEST_BODY, Server, serve};
pub use kind::{Kind, kinds};
pub use lifecycle::Propagation;
pub use meta::{is_going, name, namespace, owner_reference, resource_version, uid};
pub use pods::{NoPods, PodDialer};
pub use schema::rules::holds;
pub use state::{Change, Event};
pub use store::{Events, Object, Rules, Store, warm_up};
