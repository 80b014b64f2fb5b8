//! Invariants: what must hold of every exchange of every check, whatever the check is about.
//!
//! They are judged from the history alone: each reply is compared with what the model wrote for this very request, and each
//! request with what was sent. What may differ is declared (see [`crate::change`]). Where the evidence is missing an exchange is
//! not judged; that is counted, and is never `unproven`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    change::{Change, Direction},
    excerpt::excerpt,
    history::{Body, EXCHANGE_HEADER, Ended, Exchange, History, ModelLog, ModelRecord, PickerRecord, Response},
    judge::{Clause, Holds},
};

mod body;
mod framing;
mod headers;
mod metering;
mod picker;

/// What the names of clauses, rows of reports and baseline entries begin with.
pub const PREFIX: &str = "invariant/";

/// The first version of histories that has what invariants need: the headers that models reply with.
const SINCE: u32 = 2;

/// How many exchanges a clause names.
const SHOWN: usize = 5;

/// How many characters of a text a clause shows.
const TEXT: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    OwnReply,
    RequestUntouched,
    ReachedOnce,
    TrueFraming,
    MeteredAsUsed,
}

impl Invariant {
    pub const ALL: [Self; 5] =
        [Self::OwnReply, Self::RequestUntouched, Self::ReachedOnce, Self::TrueFraming, Self::MeteredAsUsed];

    pub fn name(self) -> &'static str {
        match self {
            Self::OwnReply => "own-reply",
            Self::RequestUntouched => "request-untouched",
            Self::ReachedOnce => "reached-once",
            Self::TrueFraming => "true-framing",
            Self::MeteredAsUsed => "metered-as-used",
        }
    }

    /// `invariant/NAME`, as clauses and rows of reports are called.
    pub fn id(self) -> String {
        format!("{PREFIX}{}", self.name())
    }

    pub fn of_id(id: &str) -> Option<Self> {
        let name = id.strip_prefix(PREFIX)?;
        Self::ALL.into_iter().find(|invariant| invariant.name() == name)
    }

    pub fn sentence(self) -> &'static str {
        match self {
            Self::OwnReply => {
                "a client gets what the model wrote for its request, or an answer of the gateway's own that is declared"
            }
            Self::RequestUntouched => "a request reaches the model as it was sent, but for declared changes",
            Self::ReachedOnce => "a request reaches one model, once, or none where the gateway answers itself",
            Self::TrueFraming => "lengths, encodings, ends and reusable connections are what a reply says they are",
            Self::MeteredAsUsed => "what a limit says is left is what the model's replies have not used",
        }
    }

    pub fn source(self) -> &'static str {
        match self {
            Self::OwnReply | Self::RequestUntouched => "RFC 9110, section 7.7",
            Self::ReachedOnce => "RFC 9110, section 9.2.2",
            Self::TrueFraming => "RFC 9112, sections 6, 8 and 9",
            Self::MeteredAsUsed => "Envoy Gateway and agentgateway: cost of a request is the usage of its reply",
        }
    }

    pub fn how(self) -> &'static str {
        match self {
            Self::OwnReply => {
                "Compares status, headers and body of every reply with the model's record of the request's id; a reply \
                 without a record with the answers that the gateway's folder declares."
            }
            Self::RequestUntouched => {
                "Compares method, target, headers and body of every request with the model's record of its id, and with that of \
                 the endpoint picker."
            }
            Self::ReachedOnce => {
                "Counts the records of all models for every request, where markers show that the records are whole."
            }
            Self::TrueFraming => {
                "Looks at lengths and ends of every reply, at whether the model sent it whole, and at whether the \
                 connection could be used again."
            }
            Self::MeteredAsUsed => {
                "Adds up the usage in the model's records between two answers of one budget that the limiter marked, \
                 and compares the sum with what the marks say."
            }
        }
    }
}

/// How many exchanges were judged, of how many that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    pub judged: u64,
    pub of: u64,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.judged += other.judged;
        self.of += other.of;
    }
}

/// What is said of one history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// The false ones, one clause for each invariant and subject.
    pub clauses: Vec<Clause>,
    pub tallies: BTreeMap<Invariant, Tally>,
    /// The declared changes that explain a difference, in their words.
    pub used: BTreeSet<String>,
}

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    /// What it is about, as a baseline entry names it: `header x-a`, `field /model`, `body`, `status`.
    pub subject: String,
    pub expected: String,
    pub got: String,
}

