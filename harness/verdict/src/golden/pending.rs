//! Pending observations: what a run observed that is not the same as what was accepted. They lie in the run folder as
//! `golden/<gateway>/<suite>/<check>[@case].snap.new`, in insta's format, so that cargo-insta shows them too.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Accepted, Golden, GoldenError, Recording, Recordings, files, gateway_and_title, text};
use crate::folder::{Existing, FolderError, RunFolder, write_whole};
use crate::{file::FileError, observation, plan::PlannedCheck};

const ENDING: &str = ".snap.new";

#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    pub gateway: String,
    pub title: String,
    pub sentence: String,
    pub recording: Recording,
    pub observation: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Front {
    source: String,
    description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expression: Option<String>,
    info: serde_json::Map<String, Value>,
}

impl Pending {
    pub(super) fn new(check: &PlannedCheck, recording: &Recording, observation: &Value) -> Self {
        Self {
            gateway: check.gateway.clone(),
            title: check.title(),
            sentence: check.sentence.clone(),
            recording: recording.clone(),
            observation: observation.clone(),
        }
    }

    /// Its file, relative to `golden` of a run folder.
    fn relative(&self) -> String {
        format!("{}/{}{ENDING}", self.gateway, self.title)
    }

    /// Leaves it in a run folder for review, with what was accepted beside it, so that cargo-insta shows both.
    pub(super) fn write(&self, run: &RunFolder, accepted: Option<&Self>) -> Result<PathBuf, GoldenError> {
        let path = run.path().join("golden").join(self.relative());
        if let Some(accepted) = accepted {
            write_whole(&copy_beside(&path), accepted.text(&path)?.as_bytes(), Existing::Replaced)?;
        }
        write_whole(&path, self.text(&path)?.as_bytes(), Existing::Replaced)?;
        Ok(path)
    }

    pub(super) fn text(&self, path: &Path) -> Result<String, FileError> {
        let shape = |error: String| FileError::shape(path, error);
        let Ok(Value::Object(mut info)) = serde_json::to_value(&self.recording) else {
            return Err(shape("its circumstances are no map".to_owned()));
        };
        info.insert("gateway".to_owned(), self.gateway.clone().into());
        let front = Front { source: "igc".to_owned(), description: self.sentence.clone(), expression: None, info };
        let front = text::written(&front).map_err(shape)?;
        // JSON is YAML without any choice of style.
        [text::yaml(&self.observation), format!("{}\n", self.observation)]
            .map(|body| format!("---\n{}\n---\n{body}", front.trim_end()))
            .into_iter()
            .find(|text| Self::parse(text, path).is_ok_and(|read| read == *self))
            .ok_or_else(|| shape("what is to be written would not be read as it is".to_owned()))
    }

    pub fn read(path: &Path) -> Result<Self, GoldenError> {
        let text = std::fs::read_to_string(path).map_err(|source| FileError::read(path, source))?;
        Ok(Self::parse(&text, path)?)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let shape = |error: String| FileError::shape(path, error);
        let text = text.replace("\r\n", "\n");
        let rest =
            text.strip_prefix("---\n").ok_or_else(|| shape("it does not begin with a line of ---".to_owned()))?;
        let (front, body) = rest
            .split_once("\n---\n")
            .ok_or_else(|| shape("the front matter has no closing line of ---".to_owned()))?;
        let mut front: Front = serde_saphyr::from_str(front).map_err(|e| shape(format!("front matter: {e}")))?;
        let observation = serde_saphyr::from_str(body).map_err(|e| shape(format!("observation: {e}")))?;
        let gateway = front.info.remove("gateway");
        let gateway =
            gateway.as_ref().and_then(Value::as_str).ok_or_else(|| shape("it names no gateway".to_owned()))?;
        let info = Value::Object(front.info);
        let recording = serde_json::from_value(info).map_err(|e| shape(format!("front matter: info: {e}")))?;
        let (_, title) = relative_to_golden(path).ok_or_else(|| shape(ELSEWHERE.to_owned()))?;
        let observation = observation::by_label(observation);
        let gateway = gateway.to_owned();
        Ok(Self { gateway, title, sentence: front.description, recording, observation })
    }

    /// Adds a pending file's observation, or its recording, to the golden below `golden`, and removes the pending one. What is not
    /// compared with any more, now that this is there, goes from the golden.
    ///
    /// Gives the path of the golden.
    pub fn accept(path: &Path, root: &Path, reason: &str) -> Result<PathBuf, GoldenError> {
        let refuse = |problem: &str| GoldenError::Review { path: path.to_owned(), problem: problem.to_owned() };
        let reason = reason.trim();
        if reason.is_empty() {
            return Err(refuse("it needs a reason, which is kept with the recording"));
        }
        let (gateway, title) = relative_to_golden(path).ok_or_else(|| refuse(ELSEWHERE))?;
        let pending = Self::read(path)?;
        if pending.gateway != gateway {
            return Err(refuse(&format!("it says that it is of {}, and lies elsewhere", pending.gateway)));
        }
        let recording = Recording { reason: Some(reason.to_owned()), ..pending.recording };
        let mut recordings = Recordings::find(root, &gateway)?;
        let snapshot = root.join(format!("{gateway}/{title}.snap"));
        let mut golden = Golden::read(&snapshot, &recordings)?;
        let is_worse = |then: &Recording| then.supersedes(&recording) && !recording.supersedes(then);
        if golden.recorded().any(|recorded| is_worse(recorded.recording)) {
            return Err(refuse("it was rehearsed, and what a real gateway left is not replaced by that"));
        }
        let id = recordings.id_of(&recording)?;
        for accepted in &mut golden.observations {
            accepted.recordings.retain(|(_, then)| !recording.supersedes(then));
        }
        let seen = (id, recording);
        match golden.observations.iter_mut().find(|accepted| accepted.observation == pending.observation) {
            Some(accepted) => accepted.recordings.push(seen),
            None => golden.observations.push(Accepted { recordings: vec![seen], observation: pending.observation }),
        }
        golden.observations.retain(|accepted| !accepted.recordings.is_empty());
        write_whole(&snapshot, text::write(&golden, &snapshot, &recordings)?.as_bytes(), Existing::Replaced)?;
        Self::reject(path)?;
        Ok(snapshot)
    }

    /// Takes a pending file back, with the copy of what was accepted beside it; the golden stays.
    pub fn reject(path: &Path) -> Result<(), GoldenError> {
        if relative_to_golden(path).is_none() {
            return Err(GoldenError::Review { path: path.to_owned(), problem: ELSEWHERE.to_owned() });
        }
        removed(path)?;
        removed(&copy_beside(path))
    }
}

pub fn pending(run: &RunFolder) -> Result<Vec<PathBuf>, FolderError> {
    files(&run.path().join("golden"), ENDING)
}

fn copy_beside(path: &Path) -> PathBuf {
    path.with_extension("")
}

fn removed(path: &Path) -> Result<(), GoldenError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(FolderError::new("remove", path, e).into()),
        _ => Ok(()),
    }
}

const ELSEWHERE: &str = "its path does not end in golden/<gateway>/<suite>/<check>[@case].snap.new";

fn relative_to_golden(path: &Path) -> Option<(String, String)> {
    let parts: Vec<&str> = path.iter().map(|p| p.to_str()).collect::<Option<_>>()?;
    let [.., "golden", gateway, suite, file] = parts.as_slice() else { return None };
    gateway_and_title(Path::new(&format!("{gateway}/{suite}/{file}")), ENDING)
}
