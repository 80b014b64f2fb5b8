//! What must be true of a stream whatever comes: shared by a property test and by the fuzz target.

use envoy_types::pb::envoy::{
    extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
    service::ext_proc::v3::{
        BodyResponse, ProcessingRequest, body_mutation::Mutation, processing_request::Request,
        processing_response::Response,
    },
};
use picker::{Endpoint, Options, Session};
use prost::Message;
use tokio::sync::watch;

/// How many bytes are held at most, apart from the last message.
const KEEP: usize = 256;

/// The messages of a stream, each after its length in one byte, as far as they can be read.
pub fn bytes(mut input: &[u8]) {
    let mut messages = Vec::new();
    while let Some((length, rest)) = input.split_first() {
        let (message, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        messages.extend(ProcessingRequest::decode(message).ok());
        input = rest;
    }
    stream(messages);
}

/// Sends these messages to a picker, and looks at every answer.
pub fn stream(messages: Vec<ProcessingRequest>) {
    let (_endpoints, told) = watch::channel(Some(vec![Endpoint::from("10.0.0.1:1"), Endpoint::from("10.0.0.2:1")]));
    let mut session = Session::alone(Options { keep_prompt: KEEP, ..Options::default() }, told);
    let (mut duplex, mut ended) = (true, false);
    let (mut came, mut went, mut ends, mut choices) = (0, 0, 0, 0);
    for message in messages {
        let mut size = 0;
        match &message.request {
            Some(Request::RequestHeaders(head)) => {
                ended = head.end_of_stream;
                let mode = message.protocol_config.as_ref().map(|config| config.request_body_mode);
                duplex = mode.is_none_or(|mode| mode == i32::from(BodySendMode::FullDuplexStreamed));
            }
            Some(Request::RequestBody(body)) if !ended => {
                size = body.body.len();
                ended = body.end_of_stream || body.end_of_stream_without_message;
            }
            Some(Request::RequestTrailers(_)) => ended = true,
            _ => {}
        }
        came += size;
        let Ok(answers) = session.on(message) else { return };
        for answer in answers {
            match answer.response.expect("an answer says something") {
                Response::ImmediateResponse(_) => return,
                Response::RequestHeaders(_) => choices += 1,
                Response::RequestBody(BodyResponse { response: Some(response) }) => {
                    assert_eq!(choices, 1, "a body before its head");
                    if let Some(Mutation::StreamedResponse(piece)) = response.body_mutation.and_then(|m| m.mutation) {
                        went += piece.body.len();
                        ends += u32::from(piece.end_of_stream || piece.end_of_stream_without_message);
                    }
                }
                _ => {}
            }
        }
        assert!(choices <= 1 && ends <= 1, "{choices} choices, {ends} ends");
        if duplex {
            assert!(went <= came && came - went < KEEP + size.max(1), "{came} bytes came, {went} went");
            assert!(!ended || went == came, "{came} bytes came, {went} went, and the end");
        }
    }
}
