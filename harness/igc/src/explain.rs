//! `explain`: one check: what it demands, how it is driven and judged, the mutants that it kills, and what came of it lately.

use std::{fmt::Write, path::PathBuf};

use rehearsal::mutants::Mutant;
use shipped::Root;
use verdict::invariant::{self, Invariant};
use verdict::render::{Lines, inert};
use verdict::{folder::RunFolder, names::suggestion, record::Record, requirements::Requirement};

use crate::list::{Support, declared, support};
use crate::{failure::Failure, options, plan::runs, suites::Suites};

const RUNS: usize = 20;

pub async fn explain(root: &Root, options: &options::Explain) -> Result<u8, Failure> {
    if options.check.starts_with(invariant::PREFIX) {
        let known = || Invariant::ALL.map(Invariant::id).join(", ");
        let unknown = || Failure::Usage(format!("there is no {}; there are {}", options.check, known()));
        print!("{}", of_invariant(Invariant::of_id(&options.check).ok_or_else(unknown)?));
        return Ok(0);
    }
    let requirements = Suites::find(root)?.requirements().await?;
    let Some(requirement) = requirements.get(&options.check) else {
        let near = suggestion(&requirements.near(&options.check));
        return Err(Failure::Usage(format!("no check is called {:?}{near}; `list` prints all of them", options.check)));
    };
    let plan = declared(root, "all", &requirements)?;
    print!("{}", demand(requirement));
    for (gateway, support) in support(&plan, requirement) {
        match support {
            Support::Declared => println!("{gateway}: declared"),
            Support::Unsupported(reason) => println!("{gateway}: unsupported: {reason}"),
        }
    }
    print!("{}", lately(&options.out.clone().unwrap_or_else(|| runs(root)), &options.check));
    Ok(0)
}

fn of_invariant(invariant: Invariant) -> String {
    let (id, sentence, source, how) = (invariant.id(), invariant.sentence(), invariant.source(), invariant.how());
    let mut text = format!("{id}  MUST, of every exchange of every check\n\n{sentence}\n\n");
    let mut line = |what: &str, value: &str| _ = writeln!(text, "{what:<12}{value}");
    line("source", source);
    line("how", how);
    line(
        "excepted",
        "changes that the gateway's folder declares, --declare adds, or the check's own sentence is about",
    );
    // Each fault is there twice, always and once in ten.
    let always = |mutant: &Mutant| !mutant.name().ends_with("-one-in-ten");
    for mutant in Mutant::all().filter(|mutant| mutant.shows_in(&id)).filter(always) {
        line("kills", &format!("{}: {}", mutant.name(), mutant.sentence()));
    }
    text
}

fn demand(requirement: &Requirement) -> String {
    let mut text = format!("{}  {}\n\n{}\n\n", requirement.check, requirement.level.word(), requirement.sentence);
    let mut line = |what: &str, value: &str| _ = writeln!(text, "{what:<12}{value}");
    line("source", &requirement.source);
    if !requirement.how.is_empty() {
        line("how", &requirement.how);
    }
    requirement.capability.iter().for_each(|capability| line("capability", capability));
    let usual =
        requirement.usual_model.as_ref().map(|model| format!("{}, or the one given with --model", model.word()));
    let model = requirement.model.as_ref().map(|model| model.word().to_owned());
    line("model", &model.or(usual).unwrap_or_else(|| "the run's".to_owned()));
    if !requirement.cases.is_empty() {
        line("cases", &requirement.cases.join(", "));
    }
    for name in &requirement.kills {
        let sentence = Mutant::named(name).map_or("", |mutant| mutant.sentence());
        line("kills", &format!("{name}: {sentence}"));
    }
    text + "\n"
}

fn lately(runs: &PathBuf, check: &str) -> String {
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect();
    folders.sort();
    let mut latest: Vec<(RunFolder, Record)> = Vec::new();
    for folder in folders.iter().rev().take(RUNS).filter_map(|path| RunFolder::open(path).ok()) {
        let mut records = folder.read_records().map(|read| read.records).unwrap_or_default();
        records.retain(|record| record.key.check == check);
        records.sort_by_key(|record| std::cmp::Reverse(record.key.attempt));
        for record in records {
            let of = |known: &Record| (known.key.gateway.clone(), known.key.case.clone());
            if !latest.iter().any(|(_, known)| of(known) == of(&record)) {
                latest.push((folder.clone(), record));
            }
        }
    }
    latest.sort_by(|(_, a), (_, b)| a.key.cmp(&b.key));
    let mut text = format!("\nlast verdicts in {}\n", runs.display());
    for (folder, record) in &latest {
        let place = folder.read_plan().map_or("a place that is not known", |plan| plan.run.place.word());
        let line = format!(
            "{:<9} {} on {}, {place}, {}: {}",
            record.verdict.word(),
            record.key.title(),
            record.key.gateway,
            folder.id(),
            record.reason
        );
        _ = writeln!(text, "{}", inert(&line, 1_000, Lines::Joined));
        for kind in ["records", "history", "evidence"] {
            let path = folder.path().join(kind).join(record.key.path());
            let file = path.with_extension("json");
            let there = [path, file].into_iter().find(|path| path.exists());
            there.iter().for_each(|path| _ = writeln!(text, "{:10}{}", "", path.display()));
        }
    }
    if latest.is_empty() {
        text += "none\n";
    }
    text
}
