//! The store as controllers see it.

use apiserver::{Change, Kind, Propagation, Store, kinds, name, resource_version};
use serde_json::{Value, json};

use crate::world::store;

const WIDGET: Kind = Kind::of("example.com", "Widget");

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data})
}

fn set(store: &Store, name: &str, pointer: &[&str; 2], value: Value) -> Value {
    let edit = |object: &mut Value| object[pointer[0]][pointer[1]] = value;
    store.change(&kinds::CONFIG_MAP, "default", name, edit).unwrap().as_ref().clone()
}

fn owned(owner: &Value, mut object: Value) -> Value {
    let (name, uid) = (&owner["metadata"]["name"], &owner["metadata"]["uid"]);
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "controller": true});
    object["metadata"]["ownerReferences"] = json!([owner]);
    object
}

#[test]
fn versions_grow_and_equal_writes_are_not_writes() {
    let store = store();
    let first = store.create(config_map("a", json!({"k": "1"}))).unwrap();
    let mut events = store.subscribe(Some(&kinds::CONFIG_MAP));
    let same = store.change(&kinds::CONFIG_MAP, "default", "a", |_| {}).unwrap();
    assert_eq!(resource_version(&first), resource_version(&same));
    assert!(events.try_next().is_none());
    let other = set(&store, "a", &["data", "k"], json!("2"));
    assert!(resource_version(&other) > resource_version(&first));
    let event = events.try_next().unwrap();
    assert_eq!(event.change, Change::Modified);
    assert_eq!(event.before.as_ref().unwrap()["data"]["k"], "1");
}

#[test]
fn generation_counts_changes_of_the_spec_alone() {
    let store = store();
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": "g", "namespace": "default"},
        "spec": {"class": "c", "parts": [{"name": "http", "port": 80}]}});
    store.create(widget).unwrap();
    let generation = |o: &Value| o["metadata"]["generation"].as_i64().unwrap();
    let addresses = json!([{"type": "IPAddress", "value": "10.96.0.9"}]);
    let o = store.update_status(&WIDGET, "default", "g", |status| status["addresses"] = addresses).unwrap();
    assert_eq!(generation(&o), 1);
    let o = store
        .change(&WIDGET, "default", "g", |o| {
            o["metadata"]["labels"] = json!({"a": "b"});
            o["status"] = json!({});
        })
        .unwrap();
    assert_eq!(generation(&o), 1);
    assert_eq!(o["status"]["addresses"][0]["value"], "10.96.0.9");
    let o = store.change(&WIDGET, "default", "g", |o| o["spec"]["class"] = json!("d")).unwrap();
    assert_eq!(generation(&o), 2);
}

#[test]
fn what_an_owner_owns_goes_with_it() {
    let store = store();
    let owner = store.create(config_map("owner", json!({}))).unwrap();
    let child = store.apply(owned(&owner, config_map("child", json!({})))).unwrap();
    store.apply(owned(&child, config_map("grandchild", json!({})))).unwrap();
    let mut events = store.subscribe(None);
    store.delete(&kinds::CONFIG_MAP, "default", "owner").unwrap();
    let events = std::iter::from_fn(|| events.try_next()).map(|e| (e.change, name(&e.object).to_owned()));
    assert_eq!(events.collect::<Vec<_>>(), ["owner", "child", "grandchild"].map(|n| (Change::Deleted, n.to_owned())));
}

#[test]
fn a_foreground_deletion_waits_for_what_a_finalizer_holds() {
    let store = store();
    let owner = store.create(config_map("owner", json!({}))).unwrap();
    let mut child = config_map("child", json!({}));
    child["metadata"]["finalizers"] = json!(["example.com/hold"]);
    store.apply(owned(&owner, child)).unwrap();
    store.delete_with(&kinds::CONFIG_MAP, "default", "owner", Propagation::Foreground).unwrap();
    let owner = store.get(&kinds::CONFIG_MAP, "default", "owner").unwrap();
    assert_eq!(owner["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    set(&store, "child", &["metadata", "finalizers"], json!([]));
    assert!(store.list(&kinds::CONFIG_MAP, Some("default")).is_empty());
}

#[test]
fn a_namespace_takes_its_content_along_and_waits_for_finalizers() {
    let store = store();
    store.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})).unwrap();
    let mut held = config_map("held", json!({}));
    held["metadata"]["namespace"] = json!("n");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    store.create(held).unwrap();
    let mut free = config_map("free", json!({}));
    free["metadata"]["namespace"] = json!("n");
    store.create(free.clone()).unwrap();
    store.delete(&kinds::NAMESPACE, "", "n").unwrap();
    let namespace = store.get(&kinds::NAMESPACE, "", "n").unwrap();
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let refused = store.create(free).unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.ends_with("unable to create new content in namespace n because it is being terminated"));
    store.change(&kinds::CONFIG_MAP, "n", "held", |o| o["metadata"]["finalizers"] = json!([])).unwrap();
    assert!(store.get(&kinds::NAMESPACE, "", "n").is_none());
}

#[test]
fn an_owner_that_applies_again_removes_what_it_no_longer_wants() {
    let store = store();
    let owner = store.create(config_map("owner", json!({}))).unwrap();
    store.apply(owned(&owner, config_map("child", json!({"a": "1", "b": "1"})))).unwrap();
    set(&store, "child", &["metadata", "annotations"], json!({"kept": "yes"}));
    let before = store.version();
    let child = store.apply(owned(&owner, config_map("child", json!({"a": "1", "b": "1"})))).unwrap();
    assert_eq!(store.version(), before, "an equal apply is no write");
    assert_eq!(child["metadata"]["annotations"]["kept"], "yes");
    let child = store.apply(owned(&owner, config_map("child", json!({"a": "2"})))).unwrap();
    assert_eq!(child["data"], json!({"a": "2"}));
    assert_eq!(child["metadata"]["annotations"]["kept"], "yes");
    assert_eq!(child["metadata"]["ownerReferences"][0]["name"], "owner");
}
