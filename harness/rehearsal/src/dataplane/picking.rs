//! The picking room: what a proxy and an endpoint picker say to each other about one request (Envoy's ext_proc protocol).
//!
//! One gRPC stream a request, both bodies in full-duplex mode: pieces go to the picker as they come, without waiting for
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
            processing_request::Request as Saying, processing_response::Response as Answering,
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
    network::Network,
    pool::{Picker, SERVED, SERVED_NAMESPACE},
    words::{Answer, Failure},
};
use crate::{
    hops::Between,
    mutants::{Mutant, Mutants},
};

/// What a picker says to a request.
pub(super) enum Said {
    /// It goes on with these changes of its head, and this body.
    GoOn(HeaderMutation, Body, Conversation),
    /// The client gets this instead.
    Instead(Answer),
}

/// The conversation about one request. Dropped before its end it is broken off.
pub(super) struct Conversation {
    to: UnboundedSender<ProcessingRequest>,
    heads: UnboundedReceiver<Head>,
    request: UnboundedReceiver<Piece>,
    reply: UnboundedReceiver<Piece>,
    stop: CancellationToken,
    unfinished: DropGuard,
}

/// What a picker says to a head.
enum Head {
    Change(HeaderMutation),
    Instead(Answer),
}

/// A piece of a body that the picker hands back, and whether it is the last one.
type Piece = (Bytes, bool);

impl Conversation {
    /// Opens a stream to one of the endpoints of the picker's Service.
    ///
    /// # Errors
    /// Where nothing answers there.
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
        let (line, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let origin: Uri = format!("https://{name}:{port}").parse().map_err(io::Error::other)?;
        let client = ExternalProcessorClient::with_origin(Line(line), origin);
        let (to, said) = unbounded();
        let (to_heads, heads) = unbounded();
        let (to_request, request) = unbounded();
        let (to_reply, reply) = unbounded();
        let stop = CancellationToken::new();
        until(&stop, async move { Ok(connection.await?) });
        until(&stop, listen(client, said, Ears { heads: to_heads, request: to_request, reply: to_reply }));
        let unfinished = stop.clone().drop_guard();
        Ok(Self { to, heads, request, reply, stop, unfinished })
    }

    /// Tells the picker of a request, and waits for what it says to its head.
    ///
    /// # Errors
    /// Where the picker breaks off.
    pub(super) async fn request(
        mut self,
        pseudo: &[(&str, String)],
        headers: &HeaderMap,
        body: Body,
        mutants: &Mutants,
    ) -> Result<Said, Failure> {
        let is_whole = body.is_end_stream();
        let mode = BodySendMode::FullDuplexStreamed.into();
        let modes = ProtocolConfiguration {
            request_body_mode: mode,
            response_body_mode: mode,
            ..ProtocolConfiguration::default()
        };
        let said = saying(Saying::RequestHeaders(head(pseudo, headers, is_whole)));
        self.say(ProcessingRequest { protocol_config: Some(modes), ..said });
        let body = if is_whole {
            body
        } else {
            let (to, twice) = (self.to.clone(), mutants.is(Mutant::SaysTwoEndsOfStream));
            let say = move |piece: HttpBody| {
                let again = (twice && piece.end_of_stream).then(|| HttpBody { body: Vec::new(), ..piece.clone() });
                std::iter::once(piece)
                    .chain(again)
                    .all(|piece| to.unbounded_send(saying(Saying::RequestBody(piece))).is_ok())
            };
            until(&self.stop, pump(body, say));
            let (_, nothing) = unbounded();
            let pieces = std::mem::replace(&mut self.request, nothing);
            bodies::boxed(HandedBack { pieces, ended: false, unfinished: None })
        };
        match self.said().await? {
            Head::Change(changes) => Ok(Said::GoOn(changes, body, self)),
            Head::Instead(answer) => {
                self.unfinished.disarm();
                Ok(Said::Instead(answer))
            }
        }
    }

