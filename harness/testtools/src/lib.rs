//! What tests of several crates need: copies of the project's manifests, and programs that machines may lack. A test that lacks one ends early, but not silently: it is counted, the
//! last test of `cargo test --workspace` names what was not there, and where `IGC_REQUIRE=kubectl,envoy,...` names the
//! program the test fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// The variable that names the programs that must be there, separated by commas.
pub const REQUIRE: &str = "IGC_REQUIRE";

/// The first of these programs that `PATH` has. Panics where there is none and [`REQUIRE`] names `tool`.
pub fn in_path(tool: &str, programs: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let found = programs.iter().flat_map(|program| folders.iter().map(move |folder| folder.join(program)));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        missing(tool, &format!("none of {} is in PATH", programs.join(", ")));
    }
    found
}

/// Counts a test that lacks a tool. Panics where [`REQUIRE`] names it.
pub fn missing(tool: &str, why: &str) {
    let required = env::var(REQUIRE).unwrap_or_default();
    assert!(!required.split(',').any(|name| name.trim() == tool), "{REQUIRE} names {tool}, and {why}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Past the capture of the test runner: what was not tested is to be seen.
    _ = writeln!(io::stderr(), "not tested: {test}: {tool}: {why}");
    let noted = note(&folder(), tool, &test);
    assert!(noted.is_ok(), "failed to count what is missing: {noted:?}");
}

/// Where the tests of one `cargo test` leave what they lacked. It is the parent of all of them: its number and its start
/// (field 22 of its `stat`, the 20th behind its name) tell it from all others.
fn folder() -> PathBuf {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    let started = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(19)).unwrap_or("0");
    env::temp_dir().join(format!("igc-tests-{}-{parent}-{started}", rustix::process::geteuid().as_raw()))
}

fn note(folder: &Path, tool: &str, test: &str) -> io::Result<()> {
    let folder = folder.join(tool);
    fs::create_dir_all(&folder)?;
    let program = env::current_exe().ok().and_then(|p| Some(p.file_stem()?.to_string_lossy().into_owned()));
    fs::write(folder.join(format!("{}.{}", program.unwrap_or_default(), test.replace(':', "."))), "")
}

/// Writes a shell script that can be executed. A process of its own writes it: a file that this one holds open while another
/// test forks cannot be executed.
pub fn script(file: &Path, text: &str) -> io::Result<()> {
    let mut writer = Command::new("/bin/sh");
    writer.args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"]).arg(file).stdin(Stdio::piped());
    let mut writer = writer.spawn()?;
    writer.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()))?;
    if writer.wait()?.success() { Ok(()) } else { Err(io::Error::other(format!("failed to write {}", file.display()))) }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (from, to) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() { copy(&from, &to)? } else { _ = fs::copy(from, to)? }
    }
    Ok(())
}

/// Adds the gateway `toy` to these manifests: a folder alone, the copy of another gateway's under a name that no code knows.
pub fn add_toy(manifests: &Path, copied: &str) -> io::Result<()> {
    let gateways = manifests.join("gateways");
    let toy = gateways.join("toy");
    copy(&gateways.join(copied), &toy)?;
    let file = toy.join("gateway.yaml");
    let text = fs::read_to_string(&file)?;
    fs::write(file, text.replacen(&format!("\nname: {copied}\n"), "\nname: toy\n", 1))
}

/// What the tests of this `cargo test` lacked so far, in one line each; it is forgotten then.
pub fn told() -> Vec<String> {
    tell(&folder())
}

fn tell(folder: &Path) -> Vec<String> {
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let lacked: BTreeMap<String, usize> =
        names(folder).into_iter().map(|tool| (tool.clone(), names(&folder.join(tool)).len())).collect();
    _ = fs::remove_dir_all(folder); // none is there where nothing was missing
    lacked.into_iter().map(|(tool, tests)| format!("{tool}: not here, so that {tests} tests did not test")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_is_told_once_with_its_tests() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("of-a-run");
        assert_eq!(tell(&below), Vec::<String>::new());
        for (tool, test) in [("kubectl", "a::b"), ("kubectl", "a::c"), ("kubectl", "a::c"), ("envoy", "d")] {
            note(&below, tool, test).unwrap();
        }
        let lines =
            ["envoy: not here, so that 1 tests did not test", "kubectl: not here, so that 2 tests did not test"];
        assert_eq!(tell(&below), lines);
        assert_eq!(tell(&below), Vec::<String>::new(), "it is forgotten");
    }

    #[test]
    fn what_is_there_is_found() {
        assert!(in_path("shell", &["no-such-program", "sh"]).is_some_and(|sh| sh.ends_with("sh")));
    }
}
