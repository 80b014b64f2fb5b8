//! One run from nothing to a report: plan, place up, suites, place down, report; the report's exit code is the run's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::{
    live::{Live, Voice},
    program::{self, Build},
    run::{Ended, Interrupts},
};

/// Options of `cargo xtask e2e`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct E2e {
    #[command(flatten)]
    run: options::E2e,
    #[command(flatten)]
    output: options::Output,
}

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
    command: Vec<String>,
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

    /// How much of this part is to be executed.
    fn planned(&self, part: Part<'_>) -> usize {
        let ours = |check: &&Check| match part {
            Part::All => true,
            Part::Of { gateway, shared } => check.gateway == gateway && (check.exclusive == "shared") == shared,
        };
        self.checks.iter().filter(|c| c.disposition == "run").filter(ours).count()
    }

    /// How many checks of this part run at once.
    fn jobs(&self, part: Part<'_>) -> u32 {
        match part {
            Part::Of { shared: false, .. } => 1,
            _ => self.run.jobs,
        }
    }
}

/// The program of a run, who may end it, and who listens to it.
struct Session {
    interrupts: Interrupts,
    igc: PathBuf,
    /// The suites' test binary.
    suites: PathBuf,
    voice: Voice,
    build: Build,
}

/// A run that is driven.
struct Driven<'a> {
    session: &'a Session,
    run: &'a Path,
    plan: &'a Plan,
    live: Live,
}

impl Session {
    fn igc(&self) -> Command {
        let mut command = Command::new(&self.igc);
        command.current_dir(program::root()).stdin(Stdio::null());
        command
    }

    /// Asks `igc` for a plan: the run folder, or the exit code of a refusal.
    fn plan(&self, words: &[String]) -> Result<std::result::Result<PathBuf, u8>> {
        let output = self.igc().arg("plan").args(words).output().context("failed to start igc")?;
        if !output.status.success() || self.voice != Voice::Silent {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
        }
        if !output.status.success() {
            return Ok(Err(output.status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(3)));
        }
        let run = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Ok(program::root().join(run)))
    }

    /// `igc up`, with the program that the model's image is made of where pods are real.
    fn up(&self, run: &Path, plan: &Plan) -> Result<Command> {
        let mut up = self.igc();
        up.arg("up").arg("--run").arg(run);
        if plan.run.place != "rehearsal" && !plan.run.command.iter().any(|word| word == "--igc-image") {
            up.arg("--program").arg(program::image(self.build)?);
        }
        Ok(up)
    }
}

impl Driven<'_> {
    /// Runs the suites' tests; verdicts are in the records, so the test runner's code does not matter.
    fn suites(&self, part: Part<'_>) -> Result<Ended> {
        let log = log(self.run, "tests.log")?;
        let mut command = Command::new(&self.session.suites);
        command
            .arg("--test-threads")
            .arg(self.plan.jobs(part).to_string())
            .args(options::CHECKS_ALONE)
            .env("IGC_RUN", self.run)
            .current_dir(program::root().join("suites"))
            .stdin(Stdio::null())
            .stderr(log.try_clone().context("failed to open tests.log")?)
            .stdout(log);
        if let Part::Of { gateway, shared } = part {
            command.env("IGC_GATEWAY", gateway).env("IGC_EXCLUSIVE", if shared { "shared" } else { "alone" });
        }
        self.session.interrupts.run(&mut command) // how checks went is in the events of the run
    }

    /// What stands a gateway up or takes it down says so to people, or to a file where nobody listens.
    fn heard<'c>(&self, command: &'c mut Command) -> Result<&'c mut Command> {
        match self.session.voice {
            Voice::Silent => {
                let log = log(self.run, "place.log")?;
                Ok(command.stdout(log.try_clone().context("failed to open place.log")?).stderr(log))
            }
            // Standard output is the program's that listens.
            Voice::JsonLines => Ok(command.stdout(Stdio::null())),
            Voice::Plain | Voice::Terminal => Ok(command),
        }
    }

    /// A gateway from up to the end of its checks; `None`: all of them at once.
    fn turn(&self, gateway: Option<&str>) -> Result<Ended> {
        let mut up = self.session.up(self.run, self.plan)?;
        let mut ended = self.session.interrupts.run(self.heard(of(&mut up, gateway))?)?;
        let parts = Plan::parts(gateway);
        let all = parts.iter().map(|part| self.plan.planned(*part)).sum();
        for part in parts {
            if ended == Ended::Code(0) && self.plan.planned(part) > 0 {
                let every = || self.plan.gateways.iter().map(|g| g.name.as_str()).collect();
                self.live.checks(&gateway.map_or_else(every, |gateway| vec![gateway]), all);
                ended = match self.suites(part)? {
                    Ended::Code(_) => Ended::Code(0),
                    Ended::Interrupted => Ended::Interrupted,
                };
            }
        }
        self.live.rest();
        Ok(ended)
    }

    /// Takes a gateway down, in every case, also after an error or Ctrl-C: a second Ctrl-C does not reach this.
    fn down(&self, gateway: Option<&str>) -> Result<()> {
        let mut down = self.session.igc();
        of(down.arg("down").arg("--run").arg(self.run), gateway);
        if self.session.interrupts.said() {
            down.arg("--interrupted");
        }
        let down = self.heard(&mut down)?.status().context("failed to start igc down")?;
        if !down.success() {
            eprintln!("warning: igc down ended with {down}; `cargo xtask down` removes what is left");
        }
        Ok(())
    }
}