impl Difference {
    fn of(subject: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { subject: subject.into(), expected: expected.into(), got: got.into() }
    }
}

/// Judges every exchange of a history. `own` is what the check's own sentence is about, and what is therefore excepted;
/// `metered` whether its budgets are of tokens.
pub fn judge(history: &History, own: &[Change], metered: bool) -> Judged {
    let mut judging = Judging::of(history, own);
    for exchange in history.settle.exchanges.iter().chain(&history.exchanges) {
        judging.exchange(exchange);
    }
    if metered {
        judging.meter();
    }
    judging.finish()
}

/// How two bodies differ, in words: where their bytes do first, or by how many they are where they were not kept.
pub fn differing(sent: &Body, got: &Body) -> String {
    body::words(body::Text::of(sent), body::Text::of(got))
}

/// Why a record that has the exchange's id is of another one by its content, or the reply of another record: what differs in
/// the bodies, in words. Nothing where they belong together, or where the model did not record what it wrote.
pub fn of_another(history: &History, own: &[Change], exchange: &Exchange, record: &ModelRecord) -> Option<String> {
    let (response, sent) = (exchange.response()?, record.sent.as_ref().filter(|_| record.reply.is_some())?);
    let declared = Declared::of(history, own);
    let request =
        declared.body(Direction::Request, body::Text::of(&exchange.request.body), body::Text::of(&record.body));
    let whole = response.ended == Ended::Complete && record.finished && exchange.request.method != "HEAD";
    let reply = || declared.body(Direction::Reply, body::Text::of_sent(sent), body::Text::of(&response.body));
    let (what, difference) = match request {
        Some(difference) => ("the model got another request", difference),
        None => ("the model wrote another reply", whole.then(reply)??),
    };
    let Difference { subject, expected, got } = difference;
    Some(format!("{what}: {subject} {}, got {}", excerpt(&expected, TEXT), excerpt(&got, TEXT)))
}

/// The changes that are declared for a history, and those that explained a difference.
struct Declared<'h> {
    changes: Vec<&'h Change>,
    used: RefCell<BTreeSet<String>>,
}

impl<'h> Declared<'h> {
    fn of(history: &'h History, own: &'h [Change]) -> Self {
        Self { changes: history.changes.iter().chain(own).collect(), used: RefCell::default() }
    }

    /// Whether a declared change is about it and allows it. The first one is then used.
    fn explained(&self, is: impl Fn(&Change) -> bool) -> bool {
        let found = self.changes.iter().find(|change| is(change));
        if let Some(change) = found {
            self.used.borrow_mut().insert(change.words());
        }
        found.is_some()
    }
}

struct Judging<'h> {
    history: &'h History,
    declared: Declared<'h>,
    records: HashMap<&'h str, Vec<(&'h str, &'h ModelRecord)>>,
    picks: HashMap<&'h str, Vec<&'h PickerRecord>>,
    /// Whether an absent record means that nothing arrived.
    whole: bool,
    found: BTreeMap<(Invariant, String), Found<'h>>,
    judged: Judged,
}

struct Found<'h> {
    first: Difference,
    exchanges: Vec<&'h Exchange>,
}

impl<'h> Judging<'h> {
    fn of(history: &'h History, own: &'h [Change]) -> Self {
        let mut records: HashMap<&str, Vec<(&str, &ModelRecord)>> = HashMap::new();
        for (model, log) in &history.models {
            for record in &log.records {
                if let Some(exchange) = &record.exchange {
                    records.entry(exchange).or_default().push((model, record));
                }
            }
        }
        let mut picks: HashMap<&str, Vec<&PickerRecord>> = HashMap::new();
        for pick in history.pickers.values().flat_map(|log| &log.records) {
            if let Some(exchange) = &pick.exchange {
                picks.entry(exchange).or_default().push(pick);
            }
        }
        let init = |invariant| (invariant, Tally::default());
        Self {
            history,
            declared: Declared::of(history, own),
            records,
            picks,
            whole: history.unrecorded.is_empty()
                && !history.models.is_empty()
                && history.models.values().all(ModelLog::is_whole),
            found: BTreeMap::new(),
            judged: Judged { tallies: Invariant::ALL.into_iter().map(init).collect(), ..Judged::default() },
        }
    }

