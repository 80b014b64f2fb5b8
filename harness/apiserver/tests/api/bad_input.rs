//! Bad input: every request gets the right refusal, and the server goes on.

use apiserver::{LARGEST_BODY, Server, ServerOptions};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::world::{World, store};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
const KEPT: &str = "/api/v1/namespaces/default/configmaps/kept";
const JSON: &str = "application/json";
const PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const NAMED: &str = r#"{"metadata":{"name":"a"}}"#;

#[rstest]
#[case::broken_json("POST", MAPS, JSON, "{\"metadata\":", 400)]
#[case::not_an_object("POST", MAPS, JSON, "[1,2]", 400)]
#[case::nothing("POST", MAPS, JSON, "", 400)]
#[case::deep("POST", MAPS, JSON, &"[".repeat(150), 400)]
#[case::broken_yaml("POST", MAPS, "application/yaml", "a: [", 400)]
#[case::yaml("POST", MAPS, "application/yaml", "metadata: {name: yaml}", 201)]
#[case::not_text("POST", MAPS, "application/yaml", "\u{1}", 400)]
#[case::other_media("POST", MAPS, "text/html", "<html>", 415)]
#[case::wrong_kind("POST", MAPS, JSON, r#"{"kind":"Secret","metadata":{"name":"a"}}"#, 400)]
#[case::wrong_version("POST", MAPS, JSON, r#"{"apiVersion":"v2","metadata":{"name":"a"}}"#, 400)]
#[case::wrong_namespace("POST", MAPS, JSON, r#"{"metadata":{"name":"a","namespace":"b"}}"#, 400)]
#[case::no_name("POST", MAPS, JSON, "{}", 422)]
#[case::bad_name("POST", MAPS, JSON, r#"{"metadata":{"name":"A_b"}}"#, 422)]
#[case::metadata_of_numbers("POST", MAPS, JSON, r#"{"metadata":1}"#, 400)]
#[case::label_of_numbers("POST", MAPS, JSON, r#"{"metadata":{"name":"a","labels":{"a":1}}}"#, 400)]
#[case::version_of_its_own("POST", MAPS, JSON, r#"{"metadata":{"name":"a","resourceVersion":"5"}}"#, 400)]
#[case::data_of_numbers("POST", MAPS, JSON, r#"{"metadata":{"name":"a"},"data":{"k":1}}"#, 422)]
#[case::unknown_resource("GET", "/api/v1/namespaces/default/nothings", JSON, "", 404)]
#[case::unknown_group("GET", "/apis/nope.io/v1/things", JSON, "", 404)]
#[case::unknown_subresource("GET", "/api/v1/namespaces/default/configmaps/a/scale", JSON, "", 404)]
#[case::absent("GET", MAP, JSON, "", 404)]
#[case::absent_update("PUT", MAP, JSON, r#"{"metadata":{"name":"a"}}"#, 404)]
#[case::other_name("PUT", MAP, JSON, r#"{"metadata":{"name":"b"}}"#, 400)]
#[case::post_to_an_object("POST", MAP, JSON, "{}", 405)]
#[case::post_without_namespace("POST", "/api/v1/configmaps", JSON, r#"{"metadata":{"name":"a"}}"#, 405)]
#[case::odd_method("OPTIONS", MAPS, JSON, "", 405)]
#[case::bad_labels("GET", "/api/v1/configmaps?labelSelector=a%20in%20b", JSON, "", 400)]
#[case::bad_fields("GET", "/api/v1/configmaps?fieldSelector=x", JSON, "", 400)]
#[case::bad_limit("GET", "/api/v1/configmaps?limit=many", JSON, "", 400)]
#[case::bad_token("GET", "/api/v1/configmaps?continue=%21%21", JSON, "", 400)]
#[case::bad_version("GET", "/api/v1/configmaps?watch=1&resourceVersion=x", JSON, "", 400)]
#[case::bad_dry_run("POST", &format!("{MAPS}?dryRun=Some"), JSON, NAMED, 422)]
#[case::bad_validation("POST", &format!("{MAPS}?fieldValidation=Maybe"), JSON, NAMED, 422)]
#[case::bad_propagation("DELETE", MAP, JSON, r#"{"propagationPolicy":"Sideways"}"#, 422)]
#[case::immortal_namespace("DELETE", "/api/v1/namespaces/kube-system", JSON, "", 403)]
#[case::odd_patch_media("PATCH", MAP, "application/patch", "{}", 415)]
#[case::patch_of_numbers("PATCH", KEPT, MERGE, "1", 400)]
#[case::json_patch_of_objects("PATCH", KEPT, PATCH, "{}", 400)]
#[case::json_patch_that_does_not_fit("PATCH", KEPT, PATCH, r#"[{"op":"remove","path":"/data/nope"}]"#, 422)]
#[case::json_patch_to_a_number("PATCH", KEPT, PATCH, r#"[{"op":"replace","path":"","value":1}]"#, 422)]
#[case::proxy_without_pods("GET", "/api/v1/namespaces/default/services/none/proxy/x", JSON, "", 404)]
#[tokio::test]
async fn refusals_have_the_right_code(
    #[case] method: &str,
    #[case] path: &str,
    #[case] media: &str,
    #[case] body: &str,
    #[case] code: u16,
) {
    let world = World::new().await;
    world.keep("ConfigMap", "kept", json!({}));
    let answer = world.send(method, path, media, body).await;
    assert_eq!(answer.code(), code, "{:?}", answer.0.body());
    if code >= 400 {
        let status = answer.json();
        let said = json!([status["kind"], status["status"], status["code"]]);
        assert_eq!(said, json!(["Status", "Failure", code]));
        assert!(!status["message"].as_str().unwrap().is_empty());
    }
}

