//! Child processes: the programs that this room calls, each bounded in time and output, and gone when the run is cancelled.

use std::{
    ffi::OsString,
    fmt,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{io::AsyncReadExt, process::Command};
use tokio_util::sync::CancellationToken;

use super::processes::Recorded;

/// Bytes of standard output that are kept; a program that says more is stopped.
const STDOUT_LIMIT: usize = 8 << 20;
/// Bytes of standard error that are kept: the last ones.
const STDERR_LIMIT: usize = 64 << 10;
/// Time that a cancelled program has to put its affairs in order before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Where programs are looked for, and where running ones are recorded.
#[derive(Clone, Debug)]
pub struct Programs {
    path: OsString,
    run_folder: Option<PathBuf>,
}

impl Programs {
    pub fn from_env() -> Self {
        Self { path: std::env::var_os("PATH").unwrap_or_default(), run_folder: None }
    }

    /// Those of these folders, in the form of `PATH`; programs that they start find theirs there as well.
    pub fn in_path(path: impl Into<OsString>) -> Self {
        Self { path: path.into(), run_folder: None }
    }

    /// Records each running program in the run folder, so that `down` finds those of a killed run.
    pub fn recorded_in(mut self, run_folder: &Path) -> Self {
        self.run_folder = Some(run_folder.to_owned());
        self
    }

    pub fn find(&self, program: &str) -> Result<PathBuf, ChildError> {
        std::env::split_paths(&self.path)
            .map(|folder| folder.join(program))
            .find(|file| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
            .ok_or_else(|| ChildError::NotFound { program: program.to_owned(), hint: how_to_get(program) })
    }
}

/// How a program is got, for error messages and `doctor`.
pub fn how_to_get(program: &str) -> &'static str {
    match program {
        "docker" => "install Docker Engine (https://docs.docker.com/engine/install) or Podman, and start it",
        "podman" => "install Podman (https://podman.io/docs/installation), or Docker Engine",
        "kind" => {
            "install kind (https://kind.sigs.k8s.io/docs/user/quick-start#installation): go install sigs.k8s.io/kind@latest"
        }
        "helm" => "install Helm 3.13 or newer (https://helm.sh/docs/intro/install)",
        "curl" => "install curl, or give --bundle DIR with the definitions in it",
        _ => "install it, or add its folder to PATH",
    }
}

#[derive(Clone, Debug)]
pub struct Call {
    program: String,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    without: Vec<&'static str>,
    deadline: Duration,
}

impl Call {
    pub fn new(program: impl Into<String>) -> Self {
        Self { program: program.into(), args: vec![], env: vec![], without: vec![], deadline: Duration::from_secs(60) }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// A variable that the program must not inherit.
    pub fn without(mut self, name: &'static str) -> Self {
        self.without.push(name);
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it to its end.
    ///
    /// The program gets no input, a process group of its own, and is stopped with all that it started when `cancel`
    /// fires, when its time is over or when this future is dropped.
    pub async fn run(self, programs: &Programs, cancel: &CancellationToken) -> Result<Output, ChildError> {
        let file = programs.find(&self.program)?;
        if cancel.is_cancelled() {
            return Err(ChildError::Cancelled { call: self.text() });
        }
        let mut command = Command::new(&file);
        command.args(&self.args).env("PATH", &programs.path).envs(self.env.iter().map(|(n, v)| (n, v)));
        for name in &self.without {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| ChildError::NotStarted { file: file.clone(), source })?;
        let group = Group::of(child.id());
        let recorded = programs.run_folder.as_deref().zip(child.id());
        let _recorded = recorded.and_then(|(run_folder, pid)| Recorded::new(run_folder, pid).ok());

        let mut out = child.stdout.take().expect("standard output is piped");
        let mut err = child.stderr.take().expect("standard error is piped");
        let reading = async {
            let (out, err) = tokio::try_join!(read_head(&mut out), async { Ok(read_tail(&mut err).await) })?;
            Ok::<_, TooMuch>((out, err, child.wait().await))
        };
        let ended = tokio::select! {
            read = tokio::time::timeout(self.deadline, reading) => match read {
                Ok(Ok(read)) => Ok(read),
                Ok(Err(TooMuch)) => Err(ChildError::TooMuch { call: self.text(), limit: STDOUT_LIMIT }),
                Err(_) => Err(ChildError::TooSlow { call: self.text(), deadline: self.deadline }),
            },
            () = cancel.cancelled() => Err(ChildError::Cancelled { call: self.text() }),
        };
        let (stdout, stderr, status) = match ended {
            Ok(read) => read,
            Err(error) => {
                group.stop(&mut child).await;
                return Err(error);
            }
        };
        let status = status.map_err(|source| ChildError::NotStarted { file, source })?;
        group.ended();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        if !status.success() {
            return Err(ChildError::Failed {
                call: self.text(),
                status: status.to_string(),
                output: OutputTail::of(&stderr, &stdout),
            });
        }
        Ok(Output { stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr })
    }

    pub fn text(&self) -> String {
        std::iter::once(self.program.clone())
            .chain(self.args.iter().map(|arg| quoted(&arg.to_string_lossy())))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

#[derive(Clone, Debug)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("{program} is not on PATH: {hint}")]
    NotFound { program: String, hint: &'static str },
    #[error("{} could not be run: {source}", file.display())]
    NotStarted { file: PathBuf, source: std::io::Error },
    #[error("`{call}` ended with {status}{output}")]
    Failed {
        call: String,
        status: String,
        /// The end of what it said, indented on lines of its own.
        output: OutputTail,
    },
    #[error("`{call}` did not end within {deadline:?} and was stopped")]
    TooSlow { call: String, deadline: Duration },
    #[error("`{call}` wrote more than {limit} bytes and was stopped")]
    TooMuch { call: String, limit: usize },
    #[error("`{call}` was stopped: the run was interrupted")]
    Cancelled { call: String },
}

impl ChildError {
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }

    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// What the program said at the end, where it failed by itself.
    pub fn output(&self) -> &str {
        match self {
            Self::Failed { output, .. } => &output.0,
            _ => "",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct OutputTail(String);

impl fmt::Display for OutputTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            write!(f, " and said nothing")
        } else {
            self.0.lines().try_for_each(|line| write!(f, "\n    {line}"))
        }
    }
}

impl OutputTail {
    /// The last 12 lines of standard error, or of standard output where that is empty.
    fn of(stderr: &str, stdout: &[u8]) -> Self {
        let stdout = String::from_utf8_lossy(stdout);
        let said = if stderr.trim().is_empty() { &stdout } else { stderr };
        let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        Self(lines[lines.len().saturating_sub(12)..].join("\n"))
    }
}

fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) { arg.to_owned() } else { format!("'{}'", arg.replace('\'', "'\\''")) }
}

struct TooMuch;

async fn read_head(from: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>, TooMuch> {
    let mut kept = Vec::new();
    // A pipe that breaks has said all it can; what became of the program is in its status.
    let _ = from.take(STDOUT_LIMIT as u64 + 1).read_to_end(&mut kept).await;
    if kept.len() <= STDOUT_LIMIT { Ok(kept) } else { Err(TooMuch) }
}

async fn read_tail(from: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > 2 * STDERR_LIMIT {
            kept.drain(..kept.len() - STDERR_LIMIT);
        }
    }
    kept.drain(..kept.len().saturating_sub(STDERR_LIMIT));
    kept
}

/// The process group of a child; what is left of it is killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(pid: Option<u32>) -> Self {
        Self(pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw))
    }

    /// Asks the group to end, and kills it when it does not.
    async fn stop(&self, child: &mut tokio::process::Child) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            let _ = child.wait().await;
        }
    }

    /// The child ended by itself: nothing is killed later, its number may be another's by then.
    fn ended(mut self) {
        self.0 = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It may be gone already, which is what is wanted.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Instant};

    use super::*;
    use crate::programs::fakes::Fakes;

    async fn run(call: Call, programs: &Programs) -> Result<Output, ChildError> {
        call.run(programs, &CancellationToken::new()).await
    }

    fn with(program: &str, script: &str) -> (Fakes, Programs) {
        let fakes = Fakes::new().program(program, script);
        let programs = fakes.programs();
        (fakes, programs)
    }

    #[tokio::test]
    async fn what_it_says_is_kept() {
        let (_folder, programs) = with("speaker", "echo out; echo err >&2; echo \"$1 $WORD ${GONE-gone}\"");
        let call = Call::new("speaker").arg("a b").env("WORD", "w").without("HOME");
        assert_eq!(call.text(), "speaker 'a b'");
        let output = run(call, &programs).await.unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\na b w gone\n", "err\n"));
    }

    #[tokio::test]
    async fn a_missing_program_says_how_to_get_it() {
        let programs = Programs::in_path("/nowhere");
        let error = run(Call::new("kind"), &programs).await.unwrap_err();
        assert!(error.is_missing());
        insta::assert_snapshot!(error, @"kind is not on PATH: install kind (https://kind.sigs.k8s.io/docs/user/quick-start#installation): go install sigs.k8s.io/kind@latest");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_executed_is_no_program() {
        let (folder, programs) = with("helm", "");
        fs::set_permissions(folder.path().join("helm"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(programs.find("helm").is_err());
    }

    #[tokio::test]
    async fn a_failure_has_the_call_the_code_and_the_end_of_the_output() {
        let (_folder, programs) =
            with("failing", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do echo line $i >&2; done; exit 7");
        let error = run(Call::new("failing").args(["--x", "y z"]), &programs).await.unwrap_err();
        insta::assert_snapshot!(error, @r"
        `failing --x 'y z'` ended with exit status: 7
            line 3
            line 4
            line 5
            line 6
            line 7
            line 8
            line 9
            line 10
            line 11
            line 12
            line 13
            line 14
        ");
    }

    #[tokio::test]
    async fn a_silent_failure_says_so_and_standard_output_counts_where_the_other_is_empty() {
        let (_folder, programs) = with("silent", "[ -z \"$1\" ] || echo \"$1\"; kill -9 $$");
        let silent = run(Call::new("silent"), &programs).await.unwrap_err();
        insta::assert_snapshot!(silent, @"`silent` ended with signal: 9 (SIGKILL) and said nothing");
        let told = run(Call::new("silent").arg("why"), &programs).await.unwrap_err();
        assert_eq!(told.output(), "why");
    }

    #[tokio::test]
    async fn too_slow_and_too_much_are_stopped() {
        let (_folder, programs) = with("endless", "[ \"$1\" = talk ] && exec yes; exec tail -f /dev/null");
        let slow = run(Call::new("endless").deadline(Duration::from_millis(50)), &programs).await.unwrap_err();
        insta::assert_snapshot!(slow, @"`endless` did not end within 50ms and was stopped");
        let much = run(Call::new("endless").arg("talk"), &programs).await.unwrap_err();
        insta::assert_snapshot!(much, @"`endless talk` wrote more than 8388608 bytes and was stopped");
    }

    #[tokio::test]
    async fn cancelling_ends_the_program_and_what_it_started() {
        let run = tempfile::tempdir().unwrap();
        let (folder, programs) =
            with("parent", "tail -f /dev/null & echo $! > \"$0.child\"; mv \"$0.child\" \"$0.pid\"; wait");
        let programs = programs.recorded_in(run.path());
        let cancel = CancellationToken::new();
        let pid_file = folder.path().join("parent.pid");
        let calling = tokio::spawn({
            let (programs, cancel) = (programs.clone(), cancel.clone());
            async move { Call::new("parent").run(&programs, &cancel).await }
        });
        let pid = loop {
            if let Ok(pid) = fs::read_to_string(&pid_file) {
                break pid.trim().to_owned();
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(crate::programs::processes::living(run.path()).len(), 1, "the running program is recorded");
        let begun = Instant::now();
        cancel.cancel();
        let error = calling.await.unwrap().unwrap_err();
        assert!(error.is_cancelled());
        assert!(begun.elapsed() < GRACE, "the shell ends when it is asked to");
        let gone = async {
            while !fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(GRACE, gone).await.expect("what it started ends as well");
        assert_eq!(crate::programs::processes::living(run.path()), []);
        let late = Call::new("parent").run(&programs, &cancel).await.unwrap_err();
        insta::assert_snapshot!(late, @"`parent` was stopped: the run was interrupted");
    }
}
