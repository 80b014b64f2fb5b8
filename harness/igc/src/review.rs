//! `igc review`: observations of a run that differ from their goldens, and accepting them with a reason.

use std::path::{Path, PathBuf};

use verdict::{
    folder::RunFolder,
    golden::{self, Golden},
    plan::Filter,
    render::{Lines, inert},
};

use crate::failure::Failure;

/// The accepted observations, in the checkout that this program was started in.
fn goldens() -> PathBuf {
    PathBuf::from("golden")
}

/// `<gateway>/<suite>/<check>[@case]` of a pending file.
fn name_of(run: &RunFolder, pending: &Path) -> String {
    let relative = pending.strip_prefix(run.path().join("golden")).unwrap_or(pending);
    relative.to_string_lossy().trim_end_matches(".snap.new").to_owned()
}

/// Lists what is pending; with a glob and a reason, accepts what matches.
pub fn review(run: &Path, accept: Option<&str>, reason: Option<&str>) -> Result<u8, Failure> {
    let folder = RunFolder::open(run).map_err(Failure::usage)?;
    let pending = golden::pending(&folder)?;
    let Some(glob) = accept else {
        for file in &pending {
            let name = name_of(&folder, file);
            let new = Golden::read(file)?;
            let accepted = goldens().join(format!("{name}.snap"));
            let state = if accepted.is_file() { "changed" } else { "new" };
            println!("{state:<8} {name}");
            if accepted.is_file() {
                let old = Golden::read(&accepted)?;
                println!(
                    "         {} {} -> {} {}",
                    old.info.gateway, old.info.version, new.info.gateway, new.info.version
                );
                for line in golden::difference(&old.observation, &new.observation).lines() {
                    println!("         {}", inert(line, 400, Lines::Joined));
                }
            }
        }
        println!(
            "{} to review; accept with: cargo xtask review --accept '<suite>/<check>' --reason '...'",
            pending.len()
        );
        return Ok(0);
    };
    let filter = Filter::checks("--accept", &[glob.to_owned()]).map_err(Failure::usage)?;
    let mut accepted = 0;
    for file in &pending {
        let name = name_of(&folder, file);
        let title = name.split_once('/').map_or(name.as_str(), |(_, title)| title);
        let (check, case) = title.split_once('@').unwrap_or((title, "-"));
        if filter.selects(check, case) {
            let place = golden::accept(file, &goldens(), reason.unwrap_or_default())?;
            println!("accepted {}", place.display());
            accepted += 1;
        }
    }
    if accepted == 0 {
        return Err(Failure::Usage(format!(
            "--accept {glob:?} matches none of the {} pending observations of {}",
            pending.len(),
            run.display()
        )));
    }
    Ok(0)
}
