//! Create, read, update, patch, delete, select, list in pages, and what kubectl asks besides.

use apiserver::{Definitions, Hooks, ServerOptions, Store, kinds};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::{ResourceExt, discovery::Discovery};
use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{World, config_map, object, status};

#[tokio::test]
async fn an_object_lives_from_creation_to_deletion() {
    let world = World::new().await;
    let maps = world.config_maps();
    let made = maps.create(&PostParams::default(), &config_map("a", json!({"k": "1"}))).await.unwrap();
    assert!(made.uid().is_some());
    let said = "configmaps \"a\" already exists";
    assert_eq!(
        status(maps.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap_err()).message,
        said
    );
    let mut changed = maps.get("a").await.unwrap();
    changed.data["data"]["k"] = json!("2");
    let second = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(second.resource_version(), made.resource_version());
    let stale = status(maps.replace("a", &PostParams::default(), &changed).await.unwrap_err());
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));
    let said = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!(stale.message, said);
    let gone = maps.delete("a", &DeleteParams::default()).await.unwrap().right().unwrap();
    assert_eq!(gone.details.unwrap().kind, "configmaps");
    let absent = status(maps.get("a").await.unwrap_err());
    assert_eq!((absent.code, absent.message.as_str()), (404, "configmaps \"a\" not found"));
}

#[tokio::test]
async fn typed_objects_get_what_the_server_fills_in() {
    let world = World::new().await;
    let services: Api<Service> = Api::namespaced(world.client.clone(), "default");
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let service = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap();
    let spec = services.create(&PostParams::default(), &service).await.unwrap().spec.unwrap();
    assert!(spec.cluster_ip.unwrap().starts_with("10.96."));
    let port = &spec.ports.unwrap()[0];
    assert_eq!(port.protocol.as_deref(), Some("TCP"));
    assert!(port.node_port.unwrap() >= 30000);
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "default");
    let secret =
        serde_json::from_value(json!({"metadata": {"generateName": "s-"}, "stringData": {"k": "text"}})).unwrap();
    let secret = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert!(secret.name_any().len() == 7 && secret.name_any().starts_with("s-"));
    assert_eq!(secret.data.unwrap()["k"].0, b"text");
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), "default");
    let deployment = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}})).unwrap();
    let deployment = deployments.create(&PostParams::default(), &deployment).await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(1));
    assert_eq!(deployment.metadata.generation, Some(1));
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let world = World::new().await;
    let widgets = world.objects("example.com/v1", "Widget", "widgets");
    let spec = json!({"class": "c", "parts": [{"name": "http", "port": 80}]});
    let widget = object("example.com/v1", "Widget", "g", json!({"spec": spec, "status": {"addresses": []}}));
    let made = widgets.create(&PostParams::default(), &widget).await.unwrap();
    assert_eq!(made.data["status"]["conditions"][1]["message"], "Waiting for controller");
    assert_eq!(made.data["spec"]["parts"][0]["allow"]["from"], "Same");
    let patch = json!({"spec": {"class": "d"}, "status": {"addresses": [{"value": "10.96.0.9"}]}});
    let after = widgets.patch_status("g", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(after.data["spec"]["class"], "c");
    assert_eq!(after.data["status"]["addresses"][0]["type"], "IPAddress");
    assert_eq!(after.metadata.generation, Some(1));
    let after = widgets.patch("g", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(after.data["spec"]["class"], "d");
    assert_eq!(after.metadata.generation, Some(2));
}

#[tokio::test]
async fn finalizers_hold_and_preconditions_protect() {
    let world = World::new().await;
    let maps = world.config_maps();
    let mut held = config_map("held", json!({}));
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    let preconditions = Some(Preconditions { uid: Some("other".into()), resource_version: None });
    let wrong = DeleteParams { preconditions, ..DeleteParams::default() };
    assert_eq!(status(maps.delete("held", &wrong).await.unwrap_err()).code, 409);
    let marked = maps.delete("held", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    let free = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();
    assert!(maps.get_opt("held").await.unwrap().is_none());
}

#[rstest]
#[case(PropagationPolicy::Background, false)]
#[case(PropagationPolicy::Foreground, false)]
#[case(PropagationPolicy::Orphan, true)]
#[tokio::test]
async fn what_is_owned_goes_or_stays_as_the_client_says(#[case] policy: PropagationPolicy, #[case] stays: bool) {
    let world = World::new().await;
    let maps = world.config_maps();
    let owner = maps.create(&PostParams::default(), &config_map("owner", json!({}))).await.unwrap();
    let mut child = config_map("child", json!({}));
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()});
    child.metadata.owner_references = Some(vec![serde_json::from_value(reference).unwrap()]);
    maps.create(&PostParams::default(), &child).await.unwrap();
    let how = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
    maps.delete("owner", &how).await.unwrap();
    assert!(maps.get_opt("owner").await.unwrap().is_none());
    let child = maps.get_opt("child").await.unwrap();
    assert_eq!(child.is_some(), stays);
    assert!(child.is_none_or(|child| child.metadata.owner_references.is_none()), "it lost the reference");
}

