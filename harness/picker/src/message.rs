//! The messages of `envoy.service.ext_proc.v3`: what is read of them and how answers are put together.

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderMap, HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
        extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
        service::ext_proc::v3::{
            BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody, ImmediateResponse,
            ProcessingRequest, ProcessingResponse, StreamedBodyResponse, TrailersResponse, body_mutation::Mutation,
            processing_response::Response,
        },
        r#type::v3::HttpStatus,
    },
    google::protobuf::{Struct, Value, value::Kind},
};

/// Request header and metadata key of the choice (GIE protocol 004, "Destination Endpoint").
pub const DESTINATION: &str = "x-gateway-destination-endpoint";
/// Metadata key, and for some gateways header, of what served (GIE protocol 004, "Destination Endpoint Served").
pub const SERVED: &str = "x-gateway-destination-endpoint-served";
/// Metadata namespace of both.
pub const NAMESPACE: &str = "envoy.lb";
/// Metadata namespace and key of the only endpoints that may be chosen (GIE protocol 004, "Endpoint Subset").
pub const SUBSET: (&str, &str) = ("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

impl Direction {
    fn headers(self, response: HeadersResponse) -> Response {
        match self {
            Self::Request => Response::RequestHeaders(response),
            Self::Response => Response::ResponseHeaders(response),
        }
    }

    fn body(self, response: BodyResponse) -> Response {
        match self {
            Self::Request => Response::RequestBody(response),
            Self::Response => Response::ResponseBody(response),
        }
    }

    fn trailers(self, response: TrailersResponse) -> Response {
        match self {
            Self::Request => Response::RequestTrailers(response),
            Self::Response => Response::ResponseTrailers(response),
        }
    }
}

fn answer(response: Response) -> ProcessingResponse {
    ProcessingResponse { response: Some(response), ..ProcessingResponse::default() }
}

pub(crate) fn pass_headers(direction: Direction) -> ProcessingResponse {
    answer(direction.headers(HeadersResponse { response: Some(CommonResponse::default()) }))
}

pub(crate) fn pass_trailers(direction: Direction) -> ProcessingResponse {
    answer(direction.trailers(TrailersResponse::default()))
}

/// Lets a piece of a body pass as it is: in full duplex it is given back, else it is still where it was.
pub(crate) fn pass_body(direction: Direction, full_duplex: bool, body: HttpBody) -> ProcessingResponse {
    let streamed = || StreamedBodyResponse {
        body: body.body,
        end_of_stream: body.end_of_stream,
        end_of_stream_without_message: body.end_of_stream_without_message,
        grpc_message_compressed: body.grpc_message_compressed,
        drain_complete: body.drain_complete,
    };
    let mutation = full_duplex.then(|| BodyMutation { mutation: Some(Mutation::StreamedResponse(streamed())) });
    answer(
        direction
            .body(BodyResponse { response: Some(CommonResponse { body_mutation: mutation, ..Default::default() }) }),
    )
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerBy {
    /// Both, with the same value, as the protocol wants it.
    #[default]
    HeaderAndMetadata,
    /// Only the request header: for gateways that would be wrong to need the metadata.
    Header,
    /// Only the dynamic metadata `envoy.lb`: for gateways that would be wrong to need the header.
    Metadata,
}

/// Answers the request's head with a choice, in order of preference.
pub(crate) fn destination(endpoints: &[String], by: AnswerBy) -> ProcessingResponse {
    let value = endpoints.join(",");
    let header_mutation = (by != AnswerBy::Metadata)
        .then(|| HeaderMutation { set_headers: vec![set_header(DESTINATION, &value)], remove_headers: vec![] });
    let response = CommonResponse { header_mutation, clear_route_cache: true, ..CommonResponse::default() };
    ProcessingResponse {
        dynamic_metadata: (by != AnswerBy::Header)
            .then(|| object([(NAMESPACE, Kind::StructValue(object([(DESTINATION, Kind::StringValue(value))])))])),
        ..answer(Direction::Request.headers(HeadersResponse { response: Some(response) }))
    }
}

/// Answers the client in place of a model.
pub(crate) fn immediate(status: u16, body: &str, details: &str) -> ProcessingResponse {
    answer(Response::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code: i32::from(status) }),
        headers: Some(HeaderMutation {
            set_headers: vec![set_header("content-type", "application/json")],
            remove_headers: vec![],
        }),
        body: body.as_bytes().to_vec(),
        details: details.to_owned(),
        ..ImmediateResponse::default()
    }))
}

fn set_header(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..HeaderValue::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(), // appending would let a client choose
        ..HeaderValueOption::default()
    }
}

fn object<const N: usize>(fields: [(&str, Kind); N]) -> Struct {
    Struct { fields: fields.into_iter().map(|(k, kind)| (k.to_owned(), Value { kind: Some(kind) })).collect() }
}

pub(crate) fn headers(map: Option<&HeaderMap>) -> impl Iterator<Item = (&str, &[u8])> {
    map.into_iter().flat_map(|map| &map.headers).map(|header| {
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        (header.key.as_str(), value)
    })
}

/// Whether bodies of each way come and go back as `FULL_DUPLEX_STREAMED`. A gateway that does not say does, as the
/// endpoint picker's protocol wants it.
pub(crate) fn full_duplex(message: &ProcessingRequest) -> (bool, bool) {
    let is = |mode: i32| mode == i32::from(BodySendMode::FullDuplexStreamed);
    message.protocol_config.as_ref().map_or((true, true), |c| (is(c.request_body_mode), is(c.response_body_mode)))
}

fn metadata<'a>(message: &'a ProcessingRequest, namespace: &str, key: &str) -> Option<&'a Kind> {
    message.metadata_context.as_ref()?.filter_metadata.get(namespace)?.fields.get(key)?.kind.as_ref()
}

/// The endpoint that served, where the gateway says it.
pub(crate) fn served(message: &ProcessingRequest) -> Option<&str> {
    match metadata(message, NAMESPACE, SERVED)? {
        Kind::StringValue(served) => Some(served),
        _ => None,
    }
}

/// The endpoints that may be chosen, where the gateway bounds them: a list, or a text with commas.
pub(crate) fn subset<'a>(message: &'a ProcessingRequest) -> Option<Vec<String>> {
    let texts: Vec<&str> = match metadata(message, SUBSET.0, SUBSET.1)? {
        Kind::StringValue(text) => vec![text],
        Kind::ListValue(list) => {
            let text =
                |value: &'a Value| if let Some(Kind::StringValue(text)) = &value.kind { Some(&**text) } else { None };
            list.values.iter().filter_map(text).collect()
        }
        _ => vec![],
    };
    Some(texts.into_iter().flat_map(listed).map(str::to_owned).collect())
}

/// The parts of a list with commas.
pub(crate) fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
