//! Run folder: where a run leaves everything it knows, so that a killed run is still readable.
//!
//! `plan.json  environment.json  timing.json  events.jsonl  {records,history,evidence}/<key>  golden/  report.*`
//! Every file is written whole or not at all, and is on the disk when the call returns.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::plan::{PLAN_SCHEMA, Plan};
use crate::{history::Key, names, redact, renamed::NAMES};

mod events;
mod records;

pub use events::{Event, Events};
pub use records::{Records, Unreadable};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}: {problem}", path.display())]
pub struct FolderError {
    /// As it fits after "failed to".
    pub action: &'static str,
    pub path: PathBuf,
    pub problem: Problem,
}

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("it exists already and is never overwritten; use another run id or attempt")]
    Exists,
    #[error("it does not exist; name the folder of a run, for example target/igc/latest")]
    Missing,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}; the file was cut short or made by another program")]
    Content(String),
    #[error("its schema is {found}, and this igc reads {known}; use the version of igc that wrote it")]
    Version { found: String, known: String },
    #[error("{0:?} cannot be part of a path; names are letters, digits, '-', '_' and '.'")]
    Key(String),
}

impl FolderError {
    pub(crate) fn new(action: &'static str, path: &Path, problem: impl Into<Problem>) -> Self {
        Self { action, path: path.to_owned(), problem: problem.into() }
    }

    /// Of what the operating system said where the file must be there.
    fn of_existing(action: &'static str, path: &Path, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::new(action, path, Problem::Missing),
            _ => Self::new(action, path, error),
        }
    }

    fn content(action: &'static str, path: &Path, error: impl std::fmt::Display) -> Self {
        Self::new(action, path, Problem::Content(error.to_string()))
    }

    #[cfg(test)]
    pub(crate) fn is_existing(&self) -> bool {
        matches!(self.problem, Problem::Exists)
    }
}

impl RunFolder {
    pub fn create(parent: &Path, id: &str) -> Result<Self, FolderError> {
        let failed = |path: &Path, e| FolderError::new("create", path, e);
        let root = parent.join(id);
        if !is_part(id) {
            return Err(failed(&root, Problem::Key(id.to_owned())));
        }
        fs::create_dir_all(parent).map_err(|e| failed(parent, e.into()))?;
        let parent = fs::canonicalize(parent).map_err(|e| failed(parent, e.into()))?;
        let root = parent.join(id);
        fs::create_dir(&root).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => failed(&root, Problem::Exists),
            _ => failed(&root, e.into()),
        })?;
        sync(&parent)?;
        Ok(Self { root })
    }

    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let root = fs::canonicalize(path).map_err(|e| FolderError::of_existing("open", path, e))?;
        if !root.is_dir() {
            return Err(FolderError::new("open", path, Problem::Missing));
        }
        Ok(Self { root })
    }

    pub fn path(&self) -> &Path {
        &self.root
    }

    pub fn id(&self) -> &str {
        self.root.file_name().and_then(|n| n.to_str()).unwrap_or_default()
    }

    /// Points `latest` beside the folder to it, in one step.
    pub fn point_latest(&self) -> Result<(), FolderError> {
        let parent = self.root.parent().unwrap_or(&self.root);
        let link = parent.join("latest");
        let fresh = parent.join(format!(".latest-{}", self.id()));
        let failed = |e| FolderError::new("point to the run from", &link, Problem::Io(e));
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        std::os::unix::fs::symlink(self.id(), &fresh).map_err(failed)?;
        fs::rename(&fresh, &link).map_err(|e| {
            let _ = fs::remove_file(&fresh);
            failed(e)
        })?;
        sync(parent)
    }

    pub fn write_plan(&self, plan: &Plan) -> Result<(), FolderError> {
        self.write_json("plan.json", plan)
    }

    pub fn read_plan(&self) -> Result<Plan, FolderError> {
        let (path, bytes) = self.read_bytes("plan.json")?;
        let mut value: Value = parse_versioned(&path, &bytes, |head| {
            let found = head.schema.as_deref().unwrap_or("no schema");
            (found == PLAN_SCHEMA).then_some(()).ok_or_else(|| (found.to_owned(), PLAN_SCHEMA.to_owned()))
        })?;
        NAMES.declared(&mut value);
        let mut plan: Plan = serde_json::from_value(value).map_err(|e| FolderError::content("understand", &path, e))?;
        NAMES.plan(&mut plan);
        Ok(plan)
    }

    /// Writes `environment.json`: versions of tools, machine, cluster; any JSON object, redacted.
    pub fn write_environment(&self, environment: &impl Serialize) -> Result<(), FolderError> {
        let name = "environment.json";
        let value = serde_json::to_value(environment);
        let value = value.map_err(|e| FolderError::content("write", &self.root.join(name), e))?;
        self.write_json(name, &redact::object(&value))
    }

    /// Writes a file of the folder, for example `report.xml`, whole or not at all. An older one is replaced.
    pub fn write_file(&self, name: &str, content: &str) -> Result<(), FolderError> {
        write_whole(&self.root.join(name), content.as_bytes(), Existing::Replaced)
    }

    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), FolderError> {
        let path = self.root.join(name);
        write_whole(&path, &json(&path, value)?, Existing::Replaced)
    }

    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, FolderError> {
        let (path, bytes) = self.read_bytes(name)?;
        serde_json::from_slice(&bytes).map_err(|e| FolderError::content("understand", &path, e))
    }

    fn read_bytes(&self, name: &str) -> Result<(PathBuf, Vec<u8>), FolderError> {
        let path = self.root.join(name);
        let bytes = fs::read(&path).map_err(|e| FolderError::of_existing("read", &path, e))?;
        Ok((path, bytes))
    }

    /// Where `records`, `history` or `evidence` keep what belongs to this key.
    fn place_of(&self, kind: &str, key: &Key, suffix: &str) -> Result<PathBuf, FolderError> {
        let path = self.root.join(kind).join(format!("{}{suffix}", key.path()));
        let refuse = |part: &str| FolderError::new("name", &path, Problem::Key(part.to_owned()));
        match key {
            Key { check, .. } if !names::is_check_id(check) => Err(refuse(check)),
            Key { gateway, .. } if !is_part(gateway) => Err(refuse(gateway)),
            Key { case, .. } if !is_part(case) => Err(refuse(case)),
            Key { attempt: 0, .. } => Err(refuse("attempt 0")),
            _ => Ok(path),
        }
    }
}

