//! Tokens: how llm-d-inference-sim v0.10.2 counts them without a real tokenizer, and what its echo mode says back.
//!
//! A token is a run of ASCII word characters or one punctuation mark, each with the white space behind it. All other
//! bytes (leading white space, letters beyond ASCII) are in no token, so an echo loses them. A chat prompt is rendered
//! as `### <role>: <content>\n` for each message, which is 5 tokens more than its content has.

/// Punctuation marks that are tokens of their own. `_` is a word character only inside a word.
const MARKS: &[u8] = b"{}:,-.?!;@#$%^&*()+_~/\\><[]=\"'";

/// The tokens of a text, each with the white space behind it.
pub fn split(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        if MARKS.contains(&bytes[at]) {
            at += 1;
        } else if is_word(bytes[at]) {
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
        } else {
            at += 1;
            continue;
        }
        while at < bytes.len() && matches!(bytes[at], b' ' | b'\t' | b'\n' | b'\r' | 0x0C) {
            at += 1;
        }
        tokens.push(&text[start..at]); // tokens are ASCII, so both ends are character boundaries
    }
    tokens
}

pub fn count(text: &str) -> u64 {
    split(text).len() as u64
}

/// A chat prompt as the simulator renders it: (role, content) of each message.
pub fn render<'a>(messages: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    messages.into_iter().map(|(role, content)| format!("### {role}: {content}\n")).collect()
}

/// FNV-1a, 32 bits: the simulator's number of a token.
pub fn number(token: &str) -> u32 {
    token.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one_word("Hello", &["Hello"])]
    #[case::words("Hello there friend", &["Hello ", "there ", "friend"])]
    #[case::marks_are_tokens("Hi, you!", &["Hi", ", ", "you", "!"])]
    #[case::leading_space_is_in_no_token("  a", &["a"])]
    #[case::three_hashes("### user: Hello\n", &["#", "#", "# ", "user", ": ", "Hello\n"])]
    #[case::underscore_begins_a_token_of_its_own("_a", &["_", "a"])]
    #[case::underscore_inside_a_word("a_b", &["a_b"])]
    #[case::letters_beyond_ascii_are_lost("h\u{e9}llo", &["h", "llo"])]
    #[case::nothing("", &[])]
    fn texts_are_split_as_the_simulator_does(#[case] text: &str, #[case] tokens: &[&str]) {
        assert_eq!(split(text), tokens);
    }

    #[rstest]
    #[case("Hello", 6)]
    #[case("Hello there friend", 8)]
    #[case("one two three four five six seven eight nine ten", 15)]
    fn a_chat_prompt_counts_its_template(#[case] content: &str, #[case] tokens: u64) {
        assert_eq!(count(&render([("user", content)])), tokens);
    }

    #[test]
    fn a_prompt_of_6800_words_is_counted_as_recorded() {
        assert_eq!(count(&render([("user", "word ".repeat(6_800).as_str())])), 6_805);
    }

    #[test]
    fn the_number_of_a_token_gives_the_recorded_embedding() {
        let number = number("Hello");
        assert_eq!(2.0 * (number % 1024) as f32 / 1024.0 - 1.0, -0.353_515_62);
        assert_eq!(2.0 * (number % 256) as f32 / 256.0 - 1.0, -0.414_062_5);
    }
}
