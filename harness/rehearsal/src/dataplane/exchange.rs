//! The exchange room: the way of one request through a proxy, in the order of the gateways' own filters.
//!
//! match -> model extraction and second match (Envoy AI Gateway) -> limits on requests -> filters -> backend ->
//! AI request and limits on tokens -> upstream -> reply, accounting. Transformations run on replies of the proxy too.

use std::{future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde_json::{Value, json};

mod pick;

use pick::{Picked, Way};

use super::{
    bodies::{self, AtEnd, Body, Deadline, Held, Passing},
    limits::WindowState,
    proxy::Proxy,
    rewrite,
    routing::{
        Asked, Backend, Entry, ExistingHeader, Extraction, Filter, GlobalLimit, HeaderCase, HeaderEdit, LocalLimit,
        PathMatch, PathRewrite, Provider, Rule, Table, Target, Unit,
    },
    transform::{Reading, Seen},
    upstream,
    usage::{Listening, Usage},
    words::{Answer, Failure},
};
use crate::{
    hops::Between,
    mutants::{Mutant, Mutants, replies::Coming},
};

/// What Envoy buffers of a body where nothing else is said (facts/envoy-ai-gateway.md section 3).
const DEFAULT_BUFFER: usize = 32 * 1024;
/// What agentgateway reads of a body for expressions and AI backends (facts/agentgateway.md section 2).
const READ_BUFFER: usize = 2 * 1024 * 1024;

/// Answers one request.
pub(super) async fn answer(proxy: &Proxy, port: u16, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let table = proxy.table();
    let (parts, body) = request.into_parts();
    let host = host_of(&parts.uri, &parts.headers);
    let mut exchange = Exchange {
        proxy,
        table: &table,
        port,
        peer,
        seen: Seen::new(&parts.method, &host, &parts.uri, &parts.headers),
        method: parts.method,
        host,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or("").to_owned(),
        headers: upstream::passed_on(&parts.headers, proxy.mutants()),
        body: Some(bodies::boxed(body)),
        read: None,
        entry: None,
        states: Vec::new(),
        reading: Reading::default(),
        asks_for_usage: false,
    };
    match exchange.run().await {
        Ok(response) => response,
        Err(failure) => exchange.local(proxy.mutants().answer(&failure, (table.words)(&failure))),
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

struct Exchange<'a> {
    proxy: &'a Proxy,
    table: &'a Arc<Table>,
    port: u16,
    peer: SocketAddr,
    seen: Seen,
    method: Method,
    host: String,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Option<Body>,
    /// The request body, once it was read whole.
    read: Option<Bytes>,
    entry: Option<Arc<Entry>>,
    states: Vec<WindowState>,
    reading: Reading,
    /// Whether the client asked for the usage of a stream.
    asks_for_usage: bool,
}

/// A global limit that this request is charged to after its reply.
struct Charge {
    bucket: String,
    limit: GlobalLimit,
}

impl Exchange<'_> {
    async fn run(&mut self) -> Result<Response<Body>, Failure> {
        let mut entry = self.choose()?;
        if let Some(extraction) = entry.rule.extraction.clone() {
            if let Some(answer) = self.extract(&entry.rule, &extraction).await? {
                return Ok(self.local(answer));
            }
            entry = self.choose()?;
        }
        if self.is(Mutant::SendsOneInFiftyElsewhere) && self.mutants().is_one_in(50) {
            entry = self.neighbour(&entry).unwrap_or(entry);
        }
        self.entry = Some(Arc::clone(&entry));
        let rule = Arc::clone(&entry.rule);
        for limit in rule.local_limits.iter().filter(|l| l.unit == Unit::Requests) {
            self.proxy.admit(limit, 1)?;
        }
        let fails = |rule: &Rule| rule.transformation.as_ref().is_some_and(|t| !t.is_valid());
        if fails(&rule) && self.is(Mutant::BadExpressionAs500) {
            return Ok(self.local(Answer::empty(500)));
        }
        let charges = self.ask_global_limits(&entry)?;
        self.transform_request(&rule).await?;
        let rewrite_host = match self.filter(&entry) {
            Filtered::On { host } => host,
            Filtered::Direct(answer) => return Ok(self.local(answer)),
        };
        let backend = rule.backends.get(self.proxy.turn(&rule).ok_or(Failure::NoBackends)?);
        let backend = backend.ok_or(Failure::NoBackends)?;
        edit(&mut self.headers, &backend.request);
        let mut deadline: Option<Deadline> =
            rule.timeout.filter(|t| !t.is_zero()).map(|t| Box::pin(self.proxy.clock().delay(t)) as Deadline);
        let picked = match &backend.target {
            Target::Pool(pool) => match within(&mut deadline, self.pick(pool)).await? {
                Way::To(picked) => Some(picked),
                Way::Instead(answer) => return Ok(self.local(answer)),
            },
            _ if backend.provider.is_some() => {
                self.refuse_foreign_destination(&rule)?;
                None
            }
            _ => {
                for limit in rule.local_limits.iter().filter(|l| l.unit == Unit::Tokens) {
                    if self.is(Mutant::LimitsPlainRoutes) {
                        self.proxy.admit(limit, 7)?;
                    }
                }
                None
            }
        };
        if let Some(provider) = &backend.provider {
            self.ask_provider(&rule, provider).await?;
        }
        self.forward(&rule, backend, picked, deadline, rewrite_host, charges).await
    }

    /// An AI route takes a client's destination header for the choice of a picker that it does not have.
    fn refuse_foreign_destination(&self, rule: &Rule) -> Result<(), Failure> {
        match &rule.extraction {
            Some(extraction) if self.headers.contains_key(extraction.destination_header) => {
                Err(Failure::ForeignDestination)
            }
            _ => Ok(()),
        }
    }

    /// Another rule of the same hostname that leads anywhere.
    fn neighbour(&self, entry: &Entry) -> Option<Arc<Entry>> {
        let entries = self.table.listeners.iter().flat_map(|l| &l.entries);
        let other = |e: &&Arc<Entry>| e.id.host == entry.id.host && !e.rule.backends.is_empty() && e.id != entry.id;
        entries.into_iter().find(other).cloned()
    }

    fn mutants(&self) -> &Mutants {
        self.proxy.mutants()
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutants().is(mutant)
    }

    fn pseudo_headers(&self) -> [(&'static str, String); 4] {
        let host = self.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or(&self.host);
        [
            (":method", self.method.to_string()),
            (":scheme", "http".to_owned()),
            (":authority", host.to_owned()),
            (":path", self.target()),
        ]
    }

    /// Path and query as they go on.
    fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query) }
    }

    /// The request body, read or not.
    fn take_body(&mut self) -> Body {
        match (self.read.take(), self.body.take()) {
            (Some(read), _) => bodies::whole(read),
            (None, Some(body)) => body,
            (None, None) => bodies::whole(Bytes::new()),
        }
    }

    fn choose(&self) -> Result<Arc<Entry>, Failure> {
        let asked = Asked {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
        };
        match self.table.choose(self.port, &asked) {
            Err(Failure::NoHost | Failure::NoListener) if self.is(Mutant::IgnoresHost) => {
                let entries = self.table.listeners.iter().flat_map(|l| &l.entries);
                let mut others = entries.filter(|e| !e.rule.backends.is_empty() && e.matches.covers(&asked));
                others.next().cloned().ok_or(Failure::NoHost)
            }
            chosen => chosen.map(Arc::clone),
        }
    }

    /// Reads up to `bound` bytes of the request body and keeps them; `None` where it is larger (it stays readable).
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

    /// Finds the model in the body and puts it where routes look for it; some paths are answered here.
    async fn extract(&mut self, rule: &Rule, extraction: &Extraction) -> Result<Option<Answer>, Failure> {
        if self.method == Method::GET && self.path == "/v1/models" {
            return Ok(Some(models(extraction, &self.host)));
        }
        if !extraction.paths.contains(&self.path.as_str()) && !self.is(Mutant::PassesUnknownPaths) {
            return Err(Failure::UnsupportedPath(self.path.clone()));
        }
        let bound = rule.buffer_limit.unwrap_or(DEFAULT_BUFFER);
        let body = self.read_body(bound).await?.ok_or(Failure::BodyTooLarge)?;
        if body.is_empty() && !self.is(Mutant::DefaultsToFirstModel) {
            return Ok(None); // without a body the parser is never called
        }
        let request = if body.is_empty() { Ok(Value::Null) } else { rewrite::parse(&body) };
        let request = request.map_err(|error| Failure::MalformedJson {
            path: self.path.clone(),
            words: error.to_string(),
            body: body.clone(),
        })?;
        let mut model = rewrite::question(&request).model;
        if model.as_ref().is_none_or(String::is_empty) && self.is(Mutant::DefaultsToFirstModel) {
            model =
                extraction.models.iter().find(|(host, ..)| host.covers(&self.host)).map(|(_, model, ..)| model.clone());
        }
        if let Some(model) = model
            && let Ok(value) = HeaderValue::from_str(&model)
            && !self.is(Mutant::DropsModelHeaderRewrite)
            && !(self.headers.contains_key(extraction.header) && self.is(Mutant::TrustsClientModelHeader))
        {
            put_model(&mut self.headers, extraction, value);
        }
        Ok(None)
    }

    fn ask_global_limits(&mut self, entry: &Entry) -> Result<Vec<Charge>, Failure> {
        let (now, mutants) = (self.proxy.clock().now_ms(), self.proxy.mutants());
        let mut charges = Vec::new();
        let mut windows = self.proxy.windows().lock();
        for limit in &entry.rule.global_limits {
            if let Some(bucket) = mutants.bucket_of(limit, &entry.id, &self.headers) {
                let time = mutants.time_for(&bucket, limit.limit.seconds * 1000, now);
                let hits = mutants.charge_before().unwrap_or(limit.request_hits);
                let mut state = windows.ask(time, &bucket, limit.limit, hits);
                state.reset = limit.limit.reset_seconds(now);
                self.states.push(mutants.state(state));
                charges.push(Charge { bucket, limit: limit.clone() });
            }
        }
        drop(windows);
        if self.is(Mutant::ChargesPerGateway) && charges.is_empty() {
            let rules = self.table.listeners.iter().flat_map(|l| &l.entries).map(|e| &e.rule);
            let limits = rules.flat_map(|rule| &rule.global_limits).take(1).cloned();
            charges.extend(limits.map(|limit| Charge { bucket: limit.name.clone(), limit }));
        }
        match WindowState::tightest(self.states.iter().copied()) {
            Some(state) if state.over && mutants.lets_pass() => {
                self.states.clear();
                Ok(charges)
            }
            Some(state) if state.over => Err(Failure::OverWindow(state)),
            _ => Ok(charges),
        }
    }

    async fn transform_request(&mut self, rule: &Rule) -> Result<(), Failure> {
        let Some(transformation) = &rule.transformation else {
            return Ok(());
        };
        if transformation.reads_request_body() {
            self.seen.body = self.read_body(READ_BUFFER).await?;
        }
        if let Some(body) = transformation.on_request(&self.seen, &mut self.headers) {
            self.headers.remove(header::CONTENT_LENGTH);
            self.read = Some(body);
        }
        Ok(())
    }

    /// Carries out the filters of a rule in their order.
    fn filter(&mut self, entry: &Entry) -> Filtered {
        let mut host = None;
        for filter in &entry.rule.filters {
            match filter {
                Filter::Request(changes) => edit(&mut self.headers, changes),
                Filter::Response(_) => {}
                Filter::Rewrite { host: new_host, path } => {
                    host = new_host.clone().or(host);
                    if let Some(rewrite) = path {
                        self.path = rewritten(&self.path, &entry.matches.path, rewrite);
                    }
                }
                Filter::Direct(answer) => return Filtered::Direct(answer.clone()),
            }
        }
        Filtered::On { host }
    }

    /// What an AI backend makes of a request, and the limits on tokens that stand before it.
    async fn ask_provider(&mut self, rule: &Rule, provider: &Provider) -> Result<(), Failure> {
        let body = self.read_body(READ_BUFFER).await?;
        let body = body.ok_or_else(|| Failure::UnreadableRequest("request was too large".to_owned()))?;
        let request = if provider.parses_chat {
            rewrite::parse_chat(&body)?
        } else {
            rewrite::parse(&body).unwrap_or(Value::Null)
        };
        for limit in rule.local_limits.iter().filter(|l| l.unit == Unit::Tokens) {
            self.proxy.admit(limit, self.mutants().charge_before().unwrap_or(0))?;
        }
        self.asks_for_usage = request.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
        let question = rewrite::question(&request);
        self.reading.request_model = provider.model.clone().or(question.model);
        if provider.parses_chat && self.reading.request_model.is_none() {
            return Err(Failure::UnreadableRequest("missing field: model not specified".to_owned()));
        }
        self.reading.streaming = question.stream;
        if request.is_object() {
            let sent = rewrite::request_body(&body, &request, provider);
            if sent != body {
                self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(sent.len()));
            }
            self.read = Some(sent);
        }
        if let Some(path) = &provider.path
            && !self.is(Mutant::IgnoresProviderPath)
        {
            (self.path, self.query) = (path.clone(), String::new());
        }
        if let Some(prefix) = &provider.prefix
            && let Some(rest) = self.path.strip_prefix("/v1")
        {
            self.path = format!("/{}{rest}", prefix.trim_matches('/'));
        }
        Ok(())
    }

    async fn forward(
        &mut self,
        rule: &Arc<Rule>,
        backend: &Backend,
        picked: Option<Picked>,
        mut deadline: Option<Deadline>,
        rewrite_host: Option<String>,
        charges: Vec<Charge>,
    ) -> Result<Response<Body>, Failure> {
        if self.is(Mutant::LosesChargesInFlight) {
            self.mutants().enter();
        }
        if self.is(Mutant::ReserialisesJson)
            && let Some(Ok(json)) = self.read_body(READ_BUFFER).await?.map(|body| rewrite::parse(&body))
        {
            let written = Bytes::from(json.to_string());
            self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(written.len()));
            self.read = Some(written);
        }
        let host = backend.host_rewrite.clone().or(rewrite_host);
        if self.is(Mutant::DuplicatesRequests) && self.read_body(READ_BUFFER).await?.is_some() {
            let (read, again) = (self.read.clone(), self.upstream_request(host.clone())?);
            self.read = read;
            let stream = upstream::connect(self.proxy.network(), &backend.target).await?;
            upstream::send(stream, again).await?;
        }
        let request = self.upstream_request(host)?;
        let exchange = async {
            let network = self.proxy.network().over(Between::GatewayModel);
            let stream = match &picked {
                Some(picked) => upstream::dial(&network, picked.endpoint).await?,
                None => upstream::connect(&network, &backend.target).await?,
            };
            upstream::send(stream, request).await
        };
        let (response, connection) = within(&mut deadline, exchange).await?;
        let (mut parts, incoming) = response.into_parts();
        let keep_alive = parts.headers.get(upstream::KEEP_ALIVE).filter(|_| self.table.passes_keep_alive).cloned();
        parts.headers = upstream::end_to_end(&parts.headers);
        if let Some(value) = keep_alive {
            parts.headers.insert(upstream::KEEP_ALIVE, value);
        }
        if self.table.header_case == HeaderCase::Lower {
            parts.extensions.clear();
        }
        let success = parts.status.is_success();
        let streaming = content_type(&parts.headers).is_some_and(|t| t.starts_with("text/event-stream"));
        let free = streaming
            && (self.is(Mutant::NeverChargesStreams) || !self.asks_for_usage && self.is(Mutant::ChargesStreamsThatAsk));
        let accounted = backend.provider.is_some() && !free && (success || self.is(Mutant::Charges5xx));
        let transformed =
            rule.transformation.is_some() || rule.filters.iter().any(|f| matches!(f, Filter::Response(_)));
        let coming = Coming { body: bodies::boxed(incoming), connection: Some(connection), streaming, transformed };
        let (body, connection) = self.mutants().reply(&mut parts.headers, coming);
        let mut at_end = accounted.then(|| self.accounting(rule, charges));
        if streaming && let Some(guess) = self.mutants().charge_of_a_beginning() {
            at_end.take().into_iter().for_each(|charge| charge(Some(guess)));
        }
        let passing = Passing {
            listening: if accounted { Listening::to(content_type(&parts.headers)) } else { Listening::Deaf },
            body,
            at_end,
            deadline,
            connection,
        };
        let mut body = match &backend.provider {
            Some(provider) if provider.rewrites_reply && success && !streaming => {
                let (bytes, reply) = rewrite::reply_body(&read_reply(passing).await?)?;
                self.reading.response_model = reply.get("model").and_then(Value::as_str).map(str::to_owned);
                self.reading.usage = Usage::of(&reply);
                parts.headers.remove(header::CONTENT_LENGTH);
                bodies::whole(bytes)
            }
            Some(provider) if provider.wraps_errors && !success && !is_json(&parts.headers) => {
                let wrapped = rewrite::wrapped_error(parts.status.as_u16(), &read_reply(passing).await?);
                parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(wrapped.len()));
                parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                bodies::whole(wrapped)
            }
            Some(_) if streaming => {
                parts.headers.remove(header::CONTENT_LENGTH);
                bodies::boxed(passing)
            }
            _ => bodies::boxed(passing),
        };
        if let Some(Picked { conversations, served, .. }) = picked {
            // Whoever was asked first hears of the reply last, as a chain of filters has it.
            for conversation in conversations.into_iter().rev() {
                match conversation.reply(&mut parts, body, served).await? {
                    Ok(handed_back) => body = handed_back,
                    Err(answer) => return Ok(self.local(answer)),
                }
            }
        }
        let compressed = parts.headers.contains_key(header::CONTENT_ENCODING);
        let large = body.size_hint().lower() > READ_BUFFER as u64;
        let unchanged = compressed && self.is(Mutant::CannotReadCompressed)
            || large && self.is(Mutant::LosesHeadersOfLargeBodies)
            || self.is(Mutant::IgnoresResponseHeaders);
        for filter in &rule.filters {
            if let Filter::Response(changes) = filter
                && !unchanged
            {
                edit(&mut parts.headers, changes);
            }
        }
        if let Some(state) = WindowState::tightest(self.states.iter().copied()) {
            put_all(&mut parts.headers, state.headers());
        }
        if let Some(transformation) = &rule.transformation {
            let read = if transformation.reads_response_body() {
                let (read, again) = read_for_expressions(body, &parts.headers).await?;
                body = again;
                // What is compressed is not read (seen of v1.3.1, on a route to a Service).
                read.filter(|_| !parts.headers.contains_key(header::CONTENT_ENCODING))
            } else {
                None
            };
            let status = parts.status.as_u16();
            let unread = Reading::default(); // a stream has not been read when its head goes out (33-stream-ai-transform)
            let reading = if streaming { &unread } else { &self.reading };
            let upstreams = parts.headers.clone();
            let (mut seen, mut read) = (self.seen.clone(), read);
            if self.is(Mutant::ReadsTheOtherBody) {
                std::mem::swap(&mut seen.body, &mut read);
            }
            if let Some(bytes) = transformation.on_response(&seen, reading, status, &mut parts.headers, read.as_ref()) {
                parts.headers.remove(header::CONTENT_LENGTH);
                body = bodies::whole(bytes);
            }
            if self.is(Mutant::KeepsHeaderOfUpstream) {
                parts.headers.extend(upstreams);
            }
        }
        parts.version = http::Version::HTTP_11;
        Ok(Response::from_parts(parts, body))
    }

    fn upstream_request(&mut self, host: Option<String>) -> Result<Request<Body>, Failure> {
        let target = self.target().parse::<Uri>().map_err(|_| Failure::BodyUnreadable)?;
        let host = host.or_else(|| self.headers.get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned));
        let host = host.unwrap_or_else(|| self.host.clone());
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 3);
        if let Ok(host) = HeaderValue::from_str(&host) {
            headers.insert(header::HOST, host);
        }
        for (name, value) in &self.headers {
            if *name != header::HOST && *name != header::EXPECT {
                headers.append(name.clone(), value.clone());
            }
        }
        if self.table.header_case == HeaderCase::Lower {
            put_all(&mut headers, [("x-forwarded-for", self.peer.ip().to_string())]);
            if !headers.contains_key("x-forwarded-proto") {
                put_all(&mut headers, [("x-forwarded-proto", "http".to_owned())]);
            }
        }
        let body = self.take_body();
        if body.is_end_stream() && !self.headers.contains_key(header::CONTENT_LENGTH) {
            headers.remove(header::CONTENT_LENGTH);
        }
        let body = self.mutants().request_body(&mut headers, body);
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// What is charged when a successful reply has ended: windows by the rule's costs, local buckets by tokens.
    fn accounting(&self, rule: &Arc<Rule>, charges: Vec<Charge>) -> AtEnd {
        let (proxy, rule) = (self.proxy.clone(), Arc::clone(rule));
        Box::new(move |usage| {
            let Some(usage) = usage else { return };
            let (now, mutants) = (proxy.clock().now_ms(), proxy.mutants());
            if mutants.charge_before().is_some() || mutants.is(Mutant::LosesChargesInFlight) && mutants.leave() > 0 {
                return;
            }
            for Charge { bucket, limit } in charges {
                let hits =
                    limit.response_key.as_ref().and_then(|key| cost_of(&rule, key, &usage, mutants)).unwrap_or(0);
                let now = mutants.time_for(&bucket, limit.limit.seconds * 1000, now);
                proxy.windows().lock().charge(now, &bucket, limit.limit, hits);
            }
            let everybodys = mutants.is(Mutant::ChargesPerGateway).then(|| proxy.table());
            let others = everybodys.iter().flat_map(|t| &t.listeners).flat_map(|l| &l.entries).map(|e| &e.rule);
            let mut limits: Vec<&LocalLimit> = others.chain([&rule]).flat_map(|rule| &rule.local_limits).collect();
            limits.dedup_by_key(|limit| &limit.bucket);
            for limit in limits.into_iter().filter(|limit| limit.unit == Unit::Tokens) {
                proxy.charge(limit, mutants.tokens_of(&usage));
            }
        })
    }

    /// An answer that the proxy writes itself. Transformations see it; they cannot read its body.
    fn local(&self, answer: Answer) -> Response<Body> {
        let mut headers = HeaderMap::new();
        put_all(&mut headers, answer.headers.iter().map(|(n, v)| (n.as_str(), v.clone())));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(answer.body.len()));
        let mut body = answer.body;
        if let Some(transformation) = self.entry.as_ref().and_then(|e| e.rule.transformation.as_ref())
            && let Some(bytes) =
                transformation.on_response(&self.seen, &self.reading, answer.status, &mut headers, Some(&body))
        {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            body = bytes;
        }
        let mut response = Response::new(bodies::whole(body));
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        response
    }
}

