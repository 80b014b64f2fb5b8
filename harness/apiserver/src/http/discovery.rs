//! Discovery: which groups, versions and resources there are, plain and aggregated.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, header::ACCEPT};
use serde_json::{Value, json};

use super::response::{Response, bytes, json as json_response};
use crate::resource::{Resource, Version};
use crate::{failure::Failure, failure::Result, store::Store};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The served resources by group, the core group first.
pub(super) fn groups(store: &Store) -> BTreeMap<String, Vec<Arc<Resource>>> {
    let mut groups: BTreeMap<String, Vec<Arc<Resource>>> = BTreeMap::new();
    for resource in store.lock().resources() {
        groups.entry(resource.kind.group.to_string()).or_default().push(resource.clone());
    }
    groups
}

/// The served versions of a group in the order of preference.
pub(super) fn versions(resources: &[Arc<Resource>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for resource in resources {
        for version in resource.versions.iter().filter(|v| v.served) {
            if !names.contains(&version.name) {
                names.push(version.name.clone());
            }
        }
    }
    names.sort_by(|a, b| crate::resource::newer(a, b));
    names
}

/// Answers a discovery path, or nothing where it is none.
pub(super) fn answer(store: &Store, path: &[&str], headers: &HeaderMap, address: &str) -> Option<Result<Response>> {
    let found = match path {
        ["api"] | ["apis"] if wants_aggregated(headers) => {
            let core = path == ["api"];
            let items: Vec<Value> = groups(store)
                .iter()
                .filter(|(group, _)| group.is_empty() == core)
                .map(|(group, resources)| aggregated(group, resources))
                .collect();
            let document = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
                "metadata": {}, "items": items});
            return Some(Ok(bytes(200, AGGREGATED, document.to_string())));
        }
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]}),
        ["apis"] => {
            let list: Vec<Value> = groups(store)
                .iter()
                .filter(|(group, _)| !group.is_empty())
                .map(|(group, resources)| group_of(group, resources))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
        }
        ["apis", group] => {
            let all = groups(store);
            let Some(resources) = all.get(*group).filter(|_| !group.is_empty()) else {
                return Some(Err(Failure::no_such_resource()));
            };
            let mut document = group_of(group, resources);
            document["kind"] = json!("APIGroup");
            document["apiVersion"] = json!("v1");
            document
        }
        ["api", version] => list_of(store, "", version)?,
        ["apis", group, version] => {
            let list = list_of(store, group, version).ok_or_else(Failure::no_such_resource);
            return Some(list.map(|list| json_response(200, &list)));
        }
        _ => return None,
    };
    Some(Ok(json_response(200, &found)))
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let mut media = headers.get_all(ACCEPT).iter().filter_map(|a| a.to_str().ok()).flat_map(|a| a.split(','));
    media.any(|media| {
        let parts: Vec<&str> = media.split(';').map(str::trim).collect();
        parts[0] == "application/json" && parts.contains(&"v=v2") && parts.contains(&"as=APIGroupDiscoveryList")
    })
}

fn group_of(group: &str, resources: &[Arc<Resource>]) -> Value {
    let versions: Vec<Value> =
        versions(resources).iter().map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v})).collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn served<'a>(resources: &'a [Arc<Resource>], version: &'a str) -> impl Iterator<Item = (&'a Resource, &'a Version)> {
    resources.iter().filter_map(move |r| r.version(version).map(|v| (r.as_ref(), v)))
}

fn list_of(store: &Store, group: &str, version: &str) -> Option<Value> {
    let all = groups(store);
    let resources = all.get(group)?;
    let mut list = Vec::new();
    for (resource, served) in served(resources, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind.kind, "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for (name, verbs) in subresources(resource, served) {
            let mut entry = json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": resource.kind.kind, "verbs": verbs,
            });
            if name == "scale" {
                (entry["group"], entry["version"], entry["kind"]) = ("autoscaling".into(), "v1".into(), "Scale".into());
            }
            list.push(entry);
        }
    }
    if list.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}

fn subresources(resource: &Resource, version: &Version) -> Vec<(&'static str, &'static [&'static str])> {
    let mut list: Vec<(&'static str, &'static [&'static str])> = Vec::new();
    if version.status {
        list.push(("status", &STATUS_VERBS));
    }
    if resource.is_scaled() {
        list.push(("scale", &STATUS_VERBS));
    }
    if resource.kind.group.is_empty() {
        match resource.kind.kind.as_ref() {
            "Pod" => {
                list.push(("log", &["get"]));
                list.push(("portforward", &["create", "get"]));
                list.push(("proxy", &["create", "delete", "get", "patch", "update"]));
            }
            "Service" => list.push(("proxy", &["create", "delete", "get", "patch", "update"])),
            "Namespace" => list.push(("finalize", &["update"])),
            _ => {}
        }
    }
    list
}

fn aggregated(group: &str, resources: &[Arc<Resource>]) -> Value {
    let versions: Vec<Value> = versions(resources)
        .iter()
        .map(|name| {
            let list: Vec<Value> = served(resources, name)
                .map(|(resource, version)| {
                    let kind = json!({"group": group, "version": name, "kind": resource.kind.kind});
                    let below: Vec<Value> = subresources(resource, version)
                        .into_iter()
                        .map(|(sub, verbs)| {
                            let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
                            let response = if sub == "scale" { &scale } else { &kind };
                            json!({"subresource": sub, "responseKind": response, "verbs": verbs})
                        })
                        .collect();
                    json!({
                        "resource": resource.plural,
                        "responseKind": kind,
                        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                        "singularResource": resource.singular,
                        "verbs": VERBS,
                        "shortNames": resource.short_names,
                        "categories": resource.categories,
                        "subresources": below,
                    })
                })
                .collect();
            json!({"version": name, "resources": list, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": {"name": group}, "versions": versions})
}
