//! Whole streams, as gateways speak them: what they are answered, and what is written down.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{Metadata, header_value_option::HeaderAppendAction},
        extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
        service::ext_proc::v3::{
            CommonResponse, HeadersResponse, HttpTrailers, ProcessingRequest, ProcessingResponse,
            ProtocolConfiguration, processing_request::Request, processing_response::Response,
        },
    },
    google::protobuf::{ListValue, Struct, Value, value::Kind},
};
use picker::{AnswerBy, DESTINATION, NAMESPACE, NO_ENDPOINT, Options, SERVED, SHED, SUBSET, Scheduling, Tls};
use rstest::rstest;
use tokio::net::TcpStream;
use verdict::history::{Body, Passed, Reason, StreamEnded};

use crate::served::{Connection, POOL, Served, Stream, body, headers, message, pool, request, soon};

/// A configuration of one plugin.
fn scheduling(plugin: &str, more: &str) -> Scheduling {
    let config = format!("{{apiVersion: llm-d.ai/v1, kind: EndpointPickerConfig, plugins: [{plugin}]{more}}}");
    Scheduling::read(&config).unwrap()
}

/// What an answer names: by header, by metadata.
fn named(answer: &ProcessingResponse) -> (Option<String>, Option<String>) {
    let Some(Response::RequestHeaders(HeadersResponse { response: Some(response) })) = &answer.response else {
        panic!("no answer to a head: {answer:?}")
    };
    let header = response.header_mutation.as_ref().map(|mutation| {
        let [set] = &mutation.set_headers[..] else { panic!("{mutation:?}") };
        assert_eq!(set.append_action, i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd));
        let header = set.header.as_ref().unwrap();
        assert_eq!(header.key, DESTINATION);
        String::from_utf8(header.raw_value.clone()).unwrap()
    });
    (header, answer.dynamic_metadata.as_ref().and_then(|m| text_of(&m.fields, &[NAMESPACE, DESTINATION])))
}

fn text_of(fields: &HashMap<String, Value>, path: &[&str]) -> Option<String> {
    match (fields.get(path[0])?.kind.as_ref()?, path) {
        (Kind::StringValue(text), [_]) => Some(text.clone()),
        (Kind::StructValue(inner), [_, rest @ ..]) => text_of(&inner.fields, rest),
        _ => None,
    }
}

fn metadata(namespace: &str, key: &str, value: Kind) -> Option<Metadata> {
    let fields = HashMap::from([(key.to_owned(), Value { kind: Some(value) })]);
    Some(Metadata {
        filter_metadata: HashMap::from([(namespace.to_owned(), Struct { fields })]),
        ..Metadata::default()
    })
}

async fn named_by(stream: &mut Stream) -> String {
    let (header, metadata) = named(&stream.answer().await.unwrap().unwrap());
    assert_eq!(header, metadata, "GIE protocol 004: both agree");
    header.expect("an endpoint")
}

/// The response as it comes by, to its end.
async fn respond(stream: &mut Stream, served: Option<&str>, bytes: &[u8]) {
    let mut head = message(Request::ResponseHeaders(headers(&[(":status", "200")], false)));
    head.metadata_context = served.and_then(|s| metadata(NAMESPACE, SERVED, Kind::StringValue(s.to_owned())));
    stream.send(head);
    assert_eq!(
        stream.response().await,
        Response::ResponseHeaders(HeadersResponse { response: Some(CommonResponse::default()) })
    );
    stream.send(message(Request::ResponseBody(body(bytes, true))));
    assert_eq!(stream.body().await, (bytes.to_vec(), 1));
}

