//! Server-side apply: field managers, conflicts, force, removal, and applies that change nothing.

use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::{World, config_map, object, status};

fn wanted(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

async fn apply(world: &World, manager: &str, object: Value) -> kube::Result<DynamicObject> {
    world.config_maps().patch("a", &PatchParams::apply(manager), &Patch::Apply(object)).await
}

fn managers(object: &DynamicObject) -> Vec<(String, String)> {
    let entry = |e: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        (e.manager.clone().unwrap(), e.operation.clone().unwrap())
    };
    object.managed_fields().iter().map(entry).collect()
}

#[tokio::test]
async fn an_apply_that_changes_nothing_is_no_write() {
    let world = World::new().await;
    let first = apply(&world, "one", wanted(json!({"k": "1"}))).await.unwrap();
    let version = world.store.version();
    let second = apply(&world, "one", wanted(json!({"k": "1"}))).await.unwrap();
    assert_eq!(first.resource_version(), second.resource_version());
    assert_eq!(world.store.version(), version);
    assert_eq!(managers(&second), [("one".to_owned(), "Apply".to_owned())]);
}

#[tokio::test]
async fn fields_of_others_are_a_conflict_until_forced() {
    let world = World::new().await;
    apply(&world, "one", wanted(json!({"k": "1", "l": "1"}))).await.unwrap();
    let refused = status(apply(&world, "two", wanted(json!({"k": "2"}))).await.unwrap_err());
    assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"one\": .data.k");
    let cause = &refused.details.as_ref().unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.k"));
    let refused = status(apply(&world, "two", wanted(json!({"k": "2", "l": "2"}))).await.unwrap_err());
    assert_eq!(refused.message, "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.k\n- .data.l");
    // The same value is shared, not fought over.
    apply(&world, "two", wanted(json!({"k": "1"}))).await.unwrap();
    let (three, change) = (PatchParams::apply("three").force(), Patch::Apply(wanted(json!({"k": "3"}))));
    let forced = world.config_maps().patch("a", &three, &change).await.unwrap();
    assert_eq!(forced.data["data"], json!({"k": "3", "l": "1"}));
    let refused = status(apply(&world, "one", wanted(json!({"k": "1", "l": "1"}))).await.unwrap_err());
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"three\": .data.k");
}

#[tokio::test]
async fn updates_own_what_they_write() {
    let world = World::new().await;
    let params = PostParams { field_manager: Some("kubectl-client-side-apply".into()), ..PostParams::default() };
    world.config_maps().create(&params, &config_map("a", json!({"k": "1"}))).await.unwrap();
    let refused = status(apply(&world, "two", wanted(json!({"k": "2"}))).await.unwrap_err());
    let said = "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.k";
    assert_eq!(refused.message, said);
}

#[tokio::test]
async fn a_manager_is_remembered_with_the_version_that_it_spoke() {
    let world = World::new().await;
    let old = world.objects("example.com/v1beta1", "Widget", "widgets");
    let route = object("example.com/v1beta1", "Widget", "r", json!({"spec": {"class": "c"}}));
    let made = old.create(&PostParams::default(), &route).await.unwrap();
    assert_eq!(made.managed_fields()[0].api_version.as_deref(), Some("example.com/v1beta1"));
    let new = world.objects("example.com/v1", "Widget", "widgets");
    assert_eq!(new.get("r").await.unwrap().types.unwrap().api_version, "example.com/v1");
}

#[tokio::test]
async fn what_a_manager_no_longer_names_goes_unless_another_holds_it() {
    let world = World::new().await;
    let mut first = wanted(json!({"k": "1", "shared": "1", "gone": "1"}));
    first["metadata"]["labels"] = json!({"only": "mine"});
    apply(&world, "one", first).await.unwrap();
    apply(&world, "two", wanted(json!({"shared": "1"}))).await.unwrap();
    let after = apply(&world, "one", wanted(json!({"k": "1"}))).await.unwrap();
    assert_eq!(after.data["data"], json!({"k": "1", "shared": "1"}));
    assert!(after.labels().is_empty());
}

