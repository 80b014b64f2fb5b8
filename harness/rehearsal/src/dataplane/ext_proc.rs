//! Sessions with an endpoint picker: one stream of Envoy's ext_proc protocol for each request.
//!
//! Both bodies are in full-duplex mode: pieces go to the picker as they come, without waiting for
//! its answer to the head, and what goes on is what the picker hands back. Shapes as recorded in `31-epp-traffic.txt`.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        config::core::v3::{self as core, header_value_option::HeaderAppendAction},
        extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
        service::ext_proc::v3::{
            BodyResponse, HeaderMutation, HeadersResponse, HttpBody, HttpHeaders, ImmediateResponse, ProcessingRequest,
            ProtocolConfiguration, body_mutation::Mutation, external_processor_client::ExternalProcessorClient,
            processing_request::Request as Sent, processing_response::Response as Received,
        },
    },
    google::protobuf::{Struct, Value, value::Kind},
};
use futures::{
    StreamExt as _,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header, response};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body as _, Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_rustls::TlsConnector;
use tokio_util::{
    either::Either,
    sync::{CancellationToken, DropGuard},
};
use tonic::codegen::{BoxFuture, Service};

use super::{
    bodies::{self, Body, BodyError},
    interceptor::Interceptor,
    local_reply::{Failure, LocalReply},
    network::Network,
    pool::{Picker, SERVED, SERVED_NAMESPACE},
};
use crate::hops::Between;

/// The session about one request. Dropped before its end it is broken off.
pub(super) struct Session {
    messages: UnboundedSender<ProcessingRequest>,
    heads: UnboundedReceiver<Headers>,
    request: UnboundedReceiver<Piece>,
    reply: UnboundedReceiver<Piece>,
    stop: CancellationToken,
    unfinished: DropGuard,
}

/// What a picker says of the headers of a request or a reply: changes of them, or what the client gets instead.
type Headers = Result<HeaderMutation, LocalReply>;

type Piece = (Bytes, bool);

impl Session {
    pub(super) async fn open(network: &Network, picker: &Picker) -> io::Result<Self> {
        let Picker { namespace, service, port } = picker;
        let network = network.over(Between::GatewayPicker);
        let stream = network.connect_service(namespace, service, *port).await.map_err(io::Error::other)?;
        let name = format!("{service}.{namespace}.svc");
        let server = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
        let stream = match network.hops().is_plain(Between::GatewayPicker) {
            true => Either::Left(stream),
            false => Either::Right(TlsConnector::from(tls()).connect(server, stream).await?),
        };
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let origin: Uri = format!("https://{name}:{port}").parse().map_err(io::Error::other)?;
        let client = ExternalProcessorClient::with_origin(Connection(sender), origin);
        let (messages, outgoing) = unbounded();
        let (to_heads, heads) = unbounded();
        let (to_request, request) = unbounded();
        let (to_reply, reply) = unbounded();
        let stop = CancellationToken::new();
        run(&stop, async move { Ok(connection.await?) });
        let responses = Responses { heads: to_heads, request: to_request, reply: to_reply };
        run(&stop, receive(client, outgoing, responses));
        let unfinished = stop.clone().drop_guard();
        Ok(Self { messages, heads, request, reply, stop, unfinished })
    }

    pub(super) async fn request(
        mut self,
        pseudo: &[(&str, String)],
        headers: &HeaderMap,
        body: Body,
        interceptor: Arc<dyn Interceptor>,
    ) -> Result<Result<(HeaderMutation, Body, Self), LocalReply>, Failure> {
        let is_whole = body.is_end_stream();
        let mode = BodySendMode::FullDuplexStreamed.into();
        let modes = ProtocolConfiguration {
            request_body_mode: mode,
            response_body_mode: mode,
            ..ProtocolConfiguration::default()
        };
        let message = processing_request(Sent::RequestHeaders(head(pseudo, headers, is_whole)));
        self.send(ProcessingRequest { protocol_config: Some(modes), ..message });
        let body = if is_whole {
            body
        } else {
            let messages = self.messages.clone();
            let send = move |piece| {
                let mut pieces = interceptor.picker_messages(piece).into_iter();
                pieces.all(|piece| messages.unbounded_send(processing_request(Sent::RequestBody(piece))).is_ok())
            };
            run(&self.stop, pump(body, send));
            let (_, nothing) = unbounded();
            let pieces = std::mem::replace(&mut self.request, nothing);
            bodies::boxed(HandedBack { pieces, ended: false, unfinished: None })
        };
        match self.headers().await? {
            Ok(changes) => Ok(Ok((changes, body, self))),
            Err(reply) => {
                self.unfinished.disarm();
                Ok(Err(reply))
            }
        }
    }

