//! The OpenAI endpoints: from a request body to an answer, in the shapes of llm-d-inference-sim v0.10.2 in echo mode.
//! Everything here is pure.

use serde_json::{Value, json};
use verdict::history::Usage;

use crate::answer::{Answer, Pieces, json_bytes};
use crate::script::{Reported, Script};
use crate::shapes::*;
use crate::{Config, tokens};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
    /// `/v1/embeddings`
    Embeddings,
}

pub struct Asked<'a> {
    pub return_error: Option<&'a str>,
    pub script: &'a Script,
    pub uuid: &'a str,
    /// Seconds since the Unix epoch.
    pub now: u64,
}

/// One prompt, or several: their tokens are counted, and their echoes are choices.
struct Prompt {
    tokens: u64,
    echo: Vec<String>,
}

pub fn answer(config: &Config, endpoint: Endpoint, body: &[u8], asked: &Asked<'_>) -> Answer {
    match reply(config, endpoint, body, asked) {
        Ok(answer) => served_by(config, answer),
        Err(Refused { status, message }) => Answer::error(status, &message),
    }
}

/// An error at the door: unlike one of the pod, it names no pod in headers.
struct Refused {
    status: u16,
    message: String,
}

impl Refused {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

pub fn models(config: &Config, now: u64) -> Answer {
    let data = config.models.iter().map(|id| ModelEntry {
        id,
        object: "model",
        created: now,
        owned_by: "vllm",
        root: id,
        parent: None,
        max_model_len: config.max_model_len,
    });
    Answer::json(200, &List { object: "list", data: data.collect::<Vec<_>>() })
}

fn reply(config: &Config, endpoint: Endpoint, body: &[u8], asked: &Asked<'_>) -> Result<Answer, Refused> {
    let body: Value = serde_json::from_slice(body).map_err(|e| unreadable(&not_json(&e, body)))?;
    if !body.is_object() {
        return Err(unreadable(&format!("json: cannot unmarshal {} into Go value of type object", kind(&body))));
    }
    if let Some(code) = asked.return_error {
        return Err(returned_error(code));
    }
    if endpoint == Endpoint::Embeddings {
        return embeddings(config, &body);
    }

    let model = text_field(&body, "model")?.unwrap_or_default();
    if !config.models.iter().any(|m| m == model) {
        return Err(Refused::new(404, format!("The model `{model}` does not exist.")));
    }
    let prompts = prompts(endpoint, &body)?;
    let most = most_tokens(endpoint, &body)?;
    if most.is_some_and(|most| most <= 0) {
        return Err(Refused::new(400, "Max completion tokens and max tokens should be positive"));
    }
    let prompt_tokens: u64 = prompts.iter().map(|p| p.tokens).sum();
    let wanted = most.and_then(|most| u64::try_from(most).ok()).unwrap_or(0);
    let total = prompt_tokens.saturating_add(wanted);
    if total > config.max_model_len {
        let message = format!(
            "This model's maximum context length is {} tokens. However, you requested {total} tokens ({prompt_tokens} in the \
             messages, {wanted} in the completion). Please reduce the length of the messages or completion",
            config.max_model_len
        );
        return Ok(Answer::error(400, &message));
    }

    let choices: Vec<Choice> = prompts
        .into_iter()
        .map(|prompt| {
            let tokens = scripted_tokens(asked.script).unwrap_or(prompt.echo);
            let finish_reason = if most.is_some() && tokens.len() as u64 >= wanted { "length" } else { "stop" };
            Choice { tokens, finish_reason }
        })
        .collect();
    let completion_tokens = choices.iter().map(|c| c.tokens.len() as u64).sum();
    let counted = Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
    let reply = Reply { endpoint, model, choices: &choices, asked, counted };
    let streams = bool_field(&body, "stream")?;
    let include_usage = bool_field(body.get("stream_options").unwrap_or(&Value::Null), "include_usage")?;
    Ok(if streams { reply.stream(include_usage) } else { reply.whole() })
}

/// The headers by which the simulator says which pod answered.
fn served_by(config: &Config, answer: Answer) -> Answer {
    let mut answer = answer;
    if !config.pod.is_empty() {
        answer =
            answer.with_header("x-inference-pod", &config.pod).with_header("x-inference-port", config.port.to_string());
    }
    if !config.namespace.is_empty() {
        answer = answer.with_header("x-inference-namespace", &config.namespace);
    }
    answer
}

fn scripted_tokens(script: &Script) -> Option<Vec<String>> {
    let tokens =
        |n| (1..=n).map(|i| if script.split_utf8 { format!("\u{2603}{i} ") } else { format!("t{i} ") }).collect();
    match script.tokens {
        Some(n) => Some(tokens(n)),
        None => script.split_utf8.then(|| tokens(3)),
    }
}

// --- reading

fn unreadable(why: &str) -> Refused {
    Refused::new(400, format!("Failed to read and parse request body, {why}"))
}

/// What the simulator's JSON parser says, as far as it was recorded.
fn not_json(error: &serde_json::Error, body: &[u8]) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let line = body.split(|b| *b == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let character =
        String::from_utf8_lossy(line.get(error.column().saturating_sub(1)..).unwrap_or_default()).chars().next();
    format!("invalid character {:?} looking for beginning of value", character.unwrap_or('\n'))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_kind(name: &str, value: &Value, wanted: &str) -> Refused {
    unreadable(&format!("json: cannot unmarshal {} into Go struct field {name} of type {wanted}", kind(value)))
}

/// A field that is text; `null` counts as absent, as it does in Go.
fn text_field<'a>(body: &'a Value, name: &str) -> Result<Option<&'a str>, Refused> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_kind(name, other, "string")),
    }
}