    /// Tells the picker of the reply, and by which endpoint it was given where `served` says so. The head is changed as
    /// the picker says; the body comes back as it is to go on, or the picker's own answer instead of the reply.
    ///
    /// # Errors
    /// Where the picker breaks off.
    pub(super) async fn reply(
        mut self,
        parts: &mut response::Parts,
        body: Body,
        served: Option<SocketAddr>,
    ) -> Result<Result<Body, Answer>, Failure> {
        let served = served.map(served_by);
        let is_whole = body.is_end_stream();
        let status = parts.status.as_u16().to_string();
        let said = saying(Saying::ResponseHeaders(head(&[(":status", status)], &parts.headers, is_whole)));
        self.say(ProcessingRequest { metadata_context: served.clone(), ..said });
        match self.said().await? {
            Head::Change(changes) => change(&mut parts.headers, &changes),
            Head::Instead(answer) => {
                self.unfinished.disarm();
                return Ok(Err(answer));
            }
        }
        if is_whole {
            self.unfinished.disarm();
            return Ok(Ok(body));
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        let Self { to, reply, stop, unfinished, .. } = self;
        let pumped = pump(body, move |piece| {
            // The empty last piece of a stream carries no metadata.
            let metadata_context = served.clone().filter(|_| !piece.body.is_empty());
            let said = ProcessingRequest { metadata_context, ..saying(Saying::ResponseBody(piece)) };
            to.unbounded_send(said).is_ok()
        });
        until(&stop, pumped);
        Ok(Ok(bodies::boxed(HandedBack { pieces: reply, ended: false, unfinished: Some(unfinished) })))
    }

    fn say(&self, said: ProcessingRequest) {
        _ = self.to.unbounded_send(said); // a picker that is gone is noticed where its answer is waited for
    }

    async fn said(&mut self) -> Result<Head, Failure> {
        self.heads.next().await.ok_or(Failure::PickerSilent)
    }
}

/// Runs a part of a conversation until all of it is stopped. What breaks in one part breaks all of it off.
fn until(stop: &CancellationToken, part: impl Future<Output = Result<(), BodyError>> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled(part).await {
            tracing::debug!(%error, "a conversation with an endpoint picker broke off");
            stop.cancel();
        }
    });
}

/// Who waits for what the picker says.
struct Ears {
    heads: UnboundedSender<Head>,
    request: UnboundedSender<Piece>,
    reply: UnboundedSender<Piece>,
}

/// Hears the picker out, and tells those who wait for each part.
async fn listen(
    mut client: ExternalProcessorClient<Line>,
    said: UnboundedReceiver<ProcessingRequest>,
    ears: Ears,
) -> Result<(), BodyError> {
    let mut answers = client.process(said).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        // A part whose listener is gone was given up by the exchange: that is noticed there.
        _ = match answer.response {
            Some(Answering::RequestHeaders(head) | Answering::ResponseHeaders(head)) => {
                ears.heads.unbounded_send(Head::Change(changes_of(head))).is_ok()
            }
            Some(Answering::RequestBody(body)) => ears.request.unbounded_send(piece_of(body)?).is_ok(),
            Some(Answering::ResponseBody(body)) => ears.reply.unbounded_send(piece_of(body)?).is_ok(),
            Some(Answering::ImmediateResponse(answer)) => {
                ears.heads.unbounded_send(Head::Instead(answer_of(answer))).is_ok()
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

fn answer_of(immediate: ImmediateResponse) -> Answer {
    let status = immediate.status.and_then(|s| u16::try_from(s.code).ok()).unwrap_or(200);
    let mut headers = HeaderMap::new();
    change(&mut headers, &immediate.headers.unwrap_or_default());
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Answer {
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

fn saying(request: Saying) -> ProcessingRequest {
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

/// The metadata that names the endpoint which served.
fn served_by(endpoint: SocketAddr) -> core::Metadata {
    let value = Value { kind: Some(Kind::StringValue(endpoint.to_string())) };
    let fields = Struct { fields: [(SERVED.to_owned(), value)].into() };
    core::Metadata { filter_metadata: [(SERVED_NAMESPACE.to_owned(), fields)].into(), ..core::Metadata::default() }
}

/// Carries out a picker's changes to a head.
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

/// One HTTP/2 connection, as gRPC wants it.
struct Line(http2::SendRequest<tonic::body::Body>);

impl Service<Request<tonic::body::Body>> for Line {
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
