//! `report`: what came of a run, from its plan, its records and the baselines; the exit code is the run's.

use std::collections::{BTreeMap, BTreeSet};

use cluster::environment::Environment;
use shipped::Root;
use verdict::render::{Known, closing, json_lines, terminal};
use verdict::report::{self, Ending, Inputs, Report};
use verdict::{baseline::Baseline, folder::RunFolder};

use crate::options::{self, OutputFormat};
use crate::terminal::{colour, shown};
use crate::{failure::Failure, pages, plan::run_or_last};

pub fn report(root: &Root, options: &options::Report) -> Result<u8, Failure> {
    if options.schema {
        println!("{}", serde_json::to_string_pretty(&report::schema())?);
        return Ok(0);
    }
    let folder = run_or_last(root, options.run.as_deref())?;
    // A merged run has no plan of its own: its report was made of others.
    if !folder.path().join("plan.json").exists()
        && let Some(report) = Report::read(&folder)?
    {
        say(&report, &folder, &options.output);
        return Ok(report.run.exit);
    }
    if options.write {
        return write(root, &folder, false, &options.output);
    }
    let report = compiled(root, &folder, |environment| ending(false, environment))?;
    say(&report, &folder, &options.output);
    Ok(report.run.exit)
}

pub fn write(root: &Root, folder: &RunFolder, interrupted: bool, output: &options::Output) -> Result<u8, Failure> {
    let report = compiled(root, folder, |environment| ending(interrupted, environment))?;
    pages::write(root, folder, &report, &|key| folder.read_history(key).ok())?;
    say(&report, folder, output);
    Ok(report.run.exit)
}

pub fn compiled(
    root: &Root,
    folder: &RunFolder,
    ending: impl FnOnce(&Environment) -> Ending,
) -> Result<Report, Failure> {
    let (plan, records) = (folder.read_plan()?, folder.read_records()?);
    let mut baselines = BTreeMap::new();
    for gateway in &plan.gateways {
        let baseline = Baseline::find(&root.goldens(), &gateway.name).map_err(Failure::usage)?;
        baselines.insert(gateway.name.clone(), baseline);
    }
    let environment: Environment = folder.read_json("environment.json").unwrap_or_default();
    let stood = || environment.gateways.iter();
    // Every gateway of a run has the same to say of it, as a rule.
    let egress: BTreeSet<&str> = stood()
        .map(|(_, s)| s.egress.strip_prefix("egress: ").unwrap_or(&s.egress))
        .filter(|words| !words.is_empty())
        .collect();
    Ok(report::compile(&Inputs {
        plan: &plan,
        records: &records,
        baselines: &baselines,
        histories: &|key| folder.read_history(key).ok(),
        ending: ending(&environment),
        now: ended(folder),
        egress: (!egress.is_empty()).then(|| egress.into_iter().collect::<Vec<_>>().join("; ")),
        notes: stood().flat_map(|(_, s)| s.notes.clone()).collect(),
    }))
}

fn ending(interrupted: bool, environment: &Environment) -> Ending {
    let stood = environment.gateways.iter();
    let broken: Vec<String> = stood.filter_map(|(name, s)| s.error.as_ref().map(|e| format!("{name}: {e}"))).collect();
    match (interrupted, broken.is_empty()) {
        (true, _) => Ending::Interrupted,
        (false, false) => Ending::Broken(broken.join("; ")),
        (false, true) => Ending::Finished,
    }
}

pub fn say(report: &Report, folder: &RunFolder, output: &options::Output) {
    let folder = shown(folder.path()).display().to_string();
    match (output.format, output.quiet) {
        (OutputFormat::Text, true) => println!("{}", closing(report, &folder)),
        (OutputFormat::Text, false) => {
            let known = if output.verbose { Known::Listed } else { Known::Counted };
            print!("{}", terminal(report, &folder, colour(), known));
        }
        (OutputFormat::JsonLines, true) => {
            println!("{}", json_lines(report, &folder).lines().last().unwrap_or_default())
        }
        (OutputFormat::JsonLines, false) => print!("{}", json_lines(report, &folder)),
    }
}

/// When the run ended: at its last event, so that a report that is made again says the same.
fn ended(folder: &RunFolder) -> jiff::Timestamp {
    let last = folder.read_events().ok().and_then(|e| e.events.last()?.at.parse().ok());
    last.unwrap_or_else(jiff::Timestamp::now)
}
