//! Which kinds the cluster serves, asked a group and version at a time and remembered until a definition changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt as _, stream};
use http::StatusCode;
use serde_json::Value;

use super::{
    Cluster,
    failure::{ApiFailure, FailureKind},
    object::{group_of, items, text},
    request::{encode, request},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `group/version`, or `v1`.
    pub api_version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Kind {
    /// Path of all objects of a namespace, or of all objects where there is none.
    pub(crate) fn collection(&self, namespace: Option<&str>) -> String {
        let root = root(&self.api_version);
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{root}/namespaces/{}/{}", encode(namespace), self.plural)
            }
            _ => format!("{root}/{}", self.plural),
        }
    }

    pub(crate) fn item(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), encode(name))
    }
}

fn root(api_version: &str) -> String {
    match api_version.split_once('/') {
        Some((group, version)) => format!("/apis/{}/{}", encode(group), encode(version)),
        None => format!("/api/{}", encode(api_version)),
    }
}

/// What was found out so far: `apiVersion` -> its kinds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kinds(Arc<Mutex<HashMap<String, Arc<Vec<Kind>>>>>);

impl Kinds {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<Vec<Kind>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget(&self, group: &str) {
        self.known().retain(|api_version, _| group_of(api_version) != group);
    }
}

impl Cluster {
    /// Finds a kind; asks the API server again when it is not among those that were found before.
    pub async fn kind(&self, api_version: &str, kind: &str) -> Result<Kind, ApiFailure> {
        let find = |kinds: &[Kind]| kinds.iter().find(|k| k.kind == kind).cloned();
        let known = self.kinds.known().get(api_version).and_then(|kinds| find(kinds));
        if let Some(known) = known {
            return Ok(known);
        }
        let kinds = self.ask_kinds(api_version).await?;
        find(&kinds).ok_or_else(|| {
            let others = kinds.iter().map(|k| k.kind.clone()).collect();
            let unknown =
                FailureKind::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned(), others };
            ApiFailure::new(format!("find the kind {kind}"), unknown)
        })
    }

    /// The kinds of one `apiVersion`; none when the API server does not serve it.
    pub(crate) async fn ask_kinds(&self, api_version: &str) -> Result<Arc<Vec<Kind>>, ApiFailure> {
        let doing = format!("read which kinds {api_version} has");
        let answer = self.ask(&doing, request("GET", &root(api_version), None)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Arc::new(Vec::new()));
        }
        let list = answer.json(&doing)?;
        let Some(resources) = list.get("resources").and_then(Value::as_array) else {
            let said = "a list of resources was expected".to_owned();
            return Err(ApiFailure::new(doing, FailureKind::Malformed(said)));
        };
        let kinds: Vec<Kind> = resources.iter().filter_map(|resource| kind_of(api_version, resource)).collect();
        let kinds = Arc::new(kinds);
        self.kinds.known().insert(api_version.to_owned(), kinds.clone());
        Ok(kinds)
    }

    /// Every kind in namespaces that can be listed, in the version that each group prefers, and the groups that did not
    /// answer (an aggregated API whose server is away is no reason to see nothing).
    pub async fn listable_kinds(&self) -> Result<(Vec<Kind>, Vec<ApiFailure>), ApiFailure> {
        let groups = self.get_json("read which groups there are", "/apis").await?;
        let mut versions = vec!["v1".to_owned()];
        let preferred = items(&groups, "/groups").map(|group| text(group, "/preferredVersion/groupVersion").to_owned());
        versions.extend(preferred.filter(|version| !version.is_empty()));
        let asked: Vec<_> = stream::iter(versions)
            .map(|version| async move { self.ask_kinds(&version).await })
            .buffered(8)
            .collect()
            .await;
        let (mut kinds, mut away) = (Vec::new(), Vec::new());
        for answer in asked {
            match answer {
                Ok(found) => {
                    kinds.extend(found.iter().filter(|k| k.namespaced && k.verbs.iter().any(|v| v == "list")).cloned());
                }
                Err(failure) => away.push(failure),
            }
        }
        Ok((kinds, away))
    }
}

/// A resource of an APIResourceList; subresources (`pods/log`) are no kinds of their own.
fn kind_of(api_version: &str, resource: &Value) -> Option<Kind> {
    let plural = resource["name"].as_str().filter(|name| !name.contains('/'))?;
    Some(Kind {
        api_version: api_version.to_owned(),
        kind: resource["kind"].as_str()?.to_owned(),
        plural: plural.to_owned(),
        namespaced: resource["namespaced"].as_bool()?,
        verbs: items(resource, "/verbs").filter_map(|verb| verb.as_str().map(str::to_owned)).collect(),
    })
}
