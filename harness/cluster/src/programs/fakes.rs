//! Programs that tests put in the place of docker, kind and helm: shell scripts in a folder of their own.

use std::{fs, path::Path};

use super::child::Programs;

/// A folder of fake programs, which are found before those of the system.
pub(crate) struct Fakes(tempfile::TempDir);

impl Fakes {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One more program: a shell script that writes its calls down, and then does as told.
    pub(crate) fn program(self, name: &str, script: &str) -> Self {
        let text = format!("#!/bin/sh\necho \"{name} $*\" >> '{}'\n{script}\n", self.0.path().join("calls").display());
        testtools::script(&self.0.path().join(name), &text).unwrap();
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn programs(&self) -> Programs {
        Programs::in_path(std::env::join_paths([self.0.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap())
    }

    /// Programs of this folder alone: what is not faked is missing. Scripts find nothing but what the shell has in itself.
    pub(crate) fn alone(&self) -> Programs {
        Programs::in_path(self.0.path())
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.0.path().join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}
