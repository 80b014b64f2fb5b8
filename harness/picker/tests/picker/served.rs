//! A picker that serves, and a gateway's half of a stream.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
    service::ext_proc::v3::{
        HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse, ProtocolConfiguration, body_mutation::Mutation,
        external_processor_client::ExternalProcessorClient, processing_request::Request, processing_response::Response,
    },
};
use futures::{StreamExt, channel::mpsc};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use picker::{Endpoint, Handle, Listeners, Options, serve};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{Status, Streaming, codegen::Service};
use verdict::history::PickerRecord;

/// No wait of a test takes longer, on any machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Bounds a wait.
pub async fn soon<F: Future>(what: F) -> F::Output {
    timeout(LONG, what).await.expect("not within a minute")
}

pub struct Served {
    pub picker: Handle,
    pub grpc: std::net::SocketAddr,
    pub health: std::net::SocketAddr,
    pub admin: std::net::SocketAddr,
    pub endpoints: watch::Sender<Option<Vec<Endpoint>>>,
}

pub const POOL: [&str; 3] = ["10.244.0.5:8000", "10.244.0.6:8000", "10.244.0.7:8000"];

pub fn pool(addresses: &[&str]) -> Option<Vec<Endpoint>> {
    Some(addresses.iter().map(|a| Endpoint::from(*a)).collect())
}

impl Served {
    pub async fn of(options: Options) -> Self {
        let (endpoints, receiver) = watch::channel(pool(&POOL));
        let listener = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
        let (grpc, health, admin) = (listener().await, listener().await, listener().await);
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let (at, health_at, admin_at) = (address(&grpc), address(&health), address(&admin));
        let listeners = Listeners { grpc, health: Some(health), admin: Some(admin) };
        let options = Options { pod: "picker-0".into(), now_ms: Arc::new(|| 1_000), ..options };
        Self { picker: serve(listeners, options, receiver), grpc: at, health: health_at, admin: admin_at, endpoints }
    }

    /// A picker, and a stream to it.
    pub async fn with_stream(options: Options) -> (Self, Stream) {
        let served = Self::of(options).await;
        let stream = served.connect().await.stream().await;
        (served, stream)
    }

    pub async fn connect(&self) -> Connection {
        Connection::over(TcpStream::connect(self.grpc).await.unwrap()).await
    }

    pub async fn connect_for_now(&self) -> (Connection, std::net::TcpStream) {
        let stream = TcpStream::connect(self.grpc).await.unwrap().into_std().unwrap();
        let cut = stream.try_clone().unwrap();
        (Connection::over(TcpStream::from_std(stream).unwrap()).await, cut)
    }

    /// The record of this stream, the only one, once the gateway has closed it.
    pub async fn record_of(&self, stream: Stream) -> PickerRecord {
        stream.close().await;
        self.record().await
    }

    /// The one record that there is to be.
    pub async fn record(&self) -> PickerRecord {
        let records = soon(self.picker.wait(|records| !records.is_empty())).await;
        let [record] = &records[..] else { panic!("{} records", records.len()) };
        record.clone()
    }
}

/// A connection of HTTP/2, as a gateway keeps one to its picker.
#[derive(Clone)]
pub struct Connection(SendRequest<tonic::body::Body>);

impl Connection {
    pub async fn over<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Self {
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn tls(at: std::net::SocketAddr, certificate: &[u8], name: &'static str) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.to_vec().into()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(at).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name.try_into().unwrap(), stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Ok(Self::over(stream).await)
    }

    pub async fn stream(&self) -> Stream {
        let (sender, messages) = mpsc::unbounded();
        let answers = soon(ExternalProcessorClient::new(self.clone()).process(messages)).await.unwrap().into_inner();
        Stream { sender, answers }
    }
}

impl Service<http::Request<tonic::body::Body>> for Connection {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        *request.uri_mut() = format!("http://picker{path}").parse().unwrap();
        Box::pin(self.0.send_request(request))
    }
}

/// A stream, as the gateway holds it.
pub struct Stream {
    sender: mpsc::UnboundedSender<ProcessingRequest>,
    answers: Streaming<ProcessingResponse>,
}

impl Stream {
    pub fn send(&self, message: ProcessingRequest) {
        self.sender.unbounded_send(message).unwrap();
    }

    pub async fn answer(&mut self) -> Result<Option<ProcessingResponse>, Status> {
        soon(self.answers.message()).await
    }

    pub async fn response(&mut self) -> Response {
        self.answer().await.unwrap().expect("the stream is over").response.expect("an answer without a response")
    }

    /// The gateway has said all; the rest of the answers.
    pub async fn close(self) -> Vec<Result<ProcessingResponse, Status>> {
        drop(self.sender);
        soon(self.answers.collect()).await
    }

    /// What comes back of a body that is streamed, up to its end: the bytes, and how many ends of stream.
    pub async fn body(&mut self) -> (Vec<u8>, u64) {
        let (mut bytes, mut ends) = (Vec::new(), 0);
        while ends == 0 {
            let (Response::RequestBody(answer) | Response::ResponseBody(answer)) = self.response().await else {
                panic!("no body")
            };
            let mutation = answer.response.and_then(|r| r.body_mutation).and_then(|m| m.mutation);
            let Some(Mutation::StreamedResponse(streamed)) = mutation else { panic!("not streamed: {mutation:?}") };
            bytes.extend(streamed.body);
            ends += u64::from(streamed.end_of_stream);
        }
        (bytes, ends)
    }
}

/// A message of full duplex, as Envoy and agentgateway send them.
pub fn message(request: Request) -> ProcessingRequest {
    let mode = BodySendMode::FullDuplexStreamed.into();
    let config = ProtocolConfiguration { request_body_mode: mode, response_body_mode: mode, ..Default::default() };
    let protocol_config = matches!(request, Request::RequestHeaders(_)).then_some(config);
    ProcessingRequest { request: Some(request), protocol_config, ..ProcessingRequest::default() }
}

pub fn headers(headers: &[(&str, &str)], end_of_stream: bool) -> HttpHeaders {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    let headers = Some(HeaderMap { headers: headers.iter().map(header).collect() });
    HttpHeaders { headers, end_of_stream, ..HttpHeaders::default() }
}

pub fn body(bytes: &[u8], end_of_stream: bool) -> HttpBody {
    HttpBody { body: bytes.to_vec(), end_of_stream, ..HttpBody::default() }
}

/// The head of a request with these headers beside the usual ones.
pub fn request(method: &str, extra: &[(&str, &str)], end_of_stream: bool) -> ProcessingRequest {
    let path = if method == "GET" { "/v1/models" } else { "/v1/chat/completions" };
    let mut all = vec![(":method", method), (":path", path), (":authority", "pool.example.com")];
    all.extend_from_slice(extra);
    message(Request::RequestHeaders(headers(&all, end_of_stream)))
}
