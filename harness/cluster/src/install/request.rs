//! What an install is asked for: which components, where, and the caller's own work in the same graph.

use std::path::PathBuf;

use futures::future::BoxFuture;
use serde_json::Value;

use super::{bundle::Bundle, component::Need, profile::Selection};
use crate::{
    api::Cluster,
    name::RunName,
    programs::{
        child::Programs,
        kind::{Kind, KindRequest},
    },
};

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a run has one of it")]
pub enum Site {
    Kind { kind: Kind, request: KindRequest },
    Context { kubeconfig: PathBuf, context: String, install_missing: InstallMissing },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallMissing {
    No,
    Yes,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub run: RunName,
    pub run_folder: PathBuf,
    pub manifests: PathBuf,
    pub selection: Selection,
    /// What templates see beside versions: `gateway` with `namespace` and `name`.
    pub gateway: Value,
    /// Where charts and definitions come from; without one, from their registries.
    pub bundle: Option<Bundle>,
    pub site: Site,
    /// Images beside those of components, given to the nodes of a kind cluster.
    pub more_images: Vec<String>,
    pub programs: Programs,
}

/// Work of the caller that belongs into the same graph: it starts the moment what it needs is done.
pub struct ExtraWork {
    /// Its name, `what:state` or one word.
    pub name: String,
    /// What it needs; what is not part of the install is not waited for.
    pub needs: Vec<ExtraNeed>,
    pub seconds: f64,
    /// The work. Dropped when the run is over before its time.
    pub work: Box<dyn FnOnce(Cluster) -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtraNeed {
    Component(Need),
    /// The images that a component's later pods need.
    LaterImages(String),
    MoreImages,
}

impl ExtraNeed {
    pub(super) fn node(&self) -> String {
        match self {
            Self::Component(need) => format!("{}:{}", need.component, need.state),
            Self::LaterImages(component) => format!("{component}:images-later"),
            Self::MoreImages => "models:images".to_owned(),
        }
    }
}
