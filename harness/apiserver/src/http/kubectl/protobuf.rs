//! Protobuf as `kubectl create` sends it for the few kinds that it creates with typed clients.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::failure::Failure;

pub(crate) const MEDIA: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";

#[derive(Clone, Copy)]
enum Holds {
    Text,
    Texts,
    Flag,
    Number,
    TextMap,
    BytesMap,
    Message(&'static [Field]),
}

type Field = (u64, &'static str, Holds);

const METADATA: &[Field] = &[
    (1, "name", Holds::Text),
    (2, "generateName", Holds::Text),
    (3, "namespace", Holds::Text),
    (5, "uid", Holds::Text),
    (6, "resourceVersion", Holds::Text),
    (11, "labels", Holds::TextMap),
    (12, "annotations", Holds::TextMap),
    (14, "finalizers", Holds::Texts),
];
const PLAIN: &[Field] = &[(1, "metadata", Holds::Message(METADATA))];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Holds::Message(METADATA)),
    (2, "data", Holds::TextMap),
    (3, "binaryData", Holds::BytesMap),
    (4, "immutable", Holds::Flag),
];
const SECRET: &[Field] = &[
    (1, "metadata", Holds::Message(METADATA)),
    (2, "data", Holds::BytesMap),
    (3, "type", Holds::Text),
    (4, "stringData", Holds::TextMap),
    (5, "immutable", Holds::Flag),
];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Holds::Number),
    (2, "preconditions", Holds::Message(&[(1, "uid", Holds::Text), (2, "resourceVersion", Holds::Text)])),
    (4, "propagationPolicy", Holds::Text),
    (5, "dryRun", Holds::Texts),
];

/// Reads an enveloped object.
pub(crate) fn read(body: &[u8]) -> Result<Value, Failure> {
    decode(body).ok_or_else(|| {
        Failure::new(
            415,
            "UnsupportedMediaType",
            "this kind is read as JSON or YAML only - accepted media types include: application/json, application/yaml",
        )
    })
}

fn decode(body: &[u8]) -> Option<Value> {
    let envelope = message(
        body.strip_prefix(MAGIC)?,
        &[(1, "type", Holds::Message(&[(1, "apiVersion", Holds::Text), (2, "kind", Holds::Text)]))],
    )?;
    let raw = WireFields(body.strip_prefix(MAGIC)?)
        .find_map(|part| match part {
            Some((2, WireField::Bytes(raw))) => Some(raw),
            _ => None,
        })
        .unwrap_or_default();
    let (version, kind) = (&envelope["type"]["apiVersion"], &envelope["type"]["kind"]);
    let fields = match (version.as_str()?, kind.as_str()?) {
        ("v1", "Namespace" | "ServiceAccount") => PLAIN,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        (_, "DeleteOptions") => DELETE_OPTIONS,
        ("authorization.k8s.io/v1", _) => &[],
        _ => return None,
    };
    let mut object = message(raw, fields)?;
    object["apiVersion"] = version.clone();
    object["kind"] = kind.clone();
    Some(object)
}

enum WireField<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message in the order of the wire; `None` where it cannot be read.
struct WireFields<'a>(&'a [u8]);

impl<'a> Iterator for WireFields<'a> {
    type Item = Option<(u64, WireField<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_none() {
            self.0 = &[];
        }
        Some(part)
    }
}

impl<'a> WireFields<'a> {
    fn part(&mut self) -> Option<(u64, WireField<'a>)> {
        let tag = self.varint()?;
        let part = match tag & 7 {
            0 => WireField::Number(self.varint()?),
            1 => self.take(8).map(|_| WireField::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                WireField::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| WireField::Other)?,
            _ => return None,
        };
        Some((tag >> 3, part))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..10 {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f).checked_shl(7 * at)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

fn text(bytes: &[u8]) -> Option<Value> {
    std::str::from_utf8(bytes).ok().map(Value::from)
}

fn message(bytes: &[u8], fields: &[Field]) -> Option<Value> {
    let mut object = Map::new();
    for part in WireFields(bytes) {
        let (number, part) = part?;
        let Some((_, name, holds)) = fields.iter().find(|f| f.0 == number) else {
            continue;
        };
        let value = match (holds, part) {
            (Holds::Text, WireField::Bytes(bytes)) => {
                let value = text(bytes)?;
                if value == "" {
                    continue; // absent, as the wire has it
                }
                value
            }
            (Holds::Texts, WireField::Bytes(bytes)) => {
                let list = object.entry(*name).or_insert_with(|| json!([]));
                list.as_array_mut()?.push(text(bytes)?);
                continue;
            }
            (Holds::Flag, WireField::Number(number)) => json!(number != 0),
            (Holds::Number, WireField::Number(number)) => json!(number),
            (Holds::TextMap | Holds::BytesMap, WireField::Bytes(bytes)) => {
                let mut entry = (Value::from(""), Vec::new());
                for part in WireFields(bytes) {
                    match part? {
                        (1, WireField::Bytes(key)) => entry.0 = text(key)?,
                        (2, WireField::Bytes(value)) => entry.1 = value.to_vec(),
                        _ => {}
                    }
                }
                let value = match holds {
                    Holds::BytesMap => json!(BASE64_STANDARD.encode(&entry.1)),
                    _ => text(&entry.1)?,
                };
                let map = object.entry(*name).or_insert_with(|| json!({}));
                map.as_object_mut()?.insert(entry.0.as_str()?.to_owned(), value);
                continue;
            }
            (Holds::Message(fields), WireField::Bytes(bytes)) => message(bytes, fields)?,
            _ => return None,
        };
        object.insert((*name).to_owned(), value);
    }
    Some(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend(bytes);
        out
    }

    fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let kind = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &kind), field(2, raw)].concat()
    }

    #[test]
    fn a_secret_is_read() {
        let entry = [field(1, b"token"), field(2, b"abc")].concat();
        let metadata = [field(1, b"s"), field(3, b"")].concat();
        let raw = [field(1, &metadata), field(2, &entry), field(3, b"Opaque")].concat();
        assert_eq!(
            read(&envelope("v1", "Secret", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
                "data": {"token": "YWJj"}, "type": "Opaque"})
        );
    }

    #[test]
    fn other_kinds_are_refused() {
        let refused = read(&envelope("apps/v1", "Deployment", b"")).unwrap_err();
        assert_eq!(refused.code, 415);
    }

    proptest! {
        #[test]
        fn odd_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&[MAGIC, &bytes].concat());
            let _ = read(&envelope("v1", "Secret", &bytes));
            let _ = read(&bytes);
        }
    }
}
