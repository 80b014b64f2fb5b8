//! Records of running processes in a run folder: who is alive, told apart from who later got the same number.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Folder of a run folder that holds one file for each running process, named by its number.
pub const FOLDER: &str = "processes";

/// A process written down for as long as this value lives.
#[derive(Debug)]
pub struct Recorded(PathBuf);

impl Recorded {
    pub fn new(run_folder: &Path, pid: u32) -> io::Result<Self> {
        let folder = run_folder.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let file = folder.join(pid.to_string());
        let started = start_of(pid).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such process"))?;
        let mut written = tempfile::NamedTempFile::new_in(&folder)?;
        writeln!(written, "{started}")?;
        written.persist(&file)?;
        Ok(Self(file))
    }

    pub fn this(run_folder: &Path) -> io::Result<Self> {
        Self::new(run_folder, std::process::id())
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // A record that stays is harmless: the start time tells that its process is gone.
        let _ = fs::remove_file(&self.0);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    pub pid: u32,
    pub run_folder: PathBuf,
}

/// The recorded processes of a run folder that still run, this one left out.
pub fn living(run_folder: &Path) -> Vec<Living> {
    let Ok(entries) = fs::read_dir(run_folder.join(FOLDER)) else { return vec![] };
    let mut found: Vec<Living> = entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let written: u64 = fs::read_to_string(entry.path()).ok()?.trim().parse().ok()?;
            let same = start_of(pid) == Some(written) && pid != std::process::id();
            same.then(|| Living { pid, run_folder: run_folder.to_owned() })
        })
        .collect();
    found.sort_by_key(|l| l.pid);
    found
}

impl Living {
    /// Asks it, or its whole process group where it leads one, to end; `Signal::KILL` does not ask.
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        // It may end between the look and the signal, which is what is wanted.
        let _ = match rustix::process::getpgid(Some(pid)) {
            Ok(group) if group == pid => kill_process_group(pid, signal),
            _ => kill_process(pid, signal),
        };
    }

    pub fn ended(&self) -> bool {
        !living(&self.run_folder).contains(self)
    }
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`, after the name in parentheses.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    started_in(&stat)
}

fn started_in(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace();
    // A zombie has ended; only its parent has not looked yet.
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("12 (sh) S 1 12 12 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 2048", Some(4711))]
    #[case::name_with_parentheses("12 (a) b (c)) S 1 12 12 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 42 2048", Some(42))]
    #[case::zombie("12 (sh) Z 1 12 12 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 2048", None)]
    #[case::short("12 (sh) S 1", None)]
    #[case::empty("", None)]
    fn start_time(#[case] stat: &str, #[case] expected: Option<u64>) {
        assert_eq!(started_in(stat), expected);
    }

    #[test]
    fn a_number_that_is_another_process_by_now_is_not_living() {
        let run = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let recorded = Recorded::new(run.path(), child.id()).unwrap();
        assert_eq!(living(run.path()).iter().map(|l| l.pid).collect::<Vec<_>>(), [child.id()]);

        fs::write(run.path().join(FOLDER).join(child.id().to_string()), "1\n").unwrap();
        assert_eq!(living(run.path()), []);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(recorded);
    }

    #[test]
    fn the_record_goes_with_the_value_and_names_no_one_else() {
        let run = tempfile::tempdir().unwrap();
        let recorded = Recorded::this(run.path()).unwrap();
        assert!(run.path().join(FOLDER).join(std::process::id().to_string()).exists());
        assert_eq!(living(run.path()), [], "this process is not told to end");
        drop(recorded);
        assert_eq!(fs::read_dir(run.path().join(FOLDER)).unwrap().count(), 0);
    }
}
