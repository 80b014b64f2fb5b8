//! Objects over HTTP: create, read, list, update, patch and delete.

use std::{fmt::Display, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::kubectl::{protobuf, table::table};
use super::request::{Query, Shape, Target, unsupported};
use super::response::{self, Response};
use crate::admission::{self, UnknownFields};
use crate::failure::{Cause, Details, Failure, Result, reason};
use crate::lifecycle::{Deletion, Propagation};
use crate::state::{Writing, Written};
use crate::{apply::Force, kind::Kind, meta, patch, resource::Version, store::Store};

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
const UNKNOWN_FORMAT: &str = "the body of the request was in an unknown format";

impl Call<'_> {
    /// Answers a request other than a watch.
    pub(super) fn answer(&self, method: &Method) -> Result<Response> {
        let version = self.target.version()?;
        let status = match self.target.below.as_slice() {
            [] => false,
            [sub] if sub == "status" && version.status => true,
            [sub] if sub == "finalize" && self.target.resource.kind.kind == "Namespace" => false,
            [sub] if sub == "scale" && self.target.resource.is_scaled() => return self.scale(method),
            _ => return Err(Failure::no_such_resource()),
        };
        let is_home = self.target.resource.namespaced == self.target.namespace.is_some();
        match (method, &self.target.name) {
            (&Method::GET, Some(name)) => Ok(self.show(200, &self.find(name)?)),
            (&Method::GET, None) => self.list(version),
            (&Method::POST, None) if is_home => self.create(),
            (&Method::PUT, Some(name)) => self.replace(name, status),
            (&Method::PATCH, Some(name)) => self.patch(name, status),
            (&Method::DELETE, Some(name)) if !status => self.delete(name),
            (&Method::DELETE, None) => self.delete_all(),
            _ => Err(Failure::not_allowed()),
        }
    }

    fn find(&self, name: &str) -> Result<Arc<Value>> {
        self.store.lock().find(&self.target.resource, self.target.namespace(), name)
    }

    fn writing<'m>(&'m self, manager: &'m str, status: bool) -> Result<Writing<'m>> {
        Ok(Writing {
            resource: &self.target.resource,
            version: self.target.version()?,
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
    fn object(&self) -> Result<Value> {
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
    fn fits(&self, bytes: usize) -> Result<()> {
        if bytes > LARGEST_OBJECT && !self.query.dry_run()? { Err(Failure::too_large()) } else { Ok(()) }
    }

    fn settle_namespace(&self, object: &mut Value) -> Result<()> {
        let Some(namespace) = &self.target.namespace else { return Ok(()) };
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
        let media = self.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or("");
        media.split(';').next().unwrap_or("").trim()
    }

    fn show(&self, code: u16, object: &Arc<Value>) -> Response {
        response::json(code, &self.target.show(self.shape, object, self.store.now(), true))
    }

    fn show_written(&self, code: u16, written: &Written) -> Response {
        let mut answer = self.show(code, &written.object);
        response::warn(&mut answer, &written.warnings);
        answer
    }

    fn list(&self, version: &Version) -> Result<Response> {
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
            .map(|o| self.target.present(o))
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
            Shape::Whole => self.target.list_of(&metadata, &shown),
        };
        Ok(response::json(200, &body))
    }

    fn create(&self) -> Result<Response> {
        let object = self.object()?;
        let manager = self.manager();
        let writing = self.writing(&manager, false)?;
        let written = self.store.lock().create(object, &writing, None)?;
        Ok(self.show_written(201, &written))
    }

    fn replace(&self, name: &str, status: bool) -> Result<Response> {
        let object = self.object()?;
        check_name(&object, name)?;
        let manager = self.manager();
        let writing = self.writing(&manager, status)?;
        let key = (self.target.namespace(), name);
        let written = self.store.lock().replace(key, object, &writing)?;
        Ok(self.show_written(200, &written))
    }

    fn patch(&self, name: &str, status: bool) -> Result<Response> {
        let resource = &self.target.resource;
        let media = self.media();
        let accepted: &[&str] = if resource.custom {
            &[JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
        } else {
            &[JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH]
        };
        if !accepted.contains(&media) {
            return Err(Failure::unsupported_media(UNKNOWN_FORMAT, &accepted.join(", ")));
        }
        let manager = self.manager();
        let mut writing = self.writing(&manager, status)?;
        if media == APPLY_PATCH {
            return self.apply(name, &writing);
        }
        let change = parse(&self.body, "application/json")?;
        let mut state = self.store.lock();
        let current = state.find(resource, self.target.namespace(), name)?;
        let mut patched = patched(writing.version, self.target.present(&current), media, &change)?;
        let text = patched.to_string();
        self.fits(text.len())?;
        let refusal = |why: &str| {
            let cause = Cause::new(reason::INVALID, "patch", format!("Invalid value: {text:?}: {why}"));
            Failure::invalid(&Kind::of("", ""), "", vec![cause])
        };
        let warnings = admission::decode_or(resource, writing.version, &mut patched, writing.unknown, refusal)?;
        writing.unknown = UnknownFields::Ignore;
        writing.conditional = false;
        let written = state.replace((self.target.namespace(), name), patched, &writing)?;
        drop(state);
        Ok(self.show_written(200, &Written { warnings, ..written }))
    }

    /// How many replicas there are, read or written.
    fn scale(&self, method: &Method) -> Result<Response> {
        let name = self.target.name.as_deref().ok_or_else(Failure::no_such_resource)?;
        if matches!(*method, Method::PUT | Method::PATCH) {
            let asked = parse(&self.body, "application/json")?;
            let replicas = asked.pointer("/spec/replicas").cloned().unwrap_or(json!(0));
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(MERGE_PATCH))]);
            let body = Bytes::from(json!({"spec": {"replicas": replicas}}).to_string());
            Call { headers: &headers, body, ..*self }.patch(name, false)?;
        } else if method != Method::GET {
            return Err(Failure::not_allowed());
        }
        let object = self.find(name)?;
        let metadata: Map<String, Value> =
            SCALE_METADATA.iter().filter_map(|f| Some(((*f).to_owned(), object["metadata"].get(f)?.clone()))).collect();
        Ok(response::json(
            200,
            &json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
                "spec": {"replicas": object["spec"]["replicas"]}, "status": {"replicas": object["status"]["replicas"]}}),
        ))
    }

    fn apply(&self, name: &str, writing: &Writing<'_>) -> Result<Response> {
        if self.query.get("fieldManager").is_none_or(str::is_empty) {
            let cause = Cause::new(reason::REQUIRED, "fieldManager", "Required value: is required for apply patch");
            return Err(Failure::invalid_option("PatchOptions", cause));
        }
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
        check_name(&wanted, name)?;
        self.fits(self.body.len())?;
        let force = if self.query.is("force") { Force::Yes } else { Force::No };
        let key = (self.target.namespace(), name);
        let (written, new) = self.store.lock().apply(key, wanted, force, writing)?;
        Ok(self.show_written(if new { 201 } else { 200 }, &written))
    }

    fn deletion(&self) -> Result<Deletion> {
        let options = if self.body.is_empty() { Value::Null } else { parse(&self.body, self.media())? };
        let policy = options["propagationPolicy"].as_str().or_else(|| self.query.get("propagationPolicy"));
        let propagation = match policy.unwrap_or("Background") {
            "Background" => Propagation::Background,
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            other => {
                let supported = "\"Background\", \"Foreground\", \"Orphan\"";
                return Err(unsupported("DeleteOptions", "propagationPolicy", other, supported));
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

    fn delete(&self, name: &str) -> Result<Response> {
        let resource = &self.target.resource;
        let deletion = self.deletion()?;
        let mut state = self.store.lock();
        let last = state.remove(resource, (self.target.namespace(), name), &deletion)?;
        let left = state.get(&resource.kind, self.target.namespace(), name);
        drop(state);
        if !deletion.dry_run && left.is_some_and(|left| meta::uid(&left) == meta::uid(&last)) {
            return Ok(self.show(200, &last));
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": name, "group": resource.kind.group, "kind": resource.plural, "uid": meta::uid(&last)}});
        Ok(response::json(200, &status))
    }

    fn delete_all(&self) -> Result<Response> {
        let resource = &self.target.resource;
        let scope = self.query.scope(self.target)?;
        let deletion = self.deletion()?;
        let mut state = self.store.lock();
        let mut doomed = state.list(&resource.kind, scope.namespace.as_deref());
        doomed.retain(|object| scope.holds(object));
        // One that went with another is gone all the same.
        let removed = doomed
            .iter()
            .filter_map(|object| state.remove(resource, (meta::namespace(object), meta::name(object)), &deletion).ok());
        let items: Vec<Value> = removed.map(|last| self.target.present(&last)).collect();
        let metadata = json!({"resourceVersion": state.version().to_string()});
        drop(state);
        Ok(response::json(200, &self.target.list_of(&metadata, &items)))
    }
}

impl Target {
    /// An object in the version that was asked for.
    fn present(&self, object: &Arc<Value>) -> Value {
        let mut shown = object.as_ref().clone();
        if self.resource.storage().name != self.version {
            shown["apiVersion"] = json!(self.api_version());
        }
        shown
    }

    pub(super) fn show(&self, shape: Shape, object: &Arc<Value>, now: jiff::Timestamp, headings: bool) -> Value {
        let shown = self.present(object);
        match (shape, self.version()) {
            (Shape::Table, Ok(version)) => {
                let at = meta::meta_str(&shown, "resourceVersion");
                table(&self.resource, version, &[&shown], at, now, headings)
            }
            (Shape::Metadata, _) => partial(&shown),
            _ => shown,
        }
    }

    fn list_of(&self, metadata: &Value, items: &[Value]) -> Value {
        json!({"kind": self.resource.list_kind, "apiVersion": self.api_version(), "metadata": metadata, "items": items})
    }
}

fn check_name(object: &Value, name: &str) -> Result<()> {
    let found = meta::name(object);
    if found.is_empty() || found == name {
        return Ok(());
    }
    Err(Failure::bad_request(format!("the name of the object ({found}) does not match the name on the URL ({name})")))
}

/// The object after a patch that is not an apply.
fn patched(version: &Version, mut object: Value, media: &str, change: &Value) -> Result<Value> {
    match media {
        JSON_PATCH => {
            let (most, operations) = (patch::json::MOST_OPERATIONS, change.as_array().map_or(0, Vec::len));
            if operations > most {
                let said = format!("The allowed maximum operations in a JSON patch is {most}, got {operations}");
                return Err(Failure::new(413, "RequestEntityTooLarge", said));
            }
            object = patch::json::apply(&object, change).map_err(|bad| match bad {
                patch::json::BadPatch::Unreadable(why) => Failure::bad_request(why),
                patch::json::BadPatch::Unfit(why) => rejected(&why),
            })?;
        }
        _ if !change.is_object() => return Err(Failure::bad_request("a merge patch is an object")),
        STRATEGIC_PATCH => object = patch::strategic::apply(Some(version.schema.schema()), &object, change),
        _ => patch::merge(&mut object, change),
    }
    if object.is_object() { Ok(object) } else { Err(rejected("the patched document is not an object")) }
}

fn rejected(why: &str) -> Failure {
    let causes = vec![Cause::new("UnexpectedServerResponse", "", why)];
    Failure::new(422, "Invalid", "the server rejected our request due to an error in our request")
        .with(Details { causes, ..Details::default() })
}

pub(super) fn parse(body: &[u8], media: &str) -> Result<Value> {
    let no_yaml = |error: &dyn Display| Failure::bad_request(format!("error decoding YAML: {error}"));
    match media {
        "" | "application/json" | "*/*" => serde_json::from_slice(body).map_err(|error| {
            Failure::bad_request(format!(
                "the object provided is unrecognized: couldn't get version/kind; json parse error: {error}"
            ))
        }),
        "application/yaml" | APPLY_PATCH => {
            let text = std::str::from_utf8(body).map_err(|error| no_yaml(&error))?;
            if text.trim_start().starts_with('{') {
                return serde_json::from_str(text).map_err(|error| no_yaml(&error));
            }
            serde_saphyr::from_str(text).map_err(|error| no_yaml(&error))
        }
        protobuf::MEDIA => protobuf::read(body),
        _ => Err(Failure::unsupported_media(UNKNOWN_FORMAT, "application/json, application/yaml")),
    }
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

    fn decode(token: &str) -> Result<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| Failure::bad_request("continue key is not valid: the token was not made here"))
    }
}