enum Filtered {
    On { host: Option<String> },
    Direct(Answer),
}

/// The same, unless the route's time is over before.
async fn within<T>(
    deadline: &mut Option<Deadline>,
    what: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match deadline {
        None => what.await,
        Some(deadline) => tokio::select! {
            biased;
            () = deadline => Err(Failure::Timeout),
            done = what => done,
        },
    }
}

/// The number that a rule's cost of this name gives; the first cost of the name counts.
fn cost_of(rule: &Rule, key: &str, usage: &Usage, mutants: &Mutants) -> Option<u64> {
    rule.costs.iter().find(|(name, _)| name == key).map(|(_, cost)| mutants.cost_of(usage, *cost))
}

/// Puts the body's model where routes look for it.
fn put_model(headers: &mut HeaderMap, extraction: &Extraction, model: HeaderValue) {
    let name = HeaderName::from_static(extraction.header);
    match extraction.existing {
        ExistingHeader::Overwritten => {
            headers.insert(name, model);
        }
        ExistingHeader::Appended => {
            headers.append(name, model);
        }
    }
}

/// `GET /v1/models` from the configuration, for one host.
fn models(extraction: &Extraction, host: &str) -> Answer {
    let data: Vec<String> = extraction
        .models
        .iter()
        .filter(|(pattern, ..)| pattern.covers(host))
        .map(|(_, id, owner, created)| {
            let (id, owner) = (json!(id), json!(owner));
            format!(r#"{{"id":{id},"created":{created},"object":"model","owned_by":{owner}}}"#)
        })
        .collect();
    Answer::typed(200, "application/json", format!(r#"{{"data":[{}],"object":"list"}}"#, data.join(",")))
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

fn edit(headers: &mut HeaderMap, changes: &HeaderEdit) {
    for name in &changes.remove {
        headers.remove(name.as_str());
    }
    for (name, value) in &changes.set {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
            headers.insert(name, value);
        }
    }
    for (name, value) in &changes.add {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
            headers.append(name, value);
        }
    }
}

fn put_all<'a>(headers: &mut HeaderMap, all: impl IntoIterator<Item = (&'a str, String)>) {
    for (name, value) in all {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok())
}

fn is_json(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|t| t.starts_with("application/json"))
}

/// Reads a reply to its end; a reply that breaks off is the upstream's failure.
async fn read_reply(passing: Passing) -> Result<Bytes, Failure> {
    let broken = |e: bodies::BodyError| Failure::Upstream { connecting: false, words: e.to_string() };
    Ok(passing.collect().await.map_err(broken)?.to_bytes())
}

/// Reads a reply for expressions, up to the bound; streams are read whole as well (facts: "whole stream is buffered").
async fn read_for_expressions(body: Body, headers: &HeaderMap) -> Result<(Option<Bytes>, Body), Failure> {
    let broken = |e: bodies::BodyError| Failure::Upstream { connecting: false, words: e.to_string() };
    let sized = headers.contains_key(header::CONTENT_LENGTH) || body.size_hint().exact().is_some();
    Ok(match bodies::hold(body, READ_BUFFER).await.map_err(broken)? {
        Held::Whole(bytes) if sized => (Some(bytes.clone()), bodies::whole(bytes)),
        Held::Whole(bytes) => (Some(bytes.clone()), bodies::unsized_body(bytes)),
        Held::TooLarge(read, rest) => (None, bodies::resumed(read, rest)),
    })
}
