//! Objects over HTTP: create, read, list, update, patch and delete.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::request::{Query, Shape, Target};
use super::{kubectl::protobuf, kubectl::table::table};
use crate::admission::{self, UnknownFields};
use crate::failure::{Cause, Failure};
use crate::lifecycle::{Deletion, Propagation};
use crate::resource::{Resource, Version};
use crate::state::{State, Writing};
use crate::{apply::Force, meta, patch, store::Store};

/// One request about objects, its body read.
pub(super) struct Call<'a> {
    pub store: &'a Store,
    pub target: &'a Target,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub body: Bytes,
    pub shape: Shape,
}

const SCALE_METADATA: [&str; 5] = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
/// The largest object that is kept: what etcd takes in one request.
const LARGEST_OBJECT: usize = 1536 * 1024;
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

impl Call<'_> {
    /// Answers a request other than a watch.
    pub(super) fn answer(&self, method: &Method) -> Result<Answer, Failure> {
        let version = self.target.version()?;
        let status = match self.target.below.as_slice() {
            [] => false,
            [sub] if sub == "status" && version.status => true,
            [sub] if sub == "finalize" && self.target.resource.kind.kind == "Namespace" => false,
            [sub] if sub == "scale" && self.target.resource.is_scaled() => return self.scale(version, method),
            _ => return Err(Failure::no_such_resource()),
        };
        match (method, &self.target.name) {
            (&Method::GET, Some(name)) => self.read(version, name),
            (&Method::GET, None) => self.list(version),
            (&Method::POST, None) if self.is_home() => self.create(version),
            (&Method::PUT, Some(name)) => self.replace(version, name, status),
            (&Method::PATCH, Some(name)) => self.patch(version, name, status),
            (&Method::DELETE, Some(name)) if !status => self.delete(name),
            (&Method::DELETE, None) => self.delete_all(version),
            _ => Err(Failure::not_allowed()),
        }
    }

    fn is_home(&self) -> bool {
        self.target.resource.namespaced == self.target.namespace.is_some()
    }

    fn writing<'m>(&self, manager: &'m str, status: bool) -> Result<Writing<'m>, Failure> {
        Ok(Writing {
            manager,
            dry_run: self.query.dry_run()?,
            unknown: self.query.unknown_fields()?,
            status,
            conditional: true,
            now: self.store.now(),
        })
    }

    fn manager(&self) -> String {
        self.query.manager(self.headers)
    }

    /// The object of the body, with group, version, kind and namespace checked.
    fn object(&self) -> Result<Value, Failure> {
        let mut object = parse(&self.body, self.media())?;
        let kind = &self.target.resource.kind.kind;
        if !object.is_object() {
            return Err(Failure::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: json: cannot unmarshal into an object"
            )));
        }
        let wanted = self.target.api_version();
        match object["apiVersion"].as_str() {
            None | Some("") => object["apiVersion"] = json!(wanted),
            Some(found) if found == wanted => {}
            Some(found) => {
                return Err(Failure::bad_request(format!(
                    "the API version in the data ({found}) does not match the expected API version ({wanted})"
                )));
            }
        }
        match object["kind"].as_str() {
            None | Some("") => object["kind"] = json!(kind),
            Some(found) if found == kind => {}
            Some(found) => {
                return Err(Failure::bad_request(format!(
                    "{found} in version {:?} cannot be handled as a {kind}: converting to {kind}: unknown",
                    self.target.version
                )));
            }
        }
        self.settle_namespace(&mut object)?;
        self.fits(self.body.len())?;
        Ok(object)
    }

    /// Whether what is to be kept is small enough for the store behind an API server.
    fn fits(&self, bytes: usize) -> Result<(), Failure> {
        if bytes > LARGEST_OBJECT && !self.query.dry_run()? { Err(Failure::too_large()) } else { Ok(()) }
    }

    fn settle_namespace(&self, object: &mut Value) -> Result<(), Failure> {
        let Some(namespace) = &self.target.namespace else {
            return Ok(());
        };
        if !object["metadata"].is_object() && !object["metadata"].is_null() {
            return Ok(()); // refused when it is decoded
        }
        let found = meta::namespace(object);
        if !found.is_empty() && found != namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta::meta_mut(object).insert("namespace".into(), json!(namespace));
        Ok(())
    }

    fn media(&self) -> &str {
        self.headers
            .get(CONTENT_TYPE)
            .and_then(|m| m.to_str().ok())
            .map(|m| m.split(';').next().unwrap_or("").trim())
            .unwrap_or("")
    }

    fn show(&self, code: u16, version: &Version, object: &Arc<Value>) -> Answer {
        let shown = present(&self.target.resource, &self.target.version, object);
        let body = match self.shape {
            Shape::Whole => shown,
            Shape::Metadata => partial(&shown),
            Shape::Table => table(
                &self.target.resource,
                version,
                &[&shown],
                meta::meta_str(&shown, "resourceVersion"),
                self.store.now(),
                true,
            ),
        };
        answer::json(code, &body)
    }

    fn read(&self, version: &Version, name: &str) -> Result<Answer, Failure> {
        let resource = &self.target.resource;
        let object = self
            .store
            .get(&resource.kind, self.target.namespace(), name)
            .ok_or_else(|| Failure::not_found(&resource.plural, &resource.kind.group, name))?;
        Ok(self.show(200, version, &object))
    }

    fn list(&self, version: &Version) -> Result<Answer, Failure> {
        let resource = &self.target.resource;
        let scope = self.query.scope(self.target)?;
        let limit = self.query.number("limit")?.filter(|l| *l > 0);
        let after = self.query.get("continue").filter(|c| !c.is_empty()).map(ContinueToken::decode).transpose()?;
        let namespace = scope.namespace.as_deref();
        // Every page shows the world as it was when the first one was read.
        let (objects, at) = {
            let state = self.store.lock();
            match &after {
                None => (state.list(&resource.kind, namespace), state.version()),
                Some(token) => (state.list_at(&resource.kind, namespace, token.at)?, token.at),
            }
        };
        let mut shown: Vec<Value> = objects
            .iter()
            .filter(|o| scope.holds(o))
            .filter(|o| after.as_ref().is_none_or(|token| token.is_before(o)))
            .map(|o| present(resource, &self.target.version, o))
            .collect();
        let mut metadata = json!({"resourceVersion": at.to_string()});
        if let Some(limit) = limit.and_then(|l| usize::try_from(l).ok())
            && shown.len() > limit
        {
            metadata["remainingItemCount"] = json!(shown.len() - limit);
            shown.truncate(limit);
            if let Some(last) = shown.last() {
                metadata["continue"] = json!(ContinueToken::of(at, last).encode());
            }
        }
        let body = match self.shape {
            Shape::Table => {
                let rows: Vec<&Value> = shown.iter().collect();
                let mut body = table(resource, version, &rows, &at.to_string(), self.store.now(), true);
                body["metadata"] = metadata;
                body
            }
            Shape::Metadata => json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": shown.iter().map(partial).collect::<Vec<_>>()}),
            Shape::Whole => json!({"kind": resource.list_kind, "apiVersion": self.target.api_version(),
                "metadata": metadata, "items": shown}),
        };
        Ok(answer::json(200, &body))
    }

    fn create(&self, version: &Version) -> Result<Answer, Failure> {
        let object = self.object()?;
        let manager = self.manager();
        let writing = self.writing(&manager, false)?;
        let written = self.store.lock().create(&self.target.resource, version, object, &writing)?;
        let mut answer = self.show(201, version, &written.object);
        answer::warn(&mut answer, &written.warnings);
        Ok(answer)
    }

    fn replace(&self, version: &Version, name: &str, status: bool) -> Result<Answer, Failure> {
        let object = self.object()?;
        let found = meta::name(&object);
        if !found.is_empty() && found != name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({found}) does not match the name on the URL ({name})"
            )));
        }
        let manager = self.manager();
        let writing = self.writing(&manager, status)?;
        let written = self.store.lock().replace(
            &self.target.resource,
            version,
            self.target.namespace(),
            name,
            object,
            &writing,
        )?;
        let mut answer = self.show(200, version, &written.object);
        answer::warn(&mut answer, &written.warnings);
        Ok(answer)
    }

    fn patch(&self, version: &Version, name: &str, status: bool) -> Result<Answer, Failure> {
        let resource = &self.target.resource;
        let media = self.media().to_owned();
        let accepted: &[&str] = if resource.custom {
            &[JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
        } else {
            &[JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH]
        };
        if !accepted.contains(&media.as_str()) {
            return Err(Failure::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format - accepted media types include: {}",
                    accepted.join(", ")
                ),
            ));
        }
        let manager = self.manager();
        let mut writing = self.writing(&manager, status)?;
        if media == APPLY_PATCH {
            if self.query.get("fieldManager").is_none_or(str::is_empty) {
                return Err(Failure::invalid(
                    "PatchOptions",
                    "meta.k8s.io",
                    "",
                    vec![Cause {
                        reason: "FieldValueRequired",
                        message: "Required value: is required for apply patch".into(),
                        field: "fieldManager".into(),
                    }],
                ));
            }
            return self.apply(version, name, &writing);
        }
        let change = parse(&self.body, "application/json")?;
        let mut state = self.store.lock();
        let patched = self.patched(&state, version, name, &media, &change)?;
        let (patched, warnings) = self.decode_patched(version, patched, writing.unknown)?;
        writing.unknown = UnknownFields::Ignore;
        writing.conditional = false;
        let written = state.replace(resource, version, self.target.namespace(), name, patched, &writing)?;
        drop(state);
        let mut answer = self.show(200, version, &written.object);
        answer::warn(&mut answer, &warnings);
        Ok(answer)
    }

    /// How many replicas there are, read or written.
    fn scale(&self, version: &Version, method: &Method) -> Result<Answer, Failure> {
        let name = self.target.name.as_deref().ok_or_else(Failure::no_such_resource)?;
        if matches!(*method, Method::PUT | Method::PATCH) {
            let asked = parse(&self.body, "application/json")?;
            let replicas = asked.pointer("/spec/replicas").cloned().unwrap_or(json!(0));
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(MERGE_PATCH))]);
            let body = Bytes::from(json!({"spec": {"replicas": replicas}}).to_string());
            Call { headers: &headers, body, ..*self }.patch(version, name, false)?;
        } else if method != Method::GET {
            return Err(Failure::not_allowed());
        }
        let resource = &self.target.resource;
        let object = self
            .store
            .get(&resource.kind, self.target.namespace(), name)
            .ok_or_else(|| Failure::not_found(&resource.plural, &resource.kind.group, name))?;
        let mut metadata = object["metadata"].clone();
        metadata
            .as_object_mut()
            .into_iter()
            .for_each(|m| m.retain(|field, _| SCALE_METADATA.contains(&field.as_str())));
        Ok(answer::json(
            200,
            &json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
                "spec": {"replicas": object["spec"]["replicas"]}, "status": {"replicas": object["status"]["replicas"]}}),
        ))
    }

    fn patched(
        &self,
        state: &State,
        version: &Version,
        name: &str,
        media: &str,
        change: &Value,
    ) -> Result<Value, Failure> {
        let resource = &self.target.resource;
        let current = state
            .get(&resource.kind, self.target.namespace(), name)
            .ok_or_else(|| Failure::not_found(&resource.plural, &resource.kind.group, name))?;
        let mut object = present(resource, &self.target.version, &current);
        match media {
            JSON_PATCH => {
                let operations = change.as_array().map_or(0, Vec::len);
                if operations > patch::json::MOST_OPERATIONS {
                    return Err(Failure::new(
                        413,
                        "RequestEntityTooLarge",
                        format!(
                            "The allowed maximum operations in a JSON patch is {}, got {operations}",
                            patch::json::MOST_OPERATIONS
                        ),
                    ));
                }
                object = patch::json::apply(&object, change).map_err(|bad| match bad {
                    patch::json::BadPatch::Unreadable(why) => Failure::bad_request(why),
                    patch::json::BadPatch::Unfit(why) => rejected(why),
                })?;
            }
            _ if !change.is_object() => {
                return Err(Failure::bad_request("a merge patch is an object"));
            }
            STRATEGIC_PATCH => {
                object = patch::strategic::apply(Some(version.schema.schema()), &object, change);
            }
            _ => patch::merge(&mut object, change),
        }
        if !object.is_object() {
            return Err(rejected("the patched document is not an object".into()));
        }
        Ok(object)
    }

    /// Drops the fields of a patched object that the schema does not know, or refuses it; returns the warnings too.
    fn decode_patched(
        &self,
        version: &Version,
        mut patched: Value,
        unknown: UnknownFields,
    ) -> Result<(Value, Vec<String>), Failure> {
        let text = patched.to_string();
        self.fits(text.len())?;
        let found = admission::prune_unknown(&self.target.resource, version, &mut patched)?;
        let said: Vec<String> = found.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        match unknown {
            UnknownFields::Strict if !said.is_empty() => Err(Failure::invalid(
                "",
                "",
                "",
                vec![Cause {
                    reason: "FieldValueInvalid",
                    message: format!("Invalid value: {text:?}: strict decoding error: {}", said.join(", ")),
                    field: "patch".into(),
                }],
            )),
            UnknownFields::Warn => Ok((patched, said)),
            UnknownFields::Strict | UnknownFields::Ignore => Ok((patched, Vec::new())),
        }
    }

    fn apply(&self, version: &Version, name: &str, writing: &Writing<'_>) -> Result<Answer, Failure> {
        let mut wanted = parse(&self.body, "application/yaml")?;
        let expected = self.target.api_version();
        let kind = &self.target.resource.kind.kind;
        if wanted["apiVersion"] != *expected || wanted["kind"] != **kind {
            return Err(Failure::bad_request(format!(
                "the applied configuration is {} {}, the request is about {expected} {kind}",
                wanted["apiVersion"], wanted["kind"]
            )));
        }
        self.settle_namespace(&mut wanted)?;
        let found = meta::name(&wanted);
        if !found.is_empty() && found != name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({found}) does not match the name on the URL ({name})"
            )));
        }
        self.fits(self.body.len())?;
        let force = if self.query.is("force") { Force::Yes } else { Force::No };
        let (written, new) = self.store.lock().apply(
            &self.target.resource,
            version,
            (self.target.namespace(), name),
            wanted,
            force,
            writing,
        )?;
        let code = if new { 201 } else { 200 };
        let mut answer = self.show(code, version, &written.object);
        answer::warn(&mut answer, &written.warnings);
        Ok(answer)
    }

    /// The options of a deletion, from the body and the query.
    fn deletion(&self) -> Result<Deletion, Failure> {
        let options = if self.body.is_empty() { Value::Null } else { parse(&self.body, self.media())? };
        let policy = options["propagationPolicy"]
            .as_str()
            .or_else(|| self.query.get("propagationPolicy"))
            .unwrap_or("Background");
        let propagation = match policy {
            "Background" => Propagation::Background,
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            other => {
                return Err(Failure::invalid(
                    "DeleteOptions",
                    "meta.k8s.io",
                    "",
                    vec![Cause {
                        reason: "FieldValueNotSupported",
                        message: format!(
                            "Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
                        ),
                        field: "propagationPolicy".into(),
                    }],
                ));
            }
        };
        let precondition = |field: &str| options["preconditions"][field].as_str().map(str::to_owned);
        let dry_run = options["dryRun"].as_array().is_some_and(|list| list.iter().any(|d| d == "All"));
        Ok(Deletion {
            propagation,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run: dry_run || self.query.dry_run()?,
        })
    }

    fn delete(&self, name: &str) -> Result<Answer, Failure> {
        let resource = &self.target.resource;
        let deletion = self.deletion()?;
        let now = self.store.now();
        let mut state = self.store.lock();
        let last = state.remove(resource, self.target.namespace(), name, &deletion, now)?;
        let stays = !deletion.dry_run
            && state
                .get(&resource.kind, self.target.namespace(), name)
                .is_some_and(|o| meta::uid(&o) == meta::uid(&last));
        drop(state);
        if stays {
            return Ok(self.show(200, self.target.version()?, &last));
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": name, "group": resource.kind.group, "kind": resource.plural, "uid": meta::uid(&last)}});
        Ok(answer::json(200, &status))
    }

    fn delete_all(&self, _version: &Version) -> Result<Answer, Failure> {
        let resource = &self.target.resource;
        let scope = self.query.scope(self.target)?;
        let deletion = self.deletion()?;
        let now = self.store.now();
        let mut state = self.store.lock();
        let doomed: Vec<Arc<Value>> =
            state.list(&resource.kind, scope.namespace.as_deref()).into_iter().filter(|o| scope.holds(o)).collect();
        let mut items = Vec::new();
        for object in doomed {
            // One that went with another is gone all the same.
            let (namespace, name) = (meta::namespace(&object), meta::name(&object));
            if let Ok(last) = state.remove(resource, namespace, name, &deletion, now) {
                items.push(present(resource, &self.target.version, &last));
            }
        }
        let newest = state.version();
        drop(state);
        let body = json!({"kind": resource.list_kind, "apiVersion": self.target.api_version(),
            "metadata": {"resourceVersion": newest.to_string()}, "items": items});
        Ok(answer::json(200, &body))
    }
}

