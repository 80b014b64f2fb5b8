//! One run from nothing to a report: plan, place up, suites, place down, report; the report's exit code is the run's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    program,
    run::{Ended, Interrupts},
};

/// What xtask reads of `plan.json`.
#[derive(Deserialize)]
struct Plan {
    run: Run,
    gateways: Vec<Gateway>,
    checks: Vec<Check>,
}
#[derive(Deserialize)]
struct Run {
    jobs: u32,
    place: String,
}
#[derive(Deserialize)]
struct Gateway {
    name: String,
}
#[derive(Deserialize)]
struct Check {
    gateway: String,
    exclusive: String,
    disposition: serde_json::Value,
}

/// Whether anything of this gateway is to be executed, `shared` or alone.
fn planned(plan: &Plan, gateway: &str, shared: bool) -> bool {
    plan.checks.iter().any(|c| c.gateway == gateway && c.disposition == "run" && (c.exclusive == "shared") == shared)
}

/// The program of a run, and who may end it.
struct Session {
    interrupts: Interrupts,
    igc: PathBuf,
}

/// The suites' test binary, and who hears how its checks go.
struct Suites {
    program: PathBuf,
    says: Says,
}

/// Where each check's line goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// To the terminal.
    People,
    /// To the run's `tests.log`.
    TheLog,
}

impl Session {
    fn igc(&self) -> Command {
        let mut command = Command::new(&self.igc);
        command.current_dir(program::root()).stdin(Stdio::null());
        command
    }

    /// Asks `igc` for a plan: the run folder, or the exit code of a refusal.
    fn plan(&self, words: &[String]) -> Result<std::result::Result<PathBuf, u8>> {
        let output =
            self.igc().arg("plan").args(words).stderr(Stdio::inherit()).output().context("failed to start igc")?;
        if !output.status.success() {
            return Ok(Err(output.status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(3)));
        }
        let run = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Ok(program::root().join(run)))
    }

    /// Runs the suites' tests of one gateway; verdicts are in the records, so the test runner's code does not matter.
    fn suites(&self, suites: &Suites, run: &Path, gateway: &str, jobs: u32, exclusive: &str) -> Result<Ended> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(run.join("tests.log"))
            .context("failed to open tests.log")?;
        let mut command = Command::new(&suites.program);
        command
            .arg("--test-threads")
            .arg(jobs.to_string())
            .env("IGC_RUN", run)
            .env("IGC_GATEWAY", gateway)
            .env("IGC_EXCLUSIVE", exclusive)
            .current_dir(program::root().join("suites"))
            .stdin(Stdio::null());
        if suites.says == Says::TheLog {
            command.stderr(log.try_clone().context("failed to open tests.log")?);
        }
        self.interrupts.run(command.stdout(log)) // the runner's own output; each check says on stderr how it went
    }

    /// `igc up`, with the program that the model's image is made of where pods are real.
    fn up(&self, run: &Path, plan: &Plan) -> Result<Command> {
        let mut up = self.igc();
        up.arg("up").arg("--run").arg(run);
        if plan.run.place != "rehearsal" {
            up.arg("--program").arg(program::image()?);
        }
        Ok(up)
    }

    fn gateway(&self, suites: &Suites, run: &Path, plan: &Plan, gateway: &str) -> Result<Ended> {
        let mut ended = self.interrupts.run(self.up(run, plan)?.args(["--gateway", gateway]))?;
        for (exclusive, jobs) in [("shared", plan.run.jobs), ("alone", 1)] {
            if ended == Ended::Code(0) && planned(plan, gateway, exclusive == "shared") {
                ended = match self.suites(suites, run, gateway, jobs, exclusive)? {
                    Ended::Code(_) => Ended::Code(0),
                    Ended::Interrupted => Ended::Interrupted,
                };
            }
        }
        Ok(ended)
    }
}

impl Suites {
    fn that_say(says: Says) -> Result<Self> {
        Ok(Self { program: program::suites()?, says })
    }

    /// What the test binary says of itself, in a file.
    fn tests(&self) -> Result<PathBuf> {
        let list = Command::new(&self.program).args(["--list", "--format", "terse"]).output();
        let list = list.context("failed to list the suites' tests")?;
        if !list.status.success() {
            bail!("the suites' test binary cannot list its tests: {}", String::from_utf8_lossy(&list.stderr));
        }
        let tests = program::root().join("target/suites-tests.txt");
        fs::write(&tests, &list.stdout).with_context(|| format!("failed to write {}", tests.display()))?;
        Ok(tests)
    }
}

