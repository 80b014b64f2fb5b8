//! Streams in step with their client: the model sends token i+2 only when token i has arrived, and is told so out of band,
//! past the gateway. A gateway that holds a stream back is found by order and not by time: the stream counts as held back
//! when many other requests have passed the gateway, from their begin to their end, and nothing of it has arrived.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::pin;
use verdict::{
    history::{Ended, Exchange, History},
    observation,
};
use wire::{Arrived, Call, Next, sse};

use crate::{Model, Stage, judge::Judge};

/// The model may send token i + `AHEAD` when token i has arrived.
const AHEAD: u64 = 2;

/// How many other requests pass before a stream that stands still counts as held back.
const OTHERS: u64 = 40;

/// Seconds that an upstream may take to see that the client has left. It is a matter of milliseconds; machines are busy.
const SEEN_WITHIN: f64 = 10.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The model may send this token and those before it.
    Opened(u64),
    Arrived(u64),
    /// So many others passed, and nothing arrived: the model may send all.
    HeldBack(u64),
    Left,
    /// The model gave its reply up, although it might have waited for more to be opened.
    GaveUp,
}

#[derive(Clone, Debug)]
pub struct InStep<'a> {
    label: &'a str,
    call: Call,
    model: &'a Model,
    tokens: u64,
    leaves_after: Option<u64>,
    dies_after: Option<u64>,
}

impl<'a> InStep<'a> {
    pub fn new(label: &'a str, call: Call, model: &'a Model, tokens: u64) -> Self {
        Self { label, call, model, tokens, leaves_after: None, dies_after: None }
    }

    /// The client leaves when this token has arrived, and waits until the model has seen that.
    pub fn leaving_after(self, token: u64) -> Self {
        Self { leaves_after: Some(token), ..self }
    }

    /// The model's connection is cut when it has sent this token.
    pub fn dying_after(self, token: u64) -> Self {
        Self { dies_after: Some(token), ..self }
    }

    /// Sends it. Its exchange and its steps are in the history.
    pub async fn send(self, stage: &mut Stage) -> Result<()> {
        stage.within_bounds(self.label)?;
        stage.begin_if_unsent().await?;
        let gate = Gate { name: stage.unique(), journal: Mutex::default() };
        let mut call =
            stage.addressed(self.call.clone()).stream().header("x-igc-stream-tokens", self.tokens.to_string());
        if let Some(token) = self.dies_after {
            call = call.header("x-igc-die-after", token.to_string());
        }
        let exchange = self.converse(stage, call.header("x-igc-gate", &gate.name), &gate).await;
        if exchange.response().is_some_and(|response| response.ended == Ended::Abandoned) {
            gate.journal().steps.push(Step::Left);
            if stage.until_answering(self.model, |requests| requests == 0, SEEN_WITHIN).await? == 0 {
                gate.journal().steps.push(Step::GaveUp);
            }
            gate.open(stage, self.model, self.tokens).await; // so that nothing hangs where the model has not seen it
        }
        let (steps, failed) = gate.close();
        if let Some(error) = failed {
            return Err(error);
        }
        stage.fact(&format!("steps-{}", self.label), json!(steps));
        stage.keep(exchange);
        Ok(())
    }

    async fn converse(&self, stage: &Stage, call: Call, gate: &Gate) -> Exchange {
        gate.open(stage, self.model, AHEAD.min(self.tokens)).await;
        let client = stage.client();
        let sending = client.send_with_gate(self.label, call, async |arrived| {
            let Some(count) = gate.journal().take_in(&arrived) else { return Next::Read };
            if self.leaves_after.is_some_and(|token| count >= token) {
                return Next::Leave;
            }
            gate.open(stage, self.model, (count + AHEAD).min(self.tokens)).await;
            Next::Read
        });
        pin!(sending);
        let held_back = async {
            loop {
                let before = gate.journal().arrived;
                let mut others = 0;
                while others < OTHERS && gate.journal().arrived == before {
                    stage.pause(0.1).await;
                    client.send("other", stage.addressed(self.call.clone())).await;
                    others += 1;
                }
                if gate.journal().arrived == before {
                    return others;
                }
            }
        };
        tokio::select! {
            exchange = &mut sending => exchange,
            others = held_back => {
                gate.journal().steps.push(Step::HeldBack(others));
                gate.open(stage, self.model, self.tokens).await;
                sending.await
            }
        }
    }
}

/// The gate that a stream waits at in its model, and what has happened so far.
struct Gate {
    name: String,
    journal: Mutex<Journal>,
}

#[derive(Default)]
struct Journal {
    reader: sse::Reader,
    opened: u64,
    arrived: u64,
    steps: Vec<Step>,
    failed: Option<anyhow::Error>,
}

impl Gate {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the model send so many tokens, if it may not yet.
    async fn open(&self, stage: &Stage, model: &Model, tokens: u64) {
        if tokens <= self.journal().opened {
            return;
        }
        let opened = stage.open_gate(model, &self.name, tokens).await;
        let mut journal = self.journal();
        journal.opened = tokens;
        journal.steps.push(Step::Opened(tokens));
        if let Err(error) = opened {
            journal.failed.get_or_insert(error);
        }
    }