/// The command for one gateway, or for all.
fn of<'c>(command: &'c mut Command, gateway: Option<&str>) -> &'c mut Command {
    match gateway {
        Some(gateway) => command.args(["--gateway", gateway]),
        None => command,
    }
}

/// A file of the run's folder, appended to.
fn log(run: &Path, name: &str) -> Result<File> {
    File::options().create(true).append(true).open(run.join(name)).with_context(|| format!("failed to open {name}"))
}

/// What the suites' test binary says of itself, in a file.
fn tests(suites: &Path) -> Result<PathBuf> {
    let list = Command::new(suites).args(["--list", "--format", "terse"]).output();
    let list = list.context("failed to list the suites' tests")?;
    if !list.status.success() {
        bail!("the suites' test binary cannot list its tests: {}", String::from_utf8_lossy(&list.stderr));
    }
    let tests = program::root().join("target/suites-tests.txt");
    fs::write(&tests, &list.stdout).with_context(|| format!("failed to write {}", tests.display()))?;
    Ok(tests)
}

fn session(voice: Voice, build: Build) -> Result<Session> {
    let interrupts = Interrupts::listen()?;
    let [igc, suites] = program::igc_and_suites(build)?;
    Ok(Session { igc, suites, interrupts, voice, build })
}

fn read(run: &Path) -> Result<Plan> {
    let plan = fs::read(run.join("plan.json")).context("failed to read the plan")?;
    serde_json::from_slice(&plan).context("failed to understand plan.json")
}

/// Plans a run and drives it, all but its report: the run folder, or the exit code of a refusal.
fn drive(session: &Session, mut words: Vec<String>) -> Result<std::result::Result<PathBuf, u8>> {
    words.extend(["--tests".to_owned(), tests(&session.suites)?.display().to_string()]);
    let run = match session.plan(&words)? {
        Ok(run) => run,
        Err(code) => return Ok(Err(code)),
    };
    let plan = read(&run)?;
    let live = Live::of(&run, &plan.run.place, session.voice);
    let driven = Driven { session, run: &run, plan: &plan, live };
    for gateway in plan.turns() {
        let ended = driven.turn(gateway);
        driven.live.rest();
        driven.down(gateway)?;
        if ended? == Ended::Interrupted {
            break;
        }
    }
    drop(driven); // the last events are said before the report is
    Ok(Ok(run))
}

/// `cargo xtask e2e`.
pub fn e2e(options: &E2e) -> Result<u8> {
    let build = if options.output.quiet { Build::Quiet } else { Build::Told };
    let session = session(Voice::of(&options.output), build)?;
    let run = match drive(&session, options.run.to_words())? {
        Ok(run) => run,
        Err(code) => return Ok(code),
    };
    let mut report = session.igc();
    report.arg("report").arg("--write").args(options.output.to_words()).arg(&run);
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
        let session = session(Voice::Silent, Build::Told)?;
        let run = match drive(&session, RECORDED.map(str::to_owned).to_vec())? {
            Ok(_) if session.interrupts.said() => return Ok(130),
            Ok(run) => run,
            Err(code) => return Ok(code),
        };
        let mut command = session.igc();
        command.arg("fidelity").arg("--run").arg(run);
        command
    } else {
        let mut command = Command::new(program::igc(Build::Told)?);
        command.current_dir(program::root()).stdin(Stdio::null()).arg("fidelity");
        command
    };
    Ok(match interrupts.run(command.args(options.to_words()))? {
        Ended::Code(code) => code,
        Ended::Interrupted => 130,
    })
}

/// `cargo xtask replay`.
pub fn replay(mut options: options::Replay) -> Result<u8> {
    for run in &mut options.runs {
        if *run != Path::new("target/igc/latest") {
            *run = std::path::absolute(&*run).with_context(|| format!("failed to find {}", run.display()))?;
        }
    }
    let session = session(Voice::Silent, Build::Told)?;
    let mut command = session.igc();
    command.arg("replay").arg("--suites").arg(&session.suites);
    Ok(match session.interrupts.run(command.args(options.to_words()))? {
        Ended::Code(code) => code,
        Ended::Interrupted => 130,
    })
}

/// `cargo xtask mutants`.
pub fn mutants(options: &options::Mutants) -> Result<u8> {
    let session = session(Voice::Silent, Build::Told)?;
    let mut command = session.igc();
    command.arg("mutants").arg("--suites").arg(&session.suites).arg("--tests").arg(tests(&session.suites)?);
    Ok(match session.interrupts.run(command.args(options.to_words()))? {
        Ended::Code(code) => code,
        Ended::Interrupted => 130,
    })
}

/// `cargo xtask up`. A rehearsal stays until Ctrl-C, whose code is 130, or until `cargo xtask down`, which gives 0.
pub fn up(options: &options::Where) -> Result<u8> {
    let session = session(Voice::Plain, Build::Told)?;
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