fn bool_field(body: &Value, name: &str) -> Result<bool, Refused> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(wrong_kind(name, other, "bool")),
    }
}

fn most_tokens(endpoint: Endpoint, body: &Value) -> Result<Option<i64>, Refused> {
    let names: &[&str] = match endpoint {
        Endpoint::Chat => &["max_completion_tokens", "max_tokens"],
        Endpoint::Completions => &["max_tokens"],
        Endpoint::Responses => &["max_output_tokens"],
        Endpoint::Embeddings => &[],
    };
    for name in names {
        match body.get(*name) {
            None | Some(Value::Null) => {}
            Some(value) => return value.as_i64().map(Some).ok_or_else(|| wrong_kind(name, value, "int64")),
        }
    }
    Ok(None)
}

fn prompts(endpoint: Endpoint, body: &Value) -> Result<Vec<Prompt>, Refused> {
    match endpoint {
        Endpoint::Chat => Ok(vec![chat_prompt(body.get("messages"), "messages")?]),
        Endpoint::Responses => match body.get("input") {
            Some(Value::String(text)) => Ok(vec![conversation(&[("user".to_owned(), text.clone())])]),
            items => Ok(vec![chat_prompt(items, "input")?]),
        },
        Endpoint::Completions | Endpoint::Embeddings => text_prompts(body.get("prompt")),
    }
}

fn chat_prompt(messages: Option<&Value>, name: &str) -> Result<Prompt, Refused> {
    let messages = match messages {
        None | Some(Value::Null) => &[],
        Some(Value::Array(messages)) => messages.as_slice(),
        Some(other) => return Err(wrong_kind(name, other, "[]api.Message")),
    };
    let read = |message: &Value| {
        let role = text_field(message, "role")?.unwrap_or_default().to_owned();
        let content = match message.get("content") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => {
                let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
                texts.collect::<Vec<_>>().join("\n")
            }
            Some(_) => return Err(unreadable("content format not supported")),
        };
        Ok((role, content))
    };
    Ok(conversation(&messages.iter().map(read).collect::<Result<Vec<_>, _>>()?))
}

fn conversation(messages: &[(String, String)]) -> Prompt {
    let rendered = tokens::render(messages.iter().map(|(role, content)| (role.as_str(), content.as_str())));
    let last = messages.last().map_or("", |(_, content)| content.as_str());
    Prompt { tokens: tokens::count(&rendered), echo: owned(tokens::split(last)) }
}

fn text_prompts(prompt: Option<&Value>) -> Result<Vec<Prompt>, Refused> {
    let of_text = |text: &str| match text {
        "" => Err(Refused::new(400, "prompt must not contain an empty string")),
        text => Ok(Prompt { tokens: tokens::count(text), echo: owned(tokens::split(text)) }),
    };
    let of_numbers = |numbers: &[Value]| {
        let last = numbers.len().saturating_sub(1);
        let echo = numbers.iter().enumerate().map(|(i, n)| match n.as_u64() {
            Some(n) => Ok(if i < last { format!("{n},") } else { n.to_string() }),
            None => Err(wrong_kind("prompt", n, "uint32")),
        });
        let echo = echo.collect::<Result<Vec<_>, _>>()?;
        Ok(Prompt { tokens: echo.len() as u64, echo })
    };
    let empty = || Refused::new(400, "prompt array must contain at least one prompt");
    match prompt {
        Some(Value::String(text)) => Ok(vec![of_text(text)?]),
        Some(Value::Array(items)) if items.is_empty() => Err(empty()),
        Some(Value::Array(items)) if items[0].is_number() => Ok(vec![of_numbers(items)?]),
        Some(Value::Array(items)) => {
            let read = |item: &Value| match item {
                Value::String(text) => of_text(text),
                Value::Array(numbers) if !numbers.is_empty() => of_numbers(numbers),
                other => Err(wrong_kind("prompt", other, "string")),
            };
            items.iter().map(read).collect()
        }
        None | Some(Value::Null) => Err(empty()),
        Some(other) => Err(wrong_kind("prompt", other, "string")),
    }
}

