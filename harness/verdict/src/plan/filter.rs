//! Filter: which checks the words `--suite` and `--check` select.

use globset::{Glob, GlobMatcher};

use crate::plan::RunInfo;

/// `--suite` and `--check` of one run. A check is selected by any of the suites and any of the checks; none means all.
#[derive(Clone, Debug)]
pub struct Filter {
    suites: Vec<GlobMatcher>,
    checks: Vec<GlobMatcher>,
}

#[derive(Debug, thiserror::Error)]
#[error("failed to understand {option} {word:?}: {problem}; write a name or a glob such as 'tokens/*'")]
pub struct FilterError {
    pub option: &'static str,
    pub word: String,
    pub problem: String,
}

pub(super) struct Term<'f> {
    pub(super) option: &'static str,
    glob: &'f GlobMatcher,
}

impl Filter {
    pub fn of(run: &RunInfo) -> Result<Self, FilterError> {
        Ok(Self { suites: compile("--suite", &run.suites)?, checks: compile("--check", &run.checks)? })
    }

    /// Words that name checks alone; `option` is for messages.
    pub fn checks(option: &'static str, words: &[String]) -> Result<Self, FilterError> {
        Ok(Self { suites: Vec::new(), checks: compile(option, words)? })
    }

    pub fn is_empty(&self) -> bool {
        self.suites.is_empty() && self.checks.is_empty()
    }

    /// Whether this case of this check (`-` for none) is selected.
    pub fn selects(&self, check: &str, case: &str) -> bool {
        (self.suites.is_empty() || self.suites.iter().any(|g| matches_suite(g, check)))
            && (self.checks.is_empty() || self.checks.iter().any(|g| matches_check(g, check, case)))
    }

    pub(super) fn terms(&self) -> impl Iterator<Item = Term<'_>> {
        let suites = self.suites.iter().map(|glob| Term { option: "--suite", glob });
        suites.chain(self.checks.iter().map(|glob| Term { option: "--check", glob }))
    }
}

fn compile(option: &'static str, words: &[String]) -> Result<Vec<GlobMatcher>, FilterError> {
    let matcher = |word: &String| {
        let problem = |e: globset::Error| FilterError { option, word: word.clone(), problem: e.kind().to_string() };
        Glob::new(word).map(|g| g.compile_matcher()).map_err(problem)
    };
    words.iter().map(matcher).collect()
}

impl Term<'_> {
    pub(super) fn text(&self) -> &str {
        self.glob.glob().glob()
    }

    pub(super) fn selects(&self, check: &str, case: &str) -> bool {
        match self.option {
            "--suite" => matches_suite(self.glob, check),
            _ => matches_check(self.glob, check, case),
        }
    }
}

/// A suite is named as `pool` or, as its checks are, as `pool/*`.
fn matches_suite(glob: &GlobMatcher, check: &str) -> bool {
    let suite = check.split('/').next().unwrap_or_default();
    glob.is_match(suite) || glob.is_match(format!("{suite}/*"))
}

fn matches_check(glob: &GlobMatcher, check: &str, case: &str) -> bool {
    glob.is_match(check) || (case != "-" && glob.is_match(format!("{check}@{case}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::plan::build::tests::run_info;

    fn filter(suites: &[&str], checks: &[&str]) -> Result<Filter, FilterError> {
        let mut run = run_info();
        run.suites = suites.iter().map(|&s| s.to_owned()).collect();
        run.checks = checks.iter().map(|&s| s.to_owned()).collect();
        Filter::of(&run)
    }

    #[rstest]
    #[case::nothing_asked(&[], &[], "routing/host", "-", true)]
    #[case::suite(&["routing"], &[], "routing/host", "-", true)]
    #[case::suite_is_not_a_prefix(&["rout"], &[], "routing/host", "-", false)]
    #[case::suite_glob(&["guide-*"], &[], "guide-002/route", "-", true)]
    #[case::suite_as_its_checks(&["guide-002/*"], &[], "guide-002/route", "-", true)]
    #[case::suites_as_their_checks(&["guide-*/*"], &[], "guide-002/route", "-", true)]
    #[case::other_suite_as_its_checks(&["tokens/*"], &[], "routing/host", "-", false)]
    #[case::a_check_is_no_suite(&["routing/host"], &[], "routing/host", "-", false)]
    #[case::other_suite(&["tokens"], &[], "routing/host", "-", false)]
    #[case::any_suite(&["tokens", "routing"], &[], "routing/host", "-", true)]
    #[case::check(&[], &["routing/host"], "routing/host", "-", true)]
    #[case::check_is_not_a_prefix(&[], &["routing/ho"], "routing/host", "-", false)]
    #[case::check_glob(&[], &["tokens/*"], "tokens/exact", "budget-70", true)]
    #[case::check_selects_all_cases(&[], &["tokens/exact"], "tokens/exact", "budget-70", true)]
    #[case::one_case(&[], &["tokens/exact@budget-70"], "tokens/exact", "budget-70", true)]
    #[case::another_case(&[], &["tokens/exact@budget-70"], "tokens/exact", "budget-75", false)]
    #[case::no_case_is_no_name(&[], &["routing/host@-"], "routing/host", "-", false)]
    #[case::alternatives(&[], &["{tokens,routing}/host"], "routing/host", "-", true)]
    #[case::both_must_agree(&["routing"], &["tokens/*"], "tokens/exact", "-", false)]
    #[case::both_agree(&["tokens"], &["tokens/*"], "tokens/exact", "-", true)]
    fn selects(
        #[case] suites: &[&str],
        #[case] checks: &[&str],
        #[case] check: &str,
        #[case] case: &str,
        #[case] selected: bool,
    ) {
        assert_eq!(filter(suites, checks).unwrap().selects(check, case), selected);
    }

    #[test]
    fn a_broken_glob_is_named() {
        let message = filter(&[], &["tokens/[a"]).unwrap_err().to_string();
        assert!(message.contains("--check \"tokens/[a\""), "{message}");
    }

    proptest! {
        #[test]
        fn a_name_selects_itself_alone(a in "[a-z]{1,6}/[a-z]{1,6}", b in "[a-z]{1,6}/[a-z]{1,6}") {
            let filter = filter(&[], &[&a]).unwrap();
            prop_assert!(filter.selects(&a, "-"));
            prop_assert_eq!(filter.selects(&b, "-"), a == b);
        }

        #[test]
        fn more_words_never_select_less(a in "[a-z*?]{1,4}", b in "[a-z*?]{1,4}", check in "[a-z]{1,4}/[a-z]{1,4}") {
            let one = filter(&[&a], &[]).unwrap();
            let two = filter(&[&a, &b], &[]).unwrap();
            prop_assert!(!one.selects(&check, "-") || two.selects(&check, "-"));
        }
    }
}