    fn exchange(&mut self, exchange: &'h Exchange) {
        for invariant in Invariant::ALL {
            self.judged.tallies.entry(invariant).or_default().of += 1;
        }
        if self.history.version < SINCE {
            return;
        }
        let records = self.records.get(exchange.id.as_str()).cloned().unwrap_or_default();
        let one = records.first().map(|(_, record)| *record);
        let own_answer = self.is_own_answer(exchange);
        self.says(Invariant::ReachedOnce, exchange, self.reached(exchange, &records, own_answer));
        let picks = self.picks(exchange).to_vec();
        let mut request = one.map(|record| self.request(exchange, record));
        let mut reply = match one {
            // The model broke off or was left: the gateway may say so itself.
            Some(record) if !record.finished && own_answer && record.reply.is_some() => Some(vec![]),
            Some(record) => self.reply(exchange, record),
            None if own_answer => Some(vec![]),
            None => self.undeclared(exchange),
        };
        for pick in &picks {
            request.get_or_insert_default().extend(self.picked_request(exchange, one, pick));
            reply.iter_mut().for_each(|reply| reply.extend(self.picked_reply(exchange, one, pick)));
        }
        self.says(Invariant::RequestUntouched, exchange, request);
        self.says(Invariant::OwnReply, exchange, reply);
        let mut framing = framing::differences(exchange, one, own_answer);
        framing.iter_mut().for_each(|framing| framing.extend(picker::ends(&picks)));
        self.says(Invariant::TrueFraming, exchange, framing);
    }

    /// Takes in what is said of an exchange; `None` where it could not be judged.
    fn says(&mut self, invariant: Invariant, exchange: &'h Exchange, differences: Option<Vec<Difference>>) {
        let Some(differences) = differences else { return };
        self.judged.tallies.entry(invariant).or_default().judged += 1;
        for difference in differences {
            let key = (invariant, difference.subject.clone());
            let found = self.found.entry(key).or_insert_with(|| Found { first: difference, exchanges: vec![] });
            found.exchanges.push(exchange);
        }
    }

    fn meter(&mut self) {
        if self.history.version >= SINCE {
            for (exchange, differences) in metering::judged(self.history, &self.records) {
                self.says(Invariant::MeteredAsUsed, exchange, Some(differences));
            }
        }
    }

    fn finish(mut self) -> Judged {
        let tallies = &self.judged.tallies;
        let clause = |((invariant, subject), found): (&(Invariant, String), &Found<'_>)| {
            let judged = tallies.get(invariant).map_or(0, |tally| tally.judged);
            let first = found.exchanges.first();
            let count = found.exchanges.len();
            let of = if judged > 1 { format!("; so in {count} of {judged} exchanges") } else { String::new() };
            Clause {
                name: invariant.id(),
                holds: Holds::No,
                expected: format!("{subject} {}", excerpt(&found.first.expected, TEXT)),
                got: format!(
                    "{} in {}{of}",
                    excerpt(&found.first.got, TEXT),
                    first.map_or(String::new(), |e| e.named())
                ),
                exchanges: found.exchanges.iter().take(SHOWN).map(|e| e.id.clone()).collect(),
                subject: Some(subject.clone()),
            }
        };
        self.judged.clauses = self.found.iter().map(clause).chain(strays(self.history)).collect();
        self.judged.used = self.declared.used.take();
        self.judged
    }

    fn reached(
        &self,
        exchange: &Exchange,
        records: &[(&str, &ModelRecord)],
        own_answer: bool,
    ) -> Option<Vec<Difference>> {
        let said = |expected: &str, got: String| vec![Difference::of("records", expected, got)];
        match records {
            [] if !self.whole => None,
            [] => {
                let unwritten = exchange.status().is_some_and(|s| (200..300).contains(&s))
                    && !own_answer
                    && exchange.request.method != "OPTIONS";
                Some(if unwritten {
                    said("one record of a model", format!("none, and a {}", exchange.outcome_words()))
                } else {
                    vec![]
                })
            }
            [_] => Some(vec![]),
            several => {
                let models: Vec<&str> = several.iter().map(|(model, _)| *model).collect();
                Some(said("at most one record of one model", format!("{} of {}", several.len(), models.join(", "))))
            }
        }
    }

