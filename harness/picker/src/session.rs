//! A session: one request as the gateway tells it, message by message, and what it is answered.
//!
//! Nothing here waits or reads. In full duplex the answer to the head is put off until the prompt, or enough of it, has
//! come by; pieces of the body are held until then and go back unchanged afterwards.

use std::{mem, sync::Arc};

use envoy_types::pb::envoy::service::ext_proc::v3::{
    HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse, processing_request::Request,
};
use sha2::{Digest, Sha256};
use tonic::Status;
use verdict::history::{EXCHANGE_HEADER, Passed, PickerRecord, Reason, StreamEnded, hex};

use crate::{
    Endpoint, Endpoints, NO_ENDPOINT, Options, SHED, Shared, UNREADABLE,
    command::{self, Command},
    message::{self, Direction, SERVED},
    prompt,
    schedule::Choice,
};

/// How many bytes of names and values of headers a record keeps.
const KEEP_HEADERS: usize = 64 * 1024;
/// How long an endpoint's name, as a gateway reports it, may be.
const KEEP_NAME: usize = 256;
/// What a message weighs besides its bytes while it is held.
const MESSAGE: usize = 64;

/// One stream. When it is dropped, its record is complete.
pub struct Session {
    shared: Arc<Shared>,
    record: PickerRecord,
    command: Option<Command>,
    subset: Option<Vec<String>>,
    full_duplex_response: bool,
    began: bool,
    decided: bool,
    answered: bool,
    held: Vec<HttpBody>,
    held_weight: usize,
    busy: Option<String>,
    request: Passing,
    response: Passing,
    failed: bool,
}

#[derive(Default)]
struct Passing {
    bytes: u64,
    messages: u64,
    ends: u64,
    hash: Sha256,
}

impl Passing {
    fn piece(&mut self, body: &HttpBody) {
        self.bytes += body.body.len() as u64;
        self.messages += 1;
        self.hash.update(&body.body);
        self.end(body.end_of_stream || body.end_of_stream_without_message);
    }

    fn end(&mut self, ends: bool) {
        self.ends += u64::from(ends);
    }

    fn passed(&mut self) -> Passed {
        let sha256 = if self.messages == 0 { String::new() } else { hex(&mem::take(&mut self.hash).finalize()) };
        Passed { bytes: self.bytes, sha256, messages: self.messages, ends: self.ends }
    }
}

impl Session {
    /// One without a network, of a picker of its own.
    pub fn alone(options: Options, endpoints: Endpoints) -> Self {
        Self::new(Shared::new(options, endpoints))
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let record = PickerRecord {
            sequence: shared.log.arrive(),
            pod: shared.options.pod.clone(),
            at_ms: (shared.options.now_ms)(),
            ..PickerRecord::default()
        };
        Self {
            shared,
            record,
            command: None,
            subset: None,
            full_duplex_response: true,
            began: false,
            decided: false,
            answered: false,
            held: Vec::new(),
            held_weight: 0,
            busy: None,
            request: Passing::default(),
            response: Passing::default(),
            failed: false,
        }
    }

    /// Whether there is nothing more to say: the client has its answer.
    pub(crate) fn is_over(&self) -> bool {
        self.record.refused.is_some()
    }

    /// What a message is answered with.
    /// The error is the status that the stream ends with.
    pub fn on(&mut self, message: ProcessingRequest) -> Result<Vec<ProcessingResponse>, Status> {
        let answer = self.answer(message);
        self.failed |= answer.is_err();
        answer
    }

