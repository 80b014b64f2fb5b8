//! Serving: connections, routes, and what is written down of each request.

use std::{convert::Infallible, pin::pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts, response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinSet, yield_now};
use verdict::canary;
use verdict::history::{Body, EXCHANGE_HEADER, ModelRecord, hex};
use wire::tap::{Seen, Tap};

use crate::answer::{Answer, Payload, Pieces, json_bytes};
use crate::openai::{self, Asked, Endpoint};
use crate::reply::{Line, ReplyBody, Ticket, steps};
use crate::{Config, Model, script::Script};

/// Bound on the bytes of a request head; more is answered with 431.
const MAX_HEAD: usize = 64 * 1024;

/// How much of a body that is too large is read before the connection is closed on it.
const MAX_READ: u64 = 64 * 1024 * 1024;

/// Accepts connections until the model is told to stop.
pub async fn listen(model: &Model, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = model.0.stop.cancelled() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    let _delayed_writes_are_fine = stream.set_nodelay(true);
                    let model = model.clone();
                    connections.spawn(async move { connection(&model, stream).await });
                }
                Err(_no_descriptor_or_peer_left) => yield_now().await,
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = drained => {}
        () = model.0.config.clock.delay(model.0.config.drain) => {}
    }
}

pub async fn connection<S>(model: &Model, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (tap, seen) = Tap::on(stream);
    let line = Arc::new(Line::default());
    let service = {
        let (model, line, seen) = (model.clone(), Arc::clone(&line), Arc::clone(&seen));
        service_fn(move |request| {
            let (model, line, seen) = (model.clone(), Arc::clone(&line), Arc::clone(&seen));
            async move { Ok::<_, Infallible>(respond(model, line, seen, request).await) }
        })
    };
    let mut builder = http1::Builder::new();
    // No timeout on heads: gateways keep idle connections, and one closed on them would be a 503 of our making.
    builder.header_read_timeout(None).max_buf_size(MAX_HEAD).title_case_headers(true);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(tap), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = model.0.stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.as_mut().await
        }
    };
    if ended.is_err()
        && let Some(sequence) = line.unwritten(&seen)
    {
        // the last bytes of a reply that was thought to be complete had not gone out
        model.0.log.amend(sequence, |record| record.finished = false);
    }
}

/// The exchange that a request belongs to: by its header, or by a query of the same name where a peer (the API server's
/// pod proxy) offers no headers.
fn exchange(head: &Parts) -> Option<String> {
    let header = head.headers.get(EXCHANGE_HEADER).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let query = || head.uri.query()?.split('&').find_map(|pair| pair.strip_prefix(EXCHANGE_HEADER)?.strip_prefix('='));
    header.or_else(|| query().map(str::to_owned))
}