    fn close(self) -> (Vec<Step>, Option<anyhow::Error>) {
        let journal = self.journal.into_inner().unwrap_or_else(PoisonError::into_inner);
        (journal.steps, journal.failed)
    }
}

impl Journal {
    /// How many tokens have arrived, where there are more than before.
    fn take_in(&mut self, arrived: &Arrived) -> Option<u64> {
        let Arrived::Chunk { bytes, .. } = arrived else { return None };
        let tokens = self.reader.feed(bytes).iter().filter(|event| is_token(event)).count();
        if tokens == 0 {
            return None;
        }
        self.arrived += tokens as u64;
        self.steps.push(Step::Arrived(self.arrived));
        Some(self.arrived)
    }
}

fn is_token(event: &sse::Event) -> bool {
    let content = |data: &Value| Some(!data.pointer("/choices/0/delta/content")?.as_str()?.is_empty());
    serde_json::from_str(&event.data).ok().as_ref().and_then(content).unwrap_or(false)
}

pub fn steps(history: &History, label: &str) -> Vec<Step> {
    let steps = history.facts.get(&format!("steps-{label}")).cloned().unwrap_or_default();
    serde_json::from_value(steps).unwrap_or_default()
}

/// How many tokens had arrived when the stream was found to be held back, where it was.
fn held_back_at(steps: &[Step]) -> Option<u64> {
    let at = steps.iter().position(|step| matches!(step, Step::HeldBack(_)))?;
    Some(arrived(&steps[..at]))
}

/// The last token that has arrived, 0 where none has.
fn arrived(steps: &[Step]) -> u64 {
    steps.iter().rev().find_map(|step| if let Step::Arrived(token) = step { Some(*token) } else { None }).unwrap_or(0)
}

/// Whether the model waited as it was told to: no token arrived that it was not yet to send.
fn waited(steps: &[Step]) -> bool {
    let mut opened = 0;
    steps.iter().all(|step| match step {
        Step::Opened(token) => {
            opened = *token;
            true
        }
        Step::Arrived(token) => *token <= opened,
        Step::HeldBack(_) | Step::Left | Step::GaveUp => true,
    })
}

/// What a clause about the steps of a stream says, where it can be judged at all.
fn in_step(
    judge: &mut Judge<'_>,
    clause: &'static str,
    label: &str,
    expected: &str,
    holds: impl Fn(Option<u64>) -> bool,
) {
    let steps = steps(judge.history(), label);
    let exchanges = judge.labelled(label);
    if steps.is_empty() || !waited(&steps) {
        let got = if steps.is_empty() { "there are none" } else { "tokens arrived that were not to be sent yet" };
        return judge.clause(clause).expected("steps of a stream whose model waits").unproven(got);
    }
    let held = held_back_at(&steps);
    let got = match held {
        None => "it did".to_owned(),
        Some(token) => format!("{token} tokens had arrived and no more came, while {OTHERS} other requests passed"),
    };
    judge.clause(clause).expected(expected).got(got).shown_by(exchanges).holds(holds(held));
}

/// Each token of the stream reached the client before the one after the next was sent.
pub fn judge_each(judge: &mut Judge<'_>, clause: &'static str, label: &str) {
    in_step(judge, clause, label, "token i arrives before token i+2 is sent", |held| held.is_none());
}

/// The first token of the stream reached the client before the last was sent.
pub fn judge_first(judge: &mut Judge<'_>, clause: &'static str, label: &str) {
    in_step(judge, clause, label, "the first token arrives before the last is sent", |held| held != Some(0));
}

pub fn judge_arrived(judge: &mut Judge<'_>, clause: &'static str, label: &str, token: u64) {
    let steps = steps(judge.history(), label);
    let exchanges = judge.labelled(label);
    let last = arrived(&steps);
    let statement = judge.clause(clause).expected(format!("token {token} arrives"));
    if steps.is_empty() {
        statement.unproven("nothing is known of the stream");
    } else {
        statement.got(format!("{last} tokens arrived")).shown_by(exchanges).holds(last >= token);
    }
}

/// The model saw that the client had left: its reply ended, although it waited for more to be opened.
pub fn judge_left(judge: &mut Judge<'_>, clause: &'static str, label: &str) {
    let history = judge.history();
    let (steps, exchanges) = (steps(history, label), judge.labelled(label));
    let statement = judge.clause(clause).expected("the model's reply ends when the client has left");
    let left = steps.iter().position(|step| *step == Step::Left);
    let Some(left) = left.filter(|left| waited(&steps) && held_back_at(&steps[..*left]).is_none()) else {
        return statement.unproven("the client did not leave in the middle of a stream whose model waits");
    };
    let ended = steps.get(left + 1) == Some(&Step::GaveUp);
    let unfinished = exchanges.iter().flat_map(|e| history.reached(e)).any(|(_, record)| !record.finished);
    let got = match (ended, unfinished) {
        (true, true) => "it did".to_owned(),
        (true, false) => "it ended, and the model's record calls it whole".to_owned(),
        (false, _) => format!("not within {SEEN_WITHIN} s"),
    };
    statement.got(got).shown_by(exchanges).holds(ended && unfinished);
}

