//! Capabilities: what a gateway may declare that it has, each as a type whose fields are the parameters that judges read.
//!
//! A parameter that a judge needs is a field without a default: a folder that leaves it out, or misspells it, is refused
//! before anything is made. Names of capabilities and of fields are those of `gateway.yaml`.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    change::{Answer, Change},
    history::Exchange,
    names,
};

/// What a folder declares: capability -> parameters, as checked by [`check`].
pub type Declared = BTreeMap<String, BTreeMap<String, Value>>;

/// A capability that a gateway can declare.
#[derive(Debug)]
pub struct Capability {
    /// As `gateway.yaml` and checks name it.
    pub name: &'static str,
    /// What a gateway has that declares it.
    pub about: &'static str,
    accepts: fn(Value) -> Result<(), Problem>,
    schema: fn() -> Schema,
}

/// Why parameters are not those of a capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From the capability down to what is wrong: `["token-limit", "window-secnds"]`.
    pub path: Vec<String>,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.problem)
        } else {
            write!(f, "{}: {}", self.path.join("."), self.problem)
        }
    }
}

macro_rules! capabilities {
    ($($constant:ident $name:literal $type:ty, $about:literal;)+) => {
        $(#[doc = concat!($about, ".")] pub const $constant: &Capability = &Capability {
            name: $name,
            about: $about,
            accepts: accepts::<$type>,
            schema: || schemars::schema_for!($type),
        };)+

        /// All of them, in the order of the reference page.
        pub const ALL: &[&Capability] = &[$($constant),+];
    };
}

capabilities! {
    HOST_ROUTE "host-route" HostRoute, "A route is selected by hostname";
    PATH_ROUTE "path-route" PathRoute, "A route is selected by path, the more specific one first";
    MODEL_ROUTE "model-route" ModelRoute, "A route is selected by the model that the body of a request names";
    MODEL_POOL_ROUTE "model-pool-route" None, "A route that is selected by the body's model leads to an InferencePool";
    CHAT_ERRORS "chat-errors" ChatErrors, "Requests that are no chat completion are refused by the gateway itself";
    TOKEN_LIMIT "token-limit" TokenLimit, "Tokens are limited";
    TOKEN_LIMIT_PER_USER "token-limit-per-user" TokenLimit, "Tokens are limited for each user apart";
    TOKEN_LIMIT_PER_MODEL "token-limit-per-model" TokenLimit, "Tokens are limited for each model of a user apart";
    STREAMING "streaming" Streaming, "Replies are streamed as server-sent events";
    HEADER_MODIFIER "header-modifier" None, "A route sets, adds and removes headers of requests and replies";
    TRANSFORMATION "transformation" Transformation, "A route gives headers to replies";
    EXPRESSION "expression" Transformation, "Values of headers are expressions over request and reply";
    GATEWAY_STATUS "gateway-status" GatewayStatus, "The status of a Gateway says how it stands";
    ROUTE_STATUS "route-status" RouteStatus, "The status of a route says what it lacks";
    POOL "pool" None, "A route leads to an InferencePool, whose endpoint picker chooses";
    LLMISVC "llmisvc" None, "An LLMInferenceService of KServe is routed to";
    KSERVE "kserve" Kserve, "An InferenceService of KServe is routed to";
    GUIDE_000 "guide-000" None, "What guide 000 prints";
    GUIDE_001 "guide-001" None, "What guide 001 prints";
    GUIDE_002 "guide-002" None, "What guide 002 prints";
    GUIDE_003 "guide-003" None, "What guide 003 prints";
    GUIDE_004 "guide-004" None, "What guide 004 prints";
}

/// A capability without parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct None {}

/// A refusal of the gateway's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Refusal {
    /// Status code.
    pub status: u16,
    /// Media type of the body, without parameters; any where it is left out.
    pub content_type: Option<String>,
    /// Regular expression that matches the whole body; where it is left out, body and other headers are not compared.
    pub body: Option<String>,
    /// All other headers, but for those that any intermediary writes, each with a regular expression that matches its
    /// whole value.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl Refusal {
    /// What of an exchange's reply is not this refusal, but for headers that these changes explain; nothing where it is.
    pub fn differs(&self, exchange: &Exchange, changes: &[&Change]) -> Option<String> {
        let media_type = |e: &Exchange| {
            let written = e.response().and_then(|r| r.header("content-type")).unwrap_or("without a content type");
            written.split(';').next().unwrap_or_default().trim().to_owned()
        };
        let got = media_type(exchange);
        let same = self.content_type.as_deref().is_none_or(|c| got.eq_ignore_ascii_case(c));
        if exchange.status() != Some(self.status) || !same {
            return Some(format!("{} {got}", exchange.outcome_words()));
        }
        let body = self.body.clone()?;
        let mut headers = self.headers.clone();
        if let Some(written) = exchange.response().and_then(|r| r.header("content-type")) {
            headers.insert("content-type".to_owned(), regex::escape(written)); // compared above
        }
        Answer { status: self.status, headers, body: Some(body), source: String::new() }.differs(exchange, changes)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status)?;
        let headers = self.headers.iter().map(|(name, value)| format!(" {name}: {value}"));
        let parts = self.content_type.iter().map(|c| format!(" {c}")).chain(headers);
        let parts = parts.chain(self.body.iter().map(|body| format!(" {body:?}")));
        parts.into_iter().try_for_each(|part| f.write_str(&part))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostRoute {
    /// Status of a request whose Host no route has.
    pub status_unknown_host: u16,
}