fn sized(name: &str, size: usize) -> String {
    let head = json!({"metadata": {"name": name}, "data": {"k": ""}}).to_string();
    head.replace("\"k\":\"\"", &format!("\"k\":\"{}\"", "x".repeat(size - head.len())))
}

#[rstest]
#[case::a_megabyte(1 << 20, 201, "")]
#[case::two_megabytes(2 << 20, 413, "etcdserver: request is too large")]
#[case::the_longest_body(LARGEST_BODY, 413, "etcdserver: request is too large")]
#[case::a_longer_body(LARGEST_BODY + 1, 413, "Request entity too large: limit is 3145728")]
#[tokio::test]
async fn objects_have_a_size(#[case] size: usize, #[case] code: u16, #[case] said: &str) {
    let world = World::new().await;
    let answer = world.send("POST", MAPS, JSON, sized("big", size)).await;
    assert_eq!(answer.code(), code);
    if code == 413 {
        let status = answer.json();
        assert_eq!(json!([status["message"], status["reason"]]), json!([said, "RequestEntityTooLarge"]));
    }
    let dry = world.send("POST", &format!("{MAPS}?dryRun=All"), JSON, sized("dry", size.min(LARGEST_BODY))).await;
    assert_eq!(dry.code(), 201, "what is not kept has no size");
}

#[tokio::test]
async fn an_object_does_not_grow_beyond_the_size() {
    let world = World::new().await;
    assert_eq!(world.send("POST", MAPS, JSON, sized("a", 1 << 20)).await.code(), 201);
    let half = json!({"data": {"l": "x".repeat(600 << 10)}}).to_string();
    let answer = world.send("PATCH", &format!("{MAPS}/a"), "application/merge-patch+json", half).await;
    assert_eq!((answer.code(), &answer.json()["reason"]), (413, &json!("RequestEntityTooLarge")));
}

#[tokio::test]
async fn a_page_of_another_name_gets_nothing() {
    let world = World::new().await;
    let answer = world.send_as("GET", "/api/v1/namespaces", &[("host", "evil.example.com")], "").await;
    assert_eq!(answer.code(), 403);
}

#[tokio::test]
async fn connections_that_break_off_leave_no_trace() {
    let world = World::new().await;
    for head in [
        "POST ",
        "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"meta",
        "\u{0}\u{1}garbage\r\n\r\n",
        "GET /api/v1/pods?watch=1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(world.server.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        drop(stream);
    }
    assert_eq!(world.send("GET", MAPS, JSON, "").await.json()["items"], json!([]));
}

#[tokio::test]
async fn writers_that_race_lose_in_an_orderly_way() {
    let world = World::new().await;
    world.keep("ConfigMap", "a", json!({}));
    let path = format!("{MAPS}/a");
    let current: Value = world.send("GET", &path, JSON, "").await.json();
    let writes = (0..20).map(|at| {
        let mut object = current.clone();
        object["data"] = json!({"k": at.to_string()});
        world.send("PUT", &path, JSON, object.to_string())
    });
    let answers = futures::future::join_all(writes).await;
    let mut codes: Vec<u16> = answers.iter().map(|a| a.code()).collect();
    codes.sort_unstable();
    assert_eq!(codes[0], 200);
    assert!(codes[1..].iter().all(|c| *c == 409), "{codes:?}");
    let path = format!("{path}?fieldManager=");
    let applies = (0..20).map(|at| {
        let body = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{l: '{at}'}}");
        world.send("PATCH", Box::leak(format!("{path}m{at}").into_boxed_str()), "application/apply-patch+yaml", body)
    });
    let answers = futures::future::join_all(applies).await;
    assert_eq!(answers.iter().filter(|a| a.code() == 200).count(), 1);
    assert_eq!(answers.iter().filter(|a| a.code() == 409).count(), 19);
}

#[tokio::test]
async fn a_world_is_ready_in_no_time() {
    // The first one reads the definitions; what a check waits for is every later one. The best of a few: the machine
    // has other things to do.
    drop(World::new().await);
    let mut best = u128::MAX;
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let server = Server::start(store(), ServerOptions::default()).await.unwrap();
        best = best.min(start.elapsed().as_millis());
        server.stop().await;
    }
    assert!(best < 100, "{best} ms");
}