fn owned(tokens: Vec<&str>) -> Vec<String> {
    tokens.into_iter().map(str::to_owned).collect()
}

fn returned_error(code: &str) -> Refused {
    match code.trim().parse::<u16>() {
        Ok(status) if (100..1_000).contains(&status) => {
            Refused::new(status, format!("Simulated error triggered by X-Return-Error header (code {status})"))
        }
        _ => Refused::new(400, format!("Invalid X-Return-Error header value {code:?}: must be an integer")),
    }
}

// --- embeddings

fn embeddings(config: &Config, body: &Value) -> Result<Answer, Refused> {
    let inputs: Vec<Vec<u32>> = match body.get("input") {
        Some(Value::String(text)) => vec![numbers_of(text)?],
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => vec![token_numbers(items)],
        Some(Value::Array(items)) => {
            let read = |item: &Value| match item {
                Value::String(text) => numbers_of(text),
                Value::Array(numbers) => Ok(token_numbers(numbers)),
                other => Err(wrong_kind("input", other, "string")),
            };
            items.iter().map(read).collect::<Result<_, _>>()?
        }
        _ => Vec::new(),
    };
    if inputs.is_empty() {
        return Err(Refused::new(400, "input is required and must be a non-empty string or array"));
    }
    let dimensions = match body.get("dimensions").and_then(Value::as_i64) {
        None => 384,
        Some(n @ 1..=4_096) => usize::try_from(n).unwrap_or(384),
        Some(n) if n < 1 => return Err(Refused::new(400, "dimensions must be at least 1")),
        Some(_) => return Err(Refused::new(400, "dimensions must be at most 4096")),
    };
    let tokens: u64 = inputs.iter().map(|i| i.len() as u64).sum();
    let data = inputs.iter().enumerate().map(|(index, numbers)| Embedding {
        object: "embedding",
        index,
        embedding: vector(numbers, dimensions),
    });
    let usage = Usage { prompt_tokens: tokens, completion_tokens: 0, total_tokens: tokens };
    let body = Embeddings {
        object: "list",
        data: data.collect(),
        model: text_field(body, "model")?
            .filter(|m| !m.is_empty())
            .or(config.models.first().map(String::as_str))
            .unwrap_or_default(),
        usage: json!({"prompt_tokens": tokens, "total_tokens": tokens}),
    };
    Ok(Answer::json(200, &body).reporting(Some(usage)))
}

fn numbers_of(text: &str) -> Result<Vec<u32>, Refused> {
    if text.is_empty() {
        return Err(Refused::new(400, "input cannot be an empty string"));
    }
    Ok(tokens::split(text).into_iter().map(tokens::number).collect())
}

fn token_numbers(numbers: &[Value]) -> Vec<u32> {
    numbers.iter().map(|n| u32::try_from(n.as_u64().unwrap_or(0)).unwrap_or(0)).collect()
}

/// The simulator's stub: a number for each token, then the tokens again in less detail.
fn vector(numbers: &[u32], dimensions: usize) -> Vec<f32> {
    let value = |i: usize| match numbers.get(i) {
        Some(n) => 2.0 * (n % 1_024) as f32 / 1_024.0 - 1.0,
        None if numbers.is_empty() => 0.0,
        None => 2.0 * (numbers[i % numbers.len()] % 256) as f32 / 256.0 - 1.0,
    };
    (0..dimensions).map(value).collect()
}

// --- saying

struct Choice {
    tokens: Vec<String>,
    finish_reason: &'static str,
}

struct Reply<'a> {
    endpoint: Endpoint,
    model: &'a str,
    choices: &'a [Choice],
    asked: &'a Asked<'a>,
    counted: Usage,
}

