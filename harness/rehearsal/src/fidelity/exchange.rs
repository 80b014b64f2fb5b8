//! Exchanges: what a recording's client sent, what came back, and what arrived at models.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::Value;
use verdict::history::Ended;

use super::rules::{BodyRule, Many, Rule, TextRule};
use crate::dialects::object;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Request {
    /// Where it is sent; the only Gateway where it is absent.
    #[serde(default)]
    pub to: To,
    /// POST where there is a body, GET where there is none.
    pub method: Option<String>,
    pub path: String,
    /// The Host header; the address where it is absent.
    pub host: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, Many<String>>,
    pub json: Option<Value>,
    /// The body, as text; without a `content-type` header it is sent as `application/json`. A mapping is JSON.
    pub body: Option<Value>,
    pub pad: Option<Pad>,
    /// What the model is told to reply: the headers of `harness/model/src/script.rs` without `x-igc-`.
    #[serde(default)]
    pub script: BTreeMap<String, Many<String>>,
    pub leave_after: Option<Leave>,
    #[serde(default)]
    pub http2: bool,
    /// Time that goes by while the reply is waited for.
    pub meanwhile: Option<Span>,
    #[serde(skip)]
    pub times: Option<usize>,
    #[serde(skip)]
    pub at_once: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct To {
    /// `namespace/name` of a Gateway.
    pub gateway: Option<String>,
    /// `namespace/name` of a Service, instead of a Gateway.
    pub service: Option<String>,
    /// The port; of a Gateway its first listener's where it is absent, of a Service its first.
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pad {
    /// Where, as a JSON pointer: `/user`.
    pub at: String,
    pub bytes: usize,
    /// What is repeated; `x` where it is absent.
    pub of: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leave {
    Head,
    Chunks(usize),
    Bytes(u64),
}

/// A time such as `60s` or `1m 30s`; a number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let seconds = text.parse().ok().map(Duration::from_secs);
        seconds
            .or_else(|| object::duration(&text))
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is no time; write for example 60s, 1m 30s or 1h")))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Reply {
    /// In a list of replies: how many of them in a row are like this; 1 where it is absent.
    pub times: Option<usize>,
    /// The status, or several of which each is right.
    pub status: Option<Many<u16>>,
    /// The statuses of all replies in order: `10 x 200 then 2 x 429`.
    pub statuses: Option<Statuses>,
    /// Headers by name, whatever their case.
    #[serde(default)]
    pub headers: BTreeMap<String, Rule<TextRule>>,
    /// The names of all headers, spelled as on the wire.
    pub header_names: Option<Vec<String>>,
    pub body: Option<Rule<BodyRule>>,
    /// The data of all server-sent events in order.
    pub events: Option<Vec<Rule<BodyRule>>>,
    pub ended: Option<Ended>,
    pub no_response: Option<bool>,
    pub upstream: Option<Upstream>,
    pub picker: Option<Picker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Picker {
    Nothing,
    Asked,
}

impl Picker {
    pub fn word(self) -> &'static str {
        match self {
            Picker::Nothing => "nothing",
            Picker::Asked => "asked",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Upstream {
    Nothing,
    Arrived(Box<Arrived>),
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Arrived {
    pub pod: Option<Rule<TextRule>>,
    pub method: Option<String>,
    pub path: Option<Rule<TextRule>>,
    #[serde(default)]
    pub headers: BTreeMap<String, Rule<TextRule>>,
    /// The names of all headers, in lower case.
    pub header_names: Option<Vec<String>>,
    pub body: Option<Rule<BodyRule>>,
    /// Whether the model's reply was taken whole.
    pub finished: Option<bool>,
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct What;
        impl<'de> Visitor<'de> for What {
            type Value = Upstream;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`nothing`, or a mapping such as {path: /v1/chat/completions}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Upstream, E> {
                match text {
                    "nothing" | "none" => Ok(Upstream::Nothing),
                    "something" | "any" => Ok(Upstream::Arrived(Box::default())),
                    other => Err(E::custom(format!("upstream is nothing, something or a mapping, not {other:?}"))),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Upstream, A::Error> {
                let arrived = Arrived::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Upstream::Arrived(Box::new(arrived)))
            }
        }
        from.deserialize_any(What)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub Vec<u16>);

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let runs = Many::<String>::deserialize(from)?;
        let text = runs.0.join(" then ");
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("{text:?} is no row of statuses; write for example \"10 x 200 then 2 x 429\""))
        })
    }
}

impl Statuses {
    fn parse(text: &str) -> Option<Self> {
        let mut all = Vec::new();
        for run in text.split("then").flat_map(|part| part.split(',')) {
            let (times, status) = run.split_once(['x', '×']).unwrap_or(("1", run));
            let (times, status) = (times.trim().parse::<usize>().ok()?, status.trim().parse::<u16>().ok()?);
            (times <= 10_000).then(|| all.extend(std::iter::repeat_n(status, times)))?;
        }
        Some(Self(all))
    }

    /// `10 x 200 then 2 x 429`.
    pub fn counted(statuses: &[String]) -> String {
        let runs: Vec<String> = statuses
            .chunk_by(|a, b| a == b)
            .map(|run| if run.len() == 1 { run[0].clone() } else { format!("{} x {}", run.len(), run[0]) })
            .collect();
        runs.join(" then ")
    }
}
