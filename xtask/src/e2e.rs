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

/// What one process of the suites runs.
#[derive(Clone, Copy)]
enum Part<'p> {
    /// The checks of one gateway that share it, or those that need it alone.
    Of { gateway: &'p str, shared: bool },
    /// Every check of every gateway: each has a world of its own, so none disturbs another.
    All,
}

impl Plan {
    /// The gateways that stand one after the other; `None`: all at once, in a place where they take no room.
    fn turns(&self) -> Vec<Option<&str>> {
        match self.run.place.as_str() {
            "rehearsal" => vec![None],
            _ => self.gateways.iter().map(|g| Some(g.name.as_str())).collect(),
        }
    }

    fn parts<'p>(gateway: Option<&'p str>) -> Vec<Part<'p>> {
        match gateway {
            None => vec![Part::All],
            Some(gateway) => [true, false].map(|shared| Part::Of { gateway, shared }).to_vec(),
        }
    }

    /// Whether anything of this part is to be executed.
    fn has(&self, part: Part<'_>) -> bool {
        self.checks.iter().filter(|c| c.disposition == "run").any(|check| match part {
            Part::All => true,
            Part::Of { gateway, shared } => check.gateway == gateway && (check.exclusive == "shared") == shared,
        })
    }

    /// How many checks of this part run at once.
    fn jobs(&self, part: Part<'_>) -> u32 {
        match part {
            Part::Of { shared: false, .. } => 1,
            _ => self.run.jobs,
        }
    }
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

    /// Runs the suites' tests; verdicts are in the records, so the test runner's code does not matter.
    fn suites(&self, suites: &Suites, run: &Path, part: Part<'_>, jobs: u32) -> Result<Ended> {
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
            .current_dir(program::root().join("suites"))
            .stdin(Stdio::null());
        if let Part::Of { gateway, shared } = part {
            command.env("IGC_GATEWAY", gateway).env("IGC_EXCLUSIVE", if shared { "shared" } else { "alone" });
        }
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

    /// A gateway from up to the end of its checks; `None`: all of them at once.
    fn turn(&self, suites: &Suites, run: &Path, plan: &Plan, gateway: Option<&str>) -> Result<Ended> {
        let mut ended = self.interrupts.run(of(&mut self.up(run, plan)?, gateway))?;
        for part in Plan::parts(gateway) {
            if ended == Ended::Code(0) && plan.has(part) {
                ended = match self.suites(suites, run, part, plan.jobs(part))? {
                    Ended::Code(_) => Ended::Code(0),
                    Ended::Interrupted => Ended::Interrupted,
                };
            }
        }
        Ok(ended)
    }
}

/// The command for one gateway, or for all.
fn of<'c>(command: &'c mut Command, gateway: Option<&str>) -> &'c mut Command {
    match gateway {
        Some(gateway) => command.args(["--gateway", gateway]),
        None => command,
    }
}

impl Suites {
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

fn session(says: Says) -> Result<(Session, Suites)> {
    let interrupts = Interrupts::listen()?;
    let [igc, program] = program::igc_and_suites()?;
    Ok((Session { igc, interrupts }, Suites { program, says }))
}

fn read(run: &Path) -> Result<Plan> {
    let plan = fs::read(run.join("plan.json")).context("failed to read the plan")?;
    serde_json::from_slice(&plan).context("failed to understand plan.json")
}

/// Plans a run and drives it, all but its report: the run folder, or the exit code of a refusal.
fn drive(session: &Session, suites: &Suites, mut words: Vec<String>) -> Result<std::result::Result<PathBuf, u8>> {
    words.extend(["--tests".to_owned(), suites.tests()?.display().to_string()]);
    let run = match session.plan(&words)? {
        Ok(run) => run,
        Err(code) => return Ok(Err(code)),
    };
    let plan = read(&run)?;

    for gateway in plan.turns() {
        let ended = session.turn(suites, &run, &plan, gateway);
        // Taken down in every case, also after an error or Ctrl-C: a second Ctrl-C does not reach these two.
        let mut down = session.igc();
        of(down.arg("down").arg("--run").arg(&run), gateway);
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
    let (session, suites) = session(Says::People)?;
    let run = match drive(&session, &suites, options.to_words())? {
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
        let (session, suites) = session(Says::TheLog)?;
        let run = match drive(&session, &suites, RECORDED.map(str::to_owned).to_vec())? {
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
    let session = Session { interrupts: Interrupts::listen()?, igc: program::igc()? };
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