#[tokio::test]
async fn a_dry_run_judges_and_keeps_nothing() {
    let world = World::new().await;
    let maps = world.config_maps();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let shown = maps.create(&dry, &config_map("a", json!({}))).await.unwrap();
    assert!(shown.uid().is_some() && shown.resource_version().is_none());
    assert!(maps.get_opt("a").await.unwrap().is_none());
    let made = maps.create(&PostParams::default(), &config_map("a", json!({"k": "1"}))).await.unwrap();
    let patch = PatchParams { dry_run: true, ..PatchParams::default() };
    let shown = maps.patch("a", &patch, &Patch::Merge(json!({"data": {"k": "2"}}))).await.unwrap();
    assert_eq!(shown.data["data"]["k"], "2");
    let dry_delete = DeleteParams { dry_run: true, ..DeleteParams::default() };
    maps.delete("a", &dry_delete).await.unwrap();
    assert_eq!(maps.get("a").await.unwrap().resource_version(), made.resource_version());
}

#[tokio::test]
async fn lists_are_selected_and_come_in_pages() {
    let world = World::new().await;
    let maps = world.config_maps();
    for (at, app) in ["x", "y", "x", "x"].iter().enumerate() {
        let mut map = config_map(&format!("m{at}"), json!({}));
        map.metadata.labels = Some([("app".to_owned(), (*app).to_owned())].into());
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let all = ListParams::default();
    let names =
        |list: kube::core::ObjectList<DynamicObject>| list.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    assert_eq!(names(maps.list(&all.clone().labels("app=x")).await.unwrap()), ["m0", "m2", "m3"]);
    assert_eq!(names(maps.list(&all.clone().fields("metadata.name=m1")).await.unwrap()), ["m1"]);
    let first = maps.list(&all.clone().limit(3)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(1));
    let token = first.metadata.continue_.clone().unwrap();
    assert_eq!(names(first), ["m0", "m1", "m2"]);
    let rest = maps.list(&all.clone().limit(3).continue_token(&token)).await.unwrap();
    assert!(rest.metadata.continue_.is_none());
    assert_eq!(names(rest), ["m3"]);
    let refused = status(maps.list(&all.clone().fields("spec.x=1")).await.unwrap_err());
    assert_eq!((refused.code, refused.message.as_str()), (400, "field label not supported: spec.x"));
    maps.delete_collection(&DeleteParams::default(), &all.clone().labels("app=x")).await.unwrap();
    assert_eq!(names(maps.list(&all).await.unwrap()), ["m1"]);
}

#[tokio::test]
async fn events_are_found_by_what_they_are_about() {
    let world = World::new().await;
    let involved = json!({"kind": "ConfigMap", "name": "a", "namespace": "default"});
    world.keep("Event", "e", json!({"involvedObject": involved, "count": 2}));
    let events = world.objects("v1", "Event", "events");
    let selector = ListParams::default().fields("involvedObject.name=a,involvedObject.kind=ConfigMap");
    let list = events.list(&selector).await.unwrap();
    assert_eq!(list.items.len(), 1);
    assert_eq!(list.items[0].data["count"], 2);
    assert!(events.list(&ListParams::default().fields("involvedObject.name=b")).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_deleted_namespace_takes_its_content() {
    let world = World::new().await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
    let made = namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    assert_eq!(made.labels()["kubernetes.io/metadata.name"], "n");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}});
    world.store.create(map).unwrap();
    namespaces.delete("n", &DeleteParams::default()).await.unwrap();
    assert!(namespaces.get_opt("n").await.unwrap().is_none());
    assert!(world.store.list(&kinds::CONFIG_MAP, Some("n")).is_empty());
    let answer =
        world.send("POST", "/api/v1/namespaces/n/configmaps", "application/json", r#"{"metadata":{"name":"a"}}"#).await;
    assert_eq!(answer.code(), 404);
    assert_eq!(answer.json()["message"], "namespaces \"n\" not found");
}

#[tokio::test]
async fn pages_show_the_world_of_the_first_one() {
    let world = World::new().await;
    let maps = world.config_maps();
    for name in ["a", "b", "c", "d"] {
        maps.create(&PostParams::default(), &config_map(name, json!({"k": "old"}))).await.unwrap();
    }
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    maps.delete("c", &DeleteParams::default()).await.unwrap();
    maps.create(&PostParams::default(), &config_map("bb", json!({}))).await.unwrap();
    world.store.change(&kinds::CONFIG_MAP, "default", "d", |o| o["data"] = json!({"k": "new"})).unwrap();
    let rest = maps.list(&ListParams::default().continue_token(&token)).await.unwrap();
    let shown: Vec<String> = rest.items.iter().map(|o| format!("{} {}", o.name_any(), o.data["data"]["k"])).collect();
    assert_eq!(shown, ["c \"old\"", "d \"old\""]);
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);
    world.store.compact();
    let expired = status(maps.list(&ListParams::default().continue_token(&token)).await.unwrap_err());
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
}

