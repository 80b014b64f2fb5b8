//! History: everything that a judge may see of one check, and nothing else.
//!
//! A drive fills it, the stage writes it to disk before anything is judged, and `replay` reads it again.
//! The shape is a contract with runs that were kept: a change needs a new [`HISTORY_VERSION`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::change::{Answer, Change};

/// 2 has what a model wrote back ([`ModelRecord::reply`], [`Sent::text`]) and what its connection showed of an exchange
/// ([`Exchange::connection`]). Histories of version 1 are read without them.
pub const HISTORY_VERSION: u32 = 2;

/// The request header that names an exchange; models and pickers copy it into their records.
pub const EXCHANGE_HEADER: &str = "x-igc-exchange";

/// How many bytes of a body are kept as text; the hash and the length always cover all of it.
pub const BODY_KEPT: usize = 64 * 1024;

/// Which attempt of which case of which check, on which gateway. Also the place of its files in a run folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Folder name under `manifests/gateways`.
    pub gateway: String,
    /// `suite/name`.
    pub check: String,
    /// Name of the case, `-` where a check has no cases.
    pub case: String,
    /// Counts from 1.
    pub attempt: u32,
}

impl Key {
    /// `<gateway>/<suite>/<check>/<case>/<attempt>`, relative to `records`, `history` or `evidence`.
    pub fn path(&self) -> String {
        format!("{}/{}/{}/{}", self.gateway, self.check, self.case, self.attempt)
    }

    /// `suite/name` or `suite/name@case`, as people write it.
    pub fn title(&self) -> String {
        if self.case == "-" { self.check.clone() } else { format!("{}@{}", self.check, self.case) }
    }
}

/// Check and case (`-` where there is none) of a title, as [`Key::title`] writes it.
pub fn check_and_case(title: &str) -> (&str, &str) {
    title.split_once('@').unwrap_or((title, "-"))
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    pub version: u32,
    pub key: Key,
    pub hostname: String,
    pub namespace: String,
    /// `host:port` that the client connected to.
    pub address: Option<String>,
    /// `controllerName` of the Gateway's controller, whose entries in statuses count. Earlier programs did not write it.
    #[serde(default)]
    pub controller: String,
    /// Parameters that the gateway's folder declares for the check's capability.
    pub declared: BTreeMap<String, Value>,
    /// Changes of requests and replies that the gateway's folder, or who runs it, declares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Answers that the gateway writes itself, as its folder declares them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// Models of the drive that keep no records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<String>,
    /// How the configuration came to be live. Judged for "must never" clauses, not for counts.
    pub settle: Settle,
    pub exchanges: Vec<Exchange>,
    /// Objects as they were read from the API server, named by the drive.
    pub objects: BTreeMap<String, Value>,
    pub admissions: BTreeMap<String, Admission>,
    /// What each model recorded, by the model's name. A model without records of its own is absent.
    pub models: BTreeMap<String, ModelLog>,
    #[serde(default)]
    pub pickers: BTreeMap<String, PickerLog>,
    pub facts: BTreeMap<String, Value>,
    /// What a reader should know: `restart: window-turned`, `address: second candidate`.
    pub notes: Vec<String>,
}

impl History {
    pub fn new(key: Key, namespace: &str, hostname: &str) -> Self {
        Self {
            version: HISTORY_VERSION,
            key,
            hostname: hostname.to_owned(),
            namespace: namespace.to_owned(),
            ..Self::default()
        }
    }

    pub fn labelled<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a Exchange> {
        self.exchanges.iter().filter(move |e| e.label == label)
    }

    /// The records, of all models, that carry this exchange's id: (model, record).
    pub fn reached<'a>(&'a self, exchange: &'a Exchange) -> Vec<(&'a str, &'a ModelRecord)> {
        self.models
            .iter()
            .flat_map(|(name, log)| log.records.iter().map(move |r| (name.as_str(), r)))
            .filter(|(_, r)| r.exchange.as_deref() == Some(exchange.id.as_str()))
            .collect()
    }
}

