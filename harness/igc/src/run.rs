//! A planned run: its folder, its plan, what was asked of the place, and where its gateways stand.

use cluster::{
    environment::{Environment, Stood},
    gateway::GatewayFolder,
    install::{
        component::Catalogue,
        profile::{Profile, Selection},
    },
};
use shipped::Root;
use verdict::{
    folder::RunFolder,
    plan::{GatewayPlan, Plan, PlannedCheck},
};

use crate::{failure::Failure, request::Request};

/// Everything that a run says about itself.
pub struct Run {
    /// Where its manifests and goldens are.
    pub root: Root,
    /// Its folder.
    pub folder: RunFolder,
    /// Its plan.
    pub plan: Plan,
    /// What was asked of the place.
    pub request: Request,
}

impl Run {
    /// A gateway's folder, and what it is installed from in the versions of the plan: without that which only checks want
    /// that do not run.
    pub fn selection(&self, gateway: &GatewayPlan) -> Result<(GatewayFolder, Selection), Failure> {
        let folder =
            GatewayFolder::read(&self.root.manifests().join("gateways"), &gateway.name).map_err(Failure::usage)?;
        let catalogue = Catalogue::read(&self.root.manifests()).map_err(Failure::usage)?;
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
        let selection = Selection::of(&catalogue, &profile, &components).map_err(Failure::usage)?;
        Ok((folder, selection))
    }

    /// Changes what is known of where a gateway stands.
    pub fn note(&self, gateway: &str, change: impl FnOnce(&mut Stood)) -> Result<(), Failure> {
        let mut environment: Environment = self.folder.read_json("environment.json").unwrap_or_default();
        change(environment.gateways.entry(gateway.to_owned()).or_default());
        self.folder.write_environment(&environment)?;
        Ok(())
    }

    /// What is known of where a gateway stands.
    pub fn stood(&self, gateway: &str) -> Stood {
        let environment: Environment = self.folder.read_json("environment.json").unwrap_or_default();
        environment.gateways.get(gateway).cloned().unwrap_or_default()
    }
}
