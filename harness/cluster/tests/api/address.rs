//! Where a gateway answers.

use std::time::Duration;

use cluster::api::{AddressAsk, AddressError, AddressKind, Forward, ObjectRef};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use wire::Dial as _;

use crate::scripted::{Line, Scripted, list, on, serves};

fn ask(port: u16, extra: &[String]) -> AddressAsk {
    AddressAsk {
        gateway: ObjectRef::new("gateway.networking.k8s.io/v1", "Gateway", "igc-gateway", "igc"),
        port,
        service_labels: "owner=igc".to_owned(),
        extra: extra.to_vec(),
    }
}

/// The Gateway and its Services, as the API server tells them.
fn found(addresses: &[&str], services: &[Value]) -> Vec<Line> {
    let addresses: Vec<Value> = addresses.iter().map(|value| json!({"type": "IPAddress", "value": value})).collect();
    vec![
        serves("gateway.networking.k8s.io/v1", &[("Gateway", "gateways", true)]),
        on("GET /apis/gateway.networking.k8s.io/v1/namespaces/igc-gateway/gateways/igc")
            .answers(200, json!({"status": {"addresses": addresses}})),
        on("GET /api/v1/services?labelSelector=owner%3Digc").answers(200, list("1", services)),
    ]
}

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
/// Every connection is taken, and closed.
const SILENT: &[u8] = b"";

/// A server on loopback that answers every connection with these bytes.
async fn gateway(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            if !answer.is_empty() {
                let mut seen = [0; 1024];
                _ = connection.read(&mut seen).await;
                _ = connection.write_all(answer).await;
            }
        }
    });
    port
}

#[tokio::test]
async fn the_first_candidate_that_answers_is_taken() {
    let port = gateway(NOT_FOUND).await;
    let extra = gateway(NOT_FOUND).await;
    let (_server, cluster) = Scripted::connected(found(&["127.0.0.1"], &[])).await;
    let reached = cluster.reach(&ask(port, &[format!("127.0.0.1:{extra}")])).await.expect("reached");
    assert_eq!((reached.kind, reached.address), (AddressKind::Status, format!("127.0.0.1:{port}")));
    assert!(reached.before.is_empty());
}

#[rstest]
#[case::takes_connections_and_says_nothing(SILENT, "taken, but no response: ")]
#[case::speaks_something_else(b"SSH-2.0-OpenSSH_9.9\r\n", "answers, but not in HTTP/1")]
#[tokio::test]
async fn a_candidate_that_is_no_answer(#[case] answer: &'static [u8], #[case] problem: &str) {
    let (other, extra) = (gateway(answer).await, gateway(NOT_FOUND).await);
    let service = json!({"metadata": {"name": "gw", "namespace": "x"}, "spec": {"clusterIP": "127.0.0.1", "ports": [{"port": other}]}});
    let (_server, cluster) = Scripted::connected(found(&[], &[service])).await;
    let reached = cluster.reach(&ask(other, &[format!("127.0.0.1:{extra}")])).await.expect("reached");
    assert_eq!((reached.kind, reached.address), (AddressKind::Extra, format!("127.0.0.1:{extra}")));
    let [before] = &reached.before[..] else { panic!("{:?}", reached.before) };
    assert_eq!(before.kind, AddressKind::ClusterIp);
    assert!(before.problem.starts_with(problem), "{before}");
}

/// The addresses of a rehearsed cluster are those of somebody else's network: one that would answer stands in for them.
#[tokio::test]
async fn outside_loopback_a_rehearsed_cluster_asks_nobody() {
    let port = gateway(NOT_FOUND).await;
    let service = json!({"metadata": {"name": "gw", "namespace": "x"}, "spec": {"clusterIP": "localhost", "ports": [{"port": port}]}});
    let ask = ask(port, &[format!("127.0.0.1:{port}")]);
    let (_server, cluster) = Scripted::connected(found(&[], std::slice::from_ref(&service))).await;
    assert_eq!(cluster.reach(&ask).await.expect("reached").kind, AddressKind::ClusterIp, "it does answer");
    let (_server, cluster) = Scripted::connected(found(&[], &[service])).await;
    let reached = cluster.on_loopback().reach(&ask).await.expect("reached");
    assert_eq!(reached.kind, AddressKind::Extra);
    let [before] = &reached.before[..] else { panic!("{:?}", reached.before) };
    assert!(before.problem.starts_with("not asked: "), "{before}");
}

#[tokio::test]
async fn node_ports_are_tried_on_the_nodes() {
    let port = gateway(NOT_FOUND).await;
    let service = json!({"metadata": {"name": "gw", "namespace": "x"}, "spec": {"clusterIP": "None", "ports": [{"port": 80, "nodePort": port}]}});
    let node = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    let mut script = found(&[], &[service]);
    script.push(on("GET /api/v1/nodes").answers(200, list("1", &[node])));
    let (_server, cluster) = Scripted::connected(script).await;
    let reached = cluster.reach(&ask(80, &[])).await.expect("reached");
    assert_eq!((reached.kind, reached.address), (AddressKind::NodePort, format!("127.0.0.1:{port}")));
}