/// Retries until the configuration is live: apart from the asserting that follows, which retries nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    pub settled: bool,
    /// From the first apply to the last of the good answers.
    pub seconds: f64,
    pub exchanges: Vec<Exchange>,
    /// What the gateway did not do within the drive's bounds, so that the rest of the drive was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Unique in the run; sent as [`EXCHANGE_HEADER`].
    pub id: String,
    /// What the drive calls it, for example `right-host`. Several exchanges may share one.
    pub label: String,
    /// Milliseconds from the opening of the stage to the first byte sent.
    pub sent_ms: f64,
    pub request: Request,
    pub outcome: Outcome,
    /// What its connection showed, where that was one that an earlier exchange had left open, or where surplus bytes came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
}

/// What was seen of the connection of an exchange, over HTTP/1.1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// The id of the exchange whose reply, complete and without `connection: close`, left a connection for this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether this exchange was on that connection. Where not, it was on a new one, and `broke` says why.
    #[serde(default)]
    pub reused: bool,
    /// How that connection could not be used again, against what the reply of `after` said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broke: Option<String>,
    /// The id under which the request was sent on that connection before it was sent again on a new one under
    /// [`Exchange::id`]; absent where nothing was sent on it. A model may have a record of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<String>,
    /// What came with the reply after the end that its framing gave it: so many bytes, and the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surplus: Option<String>,
}

impl Exchange {
    pub fn response(&self) -> Option<&Response> {
        match &self.outcome {
            Outcome::Response(response) => Some(response),
            Outcome::Failed { .. } => None,
        }
    }

    pub fn status(&self) -> Option<u16> {
        self.response().map(|r| r.status)
    }

    /// As a person finds it in a transcript.
    pub fn named(&self) -> String {
        let came = self.status().map_or("no reply".to_owned(), |status| status.to_string());
        let Request { method, target, .. } = &self.request;
        format!("exchange {} ({}: {method} {target} -> {came})", self.id, self.label)
    }

