//! The suites' test binary: where it is, which checks it holds, and how it is run.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::{env, fs, time::Duration};

use cluster::programs::processes::Recorded;
use rustix::process::{Pid, Signal, kill_process};
use shipped::Root;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use verdict::requirements::Requirements;
use verdict::tests_list::{CHECKS_ALONE, TestList};

use crate::failure::Failure;

const VARIABLE: &str = "IGC_SUITES";

/// How long the binary may take to end after Ctrl-C before it is killed.
const GRACE: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(ExitStatus),
    Interrupted,
}

#[derive(Clone, Debug)]
pub struct Suites {
    program: PathBuf,
    root: PathBuf,
}

impl Suites {
    /// What `IGC_SUITES` names, else a file `suites` beside this program.
    pub fn find(root: &Root) -> Result<Self, Failure> {
        let named = env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let beside = env::current_exe()?.with_file_name("suites");
        let program = named.as_deref().unwrap_or(&beside);
        match fs::canonicalize(program) {
            Ok(program) if program.is_file() => Ok(Self { program, root: root.absolute().to_owned() }),
            _ => Err(Failure::Environment(format!(
                "there is no {}, the test binary that holds the checks; {VARIABLE} names it, or it lies beside igc as `suites`; \
                 in a checkout `cargo xtask` builds it",
                program.display()
            ))),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for name in ["IGC_RUN", "IGC_GATEWAY", "IGC_EXCLUSIVE", "IGC_REPLAY", "IGC_REPLAY_INTO", "IGC_REGISTRY"] {
            command.env_remove(name);
        }
        command.env(shipped::VARIABLE, &self.root).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    pub async fn requirements(&self) -> Result<Requirements, Failure> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("registry.json");
        self.output(self.command().args(["registry::registry", "--exact"]).env("IGC_REGISTRY", &file)).await?;
        let registry = fs::read(&file).map_err(|_| {
            let program = self.program.display();
            Failure::Environment(format!(
                "{program} wrote no registry of its checks; build igc and the suites together"
            ))
        })?;
        Requirements::from_registry(&registry).map_err(Failure::usage)
    }

    pub async fn tests(&self) -> Result<TestList, Failure> {
        let listed = self.output(self.command().args(["--list", "--format", "terse"])).await?;
        TestList::parse(&listed).map_err(Failure::usage)
    }

    async fn output(&self, command: &mut Command) -> Result<String, Failure> {
        let output = command.output().await.map_err(|e| self.not_started(&e))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(Failure::Environment(format!(
                "{} ended with {}: {}{}",
                self.program.display(),
                output.status,
                text(&output.stdout),
                text(&output.stderr)
            ))),
        }
    }

    fn not_started(&self, error: &std::io::Error) -> Failure {
        Failure::Environment(format!("failed to start {}: {error}", self.program.display()))
    }

    pub fn checks(&self) -> Command {
        let mut command = self.command();
        command.args(CHECKS_ALONE);
        command
    }

    /// Runs it to its end, written down in the run's folder, so that `down` finds it when this program was killed. On an
    /// interrupt it is asked to end, then killed.
    pub async fn run(&self, command: &mut Command, run: &Path, cancel: &CancellationToken) -> Result<Ended, Failure> {
        if cancel.is_cancelled() {
            return Ok(Ended::Interrupted);
        }
        let mut child = command.spawn().map_err(|e| self.not_started(&e))?;
        let pid = child.id();
        let _recorded = pid.and_then(|pid| Recorded::new(run, pid).ok());
        tokio::select! {
            status = child.wait() => return Ok(Ended::Exited(status?)),
            () = cancel.cancelled() => {}
        }
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            _ = kill_process(pid, Signal::INT); // gone already is fine
        }
        if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(Ended::Interrupted)
    }
}
