//! The reply on its way back: what an AI backend's reply becomes, filters, the headers of limits, expressions.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, header, response::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde_json::Value;

use super::{Exchange, headers};
use crate::{
    dataplane::{
        ai,
        bodies::{self, Body, BodyError, Held},
        limits::WindowState,
        local_reply::Failure,
        routing::{Backend, Filter, HeaderCase, HeaderEdit, Provider, Rule},
        transform::LlmFacts,
        upstream::{self, Upstream, UpstreamReply},
        usage::Usage,
    },
    hops::Between,
};

pub(super) struct Reply {
    pub(super) parts: Parts,
    pub(super) body: Body,
    pub(super) streaming: bool,
}

impl Exchange<'_> {
    pub(super) async fn call(
        &mut self,
        backend: &Backend,
        endpoint: Option<SocketAddr>,
        request: Request<Body>,
    ) -> Result<(Parts, UpstreamReply), Failure> {
        let network = self.proxy.network().over(Between::GatewayModel);
        let upstream = Upstream { network: &network, target: &backend.target, endpoint };
        let (response, connection) = self.interceptor().call(&upstream, request).await?;
        let (mut parts, incoming) = response.into_parts();
        let keep_alive = parts.headers.get(upstream::KEEP_ALIVE).filter(|_| self.table.passes_keep_alive).cloned();
        parts.headers = upstream::end_to_end(&parts.headers);
        if let Some(value) = keep_alive {
            parts.headers.insert(upstream::KEEP_ALIVE, value);
        }
        if self.table.header_case == HeaderCase::Lower {
            parts.extensions.clear();
        }
        let streaming = headers::content_type(&parts.headers).is_some_and(|t| t.starts_with("text/event-stream"));
        let transformed = self.entry.as_ref().is_some_and(|entry| {
            let filters = &entry.rule.filters;
            entry.rule.transformation.is_some() || filters.iter().any(|f| matches!(f, Filter::Response(_)))
        });
        let (body, connection) = (bodies::boxed(incoming), Some(connection));
        Ok((parts, UpstreamReply { body, connection, streaming, transformed }))
    }

    pub(super) async fn read_provider_reply(
        &mut self,
        provider: Option<&Provider>,
        mut reply: Reply,
    ) -> Result<Reply, Failure> {
        let (success, headers) = (reply.parts.status.is_success(), &mut reply.parts.headers);
        let is_json = headers::content_type(headers).is_some_and(|t| t.starts_with("application/json"));
        match provider {
            Some(provider) if provider.rewrites_reply && success && !reply.streaming => {
                let (bytes, read) = ai::reply_body(&collected(reply.body).await?)?;
                self.llm.response_model = read.get("model").and_then(Value::as_str).map(str::to_owned);
                self.llm.usage = Usage::of(&read);
                headers.remove(header::CONTENT_LENGTH);
                reply.body = bodies::whole(bytes);
            }
            Some(provider) if provider.wraps_errors && !success && !is_json => {
                let wrapped = ai::wrapped_error(reply.parts.status.as_u16(), &collected(reply.body).await?);
                headers.insert(header::CONTENT_LENGTH, wrapped.len().into());
                headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
                reply.body = bodies::whole(wrapped);
            }
            Some(_) if reply.streaming => {
                headers.remove(header::CONTENT_LENGTH);
            }
            _ => {}
        }
        Ok(reply)
    }

    pub(super) async fn transform_reply(&mut self, rule: &Rule, reply: Reply) -> Result<(Parts, Body), Failure> {
        let Reply { mut parts, body, streaming } = reply;
        let mut edits: Vec<&HeaderEdit> = rule
            .filters
            .iter()
            .filter_map(|filter| match filter {
                Filter::Response(changes) => Some(changes),
                _ => None,
            })
            .collect();
        self.interceptor().response_edits(&parts.headers, &body, &mut edits);
        for changes in edits {
            headers::edit(&mut parts.headers, changes);
        }
        if let Some(state) = WindowState::tightest(self.budgets.iter().copied()) {
            headers::append_all(&mut parts.headers, state.headers());
        }
        parts.version = http::Version::HTTP_11;
        self.express(rule, parts, body, streaming).await
    }

    async fn express(
        &mut self,
        rule: &Rule,
        mut parts: Parts,
        mut body: Body,
        streaming: bool,
    ) -> Result<(Parts, Body), Failure> {
        let Some(transformation) = &rule.transformation else { return Ok((parts, body)) };
        let mut read = None;
        if transformation.reads_response_body() {
            let bound = self.interceptor().read_buffer(body.size_hint().lower(), streaming);
            (read, body) = read_for_expressions(body, &parts.headers, bound).await?;
            read = read.and_then(|read| self.interceptor().readable(&parts.headers, read));
        }
        self.interceptor().expression_bodies(&mut self.client.body, &mut read);
        let unread = LlmFacts::default(); // a stream has not been read when its head goes out (33-stream-ai-transform)
        let llm = if streaming { &unread } else { &self.llm };
        let (status, before) = (parts.status.as_u16(), parts.headers.clone());
        if let Some(bytes) = transformation.on_response(&self.client, llm, status, &mut parts.headers, read.as_ref()) {
            parts.headers.remove(header::CONTENT_LENGTH);
            body = bodies::whole(bytes);
        }
        self.interceptor().transformed(&before, &mut parts.headers);
        Ok((parts, body))
    }
}

fn broken(error: BodyError) -> Failure {
    Failure::Upstream { connecting: false, words: error.to_string() }
}

async fn collected(body: Body) -> Result<Bytes, Failure> {
    Ok(body.collect().await.map_err(broken)?.to_bytes())
}

/// Reads a reply for expressions, up to the bound; streams are read whole as well (docs/facts/agentgateway.md A7).
async fn read_for_expressions(body: Body, headers: &HeaderMap, bound: usize) -> Result<(Option<Bytes>, Body), Failure> {
    let sized = headers.contains_key(header::CONTENT_LENGTH) || body.size_hint().exact().is_some();
    Ok(match bodies::hold(body, bound).await.map_err(broken)? {
        Held::Whole(bytes) if sized => (Some(bytes.clone()), bodies::whole(bytes)),
        Held::Whole(bytes) => (Some(bytes.clone()), bodies::unsized_body(bytes)),
        Held::TooLarge(read, rest) => (None, bodies::resumed(read, rest)),
    })
}
