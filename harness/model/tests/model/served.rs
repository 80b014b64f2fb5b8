//! A model on loopback, and a client of it.

use std::{net::SocketAddr, sync::Arc};

use model::{Config, Model};
use regex::Regex;
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

/// What a model of its own answers to a call.
pub async fn answer_to(call: Call) -> Exchange {
    serve(config()).await.send(call).await
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
    let ids =
        Regex::new(r#"("(?:item_)?id":"(?:chatcmpl-|cmpl-|resp_|msg_))[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"#);
    let times = Regex::new(r#"("created(?:_at)?":)[0-9]+"#).expect("a pattern");
    let body = response(exchange).body.text.as_deref().expect("text");
    times.replace_all(&ids.expect("a pattern").replace_all(body, "${1}ID"), "${1}0").into_owned()
}
