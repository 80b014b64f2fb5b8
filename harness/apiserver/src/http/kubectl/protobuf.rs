//! Protobuf, which kubectl (seen of 1.32) sends where it has typed clients: `kubectl create` and `kubectl auth can-i`.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use prost::Message;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};

pub(crate) const MEDIA: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";

/// `runtime.Unknown` of apimachinery: an object behind its kind.
#[derive(Message)]
struct Envelope {
    #[prost(message, required, tag = "1")]
    kind: TypeMeta,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Message)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    generate_name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    annotations: BTreeMap<String, String>,
    #[prost(string, repeated, tag = "14")]
    finalizers: Vec<String>,
}

/// A kind of which nothing is read but its metadata: `Namespace`, `ServiceAccount`.
#[derive(Message)]
struct Plain {
    #[prost(message, required, tag = "1")]
    metadata: ObjectMeta,
}

#[derive(Message)]
struct ConfigMap {
    #[prost(message, required, tag = "1")]
    metadata: ObjectMeta,
    #[prost(btree_map = "string, string", tag = "2")]
    data: BTreeMap<String, String>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    binary_data: BTreeMap<String, Vec<u8>>,
    #[prost(bool, optional, tag = "4")]
    immutable: Option<bool>,
}

#[derive(Message)]
struct Secret {
    #[prost(message, required, tag = "1")]
    metadata: ObjectMeta,
    #[prost(btree_map = "string, bytes", tag = "2")]
    data: BTreeMap<String, Vec<u8>>,
    #[prost(string, tag = "3")]
    kind: String,
    #[prost(btree_map = "string, string", tag = "4")]
    string_data: BTreeMap<String, String>,
    #[prost(bool, optional, tag = "5")]
    immutable: Option<bool>,
}

impl ObjectMeta {
    fn json(self) -> Value {
        written(json!({"name": self.name, "generateName": self.generate_name, "namespace": self.namespace,
            "labels": self.labels, "annotations": self.annotations, "finalizers": self.finalizers}))
    }
}

pub(crate) fn read(body: &[u8]) -> Result<Value> {
    let why = "this kind is read as JSON or YAML only";
    decode(body).ok_or_else(|| Failure::unsupported_media(why, "application/json, application/yaml"))
}

fn decode(body: &[u8]) -> Option<Value> {
    let Envelope { kind, raw } = Envelope::decode(body.strip_prefix(MAGIC)?).ok()?;
    let object = match (kind.api_version.as_str(), kind.kind.as_str()) {
        ("v1", "Namespace" | "ServiceAccount") => json!({"metadata": Plain::decode(&*raw).ok()?.metadata.json()}),
        ("v1", "ConfigMap") => {
            let map = ConfigMap::decode(&*raw).ok()?;
            json!({"metadata": map.metadata.json(), "data": map.data, "binaryData": base64(map.binary_data),
                "immutable": map.immutable})
        }
        ("v1", "Secret") => {
            let secret = Secret::decode(&*raw).ok()?;
            json!({"metadata": secret.metadata.json(), "data": base64(secret.data), "type": secret.kind,
                "stringData": secret.string_data, "immutable": secret.immutable})
        }
        ("authorization.k8s.io/v1", _) => json!({}),
        _ => return None,
    };
    let mut object = written(object);
    object["apiVersion"] = json!(kind.api_version);
    object["kind"] = json!(kind.kind);
    Some(object)
}

fn base64(map: BTreeMap<String, Vec<u8>>) -> Value {
    map.into_iter().map(|(key, bytes)| (key, json!(BASE64_STANDARD.encode(bytes)))).collect()
}

/// Without the fields that are empty: protobuf does not tell them from absent ones.
fn written(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        let empty = [json!(""), json!([]), json!({}), Value::Null];
        map.retain(|_, value| !empty.contains(value));
    }
    object
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