async fn respond(model: Model, line: Arc<Line>, seen: Arc<Seen>, request: Request<Incoming>) -> Response<ReplyBody> {
    let (head, body) = request.into_parts();
    let raw = seen.request_headers(&head.headers);
    if head.uri.path().starts_with("/igc/") {
        let _not_needed = read(&model.0.config, body).await;
        seen.forget();
        let answer = control(&model, &head);
        let plain = Response::from_parts(dress(&model.0.config, &answer), answer.payload.whole());
        return plain.map(ReplyBody::plain);
    }

    let sequence = model.0.log.arrive();
    let record = ModelRecord {
        sequence,
        exchange: exchange(&head),
        pod: model.0.config.pod.clone(),
        at_ms: model.0.config.clock.now_ms(),
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: wire::redacted_all(raw),
        body: Body::default(),
        model: None,
        status: 0,
        usage: None,
        finished: false,
        sent: None,
        reply: None,
    };
    let mut ticket = Ticket::new(model.clone(), line, Arc::clone(&seen), record);
    let body = read(&model.0.config, body).await;
    seen.forget();
    ticket.note(|record| {
        record.body = body.shown();
        record.model = body.model();
    });
    if matches!(body, Arrived::Part { too_large: false, .. }) {
        ticket.note(|record| record.status = 400);
        let answer = Answer::error(400, "Failed to read request body"); // the peer has left
        return Response::from_parts(dress(&model.0.config, &answer), ReplyBody::plain(answer.payload.whole()));
    }

    let script = Script::read(&head.headers);
    if let Some(delay) = script.as_ref().ok().and_then(|s| s.delay) {
        model.0.config.clock.delay(delay).await;
    }
    let (answer, script) = match script {
        Err(unreadable) => {
            (Answer::error(400, &format!("Failed to follow the script, {unreadable}")), Script::default())
        }
        Ok(script) => {
            let mut answer = answer(&model, &head, &body, &script);
            answer.headers.extend(script.headers.iter().cloned());
            if let Some(bytes) = script.padding {
                answer = answer.padded(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            (answer, script)
        }
    };
    ticket.note(|record| {
        record.status = answer.status;
        record.usage = answer.usage;
    });
    let mut answer = if script.gzip { answer.with_header("content-encoding", "gzip") } else { answer };
    let payload = std::mem::replace(&mut answer.payload, Payload::Whole(Bytes::new()));
    let (steps, length) = steps(payload, &script);
    if head.headers.keys().any(|name| canary::is_header(name.as_str())) {
        let exchange = exchange(&head).unwrap_or_default();
        answer.headers.extend(canary::headers(canary::Side::Reply, &exchange));
    }
    let reply = dress(&model.0.config, &answer);
    ticket.note(|record| record.reply = Some(written(&head, &reply, length)));
    if head.method == Method::HEAD {
        ticket.finish(); // no body follows
        return Response::from_parts(reply, ReplyBody::plain(Bytes::new()));
    }
    Response::from_parts(reply, ReplyBody::new(steps, length, script.gate, model, seen, ticket))
}

/// The headers of a reply as hyper writes them: the names in title case, and behind them what frames the body.
fn written(request: &Parts, reply: &response::Parts, length: Option<u64>) -> Vec<(String, String)> {
    let framing = match (reply.status.as_u16(), length) {
        _ if reply.headers.contains_key(header::CONTENT_LENGTH) || request.method == Method::HEAD => None,
        (204 | 304, _) => None,
        (_, Some(bytes)) => Some((header::CONTENT_LENGTH, bytes.to_string())),
        (_, None) if request.version == Version::HTTP_10 => None,
        (_, None) => Some((header::TRANSFER_ENCODING, "chunked".to_owned())),
    };
    let framing = framing.map(|(name, value)| (name, value.into_bytes()));
    let own = reply.headers.iter().map(|(name, value)| (name.clone(), value.as_bytes().to_vec()));
    wire::redacted_all(own.chain(framing).map(|(name, value)| (title_case(name.as_str()), value)).collect())
}

fn title_case(name: &str) -> String {
    let mut begins = true;
    let letters = name.chars().map(|letter| {
        let letter = if begins { letter.to_ascii_uppercase() } else { letter };
        begins = letter == '-';
        letter
    });
    letters.collect()
}

/// The head of an answer.
fn dress(config: &Config, answer: &Answer) -> response::Parts {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            head.headers.append(name, value);
        }
    };
    add(header::SERVER.as_str(), &config.server);
    // The world's time, not the machine's: windows are read from it (RFC 9110, section 5.6.7).
    let now = i64::try_from(config.clock.now_ms()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    now.iter().for_each(|now| add(header::DATE.as_str(), &now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()));
    answer.content_type.iter().for_each(|t| add(header::CONTENT_TYPE.as_str(), t));
    answer.headers.iter().for_each(|(name, value)| add(name, value));
    head
}

enum Arrived {
    /// The whole body.
    Whole(Bytes),
    /// Of a body that is larger than the bound, or whose peer left in the middle.
    Part { body: Body, too_large: bool },
}

impl Arrived {
    fn shown(&self) -> Body {
        match self {
            Self::Whole(bytes) => Body::of(bytes),
            Self::Part { body, .. } => body.clone(),
        }
    }

    fn model(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            model: Option<Value>,
        }
        let Self::Whole(bytes) = self else { return None };
        let named: Named = serde_json::from_slice(bytes).ok()?;
        named.model?.as_str().map(str::to_owned)
    }
}

async fn read(config: &Config, mut body: Incoming) -> Arrived {
    let mut kept = BytesMut::new();
    let mut hash = Sha256::new();
    let mut length = 0_u64;
    let whole = loop {
        match body.frame().await {
            None => break true,
            Some(Err(_peer_left)) => break false,
            Some(Ok(frame)) => {
                let Ok(bytes) = frame.into_data() else { continue };
                length += bytes.len() as u64;
                hash.update(&bytes);
                let room = config.max_body.saturating_sub(kept.len());
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
                if length > MAX_READ {
                    break false;
                }
            }
        }
    };
    let too_large = length > config.max_body as u64;
    if whole && !too_large {
        return Arrived::Whole(kept.freeze());
    }
    let shown = Body { bytes: length, sha256: hex(&hash.finalize()), truncated: true, ..Body::of(&kept) };
    Arrived::Part { body: shown, too_large }
}

