//! curl: an exchange as a command that a person can paste into a shell.

use crate::history::{Exchange, History};

/// Bodies longer than this many bytes are not put on a command line.
const BODY_SHOWN: usize = 2_000;

/// Headers that curl makes itself.
const OWN_HEADERS: [&str; 2] = ["content-length", "host"];

/// The command that sends this exchange again, to the address that the check used.
///
/// It is one line and safe to paste: every argument is quoted, control characters are written as escapes. Redacted
/// credentials stay redacted; a long body is left to the reader as `@body`.
pub fn command(history: &History, exchange: &Exchange) -> String {
    let request = &exchange.request;
    let mut words = vec!["curl".to_owned(), "-sSig".to_owned()];
    if let Some(address) = &history.address {
        words.extend(["--connect-to".to_owned(), quoted(&format!("::{address}"))]);
    }
    if request.method != "GET" || request.body.bytes > 0 {
        words.extend(["-X".to_owned(), quoted(&request.method)]);
    }
    for (name, value) in &request.headers {
        if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            continue;
        }
        // curl drops "name:" and sends "name;" as an empty header.
        let header = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        words.extend(["-H".to_owned(), quoted(&header)]);
    }
    if request.body.bytes > 0 {
        words.extend(match &request.body.text {
            // Unlike --data-binary, --data-raw reads no file where the body begins with @.
            Some(text) if !request.body.truncated && text.len() <= BODY_SHOWN && !text.contains('\0') => {
                ["--data-raw".to_owned(), quoted(text)]
            }
            _ => ["--data-binary".to_owned(), format!("@body # {} bytes, see the history", request.body.bytes)],
        });
    }
    // The URL stands before a remark, so that the remark comments nothing out.
    let url = if request.host.is_empty() {
        // Without a host there is nothing to send it to but the address.
        let address = history.address.as_deref().unwrap_or("localhost");
        vec!["-H".to_owned(), "'Host;'".to_owned(), quoted(&format!("http://{address}{}", request.target))]
    } else {
        vec!["--path-as-is".to_owned(), quoted(&format!("http://{}{}", request.host, request.target))]
    };
    words.splice(2..2, url);
    words.join(" ")
}

/// A word for a POSIX shell; one with control characters as `$'...'`, which bash, zsh and ksh read.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.chars().any(|c| c.is_control() || is_invisible(c)) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut out = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || is_invisible(c) => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    // Three octal digits, so that what follows is never read as part of it.
                    out.push_str(&format!("\\{byte:03o}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// Characters that change how text around them is shown, without being seen.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::history::{Body, Key, Outcome, Request};

    fn history() -> History {
        let key = Key { gateway: "g".into(), check: "a/b".into(), case: "-".into(), attempt: 1 };
        let mut history = History::new(key, "ns", "host");
        history.address = Some("127.0.0.1:30080".into());
        history
    }

    fn exchange(method: &str, body: &[u8]) -> Exchange {
        Exchange {
            id: "x".into(),
            label: "l".into(),
            sent_ms: 0.0,
            request: Request {
                method: method.into(),
                target: "/v1/chat/completions?a=b".into(),
                host: "wrong.igc.test".into(),
                headers: vec![
                    ("content-type".into(), "application/json".into()),
                    ("x-user-id".into(), "it's".into()),
                    ("content-length".into(), "3".into()),
                    ("x-empty".into(), String::new()),
                ],
                body: Body::of(body),
            },
            outcome: Outcome::Failed { stage: "connect".into(), error: "x".into() },
            connection: None,
        }
    }

    #[test]
    fn the_whole_command() {
        let command = command(&history(), &exchange("POST", br#"{"model":"it's"}"#));
        assert_eq!(
            command,
            r#"curl -sSig --path-as-is 'http://wrong.igc.test/v1/chat/completions?a=b' --connect-to ::127.0.0.1:30080 -X POST -H 'content-type: application/json' -H 'x-user-id: it'\''s' -H 'x-empty;' --data-raw '{"model":"it'\''s"}'"#
        );
    }

    #[rstest]
    #[case::get("GET", b"", "-X GET", false)]
    #[case::get_with_body("GET", b"a", "-X GET", true)]
    #[case::no_body("POST", b"", "--data", false)]
    #[case::no_file("POST", b"@file", "--data-raw @file", true)]
    #[case::not_text("POST", b"\xff", "--data-binary @body # 1 bytes", true)]
    fn parts(#[case] method: &str, #[case] body: &[u8], #[case] part: &str, #[case] there: bool) {
        let command = command(&history(), &exchange(method, body));
        assert_eq!(command.contains(part), there, "{command}");
    }

    #[test]
    fn a_long_body_is_left_out() {
        let command = command(&history(), &exchange("POST", &vec![b'a'; 1_000_000]));
        assert!(command.len() < 1_000 && command.ends_with("--data-binary @body # 1000000 bytes, see the history"));
    }

    #[test]
    fn without_a_host_the_address_is_asked() {
        let mut exchange = exchange("GET", b"");
        exchange.request.host.clear();
        let command = command(&history(), &exchange);
        assert!(command.contains("-H 'Host;' 'http://127.0.0.1:30080/v1/"), "{command}");
    }

    #[rstest]
    #[case("plain", "plain")]
    #[case("", "''")]
    #[case("a b", "'a b'")]
    #[case("$(rm -rf /)", "'$(rm -rf /)'")]
    #[case("a'b", r"'a'\''b'")]
    #[case("a\nb", r"$'a\nb'")]
    #[case("\u{1b}[31m", r"$'\033[31m'")]
    #[case("\u{202e}", r"$'\342\200\256'")]
    fn words(#[case] word: &str, #[case] expected: &str) {
        assert_eq!(quoted(word), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_shell_reads_what_was_quoted(word in "(\\PC|[\n\t\r'\"$`\\\\!;&|<> ]|\u{1b}|\u{202e}|[0-9]){0,20}") {
            let quoted = quoted(&word);
            prop_assert!(!quoted.contains(char::is_control));
            let output = std::process::Command::new("bash").args(["-c", &format!("printf %s {quoted}")]).output();
            if let Ok(output) = output {
                prop_assert_eq!(String::from_utf8_lossy(&output.stdout), word);
            }
        }
    }
}
