//! Rendering: a report for terminals, CI systems, browsers and pull requests. Whatever a gateway sent is made inert before it is shown.

mod conformance;
mod html;
mod json_lines;
mod junit;
mod markdown;
mod sides;
mod terminal;
#[cfg(test)]
pub(crate) mod tests_support;

pub use conformance::{Implementation, conformance};
pub use html::{Log, Sources, html};
pub use json_lines::json_lines;
pub use junit::junit;
pub use markdown::markdown;
pub use sides::side_by_side;
pub use terminal::{Colour, Known, closing, terminal};

use crate::report::{CheckReport, Report};
use crate::{curl::is_invisible, excerpt::excerpt, record::Verdict};

fn models(report: &Report) -> String {
    report.run.models.iter().map(|m| m.word()).collect::<Vec<_>>().join(", ")
}

fn is_shown(check: &CheckReport) -> bool {
    check.breaks
        || check.finding.is_some()
        || !matches!(check.verdict, Verdict::Pass | Verdict::Unsupported | Verdict::NotRun)
}

/// Text from outside, safe to show: control and invisible characters as `\u{..}`, and an excerpt of about this many characters.
///
/// Line ends are kept where `lines` keeps them; what is left out is said.
pub fn inert(text: &str, most: usize, lines: Lines) -> String {
    let mut out = String::new();
    for c in excerpt(text, most).chars() {
        match c {
            '\n' if lines == Lines::Kept => out.push(c),
            '\t' if lines == Lines::Kept => out.push_str("    "),
            '\n' | '\r' | '\t' => out.push_str(&c.escape_default().to_string()),
            c if c.is_control() || is_invisible(c) || is_no_character(c) => {
                out.push_str(&c.escape_unicode().to_string());
            }
            c => out.push(c),
        }
    }
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// They stay: the text is shown as a block.
    Kept,
    /// They are shown as escapes: the text is one line.
    Joined,
}

/// Code points that XML does not allow.
fn is_no_character(c: char) -> bool {
    u32::from(c) & 0xFFFE == 0xFFFE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("plain ü 漢", Lines::Joined, "plain ü 漢")]
    #[case::escape("\u{1b}[31mred", Lines::Joined, "\\u{1b}[31mred")]
    #[case::bell("\u{7}\u{9b}", Lines::Joined, "\\u{7}\\u{9b}")]
    #[case::right_to_left("a\u{202e}b", Lines::Joined, "a\\u{202e}b")]
    #[case::no_character("\u{ffff}", Lines::Joined, "\\u{ffff}")]
    #[case::joined("a\r\nb\tc", Lines::Joined, "a\\r\\nb\\tc")]
    #[case::kept("a\r\nb\tc", Lines::Kept, "a\\r\nb    c")]
    fn made_inert(#[case] text: &str, #[case] lines: Lines, #[case] expected: &str) {
        assert_eq!(inert(text, 100, lines), expected);
    }

    proptest! {
        #[test]
        fn nothing_moves_the_cursor(text in any::<String>()) {
            prop_assert!(!inert(&text, 50, Lines::Joined).chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert!(!inert(&text, 50, Lines::Kept).chars().any(|c| c != '\n' && c.is_control()));
        }
    }
}
