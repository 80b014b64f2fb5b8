//! Server-sent events, read byte by byte as the HTML standard says, and faults kept instead of repaired.
//!
//! Source: HTML living standard, section 9.2.6, "Interpreting an event stream". A leading byte order mark is skipped,
//! lines end with CR, LF or both, an empty line dispatches an event that has data, and what follows the last empty line
//! is no event. Offsets are bytes from the beginning of the stream, so that an event can be matched with the arrival of
//! the chunks that carried it.

/// The stream's content type.
pub const CONTENT_TYPE: &str = "text/event-stream";

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its `event` field, `message` where there is none.
    pub kind: String,
    /// Its `data` fields, joined with newlines. Bytes that are not UTF-8 are U+FFFD, and a [`Fault`] names them.
    pub data: String,
    /// The `id` that was in force.
    pub last_id: String,
    pub start: u64,
    /// Offset behind the byte that dispatched it: the first byte of the empty line's ending.
    pub end: u64,
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A line is not UTF-8 from this byte on.
    InvalidUtf8 { at: u64 },
    /// The stream ends inside the event that begins at `at`: a client never dispatches its data.
    IncompleteEvent { at: u64, data: String },
    /// The line there has a field that the standard does not know; readers ignore it.
    UnknownField { at: u64, name: String },
    /// The line there is an `id` with a NUL, or a `retry` with something else than digits; readers ignore it.
    BadValue { at: u64, name: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub events: Vec<Event>,
    /// In order of their offsets.
    pub faults: Vec<Fault>,
    /// The last `retry`, in milliseconds.
    pub retry_ms: Option<u64>,
    /// How many comment lines there were (servers send them to keep connections open).
    pub comments: u64,
}

pub fn parse(bytes: &[u8]) -> Parsed {
    let mut reader = Reader::new();
    reader.feed(bytes);
    reader.finish()
}

/// Reads a stream piece by piece; where it is cut makes no difference. It keeps one line and one event besides what it
/// has read, so whoever feeds it bounds it.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    parsed: Parsed,
    line: Vec<u8>,
    at: u64,
    /// Offset of the first byte of the line.
    line_at: u64,
    /// The last byte was a CR: an LF now belongs to it.
    after_cr: bool,
    /// How much of a byte order mark has been seen, until it is decided whether there is one.
    mark: usize,
    mark_decided: bool,
    kind: String,
    data: String,
    last_id: String,
    /// Offset of the first line of the event that is being read.
    event_at: Option<u64>,
}

impl Reader {
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on. Returns the events that these bytes dispatched.
    pub fn feed(&mut self, bytes: &[u8]) -> &[Event] {
        let before = self.parsed.events.len();
        for byte in bytes {
            self.byte(*byte);
        }
        &self.parsed.events[before..]
    }

    /// The stream has ended. An event that was not dispatched never will be.
    pub fn finish(mut self) -> Parsed {
        self.settle_mark();
        let line = std::mem::take(&mut self.line);
        self.check_utf8(&line);
        let begun = self.event_at.or(Some(self.line_at).filter(|_| !line.is_empty() && !line.starts_with(b":")));
        if let Some(at) = begun {
            let mut data = self.data;
            match String::from_utf8_lossy(&line).split_once(':') {
                Some(("data", value)) => data.push_str(value.strip_prefix(' ').unwrap_or(value)),
                _ => drop(data.pop()), // the newline behind the last whole line
            }
            self.parsed.faults.push(Fault::IncompleteEvent { at, data });
        }
        self.parsed
    }

    /// What has been read so far.
    pub fn so_far(&self) -> &Parsed {
        &self.parsed
    }

    fn byte(&mut self, byte: u8) {
        self.at += 1;
        if !self.mark_decided {
            if BYTE_ORDER_MARK.get(self.mark) == Some(&byte) {
                self.mark += 1;
                self.mark_decided = self.mark == BYTE_ORDER_MARK.len();
                self.line_at = if self.mark_decided { self.at } else { 0 };
                return;
            }
            self.settle_mark();
        }
        match byte {
            b'\n' if self.after_cr => {
                self.after_cr = false;
                self.line_at = self.at;
            }
            b'\n' | b'\r' => {
                self.after_cr = byte == b'\r';
                self.end_line();
                self.line_at = self.at;
            }
            _ => {
                self.after_cr = false;
                self.line.push(byte);
            }
        }
    }

