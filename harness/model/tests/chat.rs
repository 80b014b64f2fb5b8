//! Chat through a socket: arithmetic, shapes and records as llm-d-inference-sim v0.10.2 was recorded.

use std::sync::Arc;

use model::{Config, Model};
use serde_json::json;
use tokio::net::TcpListener;
use wire::{Call, Client, Tcp};

#[tokio::test]
async fn hello() {
    let model = Model::new(Config { pod: "pod-1".into(), namespace: "ns-1".into(), ..Config::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = model.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let client = Client::new(Arc::new(Tcp::to(address)), "t");
    let body = json!({"model": "mock-llm", "messages": [{"role": "user", "content": "Hello"}]});
    let exchange = client
        .send("x", Call::post("/v1/chat/completions").host("h").header("Authorization", "Bearer x").json(&body))
        .await;
    println!("{exchange:#?}\n{:#?}", model.records());
    let exchange = client.send("x", Call::post("/v1/chat/completions").host("h").json(&body).stream()).await;
    println!("{exchange:#?}\n{:#?}", model.records());
}