    /// Sends the reply, with the endpoint that gave it where `served` says so. The headers are changed as the picker says;
    /// the body comes back as it is to go on, or the picker's own answer instead of the reply.
    pub(super) async fn reply(
        mut self,
        parts: &mut response::Parts,
        body: Body,
        served: Option<SocketAddr>,
    ) -> Result<Result<Body, LocalReply>, Failure> {
        let served = served.map(served_by);
        let is_whole = body.is_end_stream();
        let status = parts.status.as_u16().to_string();
        let message = processing_request(Sent::ResponseHeaders(head(&[(":status", status)], &parts.headers, is_whole)));
        self.send(ProcessingRequest { metadata_context: served.clone(), ..message });
        match self.headers().await? {
            Ok(changes) => change(&mut parts.headers, &changes),
            Err(reply) => {
                self.unfinished.disarm();
                return Ok(Err(reply));
            }
        }
        if is_whole {
            self.unfinished.disarm();
            return Ok(Ok(body));
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        let Self { messages, reply, stop, unfinished, .. } = self;
        let pumped = pump(body, move |piece| {
            // The empty last piece of a stream carries no metadata.
            let metadata_context = served.clone().filter(|_| !piece.body.is_empty());
            let message = ProcessingRequest { metadata_context, ..processing_request(Sent::ResponseBody(piece)) };
            messages.unbounded_send(message).is_ok()
        });
        run(&stop, pumped);
        Ok(Ok(bodies::boxed(HandedBack { pieces: reply, ended: false, unfinished: Some(unfinished) })))
    }

    fn send(&self, message: ProcessingRequest) {
        _ = self.messages.unbounded_send(message); // a picker that is gone is noticed where its answer is waited for
    }

    async fn headers(&mut self) -> Result<Headers, Failure> {
        self.heads.next().await.ok_or(Failure::PickerSilent)
    }
}

/// Runs a part of a session until all of it is stopped. What breaks in one part breaks all of it off.
fn run(stop: &CancellationToken, part: impl Future<Output = Result<(), BodyError>> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled(part).await {
            tracing::debug!(%error, "a session with an endpoint picker broke off");
            stop.cancel();
        }
    });
}

struct Responses {
    heads: UnboundedSender<Headers>,
    request: UnboundedSender<Piece>,
    reply: UnboundedSender<Piece>,
}

async fn receive(
    mut client: ExternalProcessorClient<Connection>,
    outgoing: UnboundedReceiver<ProcessingRequest>,
    responses: Responses,
) -> Result<(), BodyError> {
    let mut incoming = client.process(outgoing).await?.into_inner();
    while let Some(answer) = incoming.message().await? {
        // A part that nobody waits for was given up by the exchange: that is noticed there.
        _ = match answer.response {
            Some(Received::RequestHeaders(head) | Received::ResponseHeaders(head)) => {
                responses.heads.unbounded_send(Ok(changes_of(head))).is_ok()
            }
            Some(Received::RequestBody(body)) => responses.request.unbounded_send(piece_of(body)?).is_ok(),
            Some(Received::ResponseBody(body)) => responses.reply.unbounded_send(piece_of(body)?).is_ok(),
            Some(Received::ImmediateResponse(immediate)) => {
                responses.heads.unbounded_send(Err(reply_of(immediate))).is_ok()
            }
            _ => true, // no trailers were sent
        };
    }
    Ok(())
}

fn changes_of(head: HeadersResponse) -> HeaderMutation {
    head.response.and_then(|common| common.header_mutation).unwrap_or_default()
}