fn session() -> Result<Session> {
    let interrupts = Interrupts::listen()?;
    Ok(Session { igc: program::igc()?, interrupts })
}

fn read(run: &Path) -> Result<Plan> {
    let plan = fs::read(run.join("plan.json")).context("failed to read the plan")?;
    serde_json::from_slice(&plan).context("failed to understand plan.json")
}

/// Plans a run and drives it, all but its report: the run folder, or the exit code of a refusal.
fn drive(session: &Session, says: Says, mut words: Vec<String>) -> Result<std::result::Result<PathBuf, u8>> {
    let suites = Suites::that_say(says)?;
    words.extend(["--tests".to_owned(), suites.tests()?.display().to_string()]);
    let run = match session.plan(&words)? {
        Ok(run) => run,
        Err(code) => return Ok(Err(code)),
    };
    let plan = read(&run)?;

    for gateway in &plan.gateways {
        let ended = session.gateway(&suites, &run, &plan, &gateway.name);
        // Taken down in every case, also after an error or Ctrl-C: a second Ctrl-C does not reach these two.
        let mut down = session.igc();
        down.arg("down").arg("--run").arg(&run).args(["--gateway", &gateway.name]);
        if session.interrupts.said() {
            down.arg("--interrupted");
        }
        let down = down.status().context("failed to start igc down")?;
        if !down.success() {
            eprintln!("warning: igc down ended with {down}; `cargo xtask down` removes what is left");
        }
        if ended? == Ended::Interrupted {
            break;
        }
    }
    Ok(Ok(run))
}

/// `cargo xtask e2e`.
pub fn e2e(options: &options::E2e) -> Result<u8> {
    let session = session()?;
    let run = match drive(&session, Says::People, options.to_words())? {
        Ok(run) => run,
        Err(code) => return Ok(code),
    };
    let mut report = session.igc();
    report.arg("report").arg("--write").arg(&run);
    if session.interrupts.said() {
        report.arg("--interrupted");
    }
    let status = report.status().context("failed to start igc report")?;
    Ok(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(3))
}

/// What is rehearsed for the goldens: every check, in the versions that they were recorded with.
const RECORDED: [&str; 4] = ["--on", "rehearsal", "--profile", "recorded"];

/// `cargo xtask fidelity`: the cases by `igc`; where all is asked for also the goldens of real places, by the suites.
pub fn fidelity(mut options: options::Fidelity) -> Result<u8> {
    for path in &mut options.paths {
        *path = std::path::absolute(&*path).with_context(|| format!("failed to find {}", path.display()))?;
    }
    let interrupts = Interrupts::listen()?;
    let goldens = options.paths.is_empty() && !options.list && options.cases.iter().all(|c| c.starts_with("golden"));
    let mut command = if goldens {
        let session = session()?;
        let run = match drive(&session, Says::TheLog, RECORDED.map(str::to_owned).to_vec())? {
            Ok(_) if session.interrupts.said() => return Ok(130),
            Ok(run) => run,
            Err(code) => return Ok(code),
        };
        let mut command = session.igc();
        command.arg("fidelity").arg("--run").arg(run);
        command
    } else {
        let mut command = Command::new(program::igc()?);
        command.current_dir(program::root()).stdin(Stdio::null()).arg("fidelity");
        command
    };
    Ok(match interrupts.run(command.args(options.to_words()))? {
        Ended::Code(code) => code,
        Ended::Interrupted => 130,
    })
}

/// `cargo xtask up`. A rehearsal stays until Ctrl-C, whose code is 130, or until `cargo xtask down`, which gives 0.
pub fn up(options: &options::Where) -> Result<u8> {
    let session = session()?;
    let run = match session.plan(&options.to_words())? {
        Ok(run) => run,
        Err(code) => return Ok(code),
    };
    let ended = session.interrupts.run(session.up(&run, &read(&run)?)?.arg("--stay"))?;
    match ended {
        Ended::Code(code) => Ok(code),
        Ended::Interrupted => {
            session
                .igc()
                .arg("down")
                .arg("--run")
                .arg(&run)
                .arg("--interrupted")
                .status()
                .context("failed to start igc down")?;
            Ok(130)
        }
    }
}
