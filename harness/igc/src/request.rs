//! Request: what the command line asked of the place, kept in `request.json` of a run folder.

use std::path::PathBuf;

use serde::Serialize;
use verdict::folder::{FolderError, RunFolder};

/// `request.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Request {
    /// `--bundle`.
    pub bundle: Option<PathBuf>,
    /// `--node-image`.
    pub node_image: Option<String>,
    /// `--igc-image`.
    pub igc_image: Option<String>,
    /// `--egress closed`.
    pub close_egress: bool,
    /// Whether `--egress` was written out: then a way out that cannot be closed is an error.
    pub egress_asked: bool,
    /// `--keep`.
    pub keep: bool,
    /// Whether missing components are to be installed into a cluster that is not ours.
    pub install_missing: bool,
    /// Why this place, in one line.
    pub why: String,
}

const FILE: &str = "request.json";

impl Request {
    /// Writes it.
    pub fn write(&self, folder: &RunFolder) -> Result<(), FolderError> {
        folder.write_json(FILE, self)
    }
}