/// In full-duplex mode a body comes back in pieces, and in no other way.
fn piece_of(body: BodyResponse) -> Result<Piece, BodyError> {
    match body.response.and_then(|common| common.body_mutation).and_then(|body| body.mutation) {
        Some(Mutation::StreamedResponse(piece)) => Ok((piece.body.into(), piece.end_of_stream)),
        _ => Err("the endpoint picker answered a piece of a body with no piece".into()),
    }
}

fn reply_of(immediate: ImmediateResponse) -> LocalReply {
    let status = immediate.status.and_then(|s| u16::try_from(s.code).ok()).unwrap_or(200);
    let mut headers = HeaderMap::new();
    change(&mut headers, &immediate.headers.unwrap_or_default());
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    LocalReply {
        status,
        headers: headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body: immediate.body.into(),
    }
}

/// Sends a body piece by piece; the last piece says so. `send` says whether anybody listens.
async fn pump(mut body: Body, send: impl Fn(HttpBody) -> bool) -> Result<(), BodyError> {
    let piece = |body: Bytes, end_of_stream| HttpBody { body: body.into(), end_of_stream, ..HttpBody::default() };
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let is_last = body.is_end_stream();
        if !send(piece(data, is_last)) || is_last {
            return Ok(());
        }
    }
    send(piece(Bytes::new(), true));
    Ok(())
}

/// A body as the picker hands it back. It ends where the picker says so, and nowhere else.
struct HandedBack {
    pieces: UnboundedReceiver<Piece>,
    ended: bool,
    unfinished: Option<DropGuard>,
}

impl hyper::body::Body for HandedBack {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.ended {
            match self.pieces.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err("the endpoint picker broke off".into())));
                }
                Poll::Ready(Some((data, is_last))) => {
                    self.ended = is_last;
                    if is_last && let Some(unfinished) = self.unfinished.take() {
                        unfinished.disarm(); // the stream ends in peace
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

fn processing_request(request: Sent) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}

/// A head: pseudo headers as text, the others as bytes.
fn head(pseudo: &[(&str, String)], headers: &HeaderMap, end_of_stream: bool) -> HttpHeaders {
    let pseudo = pseudo.iter().map(|(name, value)| core::HeaderValue {
        key: (*name).to_owned(),
        value: value.clone(),
        ..core::HeaderValue::default()
    });
    let others = headers.iter().filter(|(name, _)| *name != header::HOST).map(|(name, value)| core::HeaderValue {
        key: name.as_str().to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..core::HeaderValue::default()
    });
    let headers = Some(core::HeaderMap { headers: others.chain(pseudo).collect() });
    HttpHeaders { headers, end_of_stream, ..HttpHeaders::default() }
}

fn served_by(endpoint: SocketAddr) -> core::Metadata {
    let value = Value { kind: Some(Kind::StringValue(endpoint.to_string())) };
    let fields = Struct { fields: [(SERVED.to_owned(), value)].into() };
    core::Metadata { filter_metadata: [(SERVED_NAMESPACE.to_owned(), fields)].into(), ..core::Metadata::default() }
}

pub(super) fn change(headers: &mut HeaderMap, changes: &HeaderMutation) {
    for name in &changes.remove_headers {
        headers.remove(name.as_str());
    }
    for option in &changes.set_headers {
        let Some(written) = &option.header else { continue };
        let value = if written.raw_value.is_empty() { written.value.as_bytes() } else { &written.raw_value };
        let (Ok(name), Ok(value)) = (HeaderName::try_from(&written.key), HeaderValue::from_bytes(value)) else {
            continue;
        };
        match option.append_action() {
            HeaderAppendAction::AppendIfExistsOrAdd => _ = headers.append(name, value),
            HeaderAppendAction::AddIfAbsent if headers.contains_key(&name) => {}
            HeaderAppendAction::OverwriteIfExists if !headers.contains_key(&name) => {}
            _ => _ = headers.insert(name, value),
        }
    }
}

struct Connection(http2::SendRequest<tonic::body::Body>);

impl Service<Request<tonic::body::Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// TLS to a picker. Its certificate is its own, and neither gateway looks at it.
fn tls() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions().expect("versions that ring has");
        let any = Arc::new(AnyCertificate(provider));
        let mut config = config.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    });
    Arc::clone(config)
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
