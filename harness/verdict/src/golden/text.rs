//! The text of a golden: a YAML document for each observation, with the ids of those that saw it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_saphyr::FlowSeq;

use super::{Accepted, Golden, Recordings};
use crate::file::FileError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<Ids> {
    recordings: Ids,
    observation: Value,
}

/// The text of its file. Reading that text gives an equal golden.
pub(super) fn write(golden: &Golden, path: &Path, recordings: &Recordings) -> Result<String, FileError> {
    let as_yaml = |accepted: &Accepted| {
        let ids = FlowSeq(accepted.recordings.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
        written(&Document { recordings: ids, observation: sorted(&accepted.observation) })
    };
    // JSON is YAML without any choice of style.
    let as_json = |accepted: &Accepted| {
        let ids: Vec<&String> = accepted.recordings.iter().map(|(id, _)| id).collect();
        serde_json::to_string(&Document { recordings: ids, observation: sorted(&accepted.observation) })
            .map(|json| format!("{json}\n"))
            .map_err(|error| error.to_string())
    };
    let all = |document: &dyn Fn(&Accepted) -> Result<String, String>| {
        let documents: Vec<String> = golden.observations.iter().map(document).collect::<Result<_, _>>()?;
        let text = documents.join("---\n");
        let read = parse(&text, path, recordings).map_err(|error| error.to_string())?;
        if read == *golden { Ok(text) } else { Err("it would not be read as it is".to_owned()) }
    };
    all(&as_yaml)
        .or_else(|_| all(&as_json))
        .map_err(|problem| FileError::shape(path, format!("what is to be written: {problem}")))
}

pub(super) fn parse(text: &str, path: &Path, recordings: &Recordings) -> Result<Golden, FileError> {
    let shape = |problem: String| {
        FileError::shape(path, format!("{problem}; restore it, or remove it and accept a fresh one from a run"))
    };
    let documents: Vec<Document<Vec<String>>> =
        serde_saphyr::from_multiple(text).map_err(|error| shape(error.to_string()))?;
    let mut golden = Golden::default();
    for Document { recordings: ids, observation } in documents {
        if ids.is_empty() {
            return Err(shape("an observation names no recording".to_owned()));
        }
        let seen = ids.into_iter().map(|id| recordings.get(&id).cloned().map(|recording| (id, recording)));
        golden.observations.push(Accepted { recordings: seen.collect::<Result<_, _>>().map_err(shape)?, observation });
    }
    Ok(golden)
}

/// A value as YAML for people: keys sorted, strings that could be something else quoted, one line per item.
pub fn yaml(value: &Value) -> String {
    // A JSON value is always YAML; where the writer thinks otherwise, JSON is YAML too.
    written(&sorted(value)).unwrap_or_else(|_| format!("{}\n", sorted(value)))
}

pub(super) fn written(value: &impl Serialize) -> Result<String, String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| error.to_string())
}

/// The value with the keys of every map in order, whatever order serde_json keeps.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            Value::Object(entries.into_iter().map(|(n, v)| (n.clone(), sorted(v))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
