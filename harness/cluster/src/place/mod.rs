//! Places: where a run's gateways stand, and how everything that a run made there goes away again.

pub mod context;
pub mod doctor;
pub mod egress;
pub mod error;
mod in_cluster;
pub mod kind;
pub mod sweep;

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use verdict::plan::{self, GatewayPlan};

pub use self::error::PlaceError;
use crate::{
    install::{model::ModelFile, progress::Progress},
    run::PlannedRun,
};

#[async_trait]
pub trait Place: Send + Sync {
    fn name(&self) -> plan::PlaceName;

    /// The context of the user's kubeconfig that it is.
    fn context(&self) -> Option<&str> {
        None
    }

    /// Whether all gateways of a run stand here at once; else one after the other.
    fn holds_all(&self) -> bool {
        false
    }

    /// Why a gateway cannot stand here, whatever the machine has.
    fn lacks(&self, _gateway: &str) -> Option<String> {
        None
    }

    /// Looks whether a run is possible here, and says in one line what was found.
    async fn look(&self, cancel: &CancellationToken) -> Result<String, PlaceError>;

    /// Refuses a model that there is no room for.
    async fn preflight(&self, _model: &ModelFile, _cancel: &CancellationToken) -> Result<(), PlaceError> {
        Ok(())
    }

    async fn doctor(&self, _cancel: &CancellationToken) -> Vec<doctor::Line> {
        vec![]
    }

    /// Stands a gateway of the run up, and writes down how it is reached as far as that is known, also where it fails.
    async fn up(&self, up: Up<'_>, cancel: &CancellationToken) -> Result<Held, PlaceError>;

    /// Keeps objects and logs of what checks share, before it is taken down.
    async fn evidence(&self, _run: &PlannedRun, _gateway: &GatewayPlan) -> Result<(), PlaceError> {
        Ok(())
    }

    /// Takes a gateway of the run down, and says in words what became of it.
    async fn down(&self, run: &PlannedRun, gateway: &GatewayPlan, ending: Ending) -> Result<String, PlaceError>;

    async fn sweep(&self, _cancel: &CancellationToken) -> Result<sweep::Swept, PlaceError> {
        Ok(sweep::Swept::default())
    }
}

#[derive(Clone)]
pub struct Up<'r> {
    pub run: &'r PlannedRun,
    pub gateway: &'r GatewayPlan,
    pub audience: Audience,
    pub progress: Arc<dyn Progress>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Checks,
    /// For people with kubectl and curl: it stays.
    People,
}

/// What has to live as long as the gateway stands: it falls when this is dropped. `None`: it stands by itself.
pub type Held = Option<Box<dyn Any + Send>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Done,
    /// The user ended it, and wants to wait no longer.
    Interrupted,
}
