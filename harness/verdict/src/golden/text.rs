//! The text of a golden file: YAML front matter between `---` lines as insta writes it, then YAML.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Golden, Info};

/// What insta calls metadata.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Front {
    source: String,
    description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expression: Option<String>,
    info: Info,
}

/// `source` of every golden file: what made it.
const SOURCE: &str = "igc";

/// A value as YAML for people: keys sorted, strings that could be something else quoted, one line per item.
pub fn yaml(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    // A JSON value is always YAML; where the writer thinks otherwise, JSON is YAML too.
    serde_saphyr::to_string_with_options(&sorted(value), options).unwrap_or_else(|_| format!("{}\n", sorted(value)))
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

pub(super) fn write(golden: &Golden) -> Result<String, String> {
    let front = Front {
        source: SOURCE.to_owned(),
        description: golden.description.clone(),
        expression: None,
        info: golden.info.clone(),
    };
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let front = serde_saphyr::to_string_with_options(&front, options).map_err(|e| e.to_string())?;
    let mut text = format!("---\n{}\n---\n{}", front.trim_end(), yaml(&golden.observation));
    if !is_read_as(&text, golden) {
        // JSON is YAML without any choice of style.
        text = format!("---\n{}\n---\n{}\n", front.trim_end(), sorted(&golden.observation));
        if !is_read_as(&text, golden) {
            return Err("the observation cannot be written as YAML that reads the same".to_owned());
        }
    }
    Ok(text)
}

fn is_read_as(text: &str, golden: &Golden) -> bool {
    parse(text).is_ok_and(|read| read == *golden)
}

pub(super) fn parse(text: &str) -> Result<Golden, String> {
    let text = text.replace("\r\n", "\n");
    let rest = text.strip_prefix("---\n").ok_or("it does not begin with a line of ---")?;
    let (front, body) = rest.split_once("\n---\n").ok_or("the front matter has no closing line of ---")?;
    let front: Front = serde_saphyr::from_str(front).map_err(|e| format!("front matter: {e}"))?;
    let observation: Value = serde_saphyr::from_str(body).map_err(|e| format!("observation: {e}"))?;
    Ok(Golden { description: front.description, info: front.info, observation })
}
