//! A reply on its way: an answer as steps, the body that takes them, and the record that is completed when it ends.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::{collections::VecDeque, pin::Pin};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use http_body::{Body as HttpBody, Frame, SizeHint};
use sha2::{Digest, Sha256};
use verdict::history::{BODY_KEPT, ModelRecord, Sent, hex};
use wire::tap::Seen;

use crate::{Model, answer::Payload, script::Script};

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Send(Bytes),
    /// Waits until so many tokens may pass the gate.
    Gate(u64),
    /// Waits until all that was sent is with the operating system.
    Flush,
    Die,
}

/// The steps of a body, and its length where it is known beforehand.
pub fn steps(payload: Payload, script: &Script) -> (Vec<Step>, Option<u64>) {
    let mut pack = Packer::new(script.gzip);
    let mut steps = Vec::new();
    let gated = script.gate.is_some();
    let mut length = None;
    match payload {
        Payload::Whole(body) => {
            let body = [pack.pack(&body), pack.finish()].concat();
            length = Some(body.len() as u64);
            let cut = script.die_after.map(|n| usize::try_from(n).unwrap_or(usize::MAX)).filter(|n| *n < body.len());
            if gated {
                steps.push(Step::Gate(1));
            }
            push(&mut steps, body[..cut.unwrap_or(body.len())].to_vec());
            if cut.is_some() {
                steps.extend([Step::Flush, Step::Die]);
            }
        }
        Payload::Stream(pieces) => {
            let dies = script.die_after.and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= pieces.tokens.len());
            for piece in &pieces.before {
                send(&mut steps, pack.pack(piece), script);
            }
            for (token, sent) in pieces.tokens.iter().zip(1..).take(dies.unwrap_or(usize::MAX)) {
                if gated {
                    steps.push(Step::Gate(sent));
                }
                send(&mut steps, pack.pack(token), script);
            }
            if dies.is_some() {
                steps.extend([Step::Flush, Step::Die]);
            } else {
                for piece in &pieces.after {
                    send(&mut steps, pack.pack(piece), script);
                }
                send(&mut steps, pack.finish(), script);
            }
        }
    }
    (steps, length)
}

/// Sends bytes, in two pieces where a character of several bytes is to be split.
fn send(steps: &mut Vec<Step>, bytes: Vec<u8>, script: &Script) {
    let split = bytes.iter().position(|b| *b >= 0x80).filter(|_| script.split_utf8);
    match split {
        Some(at) if at + 1 < bytes.len() => {
            let (first, second) = bytes.split_at(at + 1);
            let (first, second) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(second));
            steps.extend([Step::Send(first), Step::Flush, Step::Send(second)]);
        }
        _ => push(steps, bytes),
    }
}

fn push(steps: &mut Vec<Step>, bytes: Vec<u8>) {
    if !bytes.is_empty() {
        steps.push(Step::Send(bytes.into())); // an empty chunk would end the body
    }
}

/// Compresses piece by piece, or leaves bytes as they are.
struct Packer(Option<GzEncoder<Vec<u8>>>);

impl Packer {
    fn new(gzip: bool) -> Self {
        Self(gzip.then(|| GzEncoder::new(Vec::new(), Compression::default())))
    }

    fn pack(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(encoder) = &mut self.0 else { return bytes.to_vec() };
        let _in_memory = encoder.write_all(bytes).and_then(|()| encoder.flush()); // writing to a Vec cannot fail
        std::mem::take(encoder.get_mut())
    }

    fn finish(&mut self) -> Vec<u8> {
        self.0.take().and_then(|encoder| encoder.finish().ok()).unwrap_or_default()
    }
}

fn frames(
    steps: Vec<Step>,
    gate: Option<String>,
    model: Model,
    seen: Arc<Seen>,
) -> BoxStream<'static, io::Result<Bytes>> {
    stream::unfold((VecDeque::from(steps), gate, model, seen), |(mut steps, gate, model, seen)| async move {
        loop {
            match (steps.pop_front()?, &gate) {
                (Step::Send(bytes), _) => return Some((Ok(bytes), (steps, gate, model, seen))),
                (Step::Gate(tokens), Some(gate)) => model.0.gates.passed(gate, tokens).await,
                (Step::Gate(_), None) => {}
                (Step::Flush, _) => seen.flushed_after(seen.flushes()).await,
                (Step::Die, _) => {
                    let cut = io::Error::other("the script says that the connection is cut here");
                    return Some((Err(cut), (VecDeque::new(), gate, model, seen)));
                }
            }
        }
    })
    .boxed()
}