/// Which of two matches rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// The rule with a path of type PathPrefix.
    Prefix,
    /// The rule with a path of type RegularExpression.
    Regex,
}

/// Parameters of `path-route`. What the Gateway API leaves open: regular expressions against prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PathRoute {
    /// Which rules where both match and the prefix is the shorter text.
    pub regex_against_shorter_prefix: PathKind,
    /// Which rules where both match and the prefix is the longer text.
    pub regex_against_longer_prefix: PathKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModelRoute {
    /// A request whose body names a model that no route has.
    pub unknown_model: Refusal,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ChatErrors {
    /// A body that is no JSON.
    pub malformed_json: Refusal,
    /// A body that names no model.
    pub no_model: Refusal,
    /// A path that is no endpoint.
    pub unsupported_path: Refusal,
}

/// One of the numbers of a reply's `usage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UsageField {
    /// `prompt_tokens`.
    Prompt,
    /// `completion_tokens`.
    Completion,
    /// `total_tokens`.
    Total,
}

impl TokenLimit {
    /// What a reply costs that used so much; nothing where it lacks a number that is charged.
    pub fn cost(&self, used: impl Fn(UsageField) -> Option<u64>) -> Option<u64> {
        self.charged_fields.iter().try_fold(0_u64, |sum, field| sum.checked_add(used(*field)?))
    }
}

/// Whether a request costs tokens that a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Price {
    /// It costs nothing.
    Free,
    /// It costs something.
    Charged,
}

/// When a budget refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Rule {
    /// Once more was spent than the limit: equal still passes.
    #[serde(rename = "spent > limit")]
    Over,
    /// Once as much was spent as the limit.
    #[serde(rename = "spent >= limit")]
    AtLeast,
}

/// Where the windows of a limit begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// At multiples of its length since the limit was made.
    FixedFromPolicy,
    /// At multiples of its length in Unix time.
    FixedUnix,
}

/// What becomes of requests that name no user, where budgets are kept by user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutIdentity {
    /// They are not limited.
    Unlimited,
    /// They share one budget.
    Limited,
}

/// Which answers carry the limiter's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MarkedAnswers {
    /// All that the limiter has seen.
    EveryAnswer,
    /// Those that the limiter gave itself.
    Refusals,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TokenLimit {
    /// The numbers of `usage` whose sum a reply costs.
    pub charged_fields: Vec<UsageField>,
    /// What a stream costs that its client leaves.
    pub aborted_stream: Price,
    /// What a reply costs that has no `usage`.
    pub no_usage_reply: Price,
    /// When a budget refuses.
    pub block_when: Rule,
    /// Where windows begin.
    pub window: Window,
    /// Length of a window of the unit `Minute`, in seconds.
    pub window_seconds: u64,
    /// Header that names the user; left out where one budget is for all.
    pub identity_header: Option<String>,
    /// What becomes of requests without that header.
    pub without_identity: Option<WithoutIdentity>,
    /// Header of a response that the limiter has seen.
    pub mark_header: String,
    /// Which responses have it.
    pub marked_answers: MarkedAnswers,
    /// The model that serves these checks, where the records of our own are the only proof; else the run's.
    pub model: Option<String>,
    /// Status of a refusal.
    pub status: u16,
    /// Body of a refusal; `empty` for none.
    pub body: String,
    /// Media type of that body, without parameters; any where it is left out.
    pub content_type: Option<String>,
    /// Headers of a refusal: these and no others, but for those that any intermediary writes.
    pub headers: Vec<String>,
}

/// Whether the last event before `[DONE]` has the usage of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UsageChunk {
    /// It is there.
    Added,
    /// It is not there.
    Absent,
}