/// Understands JSON after its version was looked at: (found, known) where they differ.
fn parse_versioned<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    version: impl Fn(&Head) -> Result<(), (String, String)>,
) -> Result<T, FolderError> {
    let content = |e: serde_json::Error| FolderError::content("understand", path, e);
    let head: Head = serde_json::from_slice(bytes).map_err(content)?;
    version(&head).map_err(|(found, known)| FolderError::new("understand", path, Problem::Version { found, known }))?;
    serde_json::from_slice(bytes).map_err(content)
}

/// What a file says of its own version. The rest is skipped without being understood.
#[derive(Default, Deserialize)]
struct Head {
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    version: Option<u64>,
}

fn is_part(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Refused,
    Replaced,
}

fn json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, FolderError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| FolderError::content("write", path, e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes beside the file, then moves it there: readers and killers see all of it or nothing.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], existing: Existing) -> Result<(), FolderError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |e: std::io::Error| FolderError::new("write", path, e);
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folders(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".part-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    let kept = match existing {
        Existing::Replaced => file.persist(path),
        Existing::Refused => file.persist_noclobber(path),
    };
    kept.map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => FolderError::new("write", path, Problem::Exists),
        _ => failed(e.error),
    })?;
    sync(folder)
}

/// Every file below a folder, sorted; none where it is not there.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let failed = |e| FolderError::new("read", &folder, Problem::Io(e));
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            if is_folder { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    Ok(found)
}

fn make_folders(folder: &Path) -> Result<(), FolderError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folders(parent)?;
        match fs::create_dir(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(FolderError::new("create", folder, e));
            }
            _ => sync(parent)?,
        }
    }
    Ok(())
}

/// Puts the entries of a folder on the disk.
fn sync(folder: &Path) -> Result<(), FolderError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| FolderError::new("write", folder, e))
}

#[cfg(test)]
mod tests;
