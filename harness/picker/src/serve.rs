//! Serving: connections, the two gRPC services, and the records over HTTP.

use std::{convert::Infallible, pin::pin, sync::Arc};

use bytes::Bytes;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    ProcessingRequest, ProcessingResponse,
    external_processor_server::{ExternalProcessor, ExternalProcessorServer},
};
use futures::{StreamExt, stream, stream::BoxStream};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{JoinSet, yield_now},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, codegen::Service};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use verdict::history::{EXCHANGE_HEADER, PickerRecord, Reason, StreamEnded};

use crate::{Shared, session::Session};

/// Bound on one message of ext_proc.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Requests at a time on one connection: a gateway has few connections to its picker.
const STREAMS: u32 = 10_000;

/// Health services that answer as long as the program does (the first is gRPC's own name for the whole server).
const ALIVE: [&str; 2] = ["", "liveness"];
/// Health services that answer once the endpoints of the pool are known: of the protocol (004, "Health Check Services"),
/// and the one that pickers before it had.
const READY: [&str; 3] = ["readiness", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension"];

#[derive(Clone)]
pub(crate) struct Services {
    ext_proc: Option<ExternalProcessorServer<Processor>>,
    health: HealthServer<HealthService>,
}

impl Services {
    pub(crate) fn new(shared: &Arc<Shared>, reporter: &HealthReporter) -> Self {
        let processor = ExternalProcessorServer::new(Processor(Arc::clone(shared)));
        Self {
            ext_proc: Some(processor.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)),
            health: HealthServer::new(HealthService::from_health_reporter(reporter.clone())),
        }
    }

    pub(crate) fn only_health(&self) -> Self {
        Self { ext_proc: None, ..self.clone() }
    }

    async fn call(mut self, request: Request<Incoming>) -> Result<Response<tonic::body::Body>, Infallible> {
        let path = request.uri().path();
        match &mut self.ext_proc {
            Some(ext_proc) if path.starts_with("/envoy.service.ext_proc.v3.ExternalProcessor/") => {
                ext_proc.call(request).await
            }
            _ if path.starts_with("/grpc.health.v1.Health/") => self.health.call(request).await,
            _ => Ok(Status::unimplemented(format!("{path} is not served here")).into_http()),
        }
    }
}

/// Keeps the health services true to what is known of the pool.
pub(crate) async fn report_health(shared: Arc<Shared>, reporter: HealthReporter) {
    let mut endpoints = shared.endpoints.clone();
    for name in ALIVE {
        reporter.set_service_status(name, ServingStatus::Serving).await;
    }
    loop {
        let known = endpoints.borrow_and_update().clone();
        let status = if known.is_some() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in READY {
            reporter.set_service_status(name, status).await;
        }
        if let Some(known) = &known {
            shared.scheduler().keep(known);
        }
        if endpoints.changed().await.is_err() {
            return; // it stays as it is
        }
    }
}

/// Accepts connections until told to stop, then lets what is under way end.
pub(crate) async fn listen<F>(listener: TcpListener, stop: CancellationToken, connection: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    let _delayed_writes_are_fine = stream.set_nodelay(true);
                    connections.spawn(connection(stream));
                }
                Err(_no_descriptor_or_peer_left) => yield_now().await,
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves gRPC on one connection, inside TLS where there is some.
pub(crate) async fn grpc(stream: TcpStream, tls: Option<TlsAcceptor>, services: Services, stop: CancellationToken) {
    match tls {
        None => grpc_connection(stream, services, stop).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => grpc_connection(stream, services, stop).await,
            Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
        },
    }
}

async fn grpc_connection<S>(stream: S, services: Services, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| services.clone().call(request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(STREAMS);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

pub(crate) struct Processor(Arc<Shared>);

struct Process {
    shared: Arc<Shared>,
    messages: Streaming<ProcessingRequest>,
    session: Option<Session>,
}

impl Process {
    /// The next answers; nothing more after an error or an empty list.
    async fn next(&mut self) -> Result<Vec<ProcessingResponse>, Status> {
        loop {
            if self.session.as_ref().is_some_and(Session::is_over) {
                return Ok(vec![]);
            }
            match self.messages.message().await {
                Ok(Some(message)) => {
                    let session = self.session.get_or_insert_with(|| Session::new(Arc::clone(&self.shared)));
                    let answers = session.on(message)?;
                    if !answers.is_empty() {
                        return Ok(answers);
                    }
                }
                Ok(None) => {
                    self.session.iter_mut().for_each(Session::closed);
                    return Ok(vec![]);
                }
                Err(broken) => return Err(broken), // to nobody; the session writes down that it broke
            }
        }
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Processor {
    type ProcessStream = BoxStream<'static, Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        request: tonic::Request<Streaming<ProcessingRequest>>,
    ) -> Result<tonic::Response<Self::ProcessStream>, Status> {
        let process = Process { shared: Arc::clone(&self.0), messages: request.into_inner(), session: None };
        // Answers are made when they can be sent, and only then is more read: what waits is bounded by the gateway.
        let answers = stream::unfold(Some(process), |process| async {
            let mut process = process?;
            match process.next().await {
                Ok(answers) if answers.is_empty() => None,
                Ok(answers) => Some((answers.into_iter().map(Ok).collect(), Some(process))),
                Err(status) => Some((vec![Err(status)], None)),
            }
        });
        Ok(tonic::Response::new(answers.flat_map(stream::iter).boxed()))
    }
}

/// Serves the records on one connection of HTTP/1.1.
pub(crate) async fn admin(stream: TcpStream, shared: Arc<Shared>, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let answer = control(&shared, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let builder = http1::Builder::new();
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let _broken_off = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.as_mut().await
        }
    };
}

fn control(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let query = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
    }
    match request.uri().path() {
        "/igc/records" => {
            let Ok(since) = query("since").map_or(Ok(0), str::parse) else {
                return text(StatusCode::BAD_REQUEST, "since: a number expected");
            };
            let page = shared.log.page(since, logbook::PAGE);
            let Ok(body) = serde_json::to_vec(&page.records) else {
                return text(StatusCode::INTERNAL_SERVER_ERROR, "the records cannot be written");
            };
            let mut response = Response::new(Full::from(body));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            for (name, value) in page.headers() {
                if let Ok(value) = HeaderValue::try_from(value) {
                    response.headers_mut().insert(HeaderName::from_static(name), value);
                }
            }
            response
        }
        "/igc/marker" => {
            let header = request.headers().get(EXCHANGE_HEADER).and_then(|v| v.to_str().ok());
            let Some(exchange) = header.or_else(|| query(EXCHANGE_HEADER)) else {
                return text(StatusCode::BAD_REQUEST, "a marker is named by the header or query x-igc-exchange");
            };
            shared.log.complete(PickerRecord {
                sequence: shared.log.arrive(),
                exchange: Some(exchange.to_owned()),
                pod: shared.options.pod.clone(),
                at_ms: (shared.options.now_ms)(),
                reason: Reason::Marker,
                ended: StreamEnded::Complete,
                ..PickerRecord::default()
            });
            text(StatusCode::OK, "written down")
        }
        "/healthz" => text(StatusCode::OK, "ok"),
        _ => text(StatusCode::NOT_FOUND, "there are /igc/records, /igc/marker and /healthz"),
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