/// When a stream has an event with its usage, where the client does not ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UsageChunks {
    /// The request has no `stream_options`.
    pub not_asked: UsageChunk,
    /// The request says `include_usage: false`.
    pub refused: UsageChunk,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Streaming {
    /// Where the request of a limited route does not ask for usage.
    pub usage_chunk: UsageChunks,
}

/// Where the value of a header comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HeaderSource {
    /// From the configuration.
    Fixed,
    /// From `model` of the request's body.
    RequestModel,
    /// From `model` of the reply's body.
    ResponseModel,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Transformation {
    /// Where values can come from.
    pub sources: Vec<HeaderSource>,
    /// Those that give no header to a stream.
    #[serde(default)]
    pub absent_on_streams: Vec<HeaderSource>,
}

/// A condition that is True of a listener that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListenerCondition {
    /// The listener can be made.
    Accepted,
    /// It is made.
    Programmed,
    /// What it refers to is there.
    ResolvedRefs,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GatewayStatus {
    /// Those that the gateway writes.
    pub listener_conditions: Vec<ListenerCondition>,
}

/// What becomes of a route whose backend is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MissingBackend {
    /// Reason of ResolvedRefs=False.
    pub reason: String,
    /// Status of its requests.
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RouteStatus {
    /// A backend that is not there.
    pub missing_backend: MissingBackend,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Kserve {
    /// `ingressDomain` of KServe's configuration: hostnames are `<name>-<namespace>.<domain>`.
    pub domain: String,
}

impl Capability {
    /// The capability of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|capability| capability.name == name)
    }

    /// The shape of its parameters.
    pub fn schema(&self) -> Schema {
        (self.schema)()
    }

    /// Whether it has this parameter; one inside another is `outer.inner`.
    #[cfg(test)]
    pub(crate) fn has(&self, parameter: &str) -> bool {
        let schema = self.schema().to_value();
        parameters(&schema, &schema, "").iter().any(|row| row.starts_with(&format!("| `{parameter}` |")))
    }
}

/// The parameters of a history as the type that they are of. What else is declared there is passed over: programs of before
/// knew other parameters, and those of today are checked where they are read from a folder.
pub fn of_history<C: DeserializeOwned>(declared: &BTreeMap<String, Value>) -> Result<C, Problem> {
    let mut known = declared.clone();
    loop {
        match typed(&known) {
            Err(Problem { path, problem }) if problem.starts_with("unknown field") && path.len() == 1 => {
                if known.remove(&path[0]).is_none() {
                    return Err(Problem { path, problem });
                }
            }
            typed => return typed,
        }
    }
}

/// The parameters as the type that they are of, where they are.
pub fn typed<C: DeserializeOwned>(parameters: &BTreeMap<String, Value>) -> Result<C, Problem> {
    let value = parameters.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    decode(Value::Object(value))
}

fn decode<C: DeserializeOwned>(value: Value) -> Result<C, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().iter().map(ToString::to_string).filter(|segment| segment != "?").collect();
        Problem { path, problem: with_near_name(&error.inner().to_string()) }
    })
}

fn accepts<C: DeserializeOwned>(value: Value) -> Result<(), Problem> {
    decode::<C>(value).map(drop)
}

/// serde's words about an unknown field or variant, with the known name that is nearest to it.
fn with_near_name(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (unknown, known) = (quoted.next().unwrap_or_default(), quoted);
    if message.starts_with("unknown ") {
        format!("{message}{}", names::suggestion(&names::near(unknown, known)))
    } else {
        message.to_owned()
    }
}

/// Every capability and parameter is one that there is; the error names the first that is not, by its path.
pub fn check(declared: &Declared) -> Result<(), Problem> {
    for (name, parameters) in declared {
        let capability = Capability::named(name).ok_or_else(|| unknown(name))?;
        let value = parameters.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        (capability.accepts)(Value::Object(value)).map_err(|mut problem| {
            problem.path.insert(0, name.clone());
            problem
        })?;
    }
    Ok(())
}

/// There is no capability of this name.
pub fn unknown(name: &str) -> Problem {
    let near = names::near(name, ALL.iter().map(|c| c.name));
    Problem {
        path: vec![name.to_owned()],
        problem: format!("no capability called `{name}`{}", names::suggestion(&near)),
    }
}

/// The reference page of all capabilities and parameters, in Markdown; `cargo xtask tidy --write` writes it.
pub fn reference() -> String {
    let mut page = String::from(
        "# Capabilities\n\n\
         What a gateway may declare under `capabilities` of its `gateway.yaml`, and the parameters that judges read.\n\
         Generated by `cargo xtask tidy --write` from `harness/verdict/src/capability.rs`.\n",
    );
    for capability in ALL {
        page += &format!("\n## `{}`\n\n{}.\n", capability.name, capability.about);
        let schema = capability.schema().to_value();
        let rows = parameters(&schema, &schema, "");
        if !rows.is_empty() {
            page += "\n| parameter | value | meaning |\n|---|---|---|\n";
            rows.iter().for_each(|row| page += row);
        }
    }
    page
}