#[tokio::test]
async fn deployments_are_scaled() {
    let world = World::new().await;
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    world.store.create(deployment).unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(world.client.clone());
    let scale = deployments.get_scale("d").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1));
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scaled = deployments.patch_scale("d", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(3));
    assert_eq!(deployments.get("d").await.unwrap().spec.unwrap().replicas, Some(3));
    let refused = Patch::Merge(json!({"spec": {"replicas": -1}}));
    assert_eq!(status(deployments.patch_scale("d", &PatchParams::default(), &refused).await.unwrap_err()).code, 422);
    let discovered = world.send("GET", "/apis/apps/v1", "", "").await.json();
    let scale = discovered["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!((&scale["group"], &scale["kind"]), (&json!("autoscaling"), &json!("Scale")));
}

#[tokio::test]
async fn json_patches_apply_or_are_rejected() {
    let world = World::new().await;
    let maps = world.config_maps();
    maps.create(&PostParams::default(), &config_map("a", json!({"k": "1"}))).await.unwrap();
    let patch = |operations: Value| Patch::<()>::Json(serde_json::from_value(operations).unwrap());
    let test = json!({"op": "test", "path": "/data/k", "value": "1"});
    let good = patch(json!([test, {"op": "replace", "path": "/data/k", "value": "2"}]));
    assert_eq!(maps.patch("a", &PatchParams::default(), &good).await.unwrap().data["data"]["k"], "2");
    let refused = status(maps.patch("a", &PatchParams::default(), &good).await.unwrap_err());
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (422, "the server rejected our request due to an error in our request")
    );
    let strategic = json!({"data": {"k": null, "l": "3"}});
    let after = maps.patch("a", &PatchParams::default(), &Patch::Strategic(&strategic)).await.unwrap();
    assert_eq!(after.data["data"], json!({"l": "3"}));
    let widgets = world.objects("example.com/v1", "Widget", "widgets");
    let refused = status(widgets.patch("g", &PatchParams::default(), &Patch::Strategic(&strategic)).await.unwrap_err());
    assert_eq!(refused.code, 415);
}

#[tokio::test]
async fn discovery_and_openapi_say_what_is_served() {
    let world = World::new().await;
    let discovery = Discovery::new(world.client.clone()).run().await.unwrap();
    let group = discovery.get("example.com").unwrap();
    assert_eq!(group.preferred_version(), Some("v1"));
    assert!(group.versions().any(|v| v == "v1beta1"));
    let aggregated = Discovery::new(world.client.clone()).run_aggregated().await.unwrap();
    assert!(aggregated.get("example.com").unwrap().recommended_kind("Widget").is_some());
    let index = world.send("GET", "/openapi/v3", "", "").await.json();
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = world.send("GET", url, "", "").await.json();
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Widget");
}

#[tokio::test]
async fn a_patch_with_an_unknown_field_is_refused_as_kubectl_shows_it() {
    let world = World::new().await;
    let widget = r#"{"metadata":{"name":"b"},"spec":{"class":"c"}}"#;
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    assert_eq!(world.send("POST", path, "application/json", widget).await.code(), 201);
    let one = format!("{path}/b?fieldValidation=");
    let patch = r#"{"spec":{"clas":"d"}}"#;
    let media = "application/merge-patch+json";
    let refused = world.send("PATCH", &format!("{one}Strict"), media, patch).await;
    assert_eq!(refused.code(), 422);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: \"{"), "{message}");
    assert!(message.ends_with("strict decoding error: unknown field \"spec.clas\""), "{message}");
    let warned = world.send("PATCH", &format!("{one}Warn"), media, patch).await;
    assert_eq!((warned.code(), warned.warnings()), (200, vec!["unknown field \"spec.clas\"".to_owned()]));
    assert!(warned.json()["spec"]["clas"].is_null());
}