    fn answer(&mut self, mut message: ProcessingRequest) -> Result<Vec<ProcessingResponse>, Status> {
        let Some(request) = message.request.take() else { return Ok(vec![]) }; // a window update, or news to us
        // A reply that a filter before this one gave, such as a limit's refusal, comes by all the same (seen of Envoy 1.38).
        let is_first = !self.began && !self.answered;
        let of_request = matches!(request, Request::RequestBody(_) | Request::RequestTrailers(_));
        if is_first && !matches!(request, Request::RequestHeaders(_) | Request::ResponseHeaders(_)) {
            return Err(Status::invalid_argument("a stream begins with request_headers or response_headers"));
        }
        if of_request && !self.began {
            return Err(Status::invalid_argument("a stream that began with the reply has no request"));
        }
        match request {
            Request::RequestHeaders(_) if !is_first => Err(Status::invalid_argument("request_headers came twice")),
            Request::RequestHeaders(head) => {
                self.began = true;
                self.begin(&message, &head);
                // without full duplex the body waits for this answer
                if head.end_of_stream || !self.record.full_duplex { self.decide() } else { Ok(vec![]) }
            }
            Request::RequestBody(body) => {
                let after_the_end = self.request.ends > 0;
                self.request.piece(&body);
                if after_the_end {
                    return Ok(vec![]); // counted; to pass it on would end the request twice
                }
                self.request_body(body)
            }
            Request::RequestTrailers(_) => {
                self.request.end(true);
                let mut answers = if self.decided { vec![] } else { self.decide()? };
                if !self.is_over() {
                    answers.push(message::pass_trailers(Direction::Request));
                }
                Ok(answers)
            }
            Request::ResponseHeaders(head) => {
                if is_first {
                    (_, self.full_duplex_response) = message::full_duplex(&message);
                }
                self.see_served(&message, Some(&head));
                self.record.status = header(&head, ":status").and_then(|status| status.parse().ok());
                self.response.end(head.end_of_stream);
                self.answered = true;
                Ok(vec![message::pass_headers(Direction::Response)])
            }
            Request::ResponseBody(body) => {
                self.see_served(&message, None);
                self.response.piece(&body);
                self.answered = true;
                Ok(vec![message::pass_body(Direction::Response, self.full_duplex_response, body)])
            }
            Request::ResponseTrailers(_) => {
                self.see_served(&message, None);
                self.response.end(true);
                self.answered = true;
                Ok(vec![message::pass_trailers(Direction::Response)])
            }
        }
    }

    /// Writes down what the head says.
    fn begin(&mut self, message: &ProcessingRequest, head: &HttpHeaders) {
        (self.record.full_duplex, self.full_duplex_response) = message::full_duplex(message);
        self.subset = message::subset(message);
        self.request.end(head.end_of_stream);
        let mut room = KEEP_HEADERS;
        for (name, value) in message::headers(head.headers.as_ref()) {
            if let Some(command) = Command::of_header(name, value) {
                // our own header goes before the other one, wherever it stands
                if self.command.is_none() || name == command::PICK {
                    self.command = Some(command);
                }
            }
            let Some(left) = room.checked_sub(name.len() + value.len()) else { continue };
            room = left;
            self.record.headers.push((name.to_owned(), wire::redacted(name, value)));
        }
        let said = |name| self.record.header(name).map(str::to_owned);
        let (method, target) = (said(":method"), said(":path"));
        let (request_id, exchange) = (said("x-request-id"), said(EXCHANGE_HEADER));
        self.record.method = method.unwrap_or_default();
        self.record.target = target.unwrap_or_default();
        self.record.request_id = request_id;
        self.record.exchange = exchange.or_else(|| exchange_of_query(&self.record.target));
    }

    fn request_body(&mut self, body: HttpBody) -> Result<Vec<ProcessingResponse>, Status> {
        if self.decided {
            return Ok(vec![message::pass_body(Direction::Request, self.record.full_duplex, body)]);
        }
        self.held_weight += body.body.len() + MESSAGE;
        self.held.push(body);
        if self.request.ends > 0 || self.held_weight >= self.shared.options.keep_prompt {
            self.decide()
        } else {
            Ok(vec![])
        }
    }

    /// Chooses, answers the head, and gives back what was held.
    fn decide(&mut self) -> Result<Vec<ProcessingResponse>, Status> {
        self.decided = true;
        let held = mem::take(&mut self.held);
        let beginning: Vec<u8> =
            held.iter().flat_map(|b| &b.body).copied().take(self.shared.options.keep_prompt).collect();
        let prompt = prompt::read(&beginning);
        let model = prompt.model.clone().unwrap_or_default();
        let first = self.choose(&model, prompt.text)?;
        self.record.model = prompt.model;
        let mut answers = vec![first];
        if !self.is_over() {
            answers.extend(
                held.into_iter().map(|body| message::pass_body(Direction::Request, self.record.full_duplex, body)),
            );
        }
        Ok(answers)
    }

