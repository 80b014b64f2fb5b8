//! Reading and deleting objects.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Cluster, WaitError,
    apply::is_ours,
    condition::WaitCondition,
    failure::{ApiFailure, FailureKind},
    object::{ObjectRef, text},
    request::{encode, request},
    watch::version_of,
};

const PAGE: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Propagation {
    Foreground,
    Background,
    Orphan,
}

impl Cluster {
    /// Reads one object; `None` when there is none.
    pub async fn get(&self, object: &ObjectRef) -> Result<Option<Value>, ApiFailure> {
        let doing = format!("read {object}");
        let path = self.path_of(&doing, object).await?;
        match self.get_json(&doing, &path).await {
            Err(failure) if failure.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Reads all objects of a kind, of one namespace or of all, that match a label selector (`a=b,c`; empty for all).
    /// `apiVersion` and `kind` are set on each.
    pub async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>, ApiFailure> {
        Ok(self.list_where(api_version, kind, namespace, &[("labelSelector", selector)]).await?.0)
    }

    /// The objects, and the `resourceVersion` of the list.
    pub(crate) async fn list_where(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<(Vec<Value>, String), ApiFailure> {
        let doing = format!("list {kind} objects of {}", namespace.map_or("all namespaces", |n| n));
        let found = self.kind(api_version, kind).await?;
        let path = found.collection(namespace);
        let mut objects = Vec::new();
        let mut next = String::new();
        loop {
            let mut page = format!("{path}?limit={PAGE}");
            for (key, value) in
                query.iter().chain(&[("continue", next.as_str())]).filter(|(_, value)| !value.is_empty())
            {
                page.push_str(&format!("&{key}={}", encode(value)));
            }
            let mut list = self.get_json(&doing, &page).await?;
            let Some(items) = list.get_mut("items").map(Value::take) else {
                return Err(ApiFailure::new(doing, FailureKind::Malformed("a list without items".to_owned())));
            };
            // `items: null` is an empty list of a server written in Go.
            for mut item in items.as_array().cloned().unwrap_or_default() {
                if let Some(item) = item.as_object_mut() {
                    item.entry("apiVersion").or_insert_with(|| json!(api_version));
                    item.entry("kind").or_insert_with(|| json!(kind));
                }
                objects.push(item);
            }
            next = text(&list, "/metadata/continue").to_owned();
            if next.is_empty() {
                return Ok((objects, version_of(&list)));
            }
        }
    }

    /// Deletes one object; `false` when there was none. Does not wait, see [`Self::wait`] with [`WaitCondition::Gone`].
    pub async fn delete(&self, object: &ObjectRef, propagation: Propagation) -> Result<bool, ApiFailure> {
        let doing = format!("delete {object}");
        let path = self.path_of(&doing, object).await?;
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation});
        let answer = self.ask(&doing, request("DELETE", &path, Some(("application/json", &options)))).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        answer.json(&doing)?;
        if object.kind == "CustomResourceDefinition" {
            // Its name is plural.group.
            self.kinds.forget(object.name.split_once('.').map_or("", |(_, group)| group));
        }
        Ok(true)
    }

    /// Deletes a namespace that igc made, and waits until it is gone. `Ok(false)` when there was none.
    /// Fails with [`FailureKind::NotOurs`] for a namespace of others; a [`WaitError`] quotes the namespace's conditions,
    /// which name what is left in it.
    pub async fn delete_namespace(&self, name: &str, within: Duration) -> Result<bool, WaitError> {
        let namespace = ObjectRef::global("v1", "Namespace", name);
        let failed = |failure| WaitError::early(&namespace, &WaitCondition::Gone, failure);
        let Some(there) = self.get(&namespace).await.map_err(failed)? else {
            return Ok(false);
        };
        if !is_ours(&there) {
            let doing = format!("delete {namespace}");
            return Err(failed(ApiFailure::new(doing, FailureKind::NotOurs(namespace.clone()))));
        }
        self.delete(&namespace, Propagation::Background).await.map_err(failed)?;
        self.wait(&namespace, WaitCondition::Gone, within).await.map(|_| true)
    }

    pub(crate) async fn path_of(&self, doing: &str, object: &ObjectRef) -> Result<String, ApiFailure> {
        let kind = self
            .kind(&object.api_version, &object.kind)
            .await
            .map_err(|failure| ApiFailure { doing: doing.to_owned(), ..failure })?;
        if kind.namespaced && object.namespace.is_none() {
            let said = format!("{object} lacks a namespace");
            return Err(ApiFailure::new(doing, FailureKind::Manifest(said)));
        }
        Ok(kind.item(object.namespace.as_deref(), &object.name))
    }
}
