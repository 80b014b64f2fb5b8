//! Transformations: changes to requests and replies by CEL expressions, as agentgateway's policies write them.
//!
//! An expression that fails removes the header of its name and never fails the request; a failing `body` expression gives
//! an empty body. Source: docs/facts/agentgateway.md A5 to A7; recordings 10, 11, 12, 14, 28, 31, 33
//! of `agentgateway-standalone`.

use std::sync::Arc;

use bytes::Bytes;
use cel::{Context, Program, Value as Cel};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::{Value, json};

use super::{matching::joined, usage::Usage};

/// A CEL expression. One that does not parse is kept, and always fails.
#[derive(Debug)]
pub struct Expression {
    text: String,
    program: Option<Program>,
}

impl Expression {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), program: Program::compile(text).ok() }
    }

    /// Whether it parses. An unknown variable is found only when it runs.
    pub fn is_valid(&self) -> bool {
        self.program.is_some()
    }

    fn mentions(&self, variable: &str) -> bool {
        self.text.contains(variable)
    }

    /// Its value as text; `None` where it fails or gives something that is not text, a number or a boolean.
    fn evaluate(&self, facts: &Facts<'_>) -> Option<String> {
        let program = self.program.as_ref()?;
        let context = facts.context()?;
        match program.execute(&context).ok()? {
            Cel::String(text) => Some(text.to_string()),
            Cel::Int(number) => Some(number.to_string()),
            Cel::UInt(number) => Some(number.to_string()),
            Cel::Float(number) => Some(number.to_string()),
            Cel::Bool(truth) => Some(truth.to_string()),
            Cel::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Side {
    pub set: Vec<(String, Expression)>,
    pub add: Vec<(String, Expression)>,
    pub remove: Vec<String>,
    pub body: Option<Expression>,
}

impl Side {
    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.set.iter().chain(&self.add).map(|(_, e)| e).chain(&self.body)
    }

    fn apply(&self, facts: &Facts<'_>, headers: &mut HeaderMap) -> Option<Bytes> {
        for name in &self.remove {
            headers.remove(name.as_str());
        }
        for (pairs, adds) in [(&self.set, false), (&self.add, true)] {
            for (name, expression) in pairs {
                let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
                match expression.evaluate(facts).and_then(|v| HeaderValue::try_from(v).ok()) {
                    Some(value) if adds => _ = headers.append(name, value),
                    Some(value) => _ = headers.insert(name, value),
                    None => _ = headers.remove(name),
                }
            }
        }
        self.body.as_ref().map(|e| Bytes::from(e.evaluate(facts).unwrap_or_default()))
    }
}

#[derive(Debug, Default)]
pub struct Transformation {
    pub request: Side,
    pub response: Side,
}

impl Transformation {
    /// Whether an expression of either side reads the request's body.
    pub fn reads_request_body(&self) -> bool {
        self.request.expressions().chain(self.response.expressions()).any(|e| e.mentions("request.body"))
    }

    pub fn is_valid(&self) -> bool {
        self.request.expressions().chain(self.response.expressions()).all(Expression::is_valid)
    }

    pub fn reads_response_body(&self) -> bool {
        self.response.expressions().any(|e| e.mentions("response.body"))
    }

    pub fn on_request(&self, client: &ClientRequest, headers: &mut HeaderMap) -> Option<Bytes> {
        self.request.apply(&Facts { client, llm: None, response: None }, headers)
    }

    /// Changes a reply; returns a new body where there is one. `body` is absent where it could not be read.
    pub fn on_response(
        &self,
        client: &ClientRequest,
        llm: &LlmFacts,
        status: u16,
        headers: &mut HeaderMap,
        body: Option<&Bytes>,
    ) -> Option<Bytes> {
        let before = headers.clone();
        let response = Some((status, &before, body));
        self.response.apply(&Facts { client, llm: Some(llm), response }, headers)
    }
}

#[derive(Clone, Debug)]
pub struct ClientRequest {
    method: String,
    host: String,
    uri: Uri,
    headers: HeaderMap,
    pub body: Option<Bytes>,
}

impl ClientRequest {
    pub fn new(method: &Method, host: &str, uri: &Uri, headers: &HeaderMap) -> Self {
        Self {
            method: method.to_string(),
            host: host.to_owned(),
            uri: uri.clone(),
            headers: headers.clone(),
            body: None,
        }
    }
}

/// What an AI backend read of the exchange (`llm.*`).
#[derive(Clone, Debug, Default)]
pub struct LlmFacts {
    pub request_model: Option<String>,
    pub response_model: Option<String>,
    pub streaming: bool,
    pub usage: Option<Usage>,
}

struct Facts<'a> {
    client: &'a ClientRequest,
    llm: Option<&'a LlmFacts>,
    response: Option<(u16, &'a HeaderMap, Option<&'a Bytes>)>,
}