#[tokio::test]
async fn when_none_answers_all_that_was_tried_is_said() {
    let silent = gateway(SILENT).await;
    let service =
        json!({"metadata": {"name": "gw", "namespace": "x"}, "spec": {"ports": [{"port": silent, "name": "http"}]}});
    let mut script = found(&["127.0.0.1"], std::slice::from_ref(&service));
    script.extend([
        // The forward looks for the Service's endpoints.
        on("GET /api/v1/namespaces/x/services/gw").answers(200, service),
        slices(),
        on("GET /apis/discovery.k8s.io/v1/namespaces/x/endpointslices").answers(200, list("1", &[])),
    ]);
    let (_server, cluster) = Scripted::connected(script).await;
    let error = cluster.reach(&ask(silent, &[])).await.expect_err("none answers");
    assert!(matches!(&error, AddressError::NoneAnswers { tried, .. } if tried.len() == 2), "{error}");
    let said = error.to_string();
    assert!(said.contains(&format!("127.0.0.1:{silent} (Gateway status): taken, but no response")), "{said}");
    assert!(said.contains("(port-forward): Service x/gw has no ready endpoint"), "{said}");
}

#[tokio::test]
async fn a_gateway_that_is_not_there_has_no_address() {
    let (_server, cluster) = Scripted::connected(vec![
        serves("gateway.networking.k8s.io/v1", &[("Gateway", "gateways", true)]),
        on("GET /apis/gateway.networking.k8s.io/v1/namespaces/igc-gateway/gateways/igc")
            .refuses(404, "NotFound", "none"),
    ])
    .await;
    let error = cluster.reach(&ask(80, &[])).await.expect_err("none");
    assert_eq!(error.to_string(), "find an address of Gateway igc-gateway/igc: it does not exist");
}

#[tokio::test]
async fn endpoints_of_a_service_are_its_ready_pods() {
    let endpoint =
        |pod: &str, ready: bool| json!({"conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": pod}});
    let slice = json!({"ports": [{"name": "metrics", "port": 9090}, {"name": "http", "port": 10080}],
        "endpoints": [endpoint("b", true), endpoint("a", true), endpoint("c", false), {"addresses": ["10.0.0.9"]}]});
    let service = json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 9090, "name": "metrics"}]}});
    let (_server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/x/services/gw").answers(200, service),
        slices(),
        on("GET /apis/discovery.k8s.io/v1/namespaces/x/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dgw")
            .answers(200, list("1", &[slice])),
    ])
    .await;
    let ends = cluster.ready_endpoints("x", "gw", 80).await.expect("found");
    let found: Vec<(&str, u16)> = ends.iter().map(|end| (end.pod.as_str(), end.port)).collect();
    assert_eq!(found, [("a", 10080), ("b", 10080)]);
}

/// Port 10080 as the API server says it at the beginning of a forward.
const PORT: &[u8] = &10080_u16.to_le_bytes();

/// A Service `x/gw` whose port 80 is port 10080 of pod `a`; asked for again at each connection.
fn one_endpoint() -> [Line; 2] {
    let slice =
        json!({"ports": [{"name": "", "port": 10080}], "endpoints": [{"targetRef": {"kind": "Pod", "name": "a"}}]});
    [
        on("GET /api/v1/namespaces/x/services/gw").answers(200, json!({"spec": {"ports": [{"port": 80}]}})),
        on("GET /apis/discovery.k8s.io/v1/namespaces/x/endpointslices").answers(200, list("1", &[slice])),
    ]
}

/// A connected cluster, and what dials `x/gw`, after these forwards.
async fn forwarding(forwards: Vec<Line>) -> (Scripted, Forward) {
    let mut script = vec![];
    for forward in forwards {
        script.extend(one_endpoint());
        script.push(forward);
    }
    script.insert(1, slices());
    let (server, cluster) = Scripted::connected(script).await;
    (server, Forward::to(&cluster, "x", "gw", 80))
}

fn slices() -> Line {
    serves("discovery.k8s.io/v1", &[("EndpointSlice", "endpointslices", true)])
}

fn forward() -> Line {
    on("GET /api/v1/namespaces/x/pods/a/portforward?ports=10080")
}

#[tokio::test]
async fn each_connection_is_a_forward_of_its_own() {
    let echo = || forward().echo(&[(0, PORT), (1, PORT)]);
    let (_server, dial) = forwarding(vec![echo(), echo()]).await;
    assert_eq!(dial.describe(), "port-forward to Service x/gw:80");
    let mut first = dial.dial().await.expect("open");
    let mut second = dial.dial().await.expect("open");
    for (stream, words) in [(&mut second, b"second"), (&mut first, b"first!")] {
        stream.write_all(words).await.expect("written");
        let mut back = [0; 6];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut back));
        read.await.expect("not silent").expect("read");
        assert_eq!(&back, words);
    }
}

#[tokio::test]
async fn a_forward_that_the_pod_refuses_says_why() {
    let refused = forward().echo(&[(0, PORT), (1, PORT), (1, b"connect: connection refused")]);
    let (_server, dial) = forwarding(vec![refused]).await;
    let mut stream = dial.dial().await.expect("open");
    let mut bytes = [0; 10];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes)).await.expect("not silent");
    let error = read.expect_err("refused");
    assert_eq!(error.to_string(), "connect: connection refused");
}

#[tokio::test]
async fn a_forward_that_does_not_open_is_an_error() {
    let (_server, dial) = forwarding(vec![forward().refuses(404, "NotFound", "pods \"a\" not found")]).await;
    let Err(error) = dial.dial().await else { panic!("it opened") };
    assert!(error.to_string().contains("404"), "{error}");
}