/// A body that completes a record when its last byte is handed over, or when the peer leaves before.
pub struct ReplyBody {
    frames: BoxStream<'static, io::Result<Bytes>>,
    length: Option<u64>,
    sent: u64,
    hash: Sha256,
    /// What was sent, while it is small enough to be kept as text.
    kept: Option<Vec<u8>>,
    ticket: Option<Ticket>,
}

impl ReplyBody {
    /// From steps, for a request with a record.
    pub fn new(
        steps: Vec<Step>,
        length: Option<u64>,
        gate: Option<String>,
        model: Model,
        seen: Arc<Seen>,
        ticket: Ticket,
    ) -> Self {
        Self::of(frames(steps, gate, model, seen), length, Some(ticket))
    }

    /// A plain body, for a request without a record.
    pub fn plain(bytes: Bytes) -> Self {
        let length = Some(bytes.len() as u64);
        Self::of(stream::iter([Ok(bytes)]).boxed(), length, None)
    }

    fn of(frames: BoxStream<'static, io::Result<Bytes>>, length: Option<u64>, ticket: Option<Ticket>) -> Self {
        Self { frames, length, sent: 0, hash: Sha256::new(), kept: ticket.is_some().then(Vec::new), ticket }
    }

    fn note_sent(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            let text = self.kept.take().and_then(|kept| String::from_utf8(kept).ok());
            let sent = Sent { bytes: self.sent, sha256: hex(&self.hash.clone().finalize()), text };
            ticket.note(|record| record.sent = Some(sent));
        }
    }

    fn finish(&mut self) {
        self.note_sent();
        if let Some(ticket) = self.ticket.take() {
            ticket.finish();
        }
    }
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match ready!(Pin::new(&mut self.frames).poll_next(cx)) {
            Some(Ok(bytes)) => {
                self.sent += bytes.len() as u64;
                self.hash.update(&bytes);
                self.kept = self.kept.take().filter(|kept| kept.len() + bytes.len() <= BODY_KEPT).map(|mut kept| {
                    kept.extend_from_slice(&bytes);
                    kept
                });
                if self.length == Some(self.sent) {
                    self.finish();
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(cut)) => Poll::Ready(Some(Err(cut))),
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(self.sent)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, |length| SizeHint::with_exact(length - self.sent))
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if self.length == Some(self.sent) {
            self.finish();
        }
        self.note_sent(); // the peer left, or the connection was cut
    }
}

/// What a connection knows of the reply that was handed over last: the number of its record, and how often everything
/// had been written out by then.
#[derive(Debug, Default)]
pub struct Line(Mutex<Option<(u64, u64)>>);

impl Line {
    /// The number of the record whose reply was handed over but not written out, where there is one.
    pub fn unwritten(&self, seen: &Seen) -> Option<u64> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|(_, flushes)| *flushes == seen.flushes()).map(|(sequence, _)| sequence)
    }
}

/// A record that is not complete yet. Dropped, it says that the peer did not take the whole reply.
pub struct Ticket {
    model: Model,
    line: Arc<Line>,
    seen: Arc<Seen>,
    record: Option<ModelRecord>,
}

impl Ticket {
    pub fn new(model: Model, line: Arc<Line>, seen: Arc<Seen>, record: ModelRecord) -> Self {
        Self { model, line, seen, record: Some(record) }
    }

    pub fn note(&mut self, add: impl FnOnce(&mut ModelRecord)) {
        if let Some(record) = &mut self.record {
            add(record);
        }
    }

    /// The whole reply was handed over.
    pub fn finish(mut self) {
        if let Some(mut record) = self.record.take() {
            record.finished = true;
            *self.line.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((record.sequence, self.seen.flushes()));
            self.model.0.log.complete(record);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.model.0.log.complete(record);
        }
    }
}
