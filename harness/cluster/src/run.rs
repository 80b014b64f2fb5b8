//! A planned run as its places find it: its folder, its plan, what was asked of the place, and where its gateways stand.

use std::path::PathBuf;

use serde::Serialize;
use verdict::{
    folder::{FolderError, RunFolder},
    plan::{GatewayPlan, Plan, PlannedCheck},
};

use crate::{
    environment::{Environment, GatewayEnvironment},
    gateway::GatewayFolder,
    install::{
        component::Catalogue,
        profile::{Profile, Selection},
    },
    name::{NotAName, RunName},
    place::error::PlaceError,
};

/// What the command line asked of the place: `request.json` of a run folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlaceOptions {
    pub bundle: Option<PathBuf>,
    pub node_image: Option<String>,
    pub igc_image: Option<String>,
    pub close_egress: bool,
    /// Whether `--egress` was written out: then a way out that cannot be closed is an error.
    pub egress_asked: bool,
    pub keep: bool,
    /// Whether missing components are to be installed into a cluster that is not ours.
    pub install_missing: bool,
    pub why: String,
}

const OPTIONS: &str = "request.json";
const ENVIRONMENT: &str = "environment.json";

impl PlaceOptions {
    pub fn write(&self, folder: &RunFolder) -> Result<(), FolderError> {
        folder.write_json(OPTIONS, self)
    }
}

#[derive(Debug)]
pub struct PlannedRun {
    pub folder: RunFolder,
    pub plan: Plan,
    pub options: PlaceOptions,
    pub manifests: PathBuf,
}

impl PlannedRun {
    pub fn name(&self) -> Result<RunName, NotAName> {
        self.folder.id().parse()
    }

    /// The gateways that can stand in this place.
    pub fn gateways(&self) -> Vec<&GatewayPlan> {
        self.plan.gateways.iter().filter(|gateway| gateway.left_out.is_none()).collect()
    }

    /// A gateway's folder, and what it is installed from in the versions of the plan: without that which only checks want
    /// that do not run.
    pub fn selection(&self, gateway: &GatewayPlan) -> Result<(GatewayFolder, Selection), PlaceError> {
        let folder = GatewayFolder::read(&self.manifests.join("gateways"), &gateway.name)?;
        let catalogue = Catalogue::read(&self.manifests)?;
        let name = self.plan.run.profile.clone();
        let profile = Profile { name, note: None, versions: gateway.versions.clone() };
        let runs = |capability: &String| {
            let wants =
                |c: &PlannedCheck| c.gateway == gateway.name && c.runs() && c.capability.as_ref() == Some(capability);
            self.plan.checks.iter().any(wants)
        };
        let wanted = |name: &&String| {
            catalogue.get(name).is_none_or(|component| component.r#for.is_empty() || component.r#for.iter().any(runs))
        };
        let components: Vec<String> = folder.components.iter().filter(wanted).cloned().collect();
        let selection = Selection::of(&catalogue, &profile, &components)?;
        Ok((folder, selection))
    }

    fn environments(&self) -> Environment {
        self.folder.read_json(ENVIRONMENT).unwrap_or_default()
    }

    pub fn note(&self, gateway: &str, change: impl FnOnce(&mut GatewayEnvironment)) -> Result<(), FolderError> {
        let mut environments = self.environments();
        change(environments.gateways.entry(gateway.to_owned()).or_default());
        self.folder.write_environment(&environments)
    }

    pub fn environment(&self, gateway: &str) -> GatewayEnvironment {
        self.environments().gateways.remove(gateway).unwrap_or_default()
    }
}
