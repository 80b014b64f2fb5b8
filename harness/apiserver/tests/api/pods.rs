//! Pods through the server: logs, proxies, forwards.

use std::{io, net::SocketAddr, sync::Arc};

use apiserver::{PodDialer, ServerOptions, kinds};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{World, status, store};

/// One pod, whose address leads to a socket on loopback.
struct OnePod(SocketAddr);

impl PodDialer for OnePod {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        if address != "10.244.0.7:8080".parse().unwrap() {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        Box::pin(TcpStream::connect(self.0))
    }

    fn log(&self, _namespace: &str, pod: &str, container: Option<&str>) -> Option<String> {
        (pod == "p" && container.is_none_or(|c| c == "c")).then(|| "one\ntwo\nthree\n".into())
    }
}

/// A world with a pod that answers every request with its head.
pub async fn world() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let answer = format!("HTTP/1.1 202 Accepted\r\ncontent-length: {}\r\n\r\n", head.len());
                stream.write_all(answer.as_bytes()).await?;
                stream.write_all(&head).await
            });
        }
    });
    let options = ServerOptions { pods: Arc::new(OnePod(address)), ..ServerOptions::default() };
    let world = World::with(store(), options).await;
    let ports = json!([{"containerPort": 8080, "name": "http"}]);
    world.keep("Pod", "p", json!({"spec": {"containers": [{"name": "c", "ports": ports}]}}));
    world.store.update_status(&kinds::POD, "default", "p", |s| s["podIP"] = json!("10.244.0.7")).unwrap();
    world.keep("Service", "s", json!({"spec": {"ports": [{"port": 80, "name": "web", "targetPort": 8080}]}}));
    world
}

#[tokio::test]
async fn logs_come_from_the_dialer() {
    let world = world().await;
    let pods: Api<Pod> = Api::default_namespaced(world.client.clone());
    assert_eq!(pods.logs("p", &LogParams::default()).await.unwrap(), "one\ntwo\nthree\n");
    let last = LogParams { tail_lines: Some(1), ..LogParams::default() };
    assert_eq!(pods.logs("p", &last).await.unwrap(), "three\n");
    let other = LogParams { container: Some("x".into()), ..LogParams::default() };
    let refused = status(pods.logs("p", &other).await.unwrap_err());
    assert_eq!(refused.message, "container x is not valid for pod p");
    assert_eq!(status(pods.logs("q", &LogParams::default()).await.unwrap_err()).code, 404);
}

#[tokio::test]
async fn requests_are_passed_on_to_pods_and_services() {
    let world = world().await;
    let pod = "/api/v1/namespaces/default/pods/p:http/proxy/v1/models?x=%20y";
    let answer = world.send("GET", pod, "", "").await;
    assert_eq!(answer.code(), 202);
    let head = String::from_utf8_lossy(answer.0.body()).into_owned();
    assert!(head.starts_with("GET /v1/models?x=%20y HTTP/1.1\r\n"), "{head}");
    let service = "/api/v1/namespaces/default/services/http:s:web/proxy/";
    let answer = world.send("GET", service, "", "").await;
    assert_eq!(answer.code(), 503);
    assert_eq!(answer.json()["message"], "no endpoints available for service \"s\"");
    world
        .store
        .create(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "s-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"name": "web", "port": 8080}],
        "endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": true}}]}))
        .unwrap();
    assert_eq!(world.send("GET", service, "", "").await.code(), 202);
    let answer = world.send("GET", "/api/v1/namespaces/default/services/s:9/proxy/", "", "").await;
    assert_eq!(answer.json()["message"], "no service port \"9\" found for service \"s\"");
}

#[tokio::test]
async fn ports_are_forwarded_to_a_pod() {
    let world = world().await;
    let pods: Api<Pod> = Api::default_namespaced(world.client.clone());
    let mut forwarder = pods.portforward("p", &[8080]).await.unwrap();
    let mut stream = forwarder.take_stream(8080).unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 Accepted\r\n") && answer.contains("GET /x"), "{answer}");
    let plain = world.send("GET", "/api/v1/namespaces/default/pods/p/portforward?ports=8080", "", "").await;
    assert_eq!(plain.code(), 400);
}
