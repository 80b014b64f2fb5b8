//! Golden files: the accepted observation of a check on one gateway, in insta's `.snap` format.
//!
//! Comparing is ours, on values. Nothing here reads an `INSTA_*` variable; cargo-insta only shows pending files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::folder::{Existing, FolderError, RunFolder, write_whole};
use crate::history::Key;
use crate::names;
use crate::plan::{GatewayPlan, ModelKind, Place, PlannedCheck, RunInfo};
use crate::record::GoldenState;

mod text;
mod version;

pub use text::yaml;
pub(crate) use version::lenient as lenient_version;
pub use version::minor;

/// An observation that a person accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// What a reader of the file should know first: the check's sentence.
    pub description: String,
    /// Under which circumstances it was recorded.
    pub info: Info,
    /// What was observed.
    pub observation: Value,
}

/// The circumstances of an observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// Where.
    pub place: Place,
    /// Folder name of the gateway.
    pub gateway: String,
    /// Version of the gateway itself, for example `v1.0.0`.
    pub version: String,
    /// All components: name -> version.
    pub versions: BTreeMap<String, String>,
    /// What served tokens.
    pub model: ModelKind,
    /// `--profile` of the run.
    pub profile: String,
    /// Date of the run, for example `2026-11-21`.
    pub recorded: String,
    /// Name of the run.
    pub run: String,
    /// Why it was accepted; absent while it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Info {
    /// The circumstances of a planned check.
    pub fn of(run: &RunInfo, gateway: &GatewayPlan, check: &PlannedCheck) -> Self {
        Self {
            place: run.place,
            gateway: gateway.name.clone(),
            version: gateway.versions.get(&gateway.version_of).cloned().unwrap_or_else(|| "unknown".to_owned()),
            versions: gateway.versions.clone(),
            model: check.model,
            profile: run.profile.clone(),
            recorded: run.started.chars().take(10).collect(),
            run: run.id.clone(),
            reason: None,
        }
    }
}

/// How an observation compares with the golden file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Same,
    /// Different.
    Changed {
        /// Unified difference of both as YAML.
        difference: String,
    },
    /// There is no golden file yet, or none that counts here.
    Missing {
        /// Why one that is there does not count.
        reason: Option<String>,
    },
    /// The golden file is of other circumstances, or there was nothing to observe.
    NotCompared {
        /// Why.
        reason: String,
    },
}

impl Comparison {
    /// As a record keeps it: state and note.
    pub fn record(&self) -> (GoldenState, Option<String>) {
        match self {
            Comparison::Same => (GoldenState::Same, None),
            Comparison::Changed { difference } => (GoldenState::Changed, Some(difference.clone())),
            Comparison::Missing { reason } => (GoldenState::Missing, reason.clone()),
            Comparison::NotCompared { reason } => (GoldenState::NotCompared, Some(reason.clone())),
        }
    }
}

