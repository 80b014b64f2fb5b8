//! Recordings: where, when and on what observations were made, said once for each run in `golden/<gateway>/recordings.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{GoldenError, minor};
use crate::file::{self, FileError};
use crate::folder::{Existing, write_whole};
use crate::names;
use crate::plan::{GatewayPlan, ModelName, PlaceName, PlannedCheck, RunInfo};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    pub place: PlaceName,
    /// Version of the gateway itself, for example `v1.0.0`.
    pub version: String,
    pub versions: BTreeMap<String, String>,
    pub model: ModelName,
    pub profile: String,
    /// Date of the run, for example `2026-11-21`.
    pub recorded: String,
    pub run: String,
    /// Why it was accepted; absent while it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Recording {
    pub fn of(run: &RunInfo, gateway: &GatewayPlan, check: &PlannedCheck) -> Self {
        Self {
            place: run.place,
            version: gateway.versions.get(&gateway.version_of).cloned().unwrap_or_else(|| "unknown".to_owned()),
            versions: gateway.versions.clone(),
            model: check.model.clone(),
            profile: run.profile.clone(),
            recorded: run.started.chars().take(10).collect(),
            run: run.id.clone(),
            reason: None,
        }
    }

    /// Why what was seen then cannot be compared with this: another minor version of the gateway, or another model.
    pub(super) fn differs_from(&self, then: &Self) -> Option<String> {
        if minor(&then.version) != minor(&self.version) {
            return Some(format!("the golden file is of version {}, this run of {}", then.version, self.version));
        }
        if then.model != self.model {
            return Some(format!(
                "the golden file is of model {}, this run of {}",
                then.model.word(),
                self.model.word()
            ));
        }
        None
    }

    /// Whether nothing is measured by that one any more, now that this is there.
    pub(super) fn supersedes(&self, then: &Self) -> bool {
        let nearer = self.place == then.place || self.place.is_real() && !then.place.is_real();
        nearer && self.differs_from(then).is_none()
    }
}

/// `golden/<gateway>/recordings.yaml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Recordings {
    path: PathBuf,
    by_id: BTreeMap<String, Recording>,
}

const HEAD: &str = "\
# Which runs saw what the snapshots beside this file hold, by the ids that those name. Written by `cargo xtask review --accept`.
";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    recordings: BTreeMap<String, Recording>,
}

impl Recordings {
    pub fn find(root: &Path, gateway: &str) -> Result<Self, FileError> {
        let path = root.join(gateway).join("recordings.yaml");
        let by_id = match file::read_if_there(&path)? {
            Some(text) => file::parse::<File>(&text, &path)?.recordings,
            None => BTreeMap::new(),
        };
        if let Some((id, _)) = by_id.iter().find(|(_, recording)| recording.reason.is_none()) {
            return Err(FileError::shape(&path, format!("{id} has no reason; say why what it saw was accepted")));
        }
        Ok(Self { path, by_id })
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.by_id.keys().map(String::as_str)
    }

    pub(super) fn get(&self, id: &str) -> Result<&Recording, String> {
        self.by_id.get(id).ok_or_else(|| {
            let near = names::suggestion(&names::near(id, self.ids()));
            format!("{} has no recording {id}{near}", self.path.display())
        })
    }

    /// The id of this recording; where it is new it gets one, and the file is written.
    pub(super) fn id_of(&mut self, recording: &Recording) -> Result<String, GoldenError> {
        if let Some((id, _)) = self.by_id.iter().find(|(_, known)| *known == recording) {
            return Ok(id.clone());
        }
        let Recording { version, place, model, .. } = recording;
        let first = format!("{version}-{}-{}", place.word(), model.word());
        let mut id = first.clone();
        for number in 2.. {
            if !self.by_id.contains_key(&id) {
                break;
            }
            id = format!("{first}-{number}");
        }
        self.by_id.insert(id.clone(), recording.clone());
        let file = File { recordings: self.by_id.clone() };
        let text = serde_saphyr::to_string(&file).map_err(|error| FileError::shape(&self.path, error))?;
        write_whole(&self.path, format!("{HEAD}{text}").as_bytes(), Existing::Replaced)?;
        Ok(id)
    }
}
