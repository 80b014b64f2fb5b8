//! Fidelity: what was recorded at real gateways, played in the rehearsal, and where the rehearsal differs.
//!
//! A case is driven through the API server's HTTP and the Gateway's address, as the recording was. Between two steps the
//! controllers come to rest, so that nothing is tried twice.

mod accepted;
mod admission;
mod case;
mod check;
mod compare;
mod exchange;
mod fill;
mod looks;
mod play;
mod rules;
mod written;

use std::path::{Path, PathBuf};

use serde::Serialize;
use verdict::file::FileError;

pub use accepted::{Acceptance, Accepted};
pub use case::{Case, MODEL, Recording};
pub use play::{PlayError, admit, play};
pub use written::{parse, read};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The line of the step in the case's file.
    pub line: u64,
    /// Which part of what came of it: `reply 11 header x-ratelimit-limit`.
    pub at: String,
    pub recorded: String,
    pub here: String,
}

/// The files of cases at a path: the file itself, or those of a folder and the folders in it, by name.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let read = |source| FileError::read(path, source);
    if !std::fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(path).map_err(read)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(read)?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else if matches!(entry.extension().and_then(|e| e.to_str()), Some("yaml" | "yml")) {
            found.push(entry);
        }
    }
    Ok(found)
}
