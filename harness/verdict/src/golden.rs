//! Goldens: what was observed of a check on one gateway and accepted by somebody, and how an observation compares with it.
//!
//! `golden/<gateway>/<suite>/<check>[@case].snap` holds observations, each with the ids of the recordings that saw it;
//! `golden/<gateway>/recordings.yaml` says of each id where, when and on what. Comparing is ours, on values: nothing here reads an
//! `INSTA_*` variable.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::file::{FileError, read_if_there};
use crate::folder::{FolderError, RunFolder, files_below};
use crate::plan::{GatewayPlan, PlaceName, PlannedCheck, RunInfo};
use crate::version::{lenient as lenient_version, minor};
use crate::{record::GoldenState, renamed::NAMES};

mod pending;
mod recordings;
mod text;

pub use pending::{Pending, pending};
pub use recordings::{Recording, Recordings};
pub use text::yaml;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Golden {
    /// In the order of the file; no two are equal.
    pub observations: Vec<Accepted>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Those that saw it, by id. Never empty.
    pub recordings: Vec<(String, Recording)>,
    pub observation: Value,
}

#[derive(Clone, Copy, Debug)]
pub struct RecordedObservation<'g> {
    pub recording: &'g Recording,
    pub observation: &'g Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    Same,
    Changed {
        /// Unified difference of both as YAML.
        difference: String,
    },
    /// Nothing was accepted yet, or nothing that counts here.
    Missing {
        reason: Option<String>,
    },
    /// What was accepted is of other circumstances.
    NotCompared {
        reason: String,
    },
}

impl Comparison {
    pub fn record(self) -> (GoldenState, Option<String>) {
        match self {
            Comparison::Same => (GoldenState::Same, None),
            Comparison::Changed { difference } => (GoldenState::Changed, Some(difference)),
            Comparison::Missing { reason } => (GoldenState::Missing, reason),
            Comparison::NotCompared { reason } => (GoldenState::NotCompared, Some(reason)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("failed to review {}: {problem}", path.display())]
    Review { path: PathBuf, problem: String },
}

impl Golden {
    /// Reads what was accepted of a check (`suite/name`, and `@case`) below `golden`; nothing where there is no file.
    pub fn find(root: &Path, gateway: &str, title: &str) -> Result<Self, GoldenError> {
        let file = |title: &str| root.join(gateway).join(format!("{title}.snap"));
        let before = NAMES.titles_of_before(title).iter().map(|title| file(title)).find(|path| path.exists());
        let path = before.filter(|_| !file(title).exists()).unwrap_or_else(|| file(title));
        Self::read(&path, &Recordings::find(root, gateway)?)
    }

    fn read(path: &Path, recordings: &Recordings) -> Result<Self, GoldenError> {
        let Some(text) = read_if_there(path)? else { return Ok(Self::default()) };
        Ok(text::parse(&text, path, recordings)?)
    }

    fn recorded(&self) -> impl Iterator<Item = RecordedObservation<'_>> {
        self.observations.iter().flat_map(|accepted| {
            let observation = &accepted.observation;
            accepted.recordings.iter().map(move |(_, recording)| RecordedObservation { recording, observation })
        })
    }

    /// What this observation is held against, if anything is; whether it may be is for [`compare`] to say. What can measure the
    /// place comes first, then the same gateway version and model, then the nearer place, then the later day.
    pub fn nearest(&self, now: &Recording) -> Option<RecordedObservation<'_>> {
        self.recorded().min_by_key(|RecordedObservation { recording: then, .. }| {
            let distance = distance(now.place, then.place);
            (distance.is_none(), now.differs_from(then).is_some(), distance, Reverse((&then.recorded, &then.run)))
        })
    }

    /// What the gateway is known to do: seen of a real one before it was rehearsed, of the newest version, last.
    pub fn latest(&self) -> Option<RecordedObservation<'_>> {
        self.recorded().max_by_key(|RecordedObservation { recording: r, .. }| {
            (r.place.is_real(), lenient_version(&r.version), r.recorded.clone(), r.run.clone())
        })
    }
}

/// How far what was seen at a place is from measuring another; nothing where it is no measure at all.
///
/// A rehearsal stands in for the real thing and is measured by it; what was rehearsed is no measure of a real gateway.
fn distance(now: PlaceName, then: PlaceName) -> Option<u8> {
    match (now, then) {
        (PlaceName::Rehearsal, PlaceName::Rehearsal) => Some(1),
        (PlaceName::Rehearsal, _) => Some(0),
        _ if now == then => Some(0),
        (_, PlaceName::Kind) => Some(1),
        _ => None,
    }
}

