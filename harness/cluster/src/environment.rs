//! Environment: what `igc up` left for the suites and the report, in `environment.json` of a run folder.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::install::{component::DataError, model::ModelFile};

/// `environment.json`: gateway -> where it was stood up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    pub gateways: BTreeMap<String, GatewayEnvironment>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayEnvironment {
    /// A kubeconfig of the run's own, or the user's for place context.
    pub kubeconfig: PathBuf,
    /// The context in it; absent means its current one.
    pub context: Option<String>,
    /// Name of the kind cluster, where it is ours.
    pub cluster: Option<String>,
    pub kubernetes: String,
    /// Addresses to try beside those that the cluster's objects name, `host:port`.
    pub addresses: Vec<String>,
    /// Images by the name that templates use: `igc`, `llm-d-sim`.
    pub images: BTreeMap<String, String>,
    /// `closed`, `open`, or `not closed: why`.
    pub egress: String,
    /// Components that are stand-ins, with what they stand in for.
    pub stand_ins: Vec<String>,
    pub notes: Vec<String>,
    /// Whether `--keep` was given: what belongs to checks that did not pass stays in the cluster as well.
    pub keep: bool,
    pub error: Option<String>,
}

impl GatewayEnvironment {
    /// In a rehearsal every check has a world of its own; only the images' names are said.
    pub fn rehearsed(manifests: &Path, versions: &BTreeMap<String, String>) -> Result<Self, DataError> {
        let mut images = BTreeMap::from([("igc".to_owned(), "igc/igc:rehearsed".to_owned())]);
        for model in ModelFile::all(manifests)? {
            let image = model.image(versions, &images)?;
            images.insert(model.name, image);
        }
        Ok(Self { images, egress: "egress: nothing leaves this process but to loopback".into(), ..Self::default() })
    }
}
