//! The request on its way: expressions, filters, what an AI backend makes of it, and what is sent in the end.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use hyper::body::Body as _;
use serde_json::Value;

use super::{Exchange, Stop, headers};
use crate::dataplane::{
    ai,
    bodies::{Body, READ_BUFFER},
    local_reply::Failure,
    routing::{Backend, Entry, Filter, PathMatch, PathRewrite, Provider, Rule},
};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

impl Exchange<'_> {
    pub(super) async fn transform_request(&mut self, rule: &Rule) -> Result<(), Failure> {
        let Some(transformation) = &rule.transformation else {
            return Ok(());
        };
        if transformation.reads_request_body() {
            let size = self.body.as_ref().map_or(0, |body| body.size_hint().lower());
            self.client.body = self.read_body(self.interceptor().read_buffer(size, false)).await?;
        }
        if let Some(body) = transformation.on_request(&self.client, &mut self.headers) {
            self.headers.remove(header::CONTENT_LENGTH);
            self.read = Some(body);
        }
        Ok(())
    }

    /// Returns the Host that the filters write.
    pub(super) fn filter(&mut self, entry: &Entry) -> Result<Option<String>, Stop> {
        let mut host = None;
        for filter in &entry.rule.filters {
            match filter {
                Filter::Request(changes) => headers::edit(&mut self.headers, changes),
                Filter::Response(_) => {}
                Filter::Rewrite { host: new_host, path } => {
                    host = new_host.clone().or(host);
                    if let Some(rewrite) = path {
                        self.path = rewritten(&self.path, &entry.matches.path, rewrite);
                    }
                }
                Filter::Direct(reply) => return Err(Stop::Reply(reply.clone())),
            }
        }
        Ok(host)
    }

    pub(super) async fn ask_provider(
        &mut self,
        rule: &Rule,
        backend: &Backend,
        provider: &Provider,
    ) -> Result<(), Failure> {
        // A client's destination header is taken for the choice of a picker that the route does not have.
        let foreign = rule.extraction.as_ref().is_some_and(|e| self.headers.contains_key(e.destination_header));
        if foreign && !backend.is_pool() {
            return Err(Failure::ForeignDestination);
        }
        let body = self.read_body(READ_BUFFER).await?;
        let body = body.ok_or_else(|| Failure::UnreadableRequest("request was too large".to_owned()))?;
        let mut request =
            if provider.parses_chat { ai::parse_chat(&body)? } else { ai::parse(&body).unwrap_or(Value::Null) };
        self.interceptor().chat(&mut request);
        self.reserve_tokens(rule, backend)?;
        self.usage_asked = request.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
        let asked = ai::request(&request);
        self.llm.request_model = provider.model.clone().or(asked.model);
        if provider.parses_chat && self.llm.request_model.is_none() {
            return Err(Failure::UnreadableRequest("missing field: model not specified".to_owned()));
        }
        self.llm.streaming = asked.stream;
        if request.is_object() {
            let sent = ai::request_body(&body, &request, provider);
            if sent != body {
                self.headers.insert(header::CONTENT_LENGTH, sent.len().into());
            }
            self.read = Some(sent);
        }
        if let Some(path) = &provider.path {
            (self.path, self.query) = (path.clone(), String::new());
        }
        if let Some(prefix) = &provider.prefix
            && let Some(rest) = self.path.strip_prefix("/v1")
        {
            self.path = format!("/{}{rest}", prefix.trim_matches('/'));
        }
        Ok(())
    }

    pub(super) fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query) }
    }

    pub(super) fn upstream_request(&mut self, host: Option<String>) -> Result<Request<Body>, Failure> {
        let target = self.target().parse::<Uri>().map_err(|_| Failure::BodyUnreadable)?;
        let asked = self.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or(&self.host).to_owned();
        if host.is_some() && self.table.tells_of_clients() {
            headers::append_element(&mut self.headers, X_FORWARDED_HOST, &asked);
        }
        let host = host.unwrap_or(asked);
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1);
        if let Ok(host) = HeaderValue::from_str(&host) {
            headers.insert(header::HOST, host);
        }
        for (name, value) in &self.headers {
            if *name != header::HOST && *name != header::EXPECT {
                headers.append(name.clone(), value.clone());
            }
        }
        let body = self.take_body();
        if body.is_end_stream() && !self.headers.contains_key(header::CONTENT_LENGTH) {
            headers.remove(header::CONTENT_LENGTH);
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn rewritten(path: &str, matched: &PathMatch, rewrite: &PathRewrite) -> String {
    match (rewrite, matched) {
        (PathRewrite::Full(new), _) => new.clone(),
        (PathRewrite::Prefix(new), PathMatch::Prefix(prefix)) => {
            let rest = path.strip_prefix(prefix.trim_end_matches('/')).unwrap_or(path);
            let new = format!("{}{rest}", new.trim_end_matches('/'));
            if new.starts_with('/') { new } else { format!("/{new}") }
        }
        (PathRewrite::Prefix(_), _) => path.to_owned(),
    }
}