fn rejected(why: String) -> Failure {
    let mut failure = Failure::new(422, "Invalid", "the server rejected our request due to an error in our request");
    failure.details = Some(Box::new(crate::failure::Details {
        causes: vec![Cause { reason: "UnexpectedServerResponse", message: why, field: String::new() }],
        ..Default::default()
    }));
    failure
}

/// Reads a body as JSON or YAML.
pub(super) fn parse(body: &[u8], media: &str) -> Result<Value, Failure> {
    match media {
        "" | "application/json" | "*/*" => serde_json::from_slice(body).map_err(|error| {
            Failure::bad_request(format!(
                "the object provided is unrecognized: couldn't get version/kind; json parse error: {error}"
            ))
        }),
        "application/yaml" | APPLY_PATCH => {
            let text = std::str::from_utf8(body)
                .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?;
            if text.trim_start().starts_with('{') {
                return serde_json::from_str(text)
                    .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")));
            }
            serde_saphyr::from_str(text).map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))
        }
        protobuf::MEDIA => protobuf::read(body),
        _ => Err(Failure::new(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
        )),
    }
}

/// An object in the version that was asked for.
pub(super) fn present(resource: &Resource, version: &str, object: &Arc<Value>) -> Value {
    let mut shown = object.as_ref().clone();
    if resource.storage().name != version {
        shown["apiVersion"] = json!(resource.api_version(version));
    }
    shown
}

pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// Where a list goes on: the version that it shows, and the last object that was shown.
#[derive(Serialize, Deserialize)]
struct ContinueToken {
    at: u64,
    namespace: String,
    name: String,
}

impl ContinueToken {
    fn of(at: u64, last: &Value) -> Self {
        Self { at, namespace: meta::namespace(last).to_owned(), name: meta::name(last).to_owned() }
    }

    fn is_before(&self, object: &Value) -> bool {
        (self.namespace.as_str(), self.name.as_str()) < (meta::namespace(object), meta::name(object))
    }

    fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    fn decode(token: &str) -> Result<Self, Failure> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| Failure::bad_request("continue key is not valid: the token was not made here"))
    }
}