impl Facts<'_> {
    fn context(&self) -> Option<Context<'static, 'static>> {
        let mut context = Context::default();
        let mut request = json!({
            "method": self.client.method,
            "host": self.client.host,
            "scheme": "http",
            "path": self.client.uri.path(),
            "pathAndQuery": self.client.uri.path_and_query().map_or("/", |p| p.as_str()),
            "uri": self.client.uri.to_string(),
            "headers": headers_as_map(&self.client.headers),
        });
        put_body(&mut request, self.client.body.as_ref());
        context.add_variable("request", request).ok()?;
        if let Some((status, headers, body)) = self.response {
            let mut response = json!({"code": status, "headers": headers_as_map(headers)});
            put_body(&mut response, body);
            context.add_variable("response", response).ok()?;
        }
        if let Some(facts) = self.llm.filter(|r| r.request_model.is_some()) {
            let mut llm = json!({"streaming": facts.streaming, "requestModel": facts.request_model});
            if let Some(model) = &facts.response_model {
                llm["responseModel"] = json!(model);
            }
            if let Some(usage) = &facts.usage {
                llm["inputTokens"] = json!(usage.input);
                llm["outputTokens"] = json!(usage.output);
                llm["totalTokens"] = json!(usage.tokens());
            }
            context.add_variable("llm", llm).ok()?;
        }
        context
            .add_function("json", |text: Arc<String>| -> Result<Cel, cel::ExecutionError> {
                let refused = |message: String| cel::ExecutionError::FunctionError { function: "json".into(), message };
                let value: Value = serde_json::from_str(&text).map_err(|e| refused(e.to_string()))?;
                cel::to_value(value).map_err(|e| refused(e.to_string()))
            })
            .ok()?;
        Some(context)
    }
}

fn headers_as_map(headers: &HeaderMap) -> Value {
    let names = headers.keys().map(|name| (name.to_string(), json!(joined(headers, name.as_str()))));
    Value::Object(names.collect())
}

/// A body that is not text, or was not read, is an absent variable.
fn put_body(facts: &mut Value, body: Option<&Bytes>) {
    if let Some(text) = body.and_then(|b| std::str::from_utf8(b).ok()) {
        facts["body"] = json!(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn seen(body: Option<&'static str>) -> ClientRequest {
        let mut seen = ClientRequest::new(
            &Method::POST,
            "m.test",
            &Uri::from_static("/v1/chat/completions?a=b"),
            &HeaderMap::from_iter([(HeaderName::from_static("x-user"), HeaderValue::from_static("u"))]),
        );
        seen.body = body.map(Bytes::from);
        seen
    }

    #[rstest]
    #[case("string(json(request.body).model)", Some("asked"))]
    #[case("string(json(response.body).model)", Some("answered"))]
    #[case("llm.requestModel", Some("overridden"))]
    #[case("llm.responseModel", None)]
    #[case("'literal'", Some("literal"))]
    #[case("request.headers['x-user']", Some("u"))]
    #[case("request.method + ' ' + request.path", Some("POST /v1/chat/completions"))]
    #[case("string(response.code)", Some("200"))]
    #[case("nosuchvar.foo", None)]
    #[case("string(json(request.body).absent)", None)]
    #[case("string(json(request.body).model", None)]
    fn expressions(#[case] text: &str, #[case] value: Option<&str>) {
        let side = Side { set: vec![("x-out".to_owned(), Expression::new(text))], ..Side::default() };
        let transformation = Transformation { response: side, ..Transformation::default() };
        let mut headers =
            HeaderMap::from_iter([(HeaderName::from_static("x-out"), HeaderValue::from_static("from upstream"))]);
        let llm = LlmFacts { request_model: Some("overridden".to_owned()), ..LlmFacts::default() };
        let reply = Bytes::from_static(b"{\"model\":\"answered\"}");
        let request = seen(Some("{\"model\":\"asked\"}"));
        assert!(transformation.on_response(&request, &llm, 200, &mut headers, Some(&reply)).is_none());
        assert_eq!(headers.get("x-out").map(|v| v.to_str().expect("text")), value, "a failure removes the header");
    }

    #[test]
    fn an_unread_body_is_absent_and_a_failed_body_is_empty() {
        let side = |body| Side {
            set: vec![("x-model".to_owned(), Expression::new("string(json(request.body).model)"))],
            body,
            ..Side::default()
        };
        let transformation = Transformation { request: side(Some(Expression::new("nosuchvar"))), response: side(None) };
        assert!(transformation.reads_request_body() && !transformation.reads_response_body());
        let mut headers = HeaderMap::new();
        assert_eq!(transformation.on_request(&seen(None), &mut headers), Some(Bytes::new()));
        assert!(headers.is_empty());
    }

    #[test]
    fn validity_is_parsing_alone() {
        assert!(Expression::new("nosuchvar.foo").is_valid());
        assert!(!Expression::new("string(json(request.body).model").is_valid());
    }
}