impl Reply<'_> {
    /// What is reported, and how it is written.
    fn usage(&self) -> (Option<Usage>, UsageField) {
        match self.asked.script.usage {
            Reported::Counted => (Some(self.counted), UsageField::Of(self.counted)),
            Reported::Scripted(usage) => (Some(usage), UsageField::Of(usage)),
            Reported::Nothing => (None, UsageField::Absent),
        }
    }

    fn id(&self) -> String {
        match self.endpoint {
            Endpoint::Completions => format!("cmpl-{}-0", self.asked.uuid),
            Endpoint::Responses => format!("resp_{}", self.asked.uuid),
            Endpoint::Chat | Endpoint::Embeddings => format!("chatcmpl-{}", self.asked.uuid),
        }
    }

    fn whole(&self) -> Answer {
        let (reported, usage) = self.usage();
        if self.endpoint == Endpoint::Responses {
            return Answer::json(200, &self.response("completed", Some(self.text(0)), reported)).reporting(reported);
        }
        let (object, chat) = match self.endpoint {
            Endpoint::Completions => ("text_completion", false),
            _ => ("chat.completion", true),
        };
        let choices = (0..self.choices.len()).map(|index| {
            let finish_reason = Some(self.choices[index].finish_reason);
            let text = self.text(index);
            let (message, text) = if chat { (Some(Message::assistant(text)), None) } else { (None, Some(text)) };
            ChoiceBody { index, finish_reason, message, delta: None, text }
        });
        let body = self.completion(object, usage, choices.collect());
        Answer::json(200, &body).reporting(reported)
    }

    fn text(&self, choice: usize) -> String {
        self.choices.get(choice).map(|c| c.tokens.concat()).unwrap_or_default()
    }

    fn completion<'a>(&'a self, object: &'static str, usage: UsageField, choices: Vec<ChoiceBody>) -> Completion<'a> {
        Completion { id: self.id(), model: self.model, object, created: self.asked.now, usage, choices }
    }

    fn stream(&self, include_usage: bool) -> Answer {
        if self.endpoint == Endpoint::Responses {
            return self.stream_response();
        }
        let (reported, usage) = self.usage();
        let (object, chat) = match self.endpoint {
            Endpoint::Completions => ("text_completion", false),
            _ => ("chat.completion.chunk", true),
        };
        let event = |choices: Vec<ChoiceBody>, usage| {
            let mut event = b"data: ".to_vec();
            event.extend_from_slice(&json_bytes(&self.completion(object, usage, choices)));
            event.extend_from_slice(b"\n\n");
            event.into()
        };
        let said = |index, finish_reason, message: Message| {
            let text = message.content.clone().unwrap_or_default();
            let (delta, text) = if chat { (Some(message), None) } else { (None, Some(text)) };
            event(vec![ChoiceBody { index, finish_reason, message: None, delta, text }], UsageField::Null)
        };
        let mut pieces = Pieces::default();
        for (index, choice) in self.choices.iter().enumerate() {
            if chat && !choice.tokens.is_empty() {
                pieces.before.push(said(index, None, Message { role: Some("assistant"), content: None }));
            }
            pieces.tokens.extend(
                choice.tokens.iter().map(|t| said(index, None, Message { role: None, content: Some(t.clone()) })),
            );
            pieces.after.push(said(index, Some(choice.finish_reason), Message::default()));
        }
        let usage_is_said = include_usage && reported.is_some();
        if usage_is_said {
            pieces.after.push(event(Vec::new(), usage));
        }
        pieces.after.push("data: [DONE]\n\n".into());
        Answer::stream(pieces).reporting(reported.filter(|_| usage_is_said))
    }

    fn stream_response(&self) -> Answer {
        let (reported, _) = self.usage();
        let event = |name: &str, body: Value| format!("event: {name}\ndata: {body}\n\n").into();
        let begun = json!({"type": "response.created", "response": self.response("in_progress", None, None)});
        let item = format!("msg_{}", self.asked.uuid);
        let ended =
            json!({"type": "response.completed", "response": self.response("completed", Some(self.text(0)), reported)});
        let delta = |token: &String| {
            let name = "response.output_text.delta";
            event(name, json!({"type": name, "item_id": item, "delta": token}))
        };
        let pieces = Pieces {
            before: vec![event("response.created", begun)],
            tokens: self.choices.iter().flat_map(|c| &c.tokens).map(delta).collect(),
            after: vec![event("response.completed", ended)],
        };
        Answer::stream(pieces).reporting(reported)
    }

    fn response(&self, status: &'static str, text: Option<String>, usage: Option<Usage>) -> Response<'_> {
        let message = |text| OutputMessage {
            r#type: "message",
            role: "assistant",
            status,
            content: [OutputText { r#type: "output_text", text }],
        };
        Response {
            id: self.id(),
            model: self.model,
            object: "response",
            created_at: self.asked.now,
            status,
            output: text.map(message).into_iter().collect(),
            text: json!({"format": {"type": "text"}}),
            usage: usage.map(|u| {
                json!({"input_tokens": u.prompt_tokens, "output_tokens": u.completion_tokens, "total_tokens": u.total_tokens})
            }),
        }
    }
}
