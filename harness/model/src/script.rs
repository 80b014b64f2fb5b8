//! Scripts: request headers by which a test tells the model what to reply.
//!
//! | header | value | effect |
//! |---|---|---|
//! | `x-return-error` | a status | the simulator's own: that error, after the body was parsed |
//! | `x-igc-status` | a status | that status, with an error body unless `x-igc-reply` gives one; on any path |
//! | `x-igc-reply` | base64 | that body, on any path, with status 200 unless `x-igc-status` gives one |
//! | `x-igc-content-type` | a type | content type of that body; default `application/json`. A body of type `text/event-stream` is a stream whose tokens are its events |
//! | `x-igc-header` | `name: value` | one more header of the reply; may be given several times |
//! | `x-igc-padding` | a number | a reply that is one JSON object has a further field, `padding`, of so many bytes |
//! | `x-igc-usage` | `prompt=3,completion=4,total=9` or `none` | what `usage` says, or that there is none |
//! | `x-igc-delay-ms` | milliseconds | waits on the model's clock before the head |
//! | `x-igc-stream-tokens` | a number | the reply has so many tokens, `t1 t2 ...`, instead of the echo |
//! | `x-igc-gate` | a name of letters, digits, `.`, `_`, `-` | a stream waits before token i (counted from 1) until `POST /igc/gates/NAME/open?n=K` with K >= i; a reply that is not streamed waits for K >= 1 |
//! | `x-igc-die-after` | a number | the connection is cut after so many tokens of a stream, without a last chunk; 0 cuts after the head |
//! | `x-igc-split-utf8` | any | tokens hold characters of several bytes, and chunks of a stream end inside of them |
//! | `x-igc-gzip` | any | the body is compressed, with `content-encoding: gzip` |
//!
//! A value that cannot be read is answered with status 400 and a message that names the header.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderMap;
use verdict::history::Usage;

pub const HEADERS: [&str; 10] = [
    "x-igc-status",
    "x-igc-reply",
    "x-igc-content-type",
    "x-igc-usage",
    "x-igc-delay-ms",
    "x-igc-stream-tokens",
    "x-igc-gate",
    "x-igc-die-after",
    "x-igc-split-utf8",
    "x-igc-gzip",
];

const MOST_TOKENS: u64 = 100_000;

const MOST_PADDING: u64 = 16 * 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    pub status: Option<u16>,
    pub reply: Option<Vec<u8>>,
    pub content_type: Option<String>,
    pub headers: Vec<(String, String)>,
    pub padding: Option<u64>,
    pub usage: Reported,
    pub delay: Option<Duration>,
    pub tokens: Option<u64>,
    pub gate: Option<String>,
    pub die_after: Option<u64>,
    pub split_utf8: bool,
    pub gzip: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reported {
    #[default]
    Counted,
    /// Nothing: the field is absent.
    Nothing,
    /// These numbers, right or wrong.
    Scripted(Usage),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {header}: {expected} expected")]
pub struct Unreadable {
    header: &'static str,
    expected: &'static str,
}

impl Script {
    pub fn read(headers: &HeaderMap) -> Result<Self, Unreadable> {
        let number = |most: u64| move |text: &str| text.trim().parse::<u64>().ok().filter(|n| *n <= most);
        let text = |text: &str| Some(text.to_owned());
        let status = |text: &str| text.trim().parse::<u16>().ok().filter(|n| (200..600).contains(n));
        let more = headers.get_all("x-igc-header").iter().map(|value| {
            let pair = value.to_str().ok().and_then(|text| text.split_once(':'));
            let (name, value) = pair.ok_or(Unreadable { header: "x-igc-header", expected: "name: value" })?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        });
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name = |name: &str| Some(name.to_owned()).filter(|n| !n.is_empty() && n.chars().all(is_plain));
        Ok(Self {
            status: value(headers, "x-igc-status", "a status from 200 to 599", status)?,
            reply: value(headers, "x-igc-reply", "base64", |text| STANDARD.decode(text.trim()).ok())?,
            usage: value(headers, "x-igc-usage", "prompt=N,completion=N,total=N or none", usage)?.unwrap_or_default(),
            tokens: value(headers, "x-igc-stream-tokens", "a number up to 100000", number(MOST_TOKENS))?,
            padding: value(headers, "x-igc-padding", "a number up to 16777216", number(MOST_PADDING))?,
            headers: more.collect::<Result<_, _>>()?,
            gate: value(headers, "x-igc-gate", "a name of letters, digits, dots and dashes", name)?,
            content_type: value(headers, "x-igc-content-type", "a content type", text)?,
            delay: value(headers, "x-igc-delay-ms", "milliseconds", number(u64::MAX))?.map(Duration::from_millis),
            die_after: value(headers, "x-igc-die-after", "a number", number(u64::MAX))?,
            split_utf8: headers.contains_key("x-igc-split-utf8"),
            gzip: headers.contains_key("x-igc-gzip"),
        })
    }
}

/// The value of a header, where there is one, as `read` understands it.
fn value<T>(
    headers: &HeaderMap,
    header: &'static str,
    expected: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Unreadable> {
    let Some(value) = headers.get(header) else { return Ok(None) };
    value.to_str().ok().and_then(read).map(Some).ok_or(Unreadable { header, expected })
}

fn usage(numbers: &str) -> Option<Reported> {
    if numbers == "none" {
        return Some(Reported::Nothing);
    }
    let mut read = [None; 3];
    for part in numbers.split(',') {
        let (name, number) = part.trim().split_once('=')?;
        let slot = ["prompt", "completion", "total"].iter().position(|n| *n == name)?;
        read[slot] = Some(number.parse::<u64>().ok()?);
    }
    let [Some(prompt_tokens), Some(completion_tokens), Some(total_tokens)] = read else { return None };
    Some(Reported::Scripted(Usage { prompt_tokens, completion_tokens, total_tokens }))
}
