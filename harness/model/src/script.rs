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
    pub padding: Option<usize>,
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
        let number = |header, expected| {
            let read = |text: &str| text.trim().parse::<u64>().ok();
            value(headers, header).map(|t| t.and_then(read).ok_or(Unreadable { header, expected })).transpose()
        };
        let text =
            |header, expected| value(headers, header).map(|t| t.ok_or(Unreadable { header, expected })).transpose();

        let unreadable_status = Unreadable { header: "x-igc-status", expected: "a status from 200 to 599" };
        let status = match number("x-igc-status", unreadable_status.expected)? {
            None => None,
            Some(n) => Some(u16::try_from(n).ok().filter(|n| (200..600).contains(n)).ok_or(unreadable_status)?),
        };
        let reply = match text("x-igc-reply", "base64")? {
            None => None,
            Some(t) => {
                Some(STANDARD.decode(t.trim()).map_err(|_e| Unreadable { header: "x-igc-reply", expected: "base64" })?)
            }
        };
        let usage = match text("x-igc-usage", "prompt=N,completion=N,total=N or none")? {
            None => Reported::Counted,
            Some("none") => Reported::Nothing,
            Some(numbers) => Reported::Scripted(
                usage(numbers)
                    .ok_or(Unreadable { header: "x-igc-usage", expected: "prompt=N,completion=N,total=N or none" })?,
            ),
        };
        let few = "a number up to 100000";
        let tokens = number("x-igc-stream-tokens", few)?;
        if tokens.is_some_and(|n| n > MOST_TOKENS) {
            return Err(Unreadable { header: "x-igc-stream-tokens", expected: few });
        }
        let little = "a number up to 16777216";
        let padding = match number("x-igc-padding", little)? {
            None => None,
            Some(n) if n <= MOST_PADDING => usize::try_from(n).ok(),
            Some(_) => return Err(Unreadable { header: "x-igc-padding", expected: little }),
        };
        let more = headers.get_all("x-igc-header").iter().map(|value| {
            let pair = value.to_str().ok().and_then(|text| text.split_once(':'));
            let (name, value) = pair.ok_or(Unreadable { header: "x-igc-header", expected: "name: value" })?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        });
        let plain = "a name of letters, digits, dots and dashes";
        let gate = text("x-igc-gate", plain)?.map(str::to_owned);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if gate.as_deref().is_some_and(|name| name.is_empty() || !name.chars().all(is_plain)) {
            return Err(Unreadable { header: "x-igc-gate", expected: plain });
        }
        Ok(Self {
            status,
            reply,
            content_type: text("x-igc-content-type", "a content type")?.map(str::to_owned),
            headers: more.collect::<Result<_, _>>()?,
            padding,
            usage,
            delay: number("x-igc-delay-ms", "milliseconds")?.map(Duration::from_millis),
            tokens,
            gate,
            die_after: number("x-igc-die-after", "a number")?,
            split_utf8: headers.contains_key("x-igc-split-utf8"),
            gzip: headers.contains_key("x-igc-gzip"),
        })
    }
}

/// The value of a header: outer `None` where it is absent, inner `None` where it is not text.
fn value<'a>(headers: &'a HeaderMap, header: &str) -> Option<Option<&'a str>> {
    headers.get(header).map(|v| v.to_str().ok())
}

fn usage(numbers: &str) -> Option<Usage> {
    let mut read = [None; 3];
    for part in numbers.split(',') {
        let (name, number) = part.trim().split_once('=')?;
        let slot = ["prompt", "completion", "total"].iter().position(|n| *n == name)?;
        read[slot] = Some(number.parse::<u64>().ok()?);
    }
    let [Some(prompt_tokens), Some(completion_tokens), Some(total_tokens)] = read else { return None };
    Some(Usage { prompt_tokens, completion_tokens, total_tokens })
}
