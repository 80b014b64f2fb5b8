//! Replay: the histories of a run that was kept, judged again by the judges of today. Nothing is stood up, nothing is driven.

use std::path::PathBuf;

use anyhow::{Context, Result};
use verdict::{
    folder::RunFolder,
    history::{History, Key},
};

pub const RUN: &str = "IGC_REPLAY";
pub const INTO: &str = "IGC_REPLAY_INTO";

pub(crate) struct Replay {
    run: RunFolder,
    /// Receives a record for every history.
    pub into: RunFolder,
}

impl Replay {
    pub fn of_the_environment() -> Result<Option<Self>> {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let Some(run) = folder(RUN) else { return Ok(None) };
        let into = folder(INTO).with_context(|| format!("{RUN} needs {INTO}, a folder for what is judged"))?;
        Ok(Some(Self { run: RunFolder::open(&run)?, into: RunFolder::open(&into)? }))
    }

    /// The histories of a case of a check on every gateway, every attempt at it.
    pub fn histories(&self, check: &str, case: &str) -> Result<Vec<Result<History, (Key, String)>>> {
        let is_wanted = |key: &Key| key.check == check && key.case == case;
        let keys = self.run.history_keys()?.into_iter().filter(is_wanted);
        Ok(keys.map(|key| self.run.read_history(&key).map_err(|error| (key, error.to_string()))).collect())
    }
}
