//! An exchange: the way of one request through a proxy, a chain of stages in the order of the gateways' own filters.
//!
//! accept -> match a route -> model of the body, second match (Envoy AI Gateway) -> check limits -> transform the request ->
//! pick an endpoint -> request of an AI backend, limits on tokens -> upstream -> meter -> transform the reply -> write.
//! Transformations run on replies of the proxy too. What stands between two stages is the proxy's
//! [`Interceptor`](super::interceptor::Interceptor).

mod headers;
mod limit;
mod pick;
mod reply;
mod request;
mod route;

use std::{future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;

use super::{
    bodies::{self, Body, Deadline, Held},
    interceptor::Interceptor,
    limits::WindowState,
    local_reply::{Failure, LocalReply},
    proxy::Proxy,
    routing::{Entry, GlobalLimit, RequestHead, Table, Target},
    transform::{ClientRequest, LlmFacts},
    upstream,
};

pub(super) async fn answer(proxy: &Proxy, port: u16, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let table = proxy.table();
    let is_head = request.method() == Method::HEAD;
    let mut exchange = Exchange::accept(proxy, &table, port, peer, request);
    let (is_own, response) = match exchange.run().await {
        Ok(response) => (false, response),
        Err(Stop::Reply(reply)) => (true, exchange.write_local(reply)),
        Err(Stop::Failure(failure)) => {
            let reply = proxy.interceptor().local_reply(&failure, (table.local_reply)(&failure));
            (true, exchange.write_local(reply))
        }
    };
    if is_head { response } else { proxy.interceptor().respond(is_own, response).await }
}

enum Stop {
    Failure(Failure),
    Reply(LocalReply),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

struct Exchange<'a> {
    proxy: &'a Proxy,
    table: &'a Table,
    port: u16,
    client: ClientRequest,
    method: Method,
    host: String,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Option<Body>,
    read: Option<Bytes>,
    entry: Option<Arc<Entry>>,
    /// How the budgets of the rate limit service stood when the request came.
    budgets: Vec<WindowState>,
    buckets: Vec<(String, GlobalLimit)>,
    llm: LlmFacts,
    usage_asked: bool,
}

impl<'a> Exchange<'a> {
    fn accept(proxy: &'a Proxy, table: &'a Table, port: u16, peer: SocketAddr, request: Request<Incoming>) -> Self {
        let (parts, body) = request.into_parts();
        let host = host_of(&parts.uri, &parts.headers);
        let mut headers = upstream::end_to_end(&parts.headers);
        if table.tells_of_clients() {
            headers::tell_of_client(&mut headers, peer.ip());
        }
        proxy.interceptor().forwarded_headers(&parts.headers, &mut headers);
        Self {
            proxy,
            table,
            port,
            client: ClientRequest::new(&parts.method, &host, &parts.uri, &parts.headers),
            method: parts.method,
            host,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or("").to_owned(),
            headers,
            body: Some(bodies::boxed(body)),
            read: None,
            entry: None,
            budgets: Vec::new(),
            buckets: Vec::new(),
            llm: LlmFacts::default(),
            usage_asked: false,
        }
    }

    async fn run(&mut self) -> Result<Response<Body>, Stop> {
        let entry = self.route().await?;
        let rule = &entry.rule;
        self.check_limits(&entry)?;
        self.transform_request(rule).await?;
        let host = self.filter(&entry)?;
        let backend = self.proxy.turn(rule).and_then(|at| rule.backends.get(at)).ok_or(Failure::NoBackends)?;
        headers::edit(&mut self.headers, &backend.request);
        let timeout = rule.timeout.filter(|timeout| !timeout.is_zero());
        let mut deadline = timeout.map(|timeout| Box::pin(self.proxy.clock().delay(timeout)) as Deadline);
        let picked = match &backend.target {
            Target::Pool(pool) => Some(within(&mut deadline, self.pick(pool)).await?),
            _ => None,
        };
        match &backend.provider {
            Some(provider) => self.ask_provider(rule, backend, provider).await?,
            None => self.reserve_tokens(rule, backend)?,
        }
        let endpoint = picked.as_ref().map(|picked| picked.endpoint);
        let request = self.upstream_request(backend.host_rewrite.clone().or(host))?;
        let reply = within(&mut deadline, self.call(backend, endpoint, request)).await?;
        let reply = self.meter(rule, backend, reply, deadline);
        let reply = self.read_provider_reply(backend.provider.as_ref(), reply).await?;
        let reply = pick::tell_picker(picked, reply).await?;
        let (parts, body) = self.transform_reply(rule, reply).await?;
        Ok(Response::from_parts(parts, body))
    }

    fn interceptor(&self) -> &'a dyn Interceptor {
        &**self.proxy.interceptor()
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
        }
    }

    fn take_body(&mut self) -> Body {
        match (self.read.take(), self.body.take()) {
            (Some(read), _) => bodies::whole(read),
            (None, Some(body)) => body,
            (None, None) => bodies::whole(Bytes::new()),
        }
    }

    /// Reads up to `bound` bytes of the request's body and keeps them; `None` where it is larger (it stays readable).
    async fn read_body(&mut self, bound: usize) -> Result<Option<Bytes>, Failure> {
        if let Some(read) = &self.read {
            return Ok(Some(read.clone()));
        }
        let Some(body) = self.body.take() else {
            return Ok(Some(Bytes::new()));
        };
        match bodies::hold(body, bound).await.map_err(|_| Failure::BodyUnreadable)? {
            Held::Whole(bytes) => {
                self.read = Some(bytes.clone());
                Ok(Some(bytes))
            }
            Held::TooLarge(read, rest) => {
                self.body = Some(bodies::resumed(read, rest));
                Ok(None)
            }
        }
    }

    /// A reply that the proxy writes itself. Transformations see it.
    fn write_local(&self, reply: LocalReply) -> Response<Body> {
        let mut headers = HeaderMap::new();
        headers::append_all(&mut headers, reply.headers.iter().map(|(n, v)| (n.as_str(), v.clone())));
        headers.insert(header::CONTENT_LENGTH, reply.body.len().into());
        let mut body = reply.body;
        if let Some(transformation) = self.entry.as_ref().and_then(|e| e.rule.transformation.as_ref())
            && let Some(bytes) =
                transformation.on_response(&self.client, &self.llm, reply.status, &mut headers, Some(&body))
        {
            headers.insert(header::CONTENT_LENGTH, bytes.len().into());
            body = bytes;
        }
        let mut response = Response::new(bodies::whole(body));
        *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        response
    }
}

/// Host or `:authority`, in lower case, without port.
fn host_of(uri: &Uri, headers: &HeaderMap) -> String {
    let authority = uri.authority().map(|a| a.as_str().to_owned());
    let host = authority
        .or_else(|| headers.get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned))
        .unwrap_or_default()
        .to_ascii_lowercase();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name.to_owned(),
        _ => host,
    }
}

/// What comes of a stage, unless the route's time is over before.
async fn within<T, E: From<Failure>>(
    deadline: &mut Option<Deadline>,
    stage: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match deadline {
        None => stage.await,
        Some(deadline) => tokio::select! {
            biased;
            () = deadline => Err(Failure::Timeout.into()),
            done = stage => done,
        },
    }
}
