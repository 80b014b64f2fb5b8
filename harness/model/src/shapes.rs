//! Shapes: the JSON that llm-d-inference-sim v0.10.2 writes, fields in its order.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use verdict::history::Usage;

#[derive(Serialize)]
pub(crate) struct List<T> {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<T>,
}

#[derive(Serialize)]
pub(crate) struct ModelEntry<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
    pub(crate) root: &'a str,
    pub(crate) parent: Option<&'a str>,
    pub(crate) max_model_len: u64,
}

#[derive(Serialize)]
pub(crate) struct Completion<'a> {
    pub(crate) id: String,
    pub(crate) model: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    pub(crate) usage: UsageField,
    pub(crate) choices: Vec<ChoiceBody>,
}

#[derive(Clone, Copy)]
pub(crate) enum UsageField {
    Absent,
    Null,
    Of(Usage),
}

impl UsageField {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl Serialize for UsageField {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent | Self::Null => serializer.serialize_none(),
            Self::Of(usage) => UsageBody {
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
                total_tokens: usage.total_tokens,
                prompt_tokens_details: json!({"cached_tokens": 0}),
            }
            .serialize(serializer),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct UsageBody {
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) total_tokens: u64,
    pub(crate) prompt_tokens_details: Value,
}

#[derive(Serialize)]
pub(crate) struct ChoiceBody {
    pub(crate) index: usize,
    pub(crate) finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delta: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

#[derive(Default, Serialize)]
pub(crate) struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
}

impl Message {
    /// Empty content is left out, as the simulator does.
    pub(crate) fn assistant(content: String) -> Self {
        Self { role: Some("assistant"), content: Some(content).filter(|c| !c.is_empty()) }
    }
}

#[derive(Serialize)]
pub(crate) struct Response<'a> {
    pub(crate) id: String,
    pub(crate) model: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created_at: u64,
    pub(crate) status: &'static str,
    pub(crate) output: Vec<OutputMessage>,
    pub(crate) text: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Value>,
}

#[derive(Serialize)]
pub(crate) struct OutputMessage {
    pub(crate) r#type: &'static str,
    pub(crate) role: &'static str,
    pub(crate) status: &'static str,
    pub(crate) content: [OutputText; 1],
}

#[derive(Serialize)]
pub(crate) struct OutputText {
    pub(crate) r#type: &'static str,
    pub(crate) text: String,
}

#[derive(Serialize)]
pub(crate) struct Embeddings<'a> {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Embedding>,
    pub(crate) model: &'a str,
    pub(crate) usage: Value,
}

#[derive(Serialize)]
pub(crate) struct Embedding {
    pub(crate) object: &'static str,
    pub(crate) index: usize,
    pub(crate) embedding: Vec<f32>,
}
