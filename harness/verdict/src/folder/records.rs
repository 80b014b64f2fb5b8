//! Records, histories and evidence of a run folder, each in the place that its key names.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Existing, FolderError, RunFolder, files_below, json, make_folders, parse_versioned, write_whole};
use crate::history::{HISTORY_VERSION, History, Key};
use crate::record::{RECORD_SCHEMA, Record, Verdict};
use crate::{redact, renamed::NAMES};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    pub records: Vec<Record>,
    /// Files that should be records and are not. None is dropped silently.
    pub unreadable: Vec<Unreadable>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Relative to the run folder.
    pub path: PathBuf,
    pub key: Option<Key>,
    pub problem: String,
}

impl RunFolder {
    /// Writes a record, redacted, which must be the first of its key, and waits until it is on the disk.
    pub fn write_record(&self, record: &Record) -> Result<(), FolderError> {
        let path = self.place_of("records", &record.key, ".json")?;
        let mut kept = record.clone();
        redact::record(&mut kept);
        write_whole(&path, &json(&path, &kept)?, Existing::Refused)
    }

    pub fn read_records(&self) -> Result<Records, FolderError> {
        let mut found = Records::default();
        let files = written_below(&self.path().join("records"))?;
        let readers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let share = files.len().div_ceil(readers).max(1);
        std::thread::scope(|scope| {
            let reading: Vec<_> =
                files.chunks(share).map(|files| scope.spawn(move || self.read_files(files))).collect();
            for part in reading {
                let part = part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                found.records.extend(part.records);
                found.unreadable.extend(part.unreadable);
            }
        });
        found.records.sort_by(|a, b| a.key.cmp(&b.key));
        found.unreadable.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn read_files(&self, files: &[PathBuf]) -> Records {
        let mut found = Records::default();
        for file in files {
            let relative = file.strip_prefix(self.path()).unwrap_or(file).to_owned();
            let key = key_today(relative.strip_prefix("records").unwrap_or(&relative));
            match self.read_record(file, key.as_ref()) {
                Ok(record) => found.records.push(record),
                Err(problem) => found.unreadable.push(Unreadable { path: relative, key, problem }),
            }
        }
        found
    }

    fn read_record(&self, file: &Path, key: Option<&Key>) -> Result<Record, String> {
        let bytes = fs::read(file).map_err(|e| e.to_string())?;
        let mut record: Record = parse_versioned(file, &bytes, |head| {
            let found = head.schema.as_deref().unwrap_or("no schema");
            (found == RECORD_SCHEMA).then_some(()).ok_or_else(|| (found.to_owned(), RECORD_SCHEMA.to_owned()))
        })
        .map_err(|e| e.problem.to_string())?;
        NAMES.record(&mut record);
        if key != Some(&record.key) {
            return Err(format!("it says that it is {}, which belongs elsewhere", record.key.path()));
        }
        if !matches!(record.verdict, Verdict::Pass | Verdict::Fail | Verdict::Unproven | Verdict::Error) {
            return Err(format!("its verdict {:?} is not one of a single attempt", record.verdict));
        }
        Ok(record)
    }

    /// Writes a history, redacted, which must be the first of its key, and gives back what was written.
    ///
    /// Judge what is given back: a replay will see the same.
    pub fn write_history(&self, history: &History) -> Result<History, FolderError> {
        let path = self.place_of("history", &history.key, ".json")?;
        let mut kept = history.clone();
        redact::history(&mut kept);
        write_whole(&path, &json(&path, &kept)?, Existing::Refused)?;
        Ok(kept)
    }

    pub fn read_history(&self, key: &Key) -> Result<History, FolderError> {
        let mut path = self.place_of("history", key, ".json")?;
        for key in NAMES.keys_of_before(key) {
            let before = self.place_of("history", &key, ".json")?;
            path = if before.exists() && !path.exists() { before } else { path };
        }
        let bytes = fs::read(&path).map_err(|e| FolderError::of_existing("read", &path, e))?;
        let mut history: History = parse_versioned(&path, &bytes, |head| {
            let found = head.version;
            let words = || found.map_or("no version".to_owned(), |n| format!("version {n}"));
            // Those of before are read as they were written: what a later version added is absent in them.
            found
                .filter(|found| (1..=u64::from(HISTORY_VERSION)).contains(found))
                .map(drop)
                .ok_or_else(|| (words(), format!("versions up to {HISTORY_VERSION}")))
        })?;
        NAMES.history(&mut history);
        Ok(history)
    }

    /// Keys of all histories, sorted: what a replay can judge again, also where a killed test left no record.
    pub fn history_keys(&self) -> Result<Vec<Key>, FolderError> {
        let top = self.path().join("history");
        let files = written_below(&top)?;
        let mut keys: Vec<Key> = files.iter().filter_map(|f| key_today(f.strip_prefix(&top).ok()?)).collect();
        keys.sort();
        Ok(keys)
    }

    /// Makes and gives the folder for what a stage collects: objects, events, logs, config dump, transcript.
    pub fn evidence_dir(&self, key: &Key) -> Result<PathBuf, FolderError> {
        let path = self.place_of("evidence", key, "")?;
        make_folders(&path)?;
        Ok(path)
    }
}

/// Every file below a folder, those being written left out.
fn written_below(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let mut files = files_below(folder)?;
    files.retain(|file| !file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".part-")));
    Ok(files)
}

/// The key that `<gateway>/<suite>/<check>/<case>/<attempt>.json` stands for, as it is called today.
fn key_today(path: &Path) -> Option<Key> {
    let parts: Vec<&str> = path.iter().map(|p| p.to_str()).collect::<Option<_>>()?;
    let [gateway, suite, name, case, attempt] = parts.as_slice() else {
        return None;
    };
    let mut key = Key {
        gateway: (*gateway).to_owned(),
        check: format!("{suite}/{name}"),
        case: (*case).to_owned(),
        attempt: attempt.strip_suffix(".json")?.parse().ok()?,
    };
    NAMES.key(&mut key);
    Some(key)
}