fn answer(model: &Model, head: &Parts, body: &Arrived, script: &Script) -> Answer {
    let config = &model.0.config;
    match (script.status, &script.reply) {
        (status, Some(reply)) => {
            let content_type = script.content_type.as_deref().unwrap_or("application/json");
            if content_type.starts_with(wire::sse::CONTENT_TYPE) {
                let events = Answer::stream(Pieces::of_events(reply));
                return Answer { status: status.unwrap_or(200), content_type: Some(content_type.to_owned()), ..events };
            }
            return Answer::whole(status.unwrap_or(200), content_type, Bytes::from(reply.clone()));
        }
        (Some(status), None) => return Answer::error(status, &format!("Scripted status (code {status})")),
        (None, None) => {}
    }
    let body = match body {
        Arrived::Whole(bytes) => bytes,
        Arrived::Part { .. } => return Answer::error(413, "Request body is too large"),
    };
    let now = config.clock.now_ms() / 1_000;
    let path = head.uri.path();
    let under_v1 = config.openai_prefixes.iter().find_map(|p| path.strip_prefix(p.as_str())?.strip_prefix("/v1/"));
    let endpoint = match under_v1 {
        _ if config.chat_path.as_deref() == Some(path) => Some(Endpoint::Chat),
        Some("chat/completions") if config.chat_path.is_none() => Some(Endpoint::Chat),
        Some("completions") => Some(Endpoint::Completions),
        Some("responses") => Some(Endpoint::Responses),
        Some("embeddings") => Some(Endpoint::Embeddings),
        _ => None,
    };
    let reads = matches!(under_v1, Some("models"))
        || matches!(path, "/health" | "/healthz" | "/ready" | "/health/ready" | "/metrics");
    let allowed = match (endpoint, reads) {
        (Some(_), _) => "POST, OPTIONS",
        (None, true) => "GET, OPTIONS",
        (None, false) => return Answer::text(404, "Not Found"),
    };
    match (endpoint, head.method.as_str()) {
        (_, "OPTIONS") => Answer::bare(200).with_header("allow", allowed),
        (Some(endpoint), "POST") => {
            let return_error = head.headers.get("x-return-error").map(|v| v.to_str().unwrap_or_default());
            let asked = Asked { return_error, script, uuid: &uuid(), now };
            openai::answer(config, endpoint, body, &asked)
        }
        (None, "GET") if under_v1 == Some("models") => openai::models(config, now),
        (None, "GET") if path == "/metrics" => metrics(model),
        (None, "GET") => Answer::whole(200, "application/json", Bytes::new()),
        _ => Answer::text(405, "Method Not Allowed").with_header("allow", allowed),
    }
}

/// What is asked of the model itself, and is in no record.
fn control(model: &Model, head: &Parts) -> Answer {
    let query = |name: &str| {
        let pairs = head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(n, _)| *n == name).map(|(_, value)| value.parse::<u64>()).next_back().transpose()
    };
    let not_a_number = |name: &str| Answer::error(400, &format!("Failed to read {name}, a number expected"));
    let path: Vec<&str> = head.uri.path().split('/').skip(2).collect();
    match (head.method.as_str(), path.as_slice()) {
        ("GET", ["records"]) => {
            let Ok(since) = query("since") else { return not_a_number("since") };
            let page = model.0.log.page(since.unwrap_or(0), logbook::PAGE);
            let answer = Answer::json(200, &page.records);
            page.headers().into_iter().fold(answer, |answer, (name, value)| answer.with_header(name, value))
        }
        ("POST", ["gates", name, "open"]) if !name.is_empty() => {
            let Ok(tokens) = query("n") else { return not_a_number("n") };
            match model.0.gates.open(name, tokens.unwrap_or(u64::MAX)) {
                Some(open) => Answer::whole(200, "application/json", json_bytes(&json!({"gate": name, "open": open}))),
                None => Answer::error(429, "Too many gates"),
            }
        }
        _ => Answer::text(404, "Not Found"),
    }
}

fn metrics(model: &Model) -> Answer {
    let config = &model.0.config;
    let name = config.models.first().map_or("", String::as_str).replace('\\', "\\\\").replace('"', "\\\"");
    let running = model.0.log.open().saturating_sub(1); // this request is not one of the model's
    let gauges = [
        ("vllm:num_requests_running", "Number of requests in model execution batches.", running),
        ("vllm:num_requests_waiting", "Number of requests waiting to be processed.", 0),
        ("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", 0),
    ];
    let text: String = gauges
        .iter()
        .map(|(gauge, help, value)| {
            format!("# HELP {gauge} {help}\n# TYPE {gauge} gauge\n{gauge}{{model_name=\"{name}\"}} {value}\n")
        })
        .collect();
    Answer::whole(200, "text/plain; version=0.0.4; charset=utf-8", Bytes::from(text))
}

fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0F) | 0x40;
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    let digits = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}
