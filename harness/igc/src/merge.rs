//! `merge`: the folders of several runs become the folder of one, with everything that its page shows.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use shipped::Root;
use verdict::report::{self, Ending, Expected, Merged, Report};
use verdict::{folder::RunFolder, history::Key};

use crate::plan::{run_id, runs};
use crate::{cli, failure::Failure, options, pages, report as reports};

/// What of a run's folder the merged one keeps: what its pages lead to.
const KEPT: [&str; 5] = ["plan.json", "report.json", "records", "history", "evidence"];

#[derive(Deserialize)]
struct Matrix {
    include: Vec<Expected>,
}

pub fn merge(root: &Root, options: &options::Merge) -> Result<u8, Failure> {
    let expected = options.matrix.as_deref().map(cells).transpose()?.unwrap_or_default();
    let folders: Vec<RunFolder> =
        options.runs.iter().map(|run| RunFolder::open(run).map_err(Failure::usage)).collect::<Result<_, _>>()?;
    let reports: Vec<Report> = folders.iter().map(|run| report_of(root, run)).collect::<Result<_, _>>()?;
    let id = run_id();
    let merged = report::merge(&reports, &id, &cli::typed(), &expected).map_err(Failure::usage)?;

    let folder = RunFolder::create(&options.out.clone().unwrap_or_else(|| runs(root)), &id)?;
    let mut kept = Vec::new();
    for (run, report) in folders.iter().zip(&reports) {
        let below = folder.path().join(&report.run.id);
        keep(run.path(), &below)?;
        kept.push(RunFolder::open(&below)?);
    }
    pages::write(root, &folder, &merged.report, &|key| history_of(&merged, &kept, key))?;
    folder.point_latest()?;
    reports::say(&merged.report, &folder, &options.output);
    Ok(merged.report.run.exit)
}

fn cells(path: &Path) -> Result<Vec<Expected>, Failure> {
    let bytes = fs::read(path).map_err(|e| Failure::Usage(format!("failed to read {}: {e}", path.display())))?;
    let matrix: Matrix = serde_json::from_slice(&bytes)
        .map_err(|e| Failure::Usage(format!("{} is not the output of `matrix`: {e}", path.display())))?;
    Ok(matrix.include)
}

/// The report that a run left; of a run that was killed before it wrote one, what its records say.
fn report_of(root: &Root, run: &RunFolder) -> Result<Report, Failure> {
    match Report::read(run).map_err(Failure::usage)? {
        Some(report) => Ok(report),
        None => reports::compiled(root, run, |_| Ending::Broken("the run ended without a report".into())),
    }
}

fn history_of(merged: &Merged, kept: &[RunFolder], key: &Key) -> Option<verdict::history::History> {
    let case = (key.case != "-").then(|| key.case.clone());
    let (run, gateway) = merged.origins.get(&(key.gateway.clone(), key.check.clone(), case))?;
    kept.get(*run)?.read_history(&Key { gateway: gateway.clone(), ..key.clone() }).ok()
}

/// Puts what is kept of a run into the merged folder: as the same files where that can be, else as copies.
fn keep(run: &Path, to: &Path) -> Result<(), Failure> {
    for name in KEPT {
        let from = run.join(name);
        if from.exists() {
            link_or_copy(&from, &to.join(name)).map_err(|e| {
                Failure::Environment(format!("failed to keep {} in {}: {e}", from.display(), to.display()))
            })?;
        }
    }
    Ok(())
}

fn link_or_copy(from: &Path, to: &PathBuf) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            link_or_copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    to.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}