#[tokio::test]
async fn a_request_without_a_body() {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    let extra = [("x-request-id", "r-1"), ("x-igc-exchange", "e-1"), ("authorization", "Bearer secret")];
    stream.send(request("GET", &extra, true));
    assert_eq!(named_by(&mut stream).await, POOL[0]);
    respond(&mut stream, Some(POOL[0]), b"[]").await;
    assert!(stream.close().await.is_empty());
    let record = served.record().await;
    assert_eq!((record.sequence, record.pod.as_str(), record.at_ms), (0, "picker-0", 1_000));
    assert_eq!((record.exchange.as_deref(), record.request_id.as_deref()), (Some("e-1"), Some("r-1")));
    assert_eq!((record.method.as_str(), record.target.as_str()), ("GET", "/v1/models"));
    assert_eq!((record.candidates, record.chosen), (POOL.map(str::to_owned).to_vec(), vec![POOL[0].to_owned()]));
    assert_eq!((record.reason, record.refused, record.ended), (Reason::Turn, None, StreamEnded::Complete));
    assert_eq!(record.request, Passed { ends: 1, ..Passed::default() });
    assert_eq!((record.served.as_deref(), record.status), (Some(POOL[0]), Some(200)));
    let response = Passed { bytes: 2, sha256: Body::of(b"[]").sha256, messages: 1, ends: 1 };
    assert_eq!(record.response, response);
    let said = record.headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.as_str());
    assert!(said.is_some_and(|value| value.starts_with("Bearer <redacted:")), "{said:?}");
}