    fn request(&self, exchange: &Exchange, record: &ModelRecord) -> Vec<Difference> {
        let sent = &exchange.request;
        let mut differences = Vec::new();
        if sent.method != record.method {
            differences.push(Difference::of("method", &sent.method, &record.method));
        }
        let rewritten = |change: &Change| change.rewritten(&sent.target).as_deref() == Some(&record.target);
        if sent.target != record.target && !self.declared.explained(rewritten) {
            differences.push(Difference::of("target", &sent.target, &record.target));
        }
        let host = ("host".to_owned(), sent.host.clone());
        let sent_headers: Vec<&(String, String)> = std::iter::once(&host).chain(&sent.headers).collect();
        let got: Vec<&(String, String)> = record.headers.iter().collect();
        differences.extend(self.declared.headers(Direction::Request, &sent_headers, &got));
        differences.extend(self.declared.body(
            Direction::Request,
            body::Text::of(&sent.body),
            body::Text::of(&record.body),
        ));
        differences
    }

    /// The reply against what the model wrote; `None` where the model did not record that, or no reply came.
    fn reply(&self, exchange: &Exchange, record: &ModelRecord) -> Option<Vec<Difference>> {
        let response = exchange.response()?;
        let (written, sent) = (record.reply.as_ref()?, record.sent.as_ref());
        let mut differences = Vec::new();
        if response.status != record.status {
            differences.push(Difference::of("status", record.status.to_string(), response.status.to_string()));
        }
        let written: Vec<&(String, String)> = written.iter().collect();
        let got: Vec<&(String, String)> = response.headers.iter().collect();
        differences.extend(self.declared.headers(Direction::Reply, &written, &got));
        if exchange.request.method != "HEAD" {
            let sent = sent.map_or(body::Text::EMPTY, body::Text::of_sent);
            let got = body::Text::of(&response.body);
            // What was cut short is a beginning of what was sent.
            let whole = response.ended == Ended::Complete && record.finished;
            differences.extend(if whole {
                self.declared.body(Direction::Reply, sent, got)
            } else {
                self.declared.beginning(sent, got)
            });
        }
        Some(differences)
    }

    fn is_own_answer(&self, exchange: &Exchange) -> bool {
        self.history.answers.iter().any(|answer| answer.differs(exchange, &self.declared.changes).is_none())
    }

    /// A reply that no record shows, and that the gateway does not declare; `None` where a model may have written it unseen.
    fn undeclared(&self, exchange: &Exchange) -> Option<Vec<Difference>> {
        let response = exchange.response()?;
        let unseen = !self.whole && !self.history.models.is_empty() || !self.history.unrecorded.is_empty();
        let of_others = self.history.models.is_empty() && (200..300).contains(&response.status);
        if unseen || of_others || self.history.answers.is_empty() {
            return None;
        }
        let nearest = self.history.answers.iter().filter(|a| a.status == response.status);
        let differs: Vec<String> =
            nearest.filter_map(|answer| answer.differs(exchange, &self.declared.changes)).collect();
        let shortest = differs.iter().min_by_key(|words| words.len());
        let got = match shortest {
            Some(differs) => format!("{} with another {differs}", response.status),
            None => format!("{}, which none of them has: {}", response.status, looks(response)),
        };
        Some(vec![Difference::of(
            format!("answer {}", response.status),
            "as one of the answers that the gateway's folder declares",
            got,
        )])
    }
}

/// Requests at models that the stage did not send: without the header that names an exchange, or with another stage's.
fn strays(history: &History) -> Option<Clause> {
    let own = history.namespace.trim_start_matches("igc-");
    let is_known = |id: &str| id.contains(own) || history.exchanges.iter().any(|exchange| exchange.id == id);
    let records = history.models.iter().flat_map(|(name, log)| log.records.iter().map(move |record| (name, record)));
    // Probes and scrapers ask by GET.
    let strays: Vec<_> = records
        .filter(|(_, record)| record.method == "POST" && !record.exchange.as_deref().is_some_and(is_known))
        .collect();
    let (model, first) = strays.first().filter(|_| history.version >= SINCE)?;
    let named = first.exchange.as_ref().map_or("without it".to_owned(), |id| format!("of exchange {id}"));
    Some(Clause {
        name: Invariant::ReachedOnce.id(),
        holds: Holds::No,
        expected: format!("no request at a model but those that were sent, each with its {EXCHANGE_HEADER}"),
        got: format!("{} others, the first POST {} at {model} {named}", strays.len(), first.target),
        exchanges: vec![],
        subject: Some("stray".to_owned()),
    })
}

fn looks(response: &Response) -> String {
    let text = response.body.text.as_deref().unwrap_or("bytes that are no text");
    format!("{} {:?}", response.header("content-type").unwrap_or("no content type"), excerpt(text, TEXT))
}

#[cfg(test)]
mod tests;
