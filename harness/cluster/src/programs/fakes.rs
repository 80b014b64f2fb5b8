//! Programs that tests put in the place of docker, kind and helm: shell scripts in a folder of their own.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

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
        // Written by a process of its own: a file that this one holds open while another test forks cannot be executed.
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
            .arg(self.0.path().join(name))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
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