#[rstest]
#[case::one_kilobyte(1_024)]
#[case::as_much_as_is_held(64 * 1_024)]
#[case::more_than_is_held(256 * 1_024)]
#[case::two_megabytes(2 * 1_024 * 1_024)]
#[tokio::test]
async fn bodies_come_back_as_they_were_with_one_end(#[case] length: usize, #[values(false, true)] empty_end: bool) {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    let prompt: String =
        (0..).flat_map(|n: u32| n.to_string().into_bytes()).map(char::from).take(length - 40).collect();
    let mut sent = format!(r#"{{"model":"m","prompt":"{prompt}"}}"#).into_bytes();
    sent.resize(length, b' ');
    stream.send(request("POST", &[], false));
    let pieces: Vec<&[u8]> = sent.chunks(16 * 1_024 - 7).collect();
    for (n, piece) in pieces.iter().enumerate() {
        stream.send(message(Request::RequestBody(body(piece, !empty_end && n + 1 == pieces.len()))));
    }
    if empty_end {
        stream.send(message(Request::RequestBody(body(b"", true))));
    }
    assert_eq!(named_by(&mut stream).await, POOL[0]);
    let (came_back, ends) = stream.body().await;
    assert!(came_back == sent, "{} of {} bytes came back", came_back.len(), sent.len());
    respond(&mut stream, None, b"{}").await;
    assert!(stream.close().await.is_empty(), "nothing after the end");
    let record = served.record().await;
    let messages = (pieces.len() + usize::from(empty_end)) as u64;
    let passed = Passed { bytes: length as u64, sha256: Body::of(&sent).sha256, messages, ends: 1 };
    assert_eq!((record.request, ends), (passed, 1));
    assert_eq!(record.model.as_deref(), Some("m"));
    assert_eq!(record.prefix.blocks, u32::try_from((length - 40 + 2) / 64).unwrap().min(256));
}

#[tokio::test]
async fn the_choice_waits_for_the_prompt_but_not_for_a_long_body() {
    let (_served, mut stream) = Served::with_stream(Options { keep_prompt: 1_000, ..Options::default() }).await;
    stream.send(request("POST", &[], false));
    stream.send(message(Request::RequestBody(body(&[b'x'; 500], false))));
    stream.send(message(Request::RequestBody(body(&[b'y'; 500], false)))); // and no end yet
    assert_eq!(named_by(&mut stream).await, POOL[0]);
    stream.send(message(Request::RequestBody(body(b"z", true))));
    let (came_back, _) = stream.body().await;
    assert_eq!((came_back.len(), came_back.last()), (1_001, Some(&b'z')));
}

#[rstest]
#[case::both(AnswerBy::HeaderAndMetadata, true, true)]
#[case::header(AnswerBy::Header, true, false)]
#[case::metadata(AnswerBy::Metadata, false, true)]
#[tokio::test]
async fn a_choice_is_told_as_configured(
    #[case] answer_by: AnswerBy,
    #[case] by_header: bool,
    #[case] by_metadata: bool,
) {
    let scheduling = scheduling("{type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}", "");
    let (_served, mut stream) = Served::with_stream(Options { answer_by, scheduling, ..Options::default() }).await;
    stream.send(request("GET", &[], true));
    let list = Some(format!("{},{}", POOL[0], POOL[1]));
    let expected = (list.clone().filter(|_| by_header), list.filter(|_| by_metadata));
    assert_eq!(named(&stream.answer().await.unwrap().unwrap()), expected);
}

#[rstest]
#[case::one("test-epp-endpoint-selection", "10.244.0.6:8000", "10.244.0.6:8000")]
#[case::without_port("test-epp-endpoint-selection", "10.244.0.7", "10.244.0.7:8000")]
#[case::list("test-epp-endpoint-selection", "10.244.0.7, 10.244.0.5:8000,10.0.0.1", "10.244.0.7:8000,10.244.0.5:8000")]
#[case::verbatim("x-igc-pick", "endpoints=10.0.0.9:1,10.244.0.6:8000", "10.0.0.9:1,10.244.0.6:8000")]
#[tokio::test]
async fn a_request_commands(#[case] name: &str, #[case] value: &str, #[case] chosen: &str) {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    stream.send(request("GET", &[(name, value)], true));
    assert_eq!(named_by(&mut stream).await, chosen);
    let record = served.record_of(stream).await;
    assert_eq!((record.chosen.join(","), record.reason), (chosen.to_owned(), Reason::Commanded));
    assert_eq!(record.ended, StreamEnded::RequestOnly);
}

#[rstest]
#[case::none(&[("x-igc-pick", "none")], 503, NO_ENDPOINT, Reason::Commanded)]
#[case::shed(&[("x-igc-pick", "shed")], 429, SHED, Reason::Commanded)]
#[case::not_in_the_pool(&[("test-epp-endpoint-selection", "10.0.0.1")], 503, NO_ENDPOINT, Reason::NotInPool)]
#[case::our_own_goes_first(&[("x-igc-pick", "shed"), ("test-epp-endpoint-selection", "10.244.0.6")], 429, SHED, Reason::Commanded)]
#[case::unreadable(&[("x-igc-pick", "?")], 400, picker::UNREADABLE, Reason::Commanded)]
#[tokio::test]
async fn a_request_is_refused(
    #[case] command: &[(&str, &str)],
    #[case] status: u16,
    #[case] says: &str,
    #[case] reason: Reason,
    #[values(false, true)] with_body: bool,
) {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    stream.send(request("POST", command, !with_body));
    if with_body {
        stream.send(message(Request::RequestBody(body(b"{}", true))));
    }
    let Response::ImmediateResponse(answer) = stream.response().await else { panic!("not at once") };
    assert_eq!(answer.status.map(|s| s.code), Some(i32::from(status)));
    assert_eq!(String::from_utf8(answer.body).unwrap(), says);
    let headers = answer.headers.unwrap().set_headers;
    let [header] = &headers[..] else { panic!("{headers:?}") };
    let header = header.header.clone().unwrap();
    assert_eq!((header.key.as_str(), &header.raw_value[..]), ("content-type", &b"application/json"[..]));
    serde_json::from_str::<serde_json::Value>(says).expect("it is JSON");
    assert_eq!(stream.answer().await.unwrap(), None, "the picker has said all");
    let record = served.record().await;
    assert_eq!((record.refused, record.reason, record.ended), (Some(status), reason, StreamEnded::Refused));
    assert_eq!((record.chosen, record.candidates.len()), (vec![], 3));
}

#[tokio::test]
async fn an_empty_pool_is_503_and_a_busy_one_429() {
    let detector = "{type: concurrency-detector, parameters: {maxConcurrency: 1}}";
    let scheduling = scheduling(detector, ", saturationDetector: {pluginRef: concurrency-detector}");
    let served = Served::of(Options { scheduling, ..Options::default() }).await;
    let connection = served.connect().await;
    let ask = || async {
        let mut stream = connection.stream().await;
        stream.send(request("GET", &[], true));
        let response = stream.response().await;
        let refused = if let Response::ImmediateResponse(r) = response { r.status.map(|s| s.code) } else { None };
        (stream, refused)
    };
    served.endpoints.send_replace(pool(&POOL[..2]));
    let (first, second) = (ask().await, ask().await);
    assert_eq!((first.1, second.1, ask().await.1), (None, None, Some(429)));
    first.0.close().await;
    soon(served.picker.wait(|records| records.iter().any(|r| r.ended == StreamEnded::RequestOnly))).await;
    assert_eq!(ask().await.1, None, "there is room again");
    for nothing in [Some(vec![]), None] {
        served.endpoints.send_replace(nothing);
        assert_eq!(ask().await.1, Some(503));
    }
}

#[tokio::test]
async fn a_request_asks_for_silence_or_for_an_abort() {
    let served = Served::of(Options::default()).await;
    let connection = served.connect().await;
    let mut silent = connection.stream().await;
    silent.send(request("POST", &[("x-igc-pick", "silent")], false));
    silent.send(message(Request::RequestBody(body(b"{}", true))));
    assert_eq!(named(&silent.answer().await.unwrap().unwrap()), (None, None));
    assert_eq!(silent.body().await, (b"{}".to_vec(), 1));
    silent.close().await;
    let mut aborted = connection.stream().await;
    aborted.send(request("GET", &[("x-igc-pick", "abort")], true));
    assert_eq!(aborted.answer().await.unwrap_err().code(), tonic::Code::Internal);
    let records = soon(served.picker.wait(|records| records.len() == 2)).await;
    assert_eq!(records[0].ended, StreamEnded::RequestOnly);
    assert_eq!((records[1].ended, records[1].reason), (StreamEnded::Failed, Reason::Commanded));
}

#[rstest]
#[case::list(Kind::ListValue(ListValue { values: vec![Value { kind: Some(Kind::StringValue("10.244.0.7:8000".into())) }, Value { kind: Some(Kind::NumberValue(1.0)) }] }), &["10.244.0.7:8000"])]
#[case::text(Kind::StringValue("10.244.0.6:8000, 10.244.0.7:8000".into()), &["10.244.0.6:8000", "10.244.0.7:8000"])]
#[case::nothing(Kind::StringValue(String::new()), &[])]
#[case::elsewhere(Kind::StringValue("10.0.0.1:1".into()), &[])]
#[case::of_no_known_kind(Kind::BoolValue(true), &[])]
#[tokio::test]
async fn a_gateway_bounds_the_choice(#[case] subset: Kind, #[case] candidates: &[&str]) {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    let head = request("GET", &[], true);
    stream.send(ProcessingRequest { metadata_context: metadata(SUBSET.0, SUBSET.1, subset), ..head });
    match stream.response().await {
        Response::ImmediateResponse(answer) => {
            assert_eq!((answer.status.map(|s| s.code), candidates.is_empty()), (Some(503), true));
        }
        _ => assert!(!candidates.is_empty()),
    }
    let record = served.record_of(stream).await;
    assert_eq!(
        (record.candidates, record.chosen.first().map(String::as_str)),
        (candidates.iter().map(|c| (*c).to_owned()).collect(), candidates.first().copied())
    );
}

#[rstest]
#[case::metadata(Some(POOL[1]), &[], Some(POOL[1]))]
#[case::header(None, &[(SERVED, POOL[2])], Some(POOL[2]))]
#[case::metadata_before_header(Some(POOL[1]), &[(SERVED, POOL[2])], Some(POOL[1]))]
#[case::neither(None, &[], None)]
#[tokio::test]
async fn what_served_is_read_back(
    #[case] by_metadata: Option<&str>,
    #[case] by_header: &[(&str, &str)],
    #[case] served_by: Option<&str>,
) {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    stream.send(request("GET", &[], true));
    named_by(&mut stream).await;
    let all: Vec<(&str, &str)> = [(":status", "503")].iter().chain(by_header).copied().collect();
    let mut head = message(Request::ResponseHeaders(headers(&all, true)));
    head.metadata_context = by_metadata.and_then(|s| metadata(NAMESPACE, SERVED, Kind::StringValue(s.to_owned())));
    stream.send(head);
    stream.response().await;
    let record = served.record_of(stream).await;
    assert_eq!((record.served.as_deref(), record.status), (served_by, Some(503)));
    assert_eq!((record.response.ends, record.ended), (1, StreamEnded::Complete));
}

#[tokio::test]
async fn without_full_duplex_the_head_is_answered_at_once() {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    let mut head = request("POST", &[], false);
    let mode = BodySendMode::Streamed.into();
    head.protocol_config =
        Some(ProtocolConfiguration { request_body_mode: mode, response_body_mode: mode, ..Default::default() });
    stream.send(head);
    assert_eq!(named_by(&mut stream).await, POOL[0]);
    stream.send(message(Request::RequestBody(body(b"{}", true))));
    let Response::RequestBody(answer) = stream.response().await else { panic!("no body") };
    assert_eq!(answer.response, Some(CommonResponse::default()), "the body is still with the gateway");
    let record = served.record_of(stream).await;
    assert_eq!((record.full_duplex, record.request.bytes, record.request.ends), (false, 2, 1));
}

#[tokio::test]
async fn trailers_end_a_body_too() {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    stream.send(request("POST", &[], false));
    stream.send(message(Request::RequestBody(body(b"abc", false))));
    stream.send(message(Request::RequestTrailers(HttpTrailers::default())));
    assert_eq!(named_by(&mut stream).await, POOL[0]);
    assert!(matches!(stream.response().await, Response::RequestBody(_)));
    assert!(matches!(stream.response().await, Response::RequestTrailers(_)));
    stream.send(message(Request::ResponseTrailers(HttpTrailers::default())));
    assert!(matches!(stream.response().await, Response::ResponseTrailers(_)));
    let record = served.record_of(stream).await;
    assert_eq!((record.request.ends, record.response.ends, record.ended), (1, 1, StreamEnded::Complete));
}

#[tokio::test]
async fn a_second_end_is_counted_and_not_passed_on() {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    stream.send(request("POST", &[], false));
    stream.send(message(Request::RequestBody(body(b"abc", true))));
    stream.send(message(Request::RequestBody(body(b"", true))));
    named_by(&mut stream).await;
    assert_eq!(stream.body().await, (b"abc".to_vec(), 1));
    assert!(stream.close().await.is_empty());
    assert_eq!(served.record().await.request.ends, 2);
}

/// A limit's refusal, for example: the filter of the limit stands before that of the picker, which has not heard of the request.
#[tokio::test]
async fn a_reply_that_somebody_else_gave_passes() {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    stream.send(message(Request::ResponseHeaders(headers(&[(":status", "429")], false))));
    let passed = HeadersResponse { response: Some(CommonResponse::default()) };
    assert_eq!(stream.response().await, Response::ResponseHeaders(passed));
    stream.send(message(Request::ResponseBody(body(b"spent", true))));
    assert!(matches!(stream.response().await, Response::ResponseBody(_)));
    let record = served.record_of(stream).await;
    assert_eq!((record.status, record.exchange, record.ended), (Some(429), None, StreamEnded::Complete));
    assert_eq!((record.reason, record.response.bytes, record.chosen.len()), (Reason::Undecided, 5, 0));
}

#[rstest]
#[case::request_after_a_reply(vec![message(Request::ResponseHeaders(headers(&[], true))), message(Request::RequestBody(body(b"", true)))],
    "a stream that began with the reply has no request")]
