//! List of tests: which checks and cases the suites binary holds, read from what it prints of itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::requirements::{Requirement, Requirements};

/// Checks of a test binary: check -> cases (`-` where there is none).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestList {
    pub checks: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to place the test {test:?}: {problem}; a check is suite::name or suite::part::name, with ::case_N_name of rstest behind it, a unit test lies in a module called judges, registry, stage or unit"
)]
pub struct TestListError {
    pub test: String,
    pub problem: String,
}

/// For the binary of the suites: checks alone, without its tests of judges, of its registry and of the suites as a whole.
pub const CHECKS_ALONE: [&str; 6] = ["--skip", "::judges::", "--skip", "registry::", "--skip", "unit::"];

/// Modules whose tests are not checks.
const UNIT_MODULES: [&str; 4] = ["judges", "registry", "stage", "unit"];

impl TestList {
    /// Reads the output of `cargo test -- --list --format terse`.
    pub fn parse(output: &str) -> Result<Self, TestListError> {
        let mut list = Self::default();
        for line in output.lines() {
            let Some(test) = line.trim().strip_suffix(": test") else {
                continue;
            };
            if let Some((check, case)) = check_of(test)? {
                list.checks.entry(check).or_default().insert(case);
            }
        }
        Ok(list)
    }

    /// As if every check that is required had its tests: where nothing is run, or the test that asks is the proof.
    pub fn of(requirements: &Requirements) -> Self {
        let cases = |r: &Requirement| r.case_names().into_iter().map(str::to_owned).collect();
        Self { checks: requirements.checks.iter().map(|r| (r.check.clone(), cases(r))).collect() }
    }

    pub fn has(&self, check: &str, case: &str) -> bool {
        self.checks.get(check).is_some_and(|cases| cases.contains(case))
    }
}

fn check_of(test: &str) -> Result<Option<(String, String)>, TestListError> {
    let refuse = |problem: String| TestListError { test: test.to_owned(), problem };
    let segments: Vec<&str> = test.split("::").collect();
    if segments.iter().any(|s| UNIT_MODULES.contains(s)) {
        return Ok(None);
    }
    let is_case = |segment: &&str| numbered(segment, "case_").is_some();
    let (path, cases) = segments.split_at(segments.iter().position(is_case).unwrap_or(segments.len()));
    // A suite of many checks lies in several files: its parts are no part of a check's name.
    let (suite, name) = match path {
        [suite, name] => (suite, name),
        [suite, part, name] if *part != "tests" && !name.starts_with("case_") => (suite, name),
        [] | [_] => return Err(refuse("it is in no module".to_owned())),
        [.., other] => return Err(refuse(format!("{other:?} is no case"))),
    };
    let case = match cases {
        [] => "-".to_owned(),
        [case] => match numbered(case, "case_") {
            Some(name) if !name.is_empty() => dashes(name),
            _ => return Err(refuse(format!("{case:?} has no name: write #[case::name(...)]"))),
        },
        [_, other, ..] => return Err(refuse(format!("{other:?} stands behind a case"))),
    };
    Ok(Some((format!("{}/{}", dashes(suite), dashes(name)), case)))
}

/// What follows `<prefix><number>_`; empty where nothing does.
fn numbered<'a>(segment: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = segment.strip_prefix(prefix)?;
    let name = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    if name.len() == rest.len() {
        return None;
    }
    if name.is_empty() { Some("") } else { name.strip_prefix('_') }
}

fn dashes(name: &str) -> String {
    name.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("routing::host", "routing/host", "-")]
    #[case::one_case("guide_002::chat_completion::case_1_foo", "guide-002/chat-completion", "foo")]
    #[case::many_cases("routing::path::case_03_exact_over_prefix", "routing/path", "exact-over-prefix")]
    #[case::number_in_name("tokens::exact::case_1_budget_70", "tokens/exact", "budget-70")]
    #[case::digit_first("tokens::shape_429::case_2_429_text", "tokens/shape-429", "429-text")]
    #[case::in_a_part("tokens::streams::aborted_stream", "tokens/aborted-stream", "-")]
    #[case::case_in_a_part("tokens::streams::charged::case_2_usage_true", "tokens/charged", "usage-true")]
    fn checks(#[case] test: &str, #[case] check: &str, #[case] case: &str) {
        let list = TestList::parse(&format!("{test}: test\n")).unwrap();
        assert!(list.has(check, case), "{list:?}");
        assert_eq!(list.checks.len(), 1);
        assert_eq!(list.checks[check].len(), 1);
    }

    #[rstest]
    #[case("routing::judges::host_true")]
    #[case("routing::host::judges::true_rows::case_1")]
    #[case("stage::opens")]
    #[case("unit::whatever::deep")]
    fn unit_tests_are_not_checks(#[case] test: &str) {
        assert_eq!(TestList::parse(&format!("{test}: test\n")).unwrap(), TestList::default());
    }

    #[rstest]
    #[case::no_module("host", "no module")]
    #[case::unnamed_case("routing::host::case_1", "has no name")]
    #[case::unit_tests_by_another_name("routing::tests::host", "is no case")]
    #[case::deeper("routing::a::b::host", "is no case")]
    #[case::behind_a_case("routing::host::case_1_a::other", "behind a case")]
    #[case::two_cases("routing::host::case_1_a::case_2_b", "behind a case")]
    #[case::no_number("routing::host::case_a", "is no case")]
    fn refuses(#[case] test: &str, #[case] said: &str) {
        let error = TestList::parse(&format!("{test}: test\n")).unwrap_err();
        assert!(error.to_string().contains(said) && error.to_string().contains(test), "{error}");
    }

    #[test]
    fn other_lines_are_noise() {
        let list = TestList::parse("\nrouting::host: test\nbench::x: bench\n2 tests, 0 benchmarks\n").unwrap();
        assert_eq!(list.checks.len(), 1);
        assert_eq!(list.checks["routing/host"].len(), 1);
    }

    proptest! {
        #[test]
        fn every_name_comes_back(
            suite in "[a-z][a-z0-9]{0,5}(_[a-z0-9]{1,4}){0,2}",
            name in "[a-z][a-z0-9]{0,5}(_[a-z0-9]{1,4}){0,2}",
            case in "[a-z0-9]{1,6}(_[a-z0-9]{1,4}){0,2}",
            number in 1..200_u32,
        ) {
            prop_assume!(![&suite, &name].iter().any(|s| UNIT_MODULES.contains(&s.as_str())));
            let list = TestList::parse(&format!("{suite}::{name}::case_{number}_{case}: test")).unwrap();
            let check = format!("{}/{}", dashes(&suite), dashes(&name));
            prop_assert!(list.has(&check, &dashes(&case)));
        }

        #[test]
        fn never_panics(output in "(\\PC|\n|:){0,60}") {
            let _ = TestList::parse(&output);
        }
    }
}