/// Compares an observation with what was accepted of the same minor version of the gateway and the same model.
///
/// [`Comparison::Same`] if and only if both values are equal.
pub fn compare(golden: &Golden, observation: &Value, now: &Recording) -> Comparison {
    let Some(accepted) = golden.nearest(now) else { return Comparison::Missing { reason: None } };
    let then = accepted.recording;
    if distance(now.place, then.place).is_none() {
        let reason = match then.place {
            PlaceName::Rehearsal => "the golden file was rehearsed, and says nothing of a real gateway".to_owned(),
            place => format!("the golden file is of {}, and says nothing of {}", place.word(), now.place.word()),
        };
        return Comparison::Missing { reason: Some(reason) };
    }
    if let Some(reason) = now.differs_from(then) {
        return Comparison::NotCompared { reason };
    }
    if accepted.observation == observation {
        return Comparison::Same;
    }
    Comparison::Changed { difference: difference(accepted.observation, observation) }
}

/// Compares what a check of a run observed with what was accepted below `golden`, and says so as a record does. What is not the
/// same is left in the run folder for review; but not what a rehearsal does in versions that no golden is of, which shows nothing
/// that a gateway did.
pub fn judge_observation(
    root: &Path,
    folder: &RunFolder,
    run: &RunInfo,
    gateway: &GatewayPlan,
    check: &PlannedCheck,
    observation: Value,
) -> Result<(GoldenState, Option<String>), GoldenError> {
    let golden = Golden::find(root, &gateway.name, &check.title())?;
    let recording = Recording::of(run, gateway, check);
    let compared = compare(&golden, &observation, &recording);
    let shows_nothing = matches!(compared, Comparison::NotCompared { .. }) && !run.place.is_real();
    if compared != Comparison::Same && !shows_nothing {
        let accepted = golden.nearest(&recording).map(|seen| Pending::new(check, seen.recording, seen.observation));
        Pending::new(check, &recording, &observation).write(folder, accepted.as_ref())?;
    }
    Ok(compared.record())
}

/// Unified difference of two values as YAML, with three lines around each change.
pub fn difference(accepted: &Value, observed: &Value) -> String {
    let (before, after) = (text::yaml(accepted), text::yaml(observed));
    if before == after {
        // Values that only their types tell apart, which YAML for people does not show.
        return format!("accepted {accepted}\nobserved {observed}\n");
    }
    similar::TextDiff::from_lines(&before, &after)
        .unified_diff()
        .context_radius(3)
        .header("accepted", "observed")
        .to_string()
}

/// Everything that was accepted below `golden`, sorted by gateway and title (`suite/name`, and `@case`).
pub fn accepted(root: &Path) -> Result<Vec<(String, String, Golden)>, GoldenError> {
    let mut all = Vec::new();
    let mut of_gateway: Option<(String, Recordings)> = None;
    for path in files(root, ".snap")? {
        let Some((gateway, title)) = gateway_and_title(path.strip_prefix(root).unwrap_or(&path), ".snap") else {
            return Err(FileError::shape(&path, "its path is not <gateway>/<suite>/<check>[@case].snap").into());
        };
        if of_gateway.as_ref().is_none_or(|(name, _)| *name != gateway) {
            of_gateway = Some((gateway.clone(), Recordings::find(root, &gateway)?));
        }
        let Some((_, recordings)) = &of_gateway else { continue };
        let golden = Golden::read(&path, recordings)?;
        all.push((gateway, title, golden));
    }
    Ok(all)
}

/// Gateway and title, as it is called today, of `<gateway>/<suite>/<check>[@case]<ending>`.
fn gateway_and_title(relative: &Path, ending: &str) -> Option<(String, String)> {
    let (gateway, title) = relative.to_str()?.strip_suffix(ending)?.split_once('/')?;
    let (check, case) = title.split_once('@').unwrap_or((title, "x"));
    let good = crate::names::is_kebab(gateway) && crate::names::is_check_id(check) && crate::names::is_kebab(case);
    good.then(|| (gateway.to_owned(), NAMES.title(title)))
}

fn files(top: &Path, ending: &str) -> Result<Vec<PathBuf>, FolderError> {
    let mut found = files_below(top)?;
    found.retain(|path| path.to_string_lossy().ends_with(ending));
    Ok(found)
}

#[cfg(test)]
mod tests;
