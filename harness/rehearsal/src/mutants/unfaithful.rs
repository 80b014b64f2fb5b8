//! How a gateway is unfaithful to what passes through it: requests and replies of any exchange, whatever it is about. Each of
//! these mutants is there twice, wrong always and wrong once in ten.

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;

use super::{
    Mutants, mutant,
    upstream::{events, of_stream},
};
use crate::dataplane::{
    bodies::{self, Body, BodyError, Held, READ_BUFFER},
    interceptor::ClientInterceptor,
    local_reply::Failure,
};

super::mutant::rated! {
    // ---- own-reply
    SERVES_STORED_REPLIES "serves-stored-replies" "a reply is of its own request" ["invariant/own-reply"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    TAKES_CONTENT_OF_OTHERS "takes-content-of-others" "content is of the request that its headers answer"
        ["invariant/own-reply"] in ["transformation/survives-route-update", "pool/picker-asked"];
    MIXES_UP_CONCURRENT_REPLIES "mixes-up-concurrent-replies" "concurrent requests get their own replies"
        ["invariant/own-reply"] in ["pool/follows-choice"];
    DROPS_REPLY_HEADERS "drops-reply-headers" "no header of a reply is lost" ["invariant/own-reply"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    DUPLICATES_REPLY_HEADERS "duplicates-reply-headers" "a header of a reply arrives as often as it was written"
        ["invariant/own-reply"] in ["transformation/survives-route-update", "pool/picker-asked"];
    REORDERS_REPLY_LINES "reorders-reply-lines" "lines of one header keep their order" ["invariant/own-reply"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    RENAMES_REPLY_HEADERS "renames-reply-headers" "a header of a reply keeps its name" ["invariant/own-reply"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    CHANGES_REPLY_HEADERS "changes-reply-headers" "a header of a reply keeps its value" ["invariant/own-reply"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    ADDS_REPLY_HEADERS "adds-reply-headers" "a reply has no header that nobody wrote or declared" ["invariant/own-reply"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    CHANGES_CONTENT_TYPES "changes-content-types" "a reply has the content type that the model wrote"
        ["invariant/own-reply"] in ["transformation/survives-route-update", "pool/picker-asked"];
    CREATED_FOR_OK "created-for-ok" "a reply has the model's status" ["invariant/own-reply"] in ["transformation/survives-route-update", "pool/picker-asked"];
    BAD_GATEWAY_FOR_ERRORS "bad-gateway-for-errors" "an error of the model has the model's status"
        ["invariant/own-reply"] in ["tokens/failed-request-free"];
    DROPS_EVENTS "drops-events" "every event of a stream arrives" ["invariant/own-reply"] in ["pool/picker-asked"];
    DUPLICATES_EVENTS "duplicates-events" "every event of a stream arrives once" ["invariant/own-reply"]
        in ["pool/picker-asked"];
    CHANGES_CHARACTERS "changes-characters" "content arrives as the model wrote it" ["invariant/own-reply"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    ADDS_FIELDS "adds-fields" "a reply has no field that the model did not write" ["invariant/own-reply"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    ANSWERS_AFTER_ASKING "answers-after-asking" "what the model answered is what the client gets" ["invariant/own-reply"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    OTHER_BODY_OF_OWN_ANSWERS "other-body-of-own-answers" "a gateway's own answers have the declared body"
        ["invariant/own-reply"] in ["pool/fail-close"];
    OTHER_TYPE_OF_OWN_ANSWERS "other-type-of-own-answers" "a gateway's own answers have the declared content type"
        ["invariant/own-reply"] in ["pool/fail-close"];
    MORE_HEADERS_OF_OWN_ANSWERS "more-headers-of-own-answers" "a gateway's own answers have the declared headers alone"
        ["invariant/own-reply"] in ["pool/fail-close"];
    // ---- request-untouched
    CHANGES_METHODS "changes-methods" "a request keeps its method" ["invariant/request-untouched"] in ["transformation/survives-route-update", "pool/picker-asked"];
    ADDS_PARAMETERS "adds-parameters" "a request keeps its query" ["invariant/request-untouched"] in ["transformation/survives-route-update", "pool/picker-asked"];
    DROPS_REQUEST_HEADERS "drops-request-headers" "no header of a request is lost" ["invariant/request-untouched"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    REORDERS_REQUEST_LINES "reorders-request-lines" "lines of one header of a request keep their order"
        ["invariant/request-untouched"] in ["transformation/survives-route-update", "pool/picker-asked"];
    LOWERS_REQUEST_HEADERS "lowers-request-headers" "a header of a request keeps its value"
        ["invariant/request-untouched"] in ["transformation/survives-route-update", "pool/picker-asked"];
    ADDS_REQUEST_HEADERS "adds-request-headers" "a request has no header that nobody sent or declared"
        ["invariant/request-untouched"] in ["transformation/survives-route-update", "pool/picker-asked"];
    DROPS_USER "drops-user" "a body keeps all its fields" ["invariant/request-untouched"] in ["transformation/survives-route-update", "pool/picker-asked"];
    ROUNDS_INTEGERS "rounds-integers" "large integers arrive as they were sent" ["invariant/request-untouched"]
        in ["pool/follows-choice"];
    EMPTIES_METADATA "empties-metadata" "fields in fields of a body arrive" ["invariant/request-untouched"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    CUTS_REQUESTS_SHORT "cuts-requests-short" "a body reaches the model whole" ["invariant/request-untouched"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    HIDES_HEADERS_FROM_PICKERS "hides-headers-from-pickers" "the picker sees every header of a request"
        ["invariant/request-untouched"] in ["pool/picker-asked"];
    CHANGES_HEADERS_FOR_PICKERS "changes-headers-for-pickers" "the picker sees headers as they were sent"
        ["invariant/request-untouched"] in ["pool/picker-asked"];
    // ---- reached-once
    COPIES_REQUESTS "copies-requests-without-their-id" "a model gets no request that nobody sent" ["invariant/reached-once"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    SENDS_REQUESTS_TWICE "sends-requests-twice" "a request reaches its model once" ["invariant/reached-once"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    RETRIES_ERRORS "retries-errors" "what the model has answered is not sent again" ["invariant/reached-once"]
        in ["tokens/failed-request-free"];
    SWAPS_IDS "swaps-ids" "a request reaches the model under its own id" ["invariant/reached-once"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    // ---- true-framing
    SAYS_MORE_THAN_IT_SENDS "says-more-than-it-sends" "a length is that of the body that comes" ["invariant/true-framing"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    SENDS_MORE_THAN_IT_SAYS "sends-more-than-it-says" "a body is as long as the model wrote it"
        ["invariant/own-reply", "invariant/true-framing"] in ["transformation/survives-route-update", "pool/picker-asked"];
    BREAKS_OFF_AT_THE_END "breaks-off-at-the-end" "what the model ended ends" ["invariant/true-framing"]
        in ["transformation/survives-route-update", "pool/picker-asked"];
    CLAIMS_COMPRESSION "claims-compression" "an encoding that a reply claims was done"
        ["invariant/own-reply", "invariant/true-framing"] in ["transformation/survives-route-update", "pool/picker-asked"];
    HANGS_UP "hangs-up-on-used-connections" "a connection that a reply leaves open can be used again"
        ["invariant/true-framing"] in ["transformation/survives-route-update", "pool/picker-asked"];
    // ---- metered-as-used
    CHARGES_TWICE "charges-twice" "a reply is charged once" ["invariant/metered-as-used", "admitted"]
        in ["tokens/exact"];
    CHARGES_PROMPTS_ALONE "charges-prompts-alone" "all that is declared is charged"
        ["invariant/metered-as-used", "admitted"] in ["tokens/exact"];
    SHOWS_ONE_MORE "shows-one-more" "what is left is what was not used" ["invariant/metered-as-used", "invariant/own-reply", "numbers"] in ["tokens/exact", "tokens/shape-429"];
    LOSES_CHARGES "loses-charges" "every reply is charged" ["invariant/metered-as-used", "admitted", "live"]
        in ["tokens/exact"];
    LEAVES_MARKS_OUT "leaves-marks-out" "every refusal says how its budget stands"
        ["invariant/own-reply", "refusal-headers", "live"] in ["tokens/shape-429"];
}

/// What headers begin with that mean nothing to anyone on the way.
const CANARY: &str = verdict::canary::HEADERS;
const ID: &str = "x-igc-exchange";

impl ClientInterceptor for Mutants {
    fn respond(&self, is_own: bool, response: Response<Body>) -> BoxFuture<'_, Response<Body>> {
        async move {
            if !self.could_be(ALL) && !self.could_be(&[mutant::HIDES_COMPRESSION]) {
                response
            } else if is_own {
                self.own_answer(response).await
            } else {
                self.reply_of_a_model(response).await
            }
        }
        .boxed()
    }

    fn hangs_up(&self) -> bool {
        self.is(HANGS_UP)
    }
}

/// A whole reply.
type Reply = (StatusCode, HeaderMap, Bytes);

impl Mutants {
    async fn own_answer(&self, mut response: Response<Body>) -> Response<Body> {
        if self.is(MORE_HEADERS_OF_OWN_ANSWERS) {
            response.headers_mut().insert("x-served-by", HeaderValue::from_static("gateway"));
        }
        if self.is(OTHER_TYPE_OF_OWN_ANSWERS) {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        }
        if !self.is(OTHER_BODY_OF_OWN_ANSWERS) {
            return response;
        }
        match whole(response).await {
            Ok((status, mut headers, body)) => {
                let body = [&body, &b"."[..]].concat();
                headers.insert(header::CONTENT_LENGTH, body.len().into());
                of_parts((status, headers, body.into()))
            }
            Err(broken) => broken,
        }
    }

    async fn reply_of_a_model(&self, mut response: Response<Body>) -> Response<Body> {
        self.change_head(&mut response);
        let streams = says(response.headers(), "text/event-stream");
        if streams && self.could_be(&[DROPS_EVENTS, DUPLICATES_EVENTS, CHANGES_CHARACTERS]) {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            let wrong = self.clone();
            return response.map(|body| events(body, move |event| wrong.event(event)));
        }
        if self.could_be(&[MIXES_UP_CONCURRENT_REPLIES]) {
            let others = self.leave() > 0;
            return self.of_before(response, |_| others && self.is(MIXES_UP_CONCURRENT_REPLIES)).await;
        }
        if self.could_be(&[SERVES_STORED_REPLIES]) {
            return self.of_before(response, |_| self.is(SERVES_STORED_REPLIES)).await;
        }
        let content = [
            TAKES_CONTENT_OF_OTHERS,
            CHANGES_CHARACTERS,
            ADDS_FIELDS,
            SAYS_MORE_THAN_IT_SENDS,
            SENDS_MORE_THAN_IT_SAYS,
            BREAKS_OFF_AT_THE_END,
        ];
        if streams || !self.could_be(&content) {
            return response;
        }
        let (status, mut headers, mut body) = match whole(response).await {
            Ok(reply) => reply,
            Err(broken) => return broken,
        };
        if self.could_be(&[TAKES_CONTENT_OF_OTHERS]) {
            let before = self.memory().reply.replace((status, headers.clone(), body.clone()));
            if let Some((.., other)) = before.filter(|(.., other)| *other != body && !body.is_empty())
                && self.is(TAKES_CONTENT_OF_OTHERS)
            {
                body = other;
            }
        }
        if let Some(changed) = another_character(&body)
            && self.is(CHANGES_CHARACTERS)
        {
            body = changed;
        }
        if body.starts_with(b"{\"") && self.is(ADDS_FIELDS) {
            body = [b"{\"x_trace\":1,", &body[1..]].concat().into();
        }
        if body.len() > 1 && self.is(SAYS_MORE_THAN_IT_SENDS) {
            headers.insert(header::CONTENT_LENGTH, (body.len() + 1).into());
            return of_parts((status, headers, Bytes::new())).map(|_| bodies::unsized_body(body));
        }
        if body.len() > 1 && self.is(SENDS_MORE_THAN_IT_SAYS) {
            headers.insert(header::CONTENT_LENGTH, (body.len() - 1).into());
            return of_parts((status, headers, Bytes::new())).map(|_| bodies::unsized_body(body));
        }
        if !body.is_empty() && self.is(BREAKS_OFF_AT_THE_END) {
            headers.remove(header::CONTENT_LENGTH);
            let pieces = [Ok(body), Err(BodyError::from("broken off"))];
            return of_parts((status, headers, Bytes::new())).map(|_| of_stream(stream::iter(pieces)));
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        of_parts((status, headers, body))
    }

    fn change_head(&self, response: &mut Response<Body>) {
        if response.status() == StatusCode::OK && self.is(ANSWERS_AFTER_ASKING) {
            *response = of_parts((StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new(), "no healthy upstream".into()));
            return;
        }
        if response.status() == StatusCode::OK && self.is(CREATED_FOR_OK) {
            *response.status_mut() = StatusCode::CREATED;
        }
        if response.status().is_server_error() && self.is(BAD_GATEWAY_FOR_ERRORS) {
            *response.status_mut() = StatusCode::BAD_GATEWAY;
        }
        let headers = response.headers_mut();
        if self.is(ADDS_REPLY_HEADERS) {
            headers.insert("x-powered-by", HeaderValue::from_static("gateway"));
        }
        if says(headers, "application/json") && self.is(CHANGES_CONTENT_TYPES) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        }
        if self.is(CLAIMS_COMPRESSION) {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if headers.contains_key(header::CONTENT_ENCODING) && self.is(mutant::HIDES_COMPRESSION) {
            headers.remove(header::CONTENT_ENCODING);
        }
        if let Some(name) = repeated(headers)
            && self.is(REORDERS_REPLY_LINES)
        {
            reverse(headers, &name);
        }
        let Some((name, value)) = canary(headers) else { return };
        if self.is(DROPS_REPLY_HEADERS) {
            headers.remove(&name);
        }
        if self.is(DUPLICATES_REPLY_HEADERS) {
            headers.append(&name, value.clone());
        }
        if self.is(RENAMES_REPLY_HEADERS) {
            headers.remove(&name);
            headers.insert("x-igc-other", value.clone());
        }
        if self.is(CHANGES_REPLY_HEADERS)
            && let Ok(changed) = HeaderValue::from_bytes(&[value.as_bytes(), b"x"].concat())
        {
            headers.insert(&name, changed);
        }
    }

    /// The reply before this one in its place, where that is asked for.
    async fn of_before(&self, response: Response<Body>, wanted: impl Fn(&Reply) -> bool) -> Response<Body> {
        let own = match whole(response).await {
            Ok(reply) => reply,
            Err(broken) => return broken,
        };
        let before = self.memory().reply.replace(own.clone());
        of_parts(before.filter(|before| before.2 != own.2 && wanted(before)).unwrap_or(own))
    }

    fn event(&self, event: Bytes) -> Bytes {
        if !event.starts_with(b"data: {") {
            return event;
        }
        if self.is(DROPS_EVENTS) {
            return Bytes::new();
        }
        if self.is(DUPLICATES_EVENTS) {
            return [&event[..], &event].concat().into();
        }
        match another_character(&event) {
            Some(changed) if self.is(CHANGES_CHARACTERS) => changed,
            _ => event,
        }
    }

    /// A request as it leaves for the model.
    pub(super) async fn leaving(&self, mut request: Request<Body>) -> Result<Request<Body>, Failure> {
        if !self.could_be(ALL) && !self.could_be(&[mutant::DROPS_QUERIES]) {
            return Ok(request);
        }
        if request.method() == Method::POST && self.is(CHANGES_METHODS) {
            *request.method_mut() = Method::PUT;
        }
        if self.is(ADDS_PARAMETERS) {
            let with = if request.uri().query().is_some() { '&' } else { '?' };
            let target = format!("{}{with}trace=1", request.uri());
            *request.uri_mut() = target.parse::<Uri>().unwrap_or_default();
        }
        if request.uri().query().is_some() && self.is(mutant::DROPS_QUERIES) {
            *request.uri_mut() = request.uri().path().parse::<Uri>().unwrap_or_default();
        }
        let headers = request.headers_mut();
        if self.is(ADDS_REQUEST_HEADERS) {
            headers.insert("x-trace", HeaderValue::from_static("1"));
        }
        if let Some(name) = repeated(headers)
            && self.is(REORDERS_REQUEST_LINES)
        {
            reverse(headers, &name);
        }
        if let Some((name, _)) = canary(headers)
            && self.is(DROPS_REQUEST_HEADERS)
        {
            headers.remove(name);
        }
        for value in headers.iter_mut().filter(|(name, _)| name.as_str().starts_with(CANARY)).map(|(_, value)| value) {
            let lower = HeaderValue::from_bytes(&value.as_bytes().to_ascii_lowercase());
            if let Some(lower) = lower.ok().filter(|lower| lower != value)
                && self.is(LOWERS_REQUEST_HEADERS)
            {
                *value = lower;
            }
        }
        if let Some(id) = headers.get(ID).cloned().filter(|_| self.could_be(&[SWAPS_IDS])) {
            let before = self.memory().id.replace(id);
            if let Some(before) = before.filter(|_| self.is(SWAPS_IDS)) {
                headers.insert(ID, before);
            }
        }
        if self.could_be(&[DROPS_USER, ROUNDS_INTEGERS, EMPTIES_METADATA, CUTS_REQUESTS_SHORT]) {
            return self.other_body(request).await;
        }
        Ok(request)
    }

    async fn other_body(&self, request: Request<Body>) -> Result<Request<Body>, Failure> {
        let (mut head, body) = request.into_parts();
        let read = match bodies::hold(body, READ_BUFFER).await.map_err(|_| Failure::BodyUnreadable)? {
            Held::TooLarge(read, rest) => return Ok(Request::from_parts(head, bodies::resumed(read, rest))),
            Held::Whole(read) => read,
        };
        let text = String::from_utf8_lossy(&read).into_owned();
        let other = if let Some(without) = without_member(&text, "\"user\":\"", '"')
            && self.is(DROPS_USER)
        {
            Some(without)
        } else if let Some(rounded) = rounded(&text)
            && self.is(ROUNDS_INTEGERS)
        {
            Some(rounded)
        } else if let Some((before, rest)) = text.split_once("\"metadata\":{")
            && let Some((_, behind)) = rest.split_once('}')
            && self.is(EMPTIES_METADATA)
        {
            Some(format!("{before}\"metadata\":{{}}{behind}"))
        } else if text.len() > 1 && text.is_ascii() && self.is(CUTS_REQUESTS_SHORT) {
            Some(text[..text.len() - 1].to_owned())
        } else {
            None
        };
        let Some(other) = other else { return Ok(Request::from_parts(head, bodies::whole(read))) };
        if head.headers.contains_key(header::CONTENT_LENGTH) {
            head.headers.insert(header::CONTENT_LENGTH, other.len().into());
        }
        Ok(Request::from_parts(head, bodies::whole(other)))
    }
}

async fn whole(response: Response<Body>) -> Result<Reply, Response<Body>> {
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(read) => Ok((head.status, head.headers, read.to_bytes())),
        Err(error) => Err(Response::from_parts(head, of_stream(stream::once(async { Err(error) })))),
    }
}

fn of_parts((status, headers, body): Reply) -> Response<Body> {
    let sized = headers.contains_key(header::CONTENT_LENGTH);
    let mut response = Response::new(if sized { bodies::whole(body) } else { bodies::unsized_body(body) });
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

fn says(headers: &HeaderMap, content_type: &str) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|said| said.as_bytes().starts_with(content_type.as_bytes()))
}

fn canary(headers: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
    let mut canaries = headers.iter().filter(|(name, _)| name.as_str().starts_with(CANARY));
    canaries.next().map(|(name, value)| (name.clone(), value.clone()))
}

/// A header of several lines that are not all the same.
fn repeated(headers: &HeaderMap) -> Option<HeaderName> {
    let several = |name: &&HeaderName| {
        let mut values = headers.get_all(*name).iter();
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    headers.keys().find(several).cloned()
}

fn reverse(headers: &mut HeaderMap, name: &HeaderName) {
    let values: Vec<HeaderValue> = headers.get_all(name).iter().rev().cloned().collect();
    headers.remove(name);
    values.into_iter().for_each(|value| _ = headers.append(name, value));
}

/// The same with another first letter of its content.
fn another_character(text: &Bytes) -> Option<Bytes> {
    let begins = b"\"content\":\"";
    let at = text.windows(begins.len()).position(|window| window == begins)? + begins.len();
    let mut changed = text.to_vec();
    let letter = changed.get_mut(at).filter(|letter| letter.is_ascii_alphabetic())?;
    *letter = if *letter == b'x' { b'y' } else { b'x' };
    Some(changed.into())
}

/// A JSON text without the member that begins so and ends with this character, and a comma beside it.
fn without_member(text: &str, begins: &str, ends: char) -> Option<String> {
    let (before, rest) = text.split_once(begins)?;
    let (_, behind) = rest.split_once(ends)?;
    Some(match before.strip_suffix(',') {
        Some(before) => format!("{before}{behind}"),
        None => format!("{before}{}", behind.trim_start_matches(',')),
    })
}

/// A JSON text whose seed went through a floating-point number; `None` where that changes nothing.
fn rounded(text: &str) -> Option<String> {
    let (before, rest) = text.split_once("\"seed\":")?;
    let end = rest.find([',', '}'])?;
    let rounded = rest[..end].trim().parse::<f64>().ok()?.to_string();
    (rounded != rest[..end].trim()).then(|| format!("{before}\"seed\":{rounded}{}", &rest[end..]))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{super::Mutant, *};

    fn reply(status: u16, content_type: &str, body: &'static str) -> Response<Body> {
        let mut response = Response::new(bodies::whole(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        for (name, value) in [("x-igc-c-a", "1"), ("x-igc-c-lines", "a"), ("x-igc-c-lines", "b")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }

    async fn seen(response: Response<Body>) -> String {
        let (head, body) = response.into_parts();
        let lines = head.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
        let body = body.collect().await.map_or("broken".into(), |body| body.to_bytes());
        format!("{}\n{}{}", head.status.as_u16(), lines.collect::<String>(), String::from_utf8_lossy(&body))
    }

    const JSON: &str = r#"{"content":"Hello"}"#;
    const EVENTS: &str = "data: {\"content\":\"a\"}\n\ndata: {\"content\":\"b\"}\n\ndata: [DONE]\n\n";

    #[rstest]
    #[case(DROPS_REPLY_HEADERS, "x-igc-c-a: 1\n", "")]
    #[case(DUPLICATES_REPLY_HEADERS, "x-igc-c-a: 1\n", "x-igc-c-a: 1\nx-igc-c-a: 1\n")]
    #[case(REORDERS_REPLY_LINES, "x-igc-c-lines: a\nx-igc-c-lines: b", "x-igc-c-lines: b\nx-igc-c-lines: a")]
    #[case(CHANGES_REPLY_HEADERS, "x-igc-c-a: 1", "x-igc-c-a: 1x")]
    #[case(CHANGES_CONTENT_TYPES, "application/json", "application/json; charset=utf-8")]
    #[case(CREATED_FOR_OK, "200", "201")]
    #[case(CHANGES_CHARACTERS, "Hello", "xello")]
    #[case(ADDS_FIELDS, "{\"content", "{\"x_trace\":1,\"content")]
    #[case(BREAKS_OFF_AT_THE_END, JSON, "broken")]
    #[tokio::test]
    async fn replies_are_other_on_the_wire(#[case] mutant: Mutant, #[case] from: &str, #[case] to: &str) {
        let right = seen(reply(200, "application/json", JSON)).await;
        let wrong = Mutants::awake(mutant);
        let got = seen(wrong.respond(false, reply(200, "application/json", JSON)).await).await;
        assert_eq!(got, right.replacen(from, to, 1));
        assert!(got != right && wrong.reached());
    }

    #[rstest]
    #[case(DROPS_EVENTS, "data: [DONE]\n\n")]
    #[case(
        DUPLICATES_EVENTS,
        "data: {\"content\":\"a\"}\n\ndata: {\"content\":\"a\"}\n\ndata: {\"content\":\"b\"}\n\ndata: {\"content\":\"b\"}\n\ndata: [DONE]\n\n"
    )]
    #[case(CHANGES_CHARACTERS, "data: {\"content\":\"x\"}\n\ndata: {\"content\":\"x\"}\n\ndata: [DONE]\n\n")]
    #[tokio::test]
    async fn events_are_other_on_the_wire(#[case] mutant: Mutant, #[case] expected: &str) {
        let got = seen(Mutants::awake(mutant).respond(false, reply(200, "text/event-stream", EVENTS)).await).await;
        assert!(got.ends_with(&format!("b\n{expected}")), "{got}");
    }

    #[rstest]
    #[case(SERVES_STORED_REPLIES, "first", "second")]
    #[case(TAKES_CONTENT_OF_OTHERS, "first", "second")]
    #[tokio::test]
    async fn the_reply_before_is_given(
        #[case] mutant: Mutant,
        #[case] first: &'static str,
        #[case] second: &'static str,
    ) {
        let wrong = Mutants::awake(mutant);
        let mut got = Vec::new();
        for body in [first, second] {
            got.push(seen(wrong.respond(false, reply(200, "application/json", body)).await).await);
        }
        assert!(got.iter().all(|text| text.ends_with(first)), "{got:?}");
    }

    #[rstest]
    #[case(OTHER_BODY_OF_OWN_ANSWERS, "gone", "gone.")]
    #[case(OTHER_TYPE_OF_OWN_ANSWERS, "text/plain", "text/html")]
    #[tokio::test]
    async fn own_answers_are_other(#[case] mutant: Mutant, #[case] from: &str, #[case] to: &str) {
        let got = seen(Mutants::awake(mutant).respond(true, reply(404, "text/plain", "gone")).await).await;
        assert!(got.contains(to) && !got.contains(&format!("{from}\n")), "{got}");
        let of_a_model = seen(Mutants::awake(mutant).respond(false, reply(404, "text/plain", "gone")).await).await;
        assert_eq!(of_a_model, seen(reply(404, "text/plain", "gone")).await);
    }

    const BODY: &str = r#"{"model":"a","user":"u","seed":9007199254740993,"metadata":{"a":"b"}}"#;

    #[rstest]
    #[case(DROPS_USER, r#","user":"u""#, "")]
    #[case(ROUNDS_INTEGERS, "993", "992")]
    #[case(EMPTIES_METADATA, r#"{"a":"b"}"#, "{}")]
    #[case(CUTS_REQUESTS_SHORT, "}}", "}")]
    #[case(CHANGES_METHODS, "POST", "PUT")]
    #[case(mutant::DROPS_QUERIES, "/v1?a=b", "/v1")]
    #[case(ADDS_PARAMETERS, "/v1?a=b", "/v1?a=b&trace=1")]
    #[case(DROPS_REQUEST_HEADERS, "x-igc-c-a: AbC\n", "")]
    #[case(LOWERS_REQUEST_HEADERS, "AbC", "abc")]
    #[case(REORDERS_REQUEST_LINES, "x-igc-c-lines: a\nx-igc-c-lines: b", "x-igc-c-lines: b\nx-igc-c-lines: a")]
    #[tokio::test]
    async fn requests_are_other_on_the_wire(#[case] mutant: Mutant, #[case] from: &str, #[case] to: &str) {
        let request = || {
            let builder = Request::post("/v1?a=b").header("x-igc-c-a", "AbC");
            let builder = builder.header("x-igc-c-lines", "a").header("x-igc-c-lines", "b");
            builder.body(bodies::whole(BODY)).unwrap()
        };
        let shown = async |request: Request<Body>| {
            let (head, body) = request.into_parts();
            let mut response = Response::new(body);
            *response.headers_mut() = head.headers;
            format!("{} {}\n{}", head.method, head.uri, seen(response).await)
        };
        let (right, wrong) = (shown(request()).await, Mutants::awake(mutant));
        let got = shown(wrong.leaving(request()).await.unwrap_or_else(|_| panic!("a request"))).await;
        assert_eq!(got, right.replacen(from, to, 1));
        assert!(got != right && wrong.reached());
    }

    #[tokio::test]
    async fn once_in_ten_is_the_third_of_ten() {
        let named = Mutant::named("created-for-ok-one-in-ten").unwrap();
        let wrong = Mutants::awake(named);
        let mut created = Vec::new();
        for turn in 0..20 {
            let response = wrong.respond(false, reply(200, "application/json", JSON)).await;
            if response.status() == StatusCode::CREATED {
                created.push(turn);
            }
        }
        assert_eq!(created, [2, 12]);
    }
}
