//! OpenAPI: enough for kubectl to leave validation to the server and for `kubectl explain`.

use serde_json::{Map, Value, json};

use crate::http::discovery::{groups, versions};
use crate::http::response::{Response, bytes, json as json_response};
use crate::resource::{Resource, Version};
use crate::{failure::Failure, failure::Result, store::Store};

/// An empty document of OpenAPI v2 in protobuf: field 1 (`swagger`) is "2.0".
const EMPTY_V2: &[u8] = b"\x0a\x032.0";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

pub(crate) fn answer(store: &Store, path: &[&str], accept: &str) -> Result<Response> {
    match path {
        ["v2"] if accept.contains("protobuf") => Ok(bytes(200, PROTOBUF, EMPTY_V2)),
        ["v2"] => Ok(json_response(
            200,
            &json!({"swagger": "2.0", "info": {"title": store.name(), "version": "v1"}, "paths": {}, "definitions": {}}),
        )),
        ["v3"] => Ok(json_response(200, &index(store))),
        ["v3", "api", version] => document(store, "", version),
        ["v3", "apis", group, version] => document(store, group, version),
        _ => Err(Failure::no_such_resource()),
    }
}

fn index(store: &Store) -> Value {
    let mut paths = Map::new();
    for (group, resources) in groups(store) {
        for version in versions(&resources) {
            let place = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let url = format!("/openapi/v3/{place}?hash={}", store.version());
            paths.insert(place, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn document(store: &Store, group: &str, version: &str) -> Result<Response> {
    let all = groups(store);
    let resources = all.get(group).ok_or_else(Failure::no_such_resource)?;
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in resources {
        if let Some(served) = resource.version(version) {
            let name = format!("{}.{version}.{}", reversed(group), resource.kind.kind);
            schemas.insert(name.clone(), schema(resource, served));
            for (path, item) in paths_of(resource, version, &name) {
                paths.insert(path, item);
            }
        }
    }
    if schemas.is_empty() {
        return Err(Failure::no_such_resource());
    }
    Ok(json_response(
        200,
        &json!({"openapi": "3.0.0", "info": {"title": store.name(), "version": "v1"},
            "paths": paths, "components": {"schemas": schemas}}),
    ))
}

fn reversed(group: &str) -> String {
    if group.is_empty() {
        return "io.k8s.api.core".into();
    }
    group.rsplit('.').collect::<Vec<_>>().join(".")
}

fn schema(resource: &Resource, version: &Version) -> Value {
    let mut schema = version.schema.source().clone();
    if let Some(map) = schema.as_object_mut() {
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        for (field, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            if properties[field].is_null() {
                properties[field] = json!({"type": kind});
            }
        }
        map.insert(
            "x-kubernetes-group-version-kind".into(),
            json!([{"group": resource.kind.group, "kind": resource.kind.kind, "version": version.name}]),
        );
    }
    schema
}

fn paths_of(resource: &Resource, version: &str, name: &str) -> Vec<(String, Value)> {
    let root = if resource.kind.group.is_empty() { "api" } else { "apis" };
    let namespace = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let home = format!("/{root}/{}{namespace}/{}", resource.api_version(version), resource.plural);
    let gvk = json!({"group": resource.kind.group, "kind": resource.kind.kind, "version": version});
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let writes = json!([parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")]);
    let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}});
    let operation = |action: &str| {
        let mut operation = json!({
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        });
        if !matches!(action, "get" | "list" | "delete") {
            operation["parameters"] = writes.clone();
            operation["requestBody"] = json!({"content": content});
        }
        operation
    };
    let mut patch = operation("patch");
    patch["requestBody"] = json!({"content": {
        "application/apply-patch+yaml": {}, "application/json-patch+json": {}, "application/merge-patch+json": {}}});
    vec![
        (home.clone(), json!({"get": operation("list"), "post": operation("post")})),
        (
            format!("{home}/{{name}}"),
            json!({"get": operation("get"), "put": operation("put"), "patch": patch, "delete": operation("delete")}),
        ),
    ]
}