    /// It was no byte order mark after all: what looked like one belongs to the line.
    fn settle_mark(&mut self) {
        if !self.mark_decided {
            self.mark_decided = true;
            self.line.extend_from_slice(&BYTE_ORDER_MARK[..self.mark]);
        }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        if bytes.is_empty() {
            self.dispatch();
            return;
        }
        self.check_utf8(&bytes);
        let line = String::from_utf8_lossy(&bytes);
        let (name, value) = match line.split_once(':') {
            Some(("", _comment)) => {
                self.parsed.comments += 1;
                return;
            }
            Some((name, value)) => (name, value.strip_prefix(' ').unwrap_or(value)),
            None => (&*line, ""),
        };
        self.field(name, value);
    }

    fn check_utf8(&mut self, line: &[u8]) {
        if let Err(error) = std::str::from_utf8(line) {
            self.parsed.faults.push(Fault::InvalidUtf8 { at: self.line_at + error.valid_up_to() as u64 });
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        let at = self.line_at;
        match name {
            "event" => self.kind = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.last_id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.parsed.retry_ms = value.parse().ok();
            }
            "id" | "retry" => {
                self.parsed.faults.push(Fault::BadValue { at, name: name.to_owned() });
                return;
            }
            _ => {
                self.parsed.faults.push(Fault::UnknownField { at, name: name.to_owned() });
                return;
            }
        }
        if matches!(name, "event" | "data") {
            self.event_at.get_or_insert(at);
        }
    }