#[case::head_after_a_reply(vec![message(Request::ResponseHeaders(headers(&[], true))), request("GET", &[], false)], "request_headers came twice")]
#[case::body_of_a_reply_first(vec![message(Request::ResponseBody(body(b"", true)))], "a stream begins with request_headers or response_headers")]
#[case::body_first(vec![message(Request::RequestBody(body(b"", true)))], "a stream begins with request_headers or response_headers")]
#[case::head_twice(vec![request("GET", &[], false), request("GET", &[], false)], "request_headers came twice")]
#[tokio::test]
async fn what_breaks_the_protocol_ends_the_stream(#[case] messages: Vec<ProcessingRequest>, #[case] says: &str) {
    let (served, stream) = Served::with_stream(Options::default()).await;
    messages.into_iter().for_each(|m| stream.send(m));
    let last = stream.close().await.pop().unwrap().unwrap_err();
    assert_eq!((last.code(), last.message()), (tonic::Code::InvalidArgument, says));
    assert_eq!(served.record().await.ended, StreamEnded::Failed);
}

#[tokio::test]
async fn a_gateway_that_leaves_is_seen() {
    let served = Served::of(Options::default()).await;
    let (connection, cut) = served.connect_for_now().await;
    let half = connection.stream().await;
    half.send(request("POST", &[], false));
    half.send(message(Request::RequestBody(body(b"abc", false))));
    half.close().await;
    let closed = served.record().await;
    assert_eq!((closed.ended, closed.reason, closed.request.bytes), (StreamEnded::Closed, Reason::Undecided, 3));
    let mut open = connection.stream().await;
    open.send(request("GET", &[], true));
    named_by(&mut open).await;
    cut.shutdown(std::net::Shutdown::Both).unwrap();
    let records = soon(served.picker.wait(|records| records.len() == 2)).await;
    assert_eq!((records[1].ended, &records[1].chosen[..]), (StreamEnded::Reset, &[POOL[0].to_owned()][..]));
}