/// A clock on which nothing grows old.
struct StoppedClock;

impl Hooks for StoppedClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
}

#[tokio::test]
async fn tables_hold_what_kubectl_shows() {
    let world = World::new().await;
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "g", "namespace": "default"},
        "spec": {"class": "c", "parts": [{"name": "http", "port": 80}]}});
    world.store.create(widget).unwrap();
    let accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let table = world.send_as("GET", "/apis/example.com/v1/widgets", &[accept], "").await.json();
    let names: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["Name", "Class", "Address", "Ready", "Age"]);
    let cells = &table["rows"][0]["cells"];
    assert_eq!([&cells[0], &cells[1], &cells[3]], ["g", "c", "Unknown"]);
    assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "g");
}

#[rstest]
#[case::services(
    "/api/v1/services",
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "x", "b": "y"}, "ports": [{"port": 80, "nodePort": 31000}]}}),
    "Name=s Type=LoadBalancer Cluster-IP=10.96.0.11 External-IP=<pending> Port(s)=80:31000/TCP Age=0s Selector*=app=x,b=y"
)]
#[case::pods(
    "/api/v1/pods",
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}),
    "Name=p Ready=0/1 Status=Pending Restarts=0 Age=0s IP*=<none> Node*=n Nominated Node*=<none> Readiness Gates*=<none>"
)]
#[case::deployments(
    "/apis/apps/v1/deployments",
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "e", "image": "j"}]}}}}),
    "Name=d Ready=0/1 Up-to-date=0 Available=0 Age=0s Containers*=c,e Images*=i,j Selector*=a=b"
)]
#[case::events(
    "/api/v1/events",
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "type": "Normal",
        "reason": "Pulled", "message": "it is there", "count": 2, "involvedObject": {"kind": "Pod", "name": "p"}}),
    "Last Seen=null Type=Normal Reason=Pulled Object=pod/p Source*=null Message=it is there First Seen*=null Count*=2 Name*=e"
)]
#[tokio::test]
async fn tables_of_built_in_kinds_are_those_of_kubectl(#[case] path: &str, #[case] object: Value, #[case] shown: &str) {
    let store = Store::new(StoppedClock, &Definitions::default());
    let world = World::with(store, ServerOptions::default()).await;
    world.store.create(object).unwrap();
    let accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let table = world.send_as("GET", path, &[accept], "").await.json();
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let cells = columns.zip(table["rows"][0]["cells"].as_array().unwrap()).map(|(column, cell)| {
        let wide = if column["priority"] == 0 { "" } else { "*" };
        let cell = cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
        format!("{}{wide}={cell}", column["name"].as_str().unwrap())
    });
    assert_eq!(cells.collect::<Vec<_>>().join(" "), shown);
}

#[tokio::test]
async fn a_definition_is_served_as_soon_as_it_is_posted() {
    let world = World::bare().await;
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}}}}}}]}});
    let things = world.objects("example.com/v1", "Thing", "things");
    assert_eq!(status(things.list(&ListParams::default()).await.unwrap_err()).code, 404);
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let answer = world.send("POST", path, "application/json", definition.to_string()).await;
    assert_eq!(answer.code(), 201, "{}", answer.json());
    let kept = world.send("GET", &format!("{path}/things.example.com"), "", "").await.json();
    let mut conditions = kept["status"]["conditions"].as_array().unwrap().iter();
    assert!(conditions.any(|c| c["type"] == "Established" && c["status"] == "True"), "{kept}");
    let thing = object("example.com/v1", "Thing", "t", json!({"spec": {"other": 1}}));
    let thing = things.create(&PostParams::default(), &thing).await.unwrap();
    assert_eq!(thing.data["spec"], json!({"size": 3}));
    world.send("DELETE", &format!("{path}/things.example.com"), "", "").await;
    assert_eq!(status(things.get("t").await.unwrap_err()).code, 404);
    let mut broken = definition;
    broken["metadata"]["name"] = json!("other.example.com");
    let answer = world.send("POST", path, "application/json", broken.to_string()).await;
    assert_eq!(answer.code(), 422);
    assert!(answer.json()["message"].as_str().unwrap().contains("must be spec.names.plural+\".\"+spec.group"));
}