    /// The status as people read it, or what failed.
    pub fn outcome_words(&self) -> String {
        match &self.outcome {
            Outcome::Response(r) => r.status.to_string(),
            Outcome::Failed { stage, error } => format!("failed to {stage}: {error}"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub method: String,
    /// Path and query, as on the wire.
    pub target: String,
    /// The Host header (HTTP/1.1) or `:authority` (HTTP/2).
    pub host: String,
    /// In order of sending, Host left out.
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    Response(Response),
    Failed {
        /// What was attempted, as it fits after "failed to".
        stage: String,
        error: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    pub status: u16,
    /// In order of arrival, values as text (bytes that are not UTF-8 as U+FFFD).
    pub headers: Vec<(String, String)>,
    pub body: Body,
    /// Arrival of each piece of the body: (milliseconds from sending, bytes).
    pub chunks: Vec<(f64, u64)>,
    pub ended: Ended,
    /// Milliseconds from sending to the response head.
    pub head_ms: f64,
    /// Milliseconds from sending to the end.
    pub end_ms: f64,
}

impl Response {
    /// The first value of a header; names are compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The first number of a header's first value: those of limits have more behind it, `100, 100;w=60`.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.split([',', ';']).next()?.trim().parse().ok()
    }

    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(self.body.text.as_deref().filter(|_| !self.body.truncated)?).ok()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// As its framing promised.
    #[default]
    Complete,
    /// The connection ended before its framing allowed.
    Truncated,
    /// The client left, on purpose.
    Abandoned,
    /// The client's bound on bytes or time was reached.
    Bounded,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    pub bytes: u64,
    /// SHA-256 of all of it, in hexadecimal.
    pub sha256: String,
    /// The text, up to [`BODY_KEPT`] bytes; absent where it is not UTF-8.
    pub text: Option<String>,
    pub truncated: bool,
}

impl Body {
    pub fn of(bytes: &[u8]) -> Self {
        let mut kept = bytes.len().min(BODY_KEPT);
        while kept < bytes.len() && kept > 0 && bytes[kept] & 0xC0 == 0x80 {
            kept -= 1; // do not cut a character in two
        }
        Self {
            bytes: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
            text: std::str::from_utf8(&bytes[..kept]).ok().map(str::to_owned),
            truncated: kept < bytes.len(),
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What the API server said to a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Admission {
    /// Stored, or it would have been (dry run).
    Accepted {
        warnings: Vec<String>,
    },
    Refused {
        code: u16,
        reason: String,
        message: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelLog {
    /// Exchange id of the marker request that the model answered before the drive.
    pub marker_before: Option<String>,
    pub marker_after: Option<String>,
    pub records: Vec<ModelRecord>,
}

impl ModelLog {
    /// Whether an absent record means that nothing arrived: both markers were sent, and both are in the records.
    pub fn is_whole(&self) -> bool {
        let has = |marker: &Option<String>| marker.is_some() && self.records.iter().any(|r| r.exchange == *marker);
        has(&self.marker_before) && has(&self.marker_after)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecord {
    /// Counts from 0 in each pod.
    pub sequence: u64,
    /// Value of [`EXCHANGE_HEADER`], if it arrived.
    pub exchange: Option<String>,
    pub pod: String,
    /// Milliseconds since the Unix epoch, at the arrival of the head.
    pub at_ms: u64,
    pub method: String,
    pub target: String,
    /// In order of arrival, as on the wire, credentials redacted.
    pub headers: Vec<(String, String)>,
    pub body: Body,
    /// `model` of the body, where it is JSON and has one.
    pub model: Option<String>,
    pub status: u16,
    pub usage: Option<Usage>,
    /// Whether the whole reply was taken by the peer; `false` when it left early.
    pub finished: bool,
    /// The body of the reply as far as it was handed over; absent where the model did not say.
    #[serde(default)]
    pub sent: Option<Sent>,
    /// Headers of the reply in order of sending, as on the wire, credentials redacted; absent where the model did not say.
    #[serde(default)]
    pub reply: Option<Vec<(String, String)>>,
}

impl ModelRecord {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PickerLog {
    pub marker_before: Option<String>,
    pub marker_after: Option<String>,
    pub records: Vec<PickerRecord>,
}

impl PickerLog {
    pub fn is_whole(&self) -> bool {
        let has = |marker: &Option<String>| marker.is_some() && self.records.iter().any(|r| r.exchange == *marker);
        has(&self.marker_before) && has(&self.marker_after)
    }
}

/// One request as an endpoint picker saw it: one stream of `envoy.service.ext_proc.v3.ExternalProcessor/Process`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PickerRecord {
    pub sequence: u64,
    /// Value of [`EXCHANGE_HEADER`], or of the query of the same name, if it arrived.
    pub exchange: Option<String>,
    pub request_id: Option<String>,
    pub pod: String,
    /// Milliseconds since the Unix epoch, at the arrival of the head.
    pub at_ms: u64,
    /// `:method`.
    pub method: String,
    /// `:path`.
    pub target: String,
    /// Those that the gateway sent, in its order, credentials redacted.
    pub headers: Vec<(String, String)>,
    pub model: Option<String>,
    /// Whether request bodies come as `FULL_DUPLEX_STREAMED`, as the protocol wants it.
    pub full_duplex: bool,
    /// The endpoints that could be chosen, in the order of the pool.
    pub candidates: Vec<String>,
    /// What was chosen: the first is to serve, the others are fallbacks in order. Empty where nothing was.
    pub chosen: Vec<String>,
    pub reason: Reason,
    pub prefix: Prefix,
    /// Status of the ImmediateResponse that the picker gave instead of an endpoint.
    pub refused: Option<u16>,
    pub request: Passed,
    pub status: Option<u16>,
    pub response: Passed,
    /// The endpoint that served, as the gateway reported it (`x-gateway-destination-endpoint-served`).
    pub served: Option<String>,
    pub ended: StreamEnded,
}

impl PickerRecord {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    pub blocks: u32,
    pub matched: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passed {
    pub bytes: u64,
    /// SHA-256 of all of it, in hexadecimal; empty where no message came.
    pub sha256: String,
    pub messages: u64,
    /// How many ends of stream were said: in the head, with a message, or by trailers. One is right.
    pub ends: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The stream ended before there was anything to choose by.
    #[default]
    Undecided,
    /// A request header named the endpoints.
    Commanded,
    /// A request header named an endpoint, and no candidate is it.
    NotInPool,
    Only,
    /// It holds more of the prompt's beginning.
    Prefix,
    /// It has less to do.
    Load,
    /// All are equal, and it is its turn.
    Turn,
    NoEndpoint,
    /// All candidates have as much to do as is allowed.
    Saturated,
    /// No request: a reader proves with it that the records are whole.
    Marker,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamEnded {
    /// The end of the response had come by.
    Complete,
    Refused,
    /// The gateway closed it after the request, and nothing of a response had come by.
    RequestOnly,
    /// The gateway closed it in the middle of request or response.
    Closed,
    /// It was reset, or the connection broke.
    #[default]
    Reset,
    /// The picker ended it with an error: what came broke the protocol, or the request asked for it.
    Failed,
}

/// What a model handed over of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    pub bytes: u64,
    /// SHA-256 of all of it, in hexadecimal.
    pub sha256: String,
    /// All of it as text; absent where it is not UTF-8 or has more than [`BODY_KEPT`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Sent {
    pub fn of(bytes: &[u8]) -> Self {
        let Body { bytes, sha256, text, truncated } = Body::of(bytes);
        Self { bytes, sha256, text: text.filter(|_| !truncated) }
    }
}

/// Tokens, as OpenAI's `usage` object counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(BODY_KEPT - 1, false, BODY_KEPT - 1)]
    #[case(BODY_KEPT, false, BODY_KEPT)]
    #[case(BODY_KEPT + 1, true, BODY_KEPT)]
    fn bodies_are_kept_up_to_a_bound(#[case] bytes: usize, #[case] truncated: bool, #[case] kept: usize) {
        let body = Body::of(&vec![b'a'; bytes]);
        assert_eq!((body.bytes, body.truncated), (bytes as u64, truncated));
        assert_eq!(body.text.map(|t| t.len()), Some(kept));
    }

    #[test]
    fn a_character_is_never_cut() {
        let body = Body::of("é".repeat(BODY_KEPT).as_bytes()[1..].to_vec().as_slice());
        assert_eq!(body.text, None, "it begins in the middle of a character");
        let odd = format!("a{}", "é".repeat(BODY_KEPT));
        let kept = Body::of(odd.as_bytes()).text.unwrap();
        assert_eq!(kept.len(), BODY_KEPT - 1);
        assert!(odd.starts_with(&kept));
    }

    #[rstest]
    #[case::whole(Some("a"), Some("b"), &["a", "x", "b"], true)]
    #[case::no_marker_before(None, Some("b"), &["a", "b"], false)]
    #[case::no_marker_after(Some("a"), None, &["a", "b"], false)]
    #[case::first_lost(Some("a"), Some("b"), &["b"], false)]
    #[case::last_lost(Some("a"), Some("b"), &["a"], false)]
    #[case::nothing(None, None, &[], false)]
    fn records_are_whole_when_both_markers_are_in_them(
        #[case] before: Option<&str>,
        #[case] after: Option<&str>,
        #[case] recorded: &[&str],
        #[case] whole: bool,
    ) {
        let [marker_before, marker_after] = [before, after].map(|marker| marker.map(str::to_owned));
        let exchanges = || recorded.iter().map(|exchange| Some((*exchange).to_owned()));
        let records = exchanges().map(|exchange| PickerRecord { exchange, ..Default::default() }).collect();
        let (before, after) = (marker_before.clone(), marker_after.clone());
        assert_eq!(PickerLog { marker_before: before, marker_after: after, records }.is_whole(), whole);
        let records = exchanges().map(|exchange| ModelRecord { exchange, ..Default::default() }).collect();
        assert_eq!(ModelLog { marker_before, marker_after, records }.is_whole(), whole);
    }

    #[rstest]
    #[case("-", "routing/host", "gw/routing/host/-/2")]
    #[case("one", "routing/host@one", "gw/routing/host/one/2")]
    fn keys_name_places(#[case] case: &str, #[case] title: &str, #[case] path: &str) {
        let key = Key { gateway: "gw".into(), check: "routing/host".into(), case: case.into(), attempt: 2 };
        assert_eq!((key.title().as_str(), key.path().as_str()), (title, path));
    }
}