    fn dispatch(&mut self) {
        let kind = std::mem::take(&mut self.kind);
        let mut data = std::mem::take(&mut self.data);
        let Some(start) = self.event_at.take() else { return };
        if data.pop().is_none() {
            return; // an event without data is not dispatched
        }
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        self.parsed.events.push(Event { kind, data, last_id: self.last_id.clone(), start, end: self.at });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn data(bytes: &[u8]) -> Vec<String> {
        parse(bytes).events.into_iter().map(|e| e.data).collect()
    }

    #[rstest]
    #[case::one(b"data: a\n\n", &["a"])]
    #[case::lines_end_with_cr(b"data: a\r\rdata: b\r\r", &["a", "b"])]
    #[case::lines_end_with_crlf(b"data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"])]
    #[case::endings_mixed(b"data: a\rdata: b\ndata: c\r\n\n", &["a\nb\nc"])]
    #[case::crlf_is_one_ending(b"data: a\r\ndata: b\r\n\r\n", &["a\nb"])]
    #[case::one_space_is_not_data(b"data:a\n\ndata:  b\n\n", &["a", " b"])]
    #[case::field_without_colon(b"data\n\ndata\ndata\n\n", &["", "\n"])]
    #[case::last_event_without_empty_line(b"data: a\n\ndata: b\n", &["a"])]
    #[case::no_data_no_event(b"event: x\n\ndata: a\n\n", &["a"])]
    #[case::comments_are_nothing(b": keep-alive\n\n:\ndata: a\n:x\n\n", &["a"])]
    #[case::byte_order_mark(b"\xEF\xBB\xBFdata: a\n\n", &["a"])]
    #[case::only_the_first_mark_is_skipped(b"\xEF\xBB\xBF\xEF\xBB\xBFdata: a\n\ndata: b\n\n", &["b"])]
    #[case::a_name_is_all_before_the_colon(b" data: a\n\nDATA: b\n\ndata: c\n\n", &["c"])]
    #[case::nothing(b"", &[])]
    fn events_are_dispatched_as_the_standard_says(#[case] bytes: &[u8], #[case] wanted: &[&str]) {
        assert_eq!(data(bytes), wanted);
    }

    #[test]
    fn kind_id_and_retry_are_read() {
        let parsed = parse(b"event: delta\nid: 1\nretry: 250\ndata: a\n\ndata: b\n\nid\ndata: c\n\n");
        let short: Vec<_> =
            parsed.events.iter().map(|e| (e.kind.as_str(), e.last_id.as_str(), e.data.as_str())).collect();
        assert_eq!(short, [("delta", "1", "a"), ("message", "1", "b"), ("message", "", "c")]);
        assert_eq!(parsed.retry_ms, Some(250));
        assert_eq!(parsed.faults, []);
    }

    #[rstest]
    #[case::invalid_utf8(b"data: a\xFFb\n\n", &["a\u{FFFD}b"], Fault::InvalidUtf8 { at: 7 })]
    #[case::character_cut_by_the_end(b"data: a\n\ndata: \xE2\x98", &["a"], Fault::InvalidUtf8 { at: 15 })]
    #[case::incomplete_event(b"data: a\n\ndata: b\n", &["a"], Fault::IncompleteEvent { at: 9, data: "b".into() })]
    #[case::incomplete_line(b"data: a\n\ndata: [DO", &["a"], Fault::IncompleteEvent { at: 9, data: "[DO".into() })]
    #[case::cut_in_the_name(b"data: a\n\ndat", &["a"], Fault::IncompleteEvent { at: 9, data: "".into() })]
    #[case::cut_in_the_second_line(b"data: a\ndata: b", &[], Fault::IncompleteEvent { at: 0, data: "a\nb".into() })]
    #[case::unknown_field(b"data: a\n{\"x\":1}\n\n", &["a"], Fault::UnknownField { at: 8, name: "{\"x\"".into() })]
    #[case::mark_in_the_middle(b"data: a\n\n\xEF\xBB\xBFdata: b\n\n", &["a"], Fault::UnknownField { at: 9, name: "\u{FEFF}data".into() })]
    #[case::retry_in_words(b"retry: soon\ndata: a\n\n", &["a"], Fault::BadValue { at: 0, name: "retry".into() })]
    #[case::id_with_nul(b"id: a\0\ndata: a\n\n", &["a"], Fault::BadValue { at: 0, name: "id".into() })]
    fn faults_are_kept_and_nothing_is_repaired(#[case] bytes: &[u8], #[case] wanted: &[&str], #[case] fault: Fault) {
        assert_eq!(data(bytes), wanted);
        let faults = parse(bytes).faults;
        assert!(faults.contains(&fault), "{faults:?}");
    }

    #[test]
    fn what_follows_the_last_line_is_discarded() {
        let parsed = parse(b"retry: 1\ndata: a\n\nretry: 25");
        assert_eq!((parsed.events.len(), parsed.retry_ms), (1, Some(1)));
        assert_eq!(parse(b"data: a\n\n: bye").faults, [], "a comment is lost with nobody the poorer");
    }

    #[test]
    fn offsets_lead_back_into_the_stream() {
        let bytes = b"\xEF\xBB\xBF: hi\n\ndata: a\r\n\r\ndata: b\n\n";
        let parsed = parse(bytes);
        let at: Vec<_> = parsed.events.iter().map(|e| (e.start, e.end)).collect();
        // the second event begins behind the LF that belongs to the CR which dispatched the first
        assert_eq!(at, [(9, 19), (20, 29)]);
        assert_eq!(&bytes[20..27], b"data: b");
    }

    /// Bytes that are likely to mean something.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            b"data".to_vec(),
            b"data: x".to_vec(),
            b"event: e".to_vec(),
            b"id: 1".to_vec(),
            b":".to_vec(),
            b" ".to_vec(),
            b"\n".to_vec(),
            b"\r".to_vec(),
            b"\r\n".to_vec(),
            b"\n\n".to_vec(),
            b"\xEF\xBB\xBF".to_vec(),
            b"\xE2\x98\x83".to_vec(),
            b"\xFF".to_vec(),
            b"\0".to_vec(),
        ]);
        let any = prop::collection::vec(any::<u8>(), 1..4);
        prop::collection::vec(prop_oneof![8 => piece, 1 => any], 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn where_a_stream_is_cut_makes_no_difference(bytes in streams(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let whole = parse(&bytes);
            let mut ends: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let (mut reader, mut from, mut told) = (Reader::new(), 0, Vec::new());
            for end in ends {
                told.extend_from_slice(reader.feed(&bytes[from..end]));
                from = end;
            }
            let parsed = reader.finish();
            prop_assert_eq!(&parsed, &whole);
            prop_assert_eq!(told, whole.events);
        }

        #[test]
        fn byte_by_byte_is_the_same(bytes in streams()) {
            let mut reader = Reader::new();
            for byte in &bytes {
                reader.feed(std::slice::from_ref(byte));
            }
            prop_assert_eq!(reader.finish(), parse(&bytes));
        }

        #[test]
        fn written_events_are_read_back(data in prop::collection::vec("[^\r\n\0]{0,12}", 1..6)) {
            let written: String = data.iter().map(|d| format!("data: {d}\n\n")).collect();
            let parsed = parse(written.as_bytes());
            prop_assert_eq!(parsed.events.into_iter().map(|e| e.data).collect::<Vec<_>>(), data);
            prop_assert_eq!(parsed.faults, vec![]);
        }
    }
}