/// What was observed, and how the streams ran; how far each came when it was cut is chance.
pub fn observe(history: &History) -> Value {
    let mut observed = observation::observe(history);
    let exchanges = observed["exchanges"].as_object_mut().into_iter().flat_map(|labels| labels.values_mut());
    for exchange in exchanges.flat_map(|label| label.as_array_mut()).flatten().filter(|e| e.get("ended").is_some()) {
        exchange["body"] = json!("<cut>");
    }
    let ran = |label: &str| {
        let steps = steps(history, label);
        let held = held_back_at(&steps).map_or(json!("in step"), |token| json!(format!("held back after {token}")));
        if steps.contains(&Step::Left) { json!({"left": steps.contains(&Step::GaveUp)}) } else { held }
    };
    let labels = history.facts.keys().filter_map(|fact| fact.strip_prefix("steps-"));
    observed["streams"] = labels.map(|label| (label.to_owned(), ran(label))).collect();
    observed
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use verdict::judge::Holds;

    use super::{Step::*, *};
    use crate::fake::{Fake, verdict_of};

    fn holds(judge: impl Fn(&mut Judge<'_>, &'static str, &str), steps: &[Step], finished: bool) -> Holds {
        let fake = Fake::of("a/b").model("alpha").answered("s", 200, "alpha").fact("steps-s", json!(steps));
        let judged = |history: &History| {
            let mut judging = Judge::of(history);
            judge(&mut judging, "clause", "s");
            judging.judgement()
        };
        verdict_of(judged, &fake.with_record(|record| record.finished = finished))
    }

    #[rstest]
    #[case::in_step(&[Opened(2), Arrived(1), Opened(3), Arrived(2), Opened(4), Arrived(4)], Holds::Yes, Holds::Yes)]
    #[case::two_at_once(&[Opened(2), Arrived(2), Opened(4), Arrived(4)], Holds::Yes, Holds::Yes)]
    #[case::all_held(&[Opened(2), HeldBack(40), Opened(4), Arrived(4)], Holds::No, Holds::No)]
    #[case::held_in_the_middle(&[Opened(2), Arrived(1), Opened(3), HeldBack(40), Opened(4), Arrived(4)], Holds::No, Holds::Yes)]
    #[case::the_model_did_not_wait(&[Opened(2), Arrived(3), Opened(4), Arrived(4)], Holds::Unproven, Holds::Unproven)]
    #[case::nothing_is_known(&[], Holds::Unproven, Holds::Unproven)]
    fn order_decides(#[case] steps: &[Step], #[case] each: Holds, #[case] first: Holds) {
        assert_eq!((holds(judge_each, steps, true), holds(judge_first, steps, true)), (each, first));
    }

    #[rstest]
    #[case::arrived(&[Opened(2), Arrived(2)], Holds::Yes)]
    #[case::less(&[Opened(2), Arrived(1)], Holds::No)]
    #[case::nothing(&[Opened(2)], Holds::No)]
    #[case::unknown(&[], Holds::Unproven)]
    fn as_much_as_wanted_arrives(#[case] steps: &[Step], #[case] wanted: Holds) {
        assert_eq!(holds(|judge, clause, label| judge_arrived(judge, clause, label, 2), steps, true), wanted);
    }

    #[rstest]
    #[case::seen(&[Opened(2), Arrived(1), Left, GaveUp, Opened(4)], false, Holds::Yes)]
    #[case::not_seen(&[Opened(2), Arrived(1), Left, Opened(4)], false, Holds::No)]
    #[case::only_when_it_was_let_go(&[Opened(2), Arrived(1), Left, Opened(4), GaveUp], false, Holds::No)]
    #[case::a_whole_reply(&[Opened(2), Arrived(1), Left, GaveUp, Opened(4)], true, Holds::No)]
    #[case::left_when_all_was_sent(&[Opened(2), HeldBack(40), Opened(4), Arrived(4), Left, GaveUp], true, Holds::Unproven)]
    #[case::stayed(&[Opened(2), Arrived(1), Opened(3), Arrived(3)], false, Holds::Unproven)]
    fn who_leaves_is_seen(#[case] steps: &[Step], #[case] finished: bool, #[case] wanted: Holds) {
        assert_eq!(holds(judge_left, steps, finished), wanted);
    }

    #[rstest]
    #[case::a_token(r#"{"choices":[{"delta":{"content":"t1 "}}]}"#, true)]
    #[case::the_role(r#"{"choices":[{"delta":{"role":"assistant"}}]}"#, false)]
    #[case::the_role_with_empty_content(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, false)]
    #[case::usage(r#"{"choices":[],"usage":{}}"#, false)]
    #[case::done("[DONE]", false)]
    fn tokens_are_events_with_content(#[case] data: &str, #[case] token: bool) {
        let parsed = sse::parse(format!("data: {data}\n\n").as_bytes());
        assert_eq!(is_token(&parsed.events[0]), token);
    }
}