#[tokio::test]
async fn inside_tls() {
    let tls = Tls::self_signed(&["picker.test"]).unwrap();
    let served = Served::of(Options { tls: Some(tls.clone()), ..Options::default() }).await;
    let connection = soon(Connection::tls(served.grpc, tls.certificate(), "picker.test")).await.unwrap();
    let mut stream = connection.stream().await;
    stream.send(request("GET", &[], true));
    assert_eq!(named_by(&mut stream).await, POOL[0]);
    stream.close().await;
    assert_eq!(served.record().await.reason, Reason::Turn);
    let other = soon(Connection::tls(served.grpc, tls.certificate(), "other.test")).await;
    assert!(other.is_err(), "it is a certificate for one name");
}

#[tokio::test]
async fn a_picker_that_is_dropped_is_gone_at_once() {
    let served = Served::of(Options::default()).await;
    let connection = served.connect().await;
    let mut stream = connection.stream().await;
    stream.send(request("GET", &[], true));
    named_by(&mut stream).await;
    let at = served.grpc;
    drop(served.picker);
    assert!(stream.answer().await.is_err(), "the stream breaks");
    soon(async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::task::yield_now().await
        }
    })
    .await;
}

#[tokio::test]
async fn a_picker_that_is_stopped_lets_requests_end() {
    let (served, mut stream) = Served::with_stream(Options::default()).await;
    stream.send(request("GET", &[], true));
    named_by(&mut stream).await;
    let stopped = tokio::spawn(served.picker.stop());
    respond(&mut stream, None, b"{}").await;
    assert!(stream.close().await.is_empty());
    soon(stopped).await.unwrap();
}
