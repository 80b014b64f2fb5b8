//! The files that a report is written to, and what they are filled from besides the report.

use std::fs;
use std::path::{Path, PathBuf};

use cluster::gateway::GatewayFolder;
use shipped::Root;
use verdict::folder::{RunFolder, files_below};
use verdict::history::{History, Key};
use verdict::render::{Log, Sources, conformance, html, junit, markdown};
use verdict::report::Report;

use crate::failure::Failure;

/// How many runs before this one the trend shows.
const EARLIER: usize = 20;
/// How many logs of a check are shown.
const LOGS: usize = 8;
/// How many lines of a log are shown, from its end.
const LINES: usize = 40;

/// The channel of the Gateway API whose definitions are installed.
const CHANNEL: &str = "standard";

/// Writes `report.json`, `report.xml`, `report.md`, `report.html` and the ConformanceReports into the run's folder.
pub fn write(
    root: &Root,
    folder: &RunFolder,
    report: &Report,
    histories: &dyn Fn(&Key) -> Option<History>,
) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let others = scope.spawn(|| for_programs(root, folder, report));
        let sources = Sources { histories, logs: &|evidence| logs(folder.path(), evidence), earlier: &earlier(folder) };
        folder.write_file("report.html", &html(report, &sources)?)?;
        others.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn for_programs(root: &Root, folder: &RunFolder, report: &Report) -> Result<(), Failure> {
    folder.write_json("report.json", report)?;
    folder.write_file("report.xml", &junit(report)?)?;
    folder.write_file("report.md", &markdown(report))?;
    conformance_reports(root, folder, report)
}

/// Writes `conformance/<gateway>/<channel>-<version>-default-report.yaml`, as the Gateway API wants them to be called.
fn conformance_reports(root: &Root, folder: &RunFolder, report: &Report) -> Result<(), Failure> {
    for gateway in &report.gateways {
        let maker = match GatewayFolder::read(&root.manifests().join("gateways"), &gateway.gateway) {
            Ok(folder) => folder.implementation,
            Err(error) => {
                eprintln!("note: no ConformanceReport of {}: {error}", gateway.gateway); // a run of another checkout
                continue;
            }
        };
        if let Some(text) = conformance(report, gateway, &maker, CHANNEL) {
            let column = gateway.name.replace(' ', "-");
            let file = format!("conformance/{column}/{CHANNEL}-{}-default-report.yaml", gateway.version());
            folder.write_file(&file, &text?)?;
        }
    }
    Ok(())
}

/// Reports of the runs beside this one that began before it, the oldest first. What cannot be read is left out.
fn earlier(folder: &RunFolder) -> Vec<Report> {
    let beside = folder.path().parent().and_then(|runs| fs::read_dir(runs).ok());
    let mut runs: Vec<PathBuf> = beside
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| !path.is_symlink() && path.file_name() < folder.path().file_name())
        .collect();
    runs.sort();
    let reports = runs.iter().rev().filter_map(|run| Report::read(&RunFolder::open(run).ok()?).ok()?);
    let mut reports: Vec<Report> = reports.take(EARLIER).collect();
    reports.reverse();
    reports
}

/// The ends of the logs below an evidence folder; one that cannot be read is left out.
fn logs(run: &Path, evidence: &str) -> Vec<Log> {
    let files = files_below(&run.join(evidence).join("logs")).unwrap_or_default();
    let end = |path: &PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        let path = path.strip_prefix(run).unwrap_or(path).display().to_string();
        (!last.is_empty()).then(|| Log { path, end: last.join("\n") })
    };
    files.iter().filter_map(end).take(LOGS).collect()
}
