//! Events: one line each in `events.jsonl`, appended as they happen.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

use super::{FolderError, RunFolder};
use crate::{record::Verdict, redact};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// RFC 3339 in UTC.
    pub at: String,
    /// For example `up`, `check` (one has ended), `down`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// This and the next three are of a check that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaks: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    pub text: String,
}

impl Event {
    pub fn now(kind: &str, text: impl Into<String>) -> Self {
        Self { at: now(), kind: kind.to_owned(), text: text.into(), ..Self::default() }
    }
}

/// The current time, RFC 3339 in UTC with milliseconds.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    pub events: Vec<Event>,
    /// Numbers of lines, counted from 1, that cannot be read: a killed run can leave half a line.
    pub torn: Vec<usize>,
}

impl RunFolder {
    pub fn append_event(&self, event: &Event) -> Result<(), FolderError> {
        let path = self.path().join("events.jsonl");
        let failed = |e| FolderError::new("append to", &path, super::Problem::Io(e));
        let mut line = serde_json::to_string(&Event { text: redact::text(&event.text), ..event.clone() })
            .map_err(|e| FolderError::content("append to", &path, e))?;
        line.push('\n');
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(failed)?;
        if file.seek(SeekFrom::End(-1)).is_ok() {
            let mut last = [0];
            file.read_exact(&mut last).map_err(failed)?;
            if last != *b"\n" {
                line.insert(0, '\n'); // half a line of a killed writer must not swallow this one
            }
        }
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)
    }

    pub fn read_events(&self) -> Result<Events, FolderError> {
        let path = self.path().join("events.jsonl");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Events::default()),
            Err(e) => return Err(FolderError::new("read", &path, e)),
        };
        let mut events = Events::default();
        for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(event) => events.events.push(event),
                Err(_) => events.torn.push(index + 1),
            }
        }
        Ok(events)
    }
}