/// A row for each parameter of an object, those of objects inside it after it.
fn parameters(whole: &Value, schema: &Value, prefix: &str) -> Vec<String> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for (name, parameter) in schema["properties"].as_object().into_iter().flatten() {
        let shape = resolved(whole, parameter);
        let optional = if required.iter().any(|r| r == name) { "" } else { ", optional" };
        let meaning = parameter["description"].as_str().or(shape["description"].as_str()).unwrap_or_default();
        let meaning = meaning.replace('\n', " ");
        rows.push(format!("| `{prefix}{name}` | {}{optional} | {meaning} |\n", value(whole, shape)));
        rows.extend(parameters(whole, shape, &format!("{prefix}{name}.")));
    }
    rows
}

/// What a schema refers to; of "this or null" this.
fn resolved<'s>(whole: &'s Value, schema: &'s Value) -> &'s Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
        return &whole["$defs"][name];
    }
    match schema["anyOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null")) {
        Some(one) => resolved(whole, one),
        None => schema,
    }
}

/// What may be written for a value of this shape.
fn value(whole: &Value, shape: &Value) -> String {
    if let Some(alternatives) = shape["oneOf"].as_array() {
        let words = alternatives.iter().filter_map(|one| one["const"].as_str());
        return words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    let of_type = |kind: &str| match kind {
        "array" => format!("list of {}", value(whole, resolved(whole, &shape["items"]))),
        "integer" => "number".to_owned(),
        "string" => "text".to_owned(),
        other => other.to_owned(),
    };
    match &shape["type"] {
        Value::String(kind) => of_type(kind),
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).find(|k| *k != "null").map(of_type).unwrap_or_default()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn declared(name: &str, parameters: Value) -> Declared {
        let parameters = serde_json::from_value(parameters).expect("an object");
        [(name.to_owned(), parameters)].into()
    }

    #[rstest]
    #[case::capability("tokn-limit", json!({}), "tokn-limit", "did you mean token-limit")]
    #[case::parameter("host-route", json!({"status-unknown-hots": 404}), "host-route.status-unknown-hots", "did you mean status-unknown-host?")]
    #[case::left_out("host-route", json!({}), "host-route", "missing field `status-unknown-host`")]
    #[case::deep("model-route", json!({"unknown-model": {"status": 404, "contnet-type": "a"}}), "model-route.unknown-model.contnet-type", "did you mean content-type?")]
    #[case::word("transformation", json!({"sources": ["fixed", "response-modle"]}), "transformation.sources.[1]", "did you mean response-model")]
    #[case::kind("host-route", json!({"status-unknown-host": "404"}), "host-route.status-unknown-host", "expected u16")]
    #[case::none_are_known("pool", json!({"port": 1}), "pool.port", "unknown field `port`")]
    fn what_is_wrong_is_named(#[case] name: &str, #[case] parameters: Value, #[case] path: &str, #[case] said: &str) {
        let problem = check(&declared(name, parameters)).expect_err("it is wrong");
        assert_eq!(problem.path.join("."), path);
        assert!(problem.problem.contains(said), "{}", problem.problem);
    }

    #[test]
    fn a_history_may_declare_more() {
        let declared = declared("host-route", json!({"status-unknown-host": 404, "of-before": 1})).remove("host-route");
        let declared = declared.expect("it is there");
        assert_eq!(of_history(&declared), Ok(HostRoute { status_unknown_host: 404 }));
        assert!(typed::<HostRoute>(&declared).is_err(), "a folder may not");
        assert!(of_history::<HostRoute>(&BTreeMap::new()).is_err(), "nothing is taken for granted");
    }

    #[test]
    fn the_page_has_every_capability_and_parameter() {
        let page = reference();
        for capability in ALL {
            assert!(page.contains(&format!("## `{}`", capability.name)), "{}", capability.name);
        }
        assert!(page.contains("| `missing-backend.reason` | text | Reason of ResolvedRefs=False. |"), "{page}");
        assert!(page.contains("| `identity-header` | text, optional |"), "{page}");
        assert!(page.contains("| `block-when` | `spent > limit` or `spent >= limit` |"), "{page}");
        assert!(page.contains("| `charged-fields` | list of `prompt` or `completion` or `total` |"), "{page}");
    }
}