    fn choose(&mut self, model: &str, prompt: &[u8]) -> Result<ProcessingResponse, Status> {
        let candidates = self.candidates();
        let command = self.command.take();
        self.record.reason = Reason::Commanded;
        let commanded = |endpoints| self.shared.scheduler().commanded(endpoints, &candidates, model, prompt);
        let choice = match command {
            None => {
                let choice = self.shared.scheduler().choose(&candidates, model, prompt);
                match choice {
                    Ok(choice) => choice,
                    Err(reason) => return Ok(self.refuse(reason)),
                }
            }
            Some(Command::Select(wanted)) => {
                let selected = command::select(&wanted, candidates.iter().map(|c| c.address.as_str()));
                if selected.is_empty() {
                    return Ok(self.refuse(Reason::NotInPool));
                }
                commanded(selected)
            }
            Some(Command::Endpoints(endpoints)) => commanded(endpoints),
            Some(Command::Silent) => return Ok(message::pass_headers(Direction::Request)),
            Some(Command::Abort) => {
                return Err(Status::internal(format!("the request asked for it ({})", command::PICK)));
            }
            Some(Command::None) => return Ok(self.immediate(503, NO_ENDPOINT)),
            Some(Command::Shed) => return Ok(self.immediate(429, SHED)),
            Some(Command::Unreadable) => return Ok(self.immediate(400, UNREADABLE)),
        };
        Ok(self.send_to(choice))
    }

    /// What can be chosen: the pool, or as much of it as the gateway allows.
    fn candidates(&mut self) -> Vec<Endpoint> {
        let mut candidates = self.shared.endpoints();
        if let Some(subset) = &self.subset {
            let allowed = command::select(subset, candidates.iter().map(|c| c.address.as_str()));
            candidates.retain(|candidate| allowed.contains(&candidate.address));
        }
        self.record.candidates = candidates.iter().map(|c| c.address.clone()).collect();
        candidates
    }

    fn send_to(&mut self, choice: Choice) -> ProcessingResponse {
        self.busy = choice.busy;
        self.record.reason = choice.reason;
        self.record.prefix = choice.prefix;
        self.record.chosen = choice.endpoints;
        message::destination(&self.record.chosen, self.shared.options.answer_by)
    }

    fn refuse(&mut self, reason: Reason) -> ProcessingResponse {
        self.record.reason = reason;
        if reason == Reason::Saturated { self.immediate(429, SHED) } else { self.immediate(503, NO_ENDPOINT) }
    }

    fn immediate(&mut self, status: u16, body: &str) -> ProcessingResponse {
        self.record.refused = Some(status);
        message::immediate(status, body, "igc_picker")
    }

    fn see_served(&mut self, message: &ProcessingRequest, head: Option<&HttpHeaders>) {
        if self.record.served.is_none() {
            let served = message::served(message).or_else(|| header(head?, SERVED));
            self.record.served = served.map(|served| served.chars().take(KEEP_NAME).collect());
        }
    }

    /// The gateway has closed its side in order.
    pub(crate) fn closed(&mut self) {
        let only = !self.answered && self.request.ends > 0;
        self.record.ended = if only { StreamEnded::RequestOnly } else { StreamEnded::Closed };
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(endpoint) = self.busy.take() {
            self.shared.scheduler().release(&endpoint);
        }
        let mut record = mem::take(&mut self.record);
        record.request = self.request.passed();
        record.response = self.response.passed();
        if self.failed {
            record.ended = StreamEnded::Failed;
        } else if record.refused.is_some() {
            record.ended = StreamEnded::Refused;
        } else if record.response.ends > 0 {
            record.ended = StreamEnded::Complete;
        }
        self.shared.log.complete(record);
    }
}

fn header<'a>(head: &'a HttpHeaders, name: &str) -> Option<&'a str> {
    let (_, value) = message::headers(head.headers.as_ref()).find(|(n, _)| n.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(value).ok()
}

/// Peers that offer no headers name the exchange in the query.
fn exchange_of_query(target: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(EXCHANGE_HEADER)?.strip_prefix('='))?;
    Some(value.to_owned())
}