#[tokio::test]
async fn items_of_keyed_lists_have_owners_of_their_own() {
    let world = World::new().await;
    let widgets = world.objects("example.com/v1", "Widget", "widgets");
    let widget = |parts: Value| {
        Patch::Apply(object("example.com/v1", "Widget", "g", json!({"spec": {"class": "c", "parts": parts}})))
    };
    let http = json!({"name": "http", "port": 80});
    let other = json!({"name": "other", "port": 81});
    widgets.patch("g", &PatchParams::apply("one"), &widget(json!([http]))).await.unwrap();
    let both = widgets.patch("g", &PatchParams::apply("two"), &widget(json!([other]))).await.unwrap();
    let names = |o: &DynamicObject| -> Vec<String> {
        o.data["spec"]["parts"].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&both), ["http", "other"]);
    assert_eq!(both.metadata.generation, Some(2));
    let moved = json!([{"name": "http", "port": 8080}]);
    let refused = status(widgets.patch("g", &PatchParams::apply("two"), &widget(moved)).await.unwrap_err());
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.parts[name=\"http\"].port");
    let none = Patch::Apply(object("example.com/v1", "Widget", "g", json!({"spec": {"class": "c"}})));
    let left = widgets.patch("g", &PatchParams::apply("one"), &none).await.unwrap();
    assert_eq!(names(&left), ["other"]);
    let twice = widget(json!([http, http]));
    let refused = status(widgets.patch("g", &PatchParams::apply("one"), &twice).await.unwrap_err());
    let said = "failed to create typed patch object (default/g; example.com/v1, Kind=Widget): .spec.parts: duplicate entries for key [name=\"http\"]";
    assert_eq!(refused.message, said);
}

#[tokio::test]
async fn status_is_applied_apart() {
    let world = World::new().await;
    let widgets = world.objects("example.com/v1", "Widget", "widgets");
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "p"},
        "spec": {"class": "c"}});
    widgets.patch("p", &PatchParams::apply("user"), &Patch::Apply(&widget)).await.unwrap();
    let condition = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let with_status = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "p"},
        "status": {"parents": [{"ref": {"name": "g"}, "conditions": [condition]}]}});
    let after =
        widgets.patch_status("p", &PatchParams::apply("controller"), &Patch::Apply(&with_status)).await.unwrap();
    assert_eq!(after.data["status"]["parents"][0]["ref"]["kind"], "Widget");
    assert_eq!(after.data["spec"]["mode"], "Closed");
    assert_eq!(after.metadata.generation, Some(1));
    let entry = after.managed_fields().iter().find(|e| e.manager.as_deref() == Some("controller")).unwrap();
    assert_eq!(entry.subresource.as_deref(), Some("status"));
    let again = widgets.patch("p", &PatchParams::apply("user"), &Patch::Apply(&widget)).await.unwrap();
    assert_eq!(again.resource_version(), after.resource_version());
}

#[tokio::test]
async fn an_apply_must_say_who_and_what() {
    let world = World::new().await;
    let path = "/api/v1/namespaces/default/configmaps/a";
    let media = "application/apply-patch+yaml";
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: '1'}\n";
    let answer = world.send("PATCH", path, media, yaml).await;
    assert_eq!(answer.code(), 422);
    let message = answer.json()["message"].to_string();
    assert!(message.ends_with("fieldManager: Required value: is required for apply patch\""), "{message}");
    let named = format!("{path}?fieldManager=me");
    let other_kind = "kind: Secret\napiVersion: v1";
    for (body, code) in [(yaml, 201), (yaml, 200), (other_kind, 400), ("[1]", 400), ("a: b: c", 400)] {
        assert_eq!(world.send("PATCH", &named, media, body).await.code(), code, "{body}");
    }
    let refused = world.send("PATCH", &named, media, yaml.replace("\ndata", "\ndates")).await;
    let said =
        "failed to create typed patch object (default/a; v1, Kind=ConfigMap): .dates: field not declared in schema";
    assert_eq!(refused.json()["message"], said);
}
