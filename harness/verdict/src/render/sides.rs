//! Side by side: two texts as columns, line against line, where they differ.

use similar::{DiffOp, TextDiff};

use super::{Colour, Lines, inert};

const AROUND: usize = 3;
const NARROW: usize = 20;

/// Both texts beside each other in so many characters: only where they differ, with a few lines around.
///
/// Between the columns stands `|` where a line changed, `<` where only the left has one, `>` where only the right does.
pub fn side_by_side(left: &str, right: &str, width: usize, colour: Colour) -> String {
    let column = (width.saturating_sub(3) / 2).max(NARROW);
    let difference = TextDiff::from_lines(left, right);
    let (lefts, rights): (Vec<&str>, Vec<&str>) = (left.lines().collect(), right.lines().collect());
    let mut out = String::new();
    for (at, group) in difference.grouped_ops(AROUND).iter().enumerate() {
        if at > 0 {
            out.push_str("...\n");
        }
        for op in group {
            let (old, new) = (op.old_range(), op.new_range());
            for row in 0..old.len().max(new.len()) {
                let line = |lines: &[&str], range: &std::ops::Range<usize>| {
                    range.clone().nth(row).and_then(|at| lines.get(at).map(|line| cut(line, column)))
                };
                let (before, after) = (line(&lefts, &old), line(&rights, &new));
                let sign = match (op, &before, &after) {
                    (DiffOp::Equal { .. }, ..) => ' ',
                    (_, Some(_), Some(_)) => '|',
                    (_, Some(_), None) => '<',
                    _ => '>',
                };
                let before = format!("{:column$}", before.unwrap_or_default());
                let after = after.unwrap_or_default();
                let row = match (colour, sign) {
                    (Colour::Plain, _) | (_, ' ') => format!("{before} {sign} {after}"),
                    (Colour::Ansi, _) => format!("\u{1b}[31m{before}\u{1b}[0m {sign} \u{1b}[32m{after}\u{1b}[0m"),
                };
                out.push_str(row.trim_end());
                out.push('\n');
            }
        }
    }
    out
}

fn cut(line: &str, column: usize) -> String {
    let shown = inert(line, 1_000, Lines::Joined);
    match shown.chars().count() > column {
        true => shown.chars().take(column - 1).chain(['\u{2026}']).collect(),
        false => shown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_differs_stands_beside_each_other() {
        let left = "a: 1\nb: 2\nc: 3\nd: 4\ne: 5\nf: 6\ng: 7\nh: 8\ni: 9\nj: 10\nk: 11\n";
        let right = "a: one\nb: 2\nc: 3\nd: 4\ne: 5\nf: 6\ng: 7\nh: 8\ni: 9\nj: 10\nk: 11\nl: 12\n";
        insta::assert_snapshot!(side_by_side(left, right, 45, Colour::Plain));
    }

    #[test]
    fn a_line_that_is_gone_leaves_a_gap() {
        assert_eq!(
            side_by_side("a\nb\n", "a\n", 45, Colour::Plain),
            "a                       a\nb                     <\n"
        );
    }

    #[test]
    fn nothing_differs() {
        assert_eq!(side_by_side("a\n", "a\n", 80, Colour::Plain), "");
    }

    proptest! {
        #[test]
        fn rows_keep_to_their_width(left in "(\\PC|\n|\u{1b}){0,80}", right in "(\\PC|\n|\u{1b}){0,80}", width in 0usize..120) {
            let shown = side_by_side(&left, &right, width, Colour::Plain);
            prop_assert!(!shown.chars().any(|c| c != '\n' && c.is_control()), "{}", shown);
            let most = width.max(2 * NARROW + 3);
            prop_assert!(shown.lines().all(|line| line.chars().count() <= most), "{}", shown);
        }
    }
}
