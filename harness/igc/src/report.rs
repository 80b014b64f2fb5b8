//! `igc report`: what came of a run, from its plan, its records and the baselines; the exit code is the run's.

use std::{collections::BTreeMap, io::IsTerminal, path::Path};

use cluster::environment::Environment;
use verdict::{
    baseline::Baseline,
    folder::RunFolder,
    render::{Colour, terminal},
    report::{self, Ending, Inputs},
};

use crate::{failure::Failure, pages};

/// Says what came of a run; writes `report.{json,xml,md,html}` where asked.
pub fn report(run: &Path, write: bool, interrupted: bool, quiet: bool) -> Result<u8, Failure> {
    let folder = RunFolder::open(run).map_err(Failure::usage)?;
    let (plan, records) = (folder.read_plan()?, folder.read_records()?);
    let mut baselines = BTreeMap::new();
    for gateway in &plan.gateways {
        let baseline = Baseline::find(Path::new("golden"), &gateway.name).map_err(Failure::usage)?;
        baselines.insert(gateway.name.clone(), baseline);
    }
    let environment: Environment = folder.read_json("environment.json").unwrap_or_default();
    let stood = || environment.gateways.iter();
    let broken: Vec<String> =
        stood().filter_map(|(name, s)| s.error.as_ref().map(|e| format!("{name}: {e}"))).collect();
    let ending = match (interrupted, broken.is_empty()) {
        (true, _) => Ending::Interrupted,
        (false, false) => Ending::Broken(broken.join("; ")),
        (false, true) => Ending::Finished,
    };
    let egress: Vec<String> = stood().filter(|(_, s)| !s.egress.is_empty()).map(|(_, s)| s.egress.clone()).collect();
    let report = report::compile(&Inputs {
        plan: &plan,
        records: &records,
        baselines: &baselines,
        histories: &|key| folder.read_history(key).ok(),
        ending,
        now: ended(&folder),
        egress: (!egress.is_empty()).then(|| egress.join("; ")),
        notes: stood().flat_map(|(_, s)| s.notes.clone()).collect(),
    });
    if write {
        pages::write(&folder, &report)?;
    }
    let colour = if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        Colour::Ansi
    } else {
        Colour::Plain
    };
    let text = terminal(&report, &shown(folder.path()), colour);
    if quiet {
        println!("{}", text.lines().last().unwrap_or_default());
    } else {
        print!("{text}");
    }
    Ok(report.run.exit)
}

/// When the run ended: at its last event, so that a report that is made again says the same.
fn ended(folder: &RunFolder) -> jiff::Timestamp {
    let last = folder.read_events().ok().and_then(|e| e.events.last()?.at.parse().ok());
    last.unwrap_or_else(jiff::Timestamp::now)
}

/// A path as people type it: relative to the checkout where it is below it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