/// What is wrong with a golden file.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// It cannot be read or written.
    #[error("failed to {action} {}: {source}", path.display())]
    File {
        /// As it fits after "failed to".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be written whole.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It is not a golden file.
    #[error("failed to understand the golden file {}: {problem}; remove it and accept a fresh one from a run", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where it is known.
        problem: String,
    },
    /// It cannot be accepted or rejected.
    #[error("failed to review {}: {problem}", path.display())]
    Accept {
        /// The pending file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// `<gateway>/<suite>/<check>[@case].snap`, relative to `golden` of the repository.
pub fn relative_path(key: &Key) -> PathBuf {
    PathBuf::from(format!("{}/{}.snap", key.gateway, key.title()))
}

impl Golden {
    /// Reads the golden file of a check below `golden`; nothing where there is none.
    pub fn find(root: &Path, key: &Key) -> Result<Option<Self>, GoldenError> {
        let path = root.join(relative_path(key));
        match path.try_exists() {
            Ok(true) => Self::read(&path).map(Some),
            Ok(false) => Ok(None),
            Err(source) => Err(GoldenError::File { action: "read", path, source }),
        }
    }

    /// Reads a golden or pending file.
    pub fn read(path: &Path) -> Result<Self, GoldenError> {
        let text = std::fs::read_to_string(path).map_err(|source| GoldenError::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Understands a golden file; the path is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, GoldenError> {
        text::parse(text).map_err(|problem| GoldenError::Content { path: path.to_owned(), problem })
    }

    /// The text of its file. Reading that text gives an equal golden.
    pub fn to_text(&self) -> Result<String, GoldenError> {
        text::write(self).map_err(|problem| GoldenError::Content { path: PathBuf::from("(new)"), problem })
    }
}

/// Compares an observation with the golden file, where versions and model are those of the golden file.
///
/// [`Comparison::Same`] if and only if both values are equal. What was rehearsed is no measure of a real gateway; what a real
/// one left is the measure of a rehearsal.
pub fn compare(golden: Option<&Golden>, observation: &Value, now: &Info) -> Comparison {
    let Some(golden) = golden else { return Comparison::Missing { reason: None } };
    if now.place.is_real() && !golden.info.place.is_real() {
        let reason = "the golden file was rehearsed, and says nothing of a real gateway".to_owned();
        return Comparison::Missing { reason: Some(reason) };
    }
    if let Some(reason) = other_circumstances(&golden.info, now) {
        return Comparison::NotCompared { reason };
    }
    if golden.observation == *observation {
        return Comparison::Same;
    }
    Comparison::Changed { difference: difference(&golden.observation, observation) }
}

fn other_circumstances(then: &Info, now: &Info) -> Option<String> {
    if version::minor(&then.version) != version::minor(&now.version) {
        return Some(format!("the golden file is of version {}, this run of {}", then.version, now.version));
    }
    if then.model != now.model {
        return Some(format!("the golden file is of model {}, this run of {}", then.model.word(), now.model.word()));
    }
    None
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

/// Writes an observation as `golden/...snap.new` of the run folder, for review. Beside it goes a copy of the accepted
/// one, so that cargo-insta shows both.
pub fn write_pending(
    run: &RunFolder,
    key: &Key,
    pending: &Golden,
    accepted: Option<&Golden>,
) -> Result<PathBuf, GoldenError> {
    let path = run.path().join("golden").join(relative_path(key));
    if let Some(accepted) = accepted {
        write_whole(&path, accepted.to_text()?.as_bytes(), Existing::Replaced)?;
    }
    let path = path.with_extension("snap.new");
    write_whole(&path, pending.to_text()?.as_bytes(), Existing::Replaced)?;
    Ok(path)
}

/// Every pending file of a run, sorted.
pub fn pending(run: &RunFolder) -> Result<Vec<PathBuf>, GoldenError> {
    files(&run.path().join("golden"), ".snap.new")
}

/// Every golden file below `golden`, sorted, each with its path.
pub fn accepted(root: &Path) -> Result<Vec<(PathBuf, Golden)>, GoldenError> {
    files(root, ".snap")?.into_iter().map(|path| Golden::read(&path).map(|golden| (path, golden))).collect()
}

fn files(top: &Path, ending: &str) -> Result<Vec<PathBuf>, GoldenError> {
    let mut found = Vec::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| GoldenError::File { action: "read", path: folder.clone(), source };
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Makes a pending file the golden one below `golden`, with the reason in its info, and removes the pending one.
///
/// The pending file must be `.../golden/<gateway>/<suite>/<check>[@case].snap.new`. Gives the path of the golden file.
pub fn accept(pending: &Path, golden_root: &Path, reason: &str) -> Result<PathBuf, GoldenError> {
    let refuse = |problem: &str| GoldenError::Accept { path: pending.to_owned(), problem: problem.to_owned() };
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(refuse("it needs a reason, which is kept in the file"));
    }
    let relative = relative_to_golden(pending)
        .ok_or_else(|| refuse("its path does not end in golden/<gateway>/<suite>/<check>[@case].snap.new"))?;
    let mut golden = Golden::read(pending)?;
    if !relative.starts_with(&golden.info.gateway) {
        return Err(refuse(&format!("it says that it is of {}, and lies elsewhere", golden.info.gateway)));
    }
    let path = golden_root.join(relative);
    if !golden.info.place.is_real() && path.is_file() && Golden::read(&path)?.info.place.is_real() {
        return Err(refuse("it was rehearsed, and what a real gateway left is not replaced by that"));
    }
    golden.info.reason = Some(reason.to_owned());
    write_whole(&path, golden.to_text()?.as_bytes(), Existing::Replaced)?;
    removed(pending)?;
    let copy = copy_beside(pending);
    if std::path::absolute(&copy).ok() != std::path::absolute(&path).ok() {
        removed(&copy)?;
    }
    Ok(path)
}

/// Takes a pending file back, with the copy of the accepted one beside it: what was accepted stays.
pub fn reject(pending: &Path) -> Result<(), GoldenError> {
    if relative_to_golden(pending).is_none() {
        let problem = "its path does not end in golden/<gateway>/<suite>/<check>[@case].snap.new".to_owned();
        return Err(GoldenError::Accept { path: pending.to_owned(), problem });
    }
    removed(pending)?;
    removed(&copy_beside(pending))
}

/// The copy of the accepted file, for cargo-insta.
fn copy_beside(pending: &Path) -> PathBuf {
    pending.with_extension("")
}

fn removed(path: &Path) -> Result<(), GoldenError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(GoldenError::File { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// `<gateway>/<suite>/<check>[@case].snap` of a pending file.
fn relative_to_golden(pending: &Path) -> Option<PathBuf> {
    let parts: Vec<&str> = pending.iter().map(|p| p.to_str()).collect::<Option<_>>()?;
    let [.., "golden", gateway, suite, file] = parts.as_slice() else { return None };
    let name = file.strip_suffix(".snap.new")?;
    let (check, case) = name.split_once('@').unwrap_or((name, "x"));
    let good = [gateway, suite, &check, &case].iter().all(|part| names::is_kebab(part));
    good.then(|| PathBuf::from(format!("{gateway}/{suite}/{name}.snap")))
}

#[cfg(test)]
mod tests;
