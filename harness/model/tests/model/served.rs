//! A model on loopback, and a client of it.

use std::{net::SocketAddr, sync::Arc};

use model::{Config, Model};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use verdict::history::{Exchange, Response};
use wire::{Call, Client, Tcp};

/// A model that is served until the test ends.
pub struct Served {
    pub model: Model,
    pub client: Client,
    pub address: SocketAddr,
}

/// The pod of the recordings.
pub fn config() -> Config {
    Config { pod: "mock-llm-0".into(), namespace: "lab".into(), port: 8_080, ..Config::default() }
}

pub async fn serve(config: Config) -> Served {
    let model = Model::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = model.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    Served { model, client: Client::new(Arc::new(Tcp::to(address)), "test"), address }
}

impl Served {
    pub async fn send(&self, call: Call) -> Exchange {
        self.client.send("x", call).await
    }

    /// What was recorded of an exchange.
    pub fn record(&self, exchange: &Exchange) -> verdict::history::ModelRecord {
        let records = self.model.records();
        let found = records.iter().find(|r| r.exchange.as_deref() == Some(&exchange.id));
        found.unwrap_or_else(|| panic!("{} is not in {records:#?}", exchange.id)).clone()
    }
}

/// A chat with one message of a user.
pub fn chat(content: &str) -> Call {
    Call::post("/v1/chat/completions").json(&chat_body(content))
}

pub fn chat_body(content: &str) -> Value {
    json!({"model": "mock-llm", "messages": [{"role": "user", "content": content}]})
}

pub fn response(exchange: &Exchange) -> &Response {
    exchange.response().unwrap_or_else(|| panic!("{}", exchange.outcome_words()))
}

/// The body with ids and times replaced, so that it can be compared as text.
pub fn body(exchange: &Exchange) -> String {
    let body = response(exchange).body.text.clone().expect("text");
    let after_id = |s: &str| s.find(['"', '\\']).unwrap_or(s.len());
    let mut redacted = String::new();
    let mut rest = body.as_str();
    while let Some(at) = ["\"id\":\"chatcmpl-", "\"id\":\"cmpl-", "\"id\":\"resp_", "\"item_id\":\"msg_"]
        .iter()
        .filter_map(|p| rest.find(p).map(|at| at + p.len()))
        .min()
    {
        redacted.push_str(&rest[..at]);
        let id = &rest[at..at + after_id(&rest[at..])];
        assert!(id.len() >= 36 && id.matches('-').count() >= 4, "{id} holds no UUID");
        redacted.push_str("ID");
        redacted.push_str(&id[36..]);
        rest = &rest[at + id.len()..];
    }
    redacted.push_str(rest);
    let mut times = String::new();
    let mut rest = redacted.as_str();
    while let Some(at) =
        ["\"created\":", "\"created_at\":"].iter().filter_map(|p| rest.find(p).map(|at| at + p.len())).min()
    {
        times.push_str(&rest[..at]);
        times.push('0');
        rest = rest[at..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    times + rest
}
