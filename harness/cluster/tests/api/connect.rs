//! From a kubeconfig to a cluster, and what goes wrong on the way.

use cluster::api::{Cluster, ConnectError};
use rstest::rstest;
use serde_json::json;

use crate::scripted::{Line, Scripted, on};

#[tokio::test]
async fn a_cluster_that_answers_says_who_it_is() {
    let (server, cluster) = Scripted::connected(vec![]).await;
    assert_eq!((cluster.context(), cluster.version()), ("kind-scripted", "v1.34.10"));
    assert_eq!(cluster.server(), server.url);
}

#[tokio::test]
async fn the_context_that_is_named_is_taken() {
    let server = Scripted::start(crate::scripted::hello()).await;
    let cluster = Cluster::connect(&server.kubeconfig(), Some("production")).await.expect("connected");
    assert_eq!(cluster.context(), "production");
}

#[tokio::test]
async fn a_context_that_is_not_there_is_said_with_those_that_are() {
    let server = Scripted::start(vec![]).await;
    let error = Cluster::connect(&server.kubeconfig(), Some("kind-scriptd")).await.expect_err("refused");
    assert!(error.is_usage());
    let path = server.kubeconfig().display().to_string();
    assert_eq!(
        error.to_string().replace(&path, "FILE"),
        "kubeconfig FILE has no context \"kind-scriptd\"; did you mean kind-scripted?; it has \"kind-scripted\", \"production\""
    );
}

#[tokio::test]
async fn a_file_that_is_not_there_is_unreadable() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = Cluster::connect(&folder.path().join("none"), None).await.expect_err("refused");
    assert!(matches!(error, ConnectError::Unreadable { .. }), "{error}");
    assert!(error.is_usage());
}

#[rstest]
#[case::no_kubeconfig("contexts: [", "kubeconfig FILE: ")]
#[case::a_cluster_that_it_does_not_hold(
    "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: none}}]}",
    "kubeconfig FILE: "
)]
#[case::no_current_context(
    "{contexts: [{name: one, context: {cluster: c}}]}",
    "kubeconfig FILE has no current context; name one of \"one\""
)]
#[tokio::test]
async fn a_file_that_cannot_be_used_is_named(#[case] text: &str, #[case] said: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config");
    std::fs::write(&path, text).expect("written");
    let error = Cluster::connect(&path, None).await.expect_err("refused");
    assert!(error.to_string().replace(&path.display().to_string(), "FILE").starts_with(said), "{error}");
    assert!(error.is_usage());
}

#[tokio::test]
async fn nobody_at_the_address_does_not_answer() {
    let server = Scripted::start(vec![on("GET /version").dies()]).await;
    let kubeconfig = server.kubeconfig();
    let broken = Cluster::connect(&kubeconfig, None).await.expect_err("it died");
    assert!(matches!(broken, ConnectError::NotAnswering { .. }), "{broken}");
    let refused = Cluster::connect(&kubeconfig, None).await.expect_err("it is gone");
    assert!(matches!(&refused, ConnectError::NotAnswering { problem, .. } if problem.contains("refused")), "{refused}");
    assert!(!refused.is_usage());
}

#[rstest]
#[case(vec![on("GET /version").refuses(401, "Unauthorized", "Unauthorized")], 401)]
// Anyone may read the version; the kinds are for known users.
#[case(vec![on("GET /version").answers(200, json!({"gitVersion": "v1.34.10"})), on("GET /api/v1").refuses(403, "Forbidden", "forbidden: User \"system:anonymous\" cannot get path \"/api/v1\"")], 403)]
#[tokio::test]
async fn credentials_that_count_for_nothing_are_said(#[case] script: Vec<Line>, #[case] expected: u16) {
    let server = Scripted::start(script).await;
    let error = Cluster::connect(&server.kubeconfig(), None).await.expect_err("refused");
    assert!(matches!(error, ConnectError::Unauthorized { code, .. } if code == expected), "{error}");
}

#[rstest]
#[case("<html>a login page</html>")]
#[case("{\"hello\": 1}")]
#[tokio::test]
async fn another_server_at_the_address_is_none_of_kubernetes(#[case] body: &str) {
    let server = Scripted::start(vec![on("GET /version").answers_text(200, body)]).await;
    let error = Cluster::connect(&server.kubeconfig(), None).await.expect_err("refused");
    assert!(error.to_string().contains("does not answer as a Kubernetes API server"), "{error}");
}
