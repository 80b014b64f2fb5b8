//! The prompt of a request, read from the beginning of its body: a picker must not wait for the end of a long one.

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// `model`, where it stands before the cut.
    pub model: Option<String>,
    /// `messages`, `prompt` or `input`, as it is written in JSON, up to the cut. Empty where there is none.
    pub text: &'a [u8],
}

/// Reads what is there of a JSON object. What is no JSON object has no prompt.
pub fn read(body: &[u8]) -> Prompt<'_> {
    let mut found = Prompt::default();
    let mut reader = Reader { bytes: body, at: 0 };
    let mut opens = b'{';
    while reader.take(opens).is_some() {
        opens = b',';
        let Some(key) = reader.string() else { break };
        if reader.take(b':').is_none() {
            break;
        }
        let value = reader.value();
        match key {
            b"\"model\"" => found.model = serde_json::from_slice(value).ok(),
            b"\"messages\"" | b"\"prompt\"" | b"\"input\"" if found.text.is_empty() => found.text = value,
            _ => {}
        }
    }
    found
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let from = (self.peek()? == b'"').then_some(self.at)?;
        let mut escaped = false;
        while let Some(byte) = self.bytes.get(self.at + 1) {
            self.at += 1;
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at += 1;
                    return Some(&self.bytes[from..self.at]);
                }
                _ => {}
            }
        }
        self.at = self.bytes.len();
        None
    }

    fn value(&mut self) -> &'a [u8] {
        let Some(first) = self.peek() else { return &[] };
        let from = self.at;
        let mut depth = 0_usize;
        match first {
            b'"' => _ = self.string(),
            b'{' | b'[' => loop {
                match self.peek() {
                    None => break,
                    Some(b'"') => _ = self.string(),
                    Some(byte) => {
                        self.at += 1;
                        match byte {
                            b'{' | b'[' => depth += 1,
                            b'}' | b']' => depth -= 1,
                            _ => {}
                        }
                        if depth == 0 {
                            break;
                        }
                    }
                }
            },
            _ => {
                let rest = &self.bytes[from..];
                let ends = |b: &u8| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace();
                self.at = from + rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        &self.bytes[from..self.at]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case::chat(
        r#"{"model":"m","messages":[{"role":"user","content":"a]}\""}],"n":1}"#,
        Some("m"),
        r#"[{"role":"user","content":"a]}\""}]"#
    )]
    #[case::prompt_first(r#" { "prompt" : "one \" two" , "model" : "m" }"#, Some("m"), r#""one \" two""#)]
    #[case::embeddings(r#"{"input":["a","b"],"model":"m"}"#, Some("m"), r#"["a","b"]"#)]
    #[case::cut_in_the_prompt(r#"{"model":"m","messages":[{"role":"us"#, Some("m"), r#"[{"role":"us"#)]
    #[case::cut_in_the_model(r#"{"prompt":"p","model":"m"#, None, r#""p""#)]
    #[case::model_after_the_cut(r#"{"prompt":"a long on"#, None, r#""a long on"#)]
    #[case::only_inside(r#"{"a":{"model":"x","prompt":"y"}}"#, None, "")]
    #[case::model_is_no_string(r#"{"model":7,"prompt":"p"}"#, None, r#""p""#)]
    #[case::escapes_in_the_model(r#"{"model":"a\"b","prompt":"p"}"#, Some("a\"b"), r#""p""#)]
    #[case::the_first_prompt_counts(r#"{"prompt":"a","messages":[1]}"#, None, r#""a""#)]
    #[case::no_object(r#"["prompt"]"#, None, "")]
    #[case::no_json("hello", None, "")]
    #[case::empty("", None, "")]
    #[case::more_ends_than_beginnings(r#"{"a":]]]},"prompt":"p"}"#, None, "")]
    fn prompts(#[case] body: &str, #[case] model: Option<&str>, #[case] text: &str) {
        let read = read(body.as_bytes());
        assert_eq!((read.model.as_deref(), std::str::from_utf8(read.text).unwrap()), (model, text));
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            r#"["\\{}\[\],:a-zé ]{0,12}"#.prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("model|prompt|[a-c\"]{1,3}", inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_whole_body_is_read_as_serde_reads_it(prompt in anything(), other in anything(), model in ".{0,6}") {
            let body = json!({"other": other, "prompt": prompt, "model": model}).to_string();
            let read = read(body.as_bytes());
            prop_assert_eq!(read.model, Some(model));
            prop_assert_eq!(serde_json::from_slice::<Value>(read.text).ok(), Some(prompt));
        }

        #[test]
        fn what_is_cut_off_begins_alike(prompt in anything(), cut in 0.0..1.0) {
            let body = json!({"messages": prompt}).to_string();
            let whole = read(body.as_bytes()).text.to_vec();
            let part = read(&body.as_bytes()[..(body.len() as f64 * cut) as usize]).text.to_vec();
            prop_assert!(whole.starts_with(&part));
        }

        #[test]
        fn bytes_never_panic(body in r#"([{}\[\]:,"\\ 0]|"model"|"prompt"|\PC){0,40}"#) {
            read(body.as_bytes());
        }
    }
}
