//! Long texts, shortened where a reader would stop.

use std::borrow::Cow;

/// The text, or so much of its beginning that about this many characters are left, and how many more there were.
///
/// It ends behind a sentence where there is one in the second half, else between two words. A text that is longer by no more
/// than a fifth is left whole.
pub(crate) fn excerpt(text: &str, most: usize) -> Cow<'_, str> {
    let at = |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    if at(most + most / 5) == text.len() {
        return Cow::Borrowed(text);
    }
    let (head, half) = (&text[..at(most)], at(most / 2));
    let last = |ends: &[&str]| ends.iter().filter_map(|end| head.rfind(end)).filter(|at| *at > half).max();
    // Each sign is one byte long.
    let kept = last(&[". ", "; ", "\n"]).map(|at| at + 1).or_else(|| last(&[" "])).unwrap_or(head.len());
    let (kept, left) = (text[..kept].trim_end(), text[kept..].trim_start().chars().count());
    let plural = if left == 1 { "" } else { "s" };
    Cow::Owned(format!("{kept} ... ({left} more character{plural})"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::fits("abcd", 4, "abcd")]
    #[case::a_fifth_more("abcdef", 5, "abcdef")]
    #[case::no_place_to_stop("abcdefg", 5, "abcde ... (2 more characters)")]
    #[case::plural_of_one("ab", 1, "a ... (1 more character)")]
    #[case::sentence("It is. It was then so and so", 14, "It is. It was ... (14 more characters)")]
    #[case::sentence_in_the_second_half("It was so. It is so and so on", 15, "It was so. ... (18 more characters)")]
    #[case::word("one two three four five", 12, "one two ... (15 more characters)")]
    #[case::lines("first line\nsecond line\nthird line", 16, "first line ... (22 more characters)")]
    #[case::characters("äöüäöüäöü", 3, "äöü ... (6 more characters)")]
    fn excerpts(#[case] text: &str, #[case] most: usize, #[case] expected: &str) {
        assert_eq!(excerpt(text, most), expected);
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_counted(text in "[a-c .;\n]{0,60}", most in 0_usize..40) {
            let short = excerpt(&text, most);
            if short != text {
                let (kept, left) = short.rsplit_once(" ... (").unwrap();
                let left: usize = left.split(' ').next().unwrap().parse().unwrap();
                let whole = text.chars().filter(|c| !c.is_whitespace()).count();
                let shown = kept.chars().filter(|c| !c.is_whitespace()).count();
                let rest: String = text.chars().rev().take(left).collect();
                prop_assert!(text.starts_with(kept) && kept.chars().count() <= most.max(1));
                prop_assert_eq!(shown + rest.chars().filter(|c| !c.is_whitespace()).count(), whole);
            }
        }
    }
}
