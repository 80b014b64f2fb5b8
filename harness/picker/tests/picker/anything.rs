//! Streams of any messages at all.

use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
    service::ext_proc::v3::{
        HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProtocolConfiguration, processing_request::Request,
    },
};
use proptest::prelude::*;
use prost::Message;

use crate::oracle;

fn head() -> impl Strategy<Value = HttpHeaders> {
    let name = prop_oneof![
        Just("test-epp-endpoint-selection".to_owned()),
        Just("x-igc-pick".to_owned()),
        Just(":path".to_owned()),
        "[a-z:-]{0,8}",
    ];
    let value = prop_oneof![
        prop::sample::select(vec!["none", "shed", "silent", "abort", "endpoints=a:1", "10.0.0.1", "10.0.0.2:1"])
            .prop_map(|v| v.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    let header = (name, value).prop_map(|(key, raw_value)| HeaderValue { key, raw_value, ..HeaderValue::default() });
    (prop::collection::vec(header, 0..4), any::<bool>()).prop_map(|(headers, end_of_stream)| HttpHeaders {
        headers: Some(HeaderMap { headers }),
        end_of_stream,
        ..HttpHeaders::default()
    })
}

fn body() -> impl Strategy<Value = HttpBody> {
    let ends = prop::bool::weighted(0.1);
    (prop::collection::vec(any::<u8>(), 0..200), ends).prop_map(|(body, end_of_stream)| HttpBody {
        body,
        end_of_stream,
        ..HttpBody::default()
    })
}

fn message() -> impl Strategy<Value = ProcessingRequest> {
    let request = prop_oneof![
        1 => head().prop_map(Request::RequestHeaders).prop_map(Some),
        8 => body().prop_map(Request::RequestBody).prop_map(Some),
        1 => Just(Some(Request::RequestTrailers(HttpTrailers::default()))),
        1 => head().prop_map(Request::ResponseHeaders).prop_map(Some),
        2 => body().prop_map(Request::ResponseBody).prop_map(Some),
        1 => Just(None),
    ];
    request.prop_map(|request| ProcessingRequest { request, ..ProcessingRequest::default() })
}

/// A head, most of the time, and what follows it.
fn messages() -> impl Strategy<Value = Vec<ProcessingRequest>> {
    let config = prop::option::weighted(
        0.8,
        prop_oneof![3 => Just(BodySendMode::FullDuplexStreamed.into()), 1 => 0..7_i32].prop_map(|mode| {
            ProtocolConfiguration {
                request_body_mode: mode,
                response_body_mode: mode,
                ..ProtocolConfiguration::default()
            }
        }),
    );
    let begin = (head(), config).prop_map(|(mut head, protocol_config)| {
        head.end_of_stream = false;
        ProcessingRequest {
            request: Some(Request::RequestHeaders(head)),
            protocol_config,
            ..ProcessingRequest::default()
        }
    });
    (prop::option::weighted(0.9, begin), prop::collection::vec(message(), 0..12))
        .prop_map(|(begin, rest)| begin.into_iter().chain(rest).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_messages(messages in messages()) {
        oracle::stream(messages);
    }

    #[test]
    fn any_bytes(input in prop::collection::vec(any::<u8>(), 0..200)) {
        oracle::bytes(&input);
    }

    #[test]
    fn any_messages_with_a_byte_that_is_another(messages in messages(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut input = Vec::new();
        for message in messages {
            let encoded = message.encode_to_vec();
            if let Ok(length) = u8::try_from(encoded.len()) {
                input.push(length);
                input.extend(encoded);
            }
        }
        if !input.is_empty() {
            let at = at.index(input.len());
            input[at] = byte;
        }
        oracle::bytes(&input);
    }
}
