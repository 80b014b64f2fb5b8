//! Names of runs and of their clusters: strict enough that nothing foreign is ever taken for ours.

use std::{fmt, str::FromStr};

/// The name of a run, `YYYYMMDD-HHMMSS-xxxx`: its folder, and part of its cluster's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunName(String);

/// The name of a kind cluster that a run made: `igc-` and the name of the run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterName(RunName);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not the name of a run: YYYYMMDD-HHMMSS-xxxx, the last four of a-z and 0-9")]
pub struct NotAName(String);

const CLUSTER_PREFIX: &str = "igc-";

impl FromStr for RunName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let two = |at: usize| text.get(at..at + 2).and_then(|digits| digits.parse::<u8>().ok()).unwrap_or(u8::MAX);
        let shape = text.len() == 20
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 15 => byte == b'-',
                16.. => byte.is_ascii_digit() || byte.is_ascii_lowercase(),
                _ => byte.is_ascii_digit(),
            });
        let date = (1..=12).contains(&two(4)) && (1..=31).contains(&two(6));
        let time = two(9) < 24 && two(11) < 60 && two(13) <= 60;
        if shape && date && time { Ok(Self(text.to_owned())) } else { Err(NotAName(text.to_owned())) }
    }
}

impl RunName {
    pub fn cluster(&self) -> ClusterName {
        ClusterName(self.clone())
    }
}

impl ClusterName {
    /// Reads a cluster's name; `None` for one that no run made.
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix(CLUSTER_PREFIX)?.parse().ok().map(Self)
    }

    pub fn run(&self) -> &RunName {
        &self.0
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CLUSTER_PREFIX}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::ours("igc-20261121-120305-k3f9", true)]
    #[case::digits_only("igc-20261121-120305-0000", true)]
    #[case::bare_prefix("igc", false)]
    #[case::foreign("igc-foo", false)]
    #[case::default_of_kind("kind", false)]
    #[case::no_prefix("20261121-120305-k3f9", false)]
    #[case::prefix_of_ours("my-igc-20261121-120305-k3f9", false)]
    #[case::longer("igc-20261121-120305-k3f9a", false)]
    #[case::shorter("igc-20261121-120305-k3f", false)]
    #[case::upper_case("igc-20261121-120305-K3F9", false)]
    #[case::month_13("igc-20261321-120305-k3f9", false)]
    #[case::day_0("igc-20261100-120305-k3f9", false)]
    #[case::hour_24("igc-20261121-240305-k3f9", false)]
    #[case::other_separator("igc-20261121_120305-k3f9", false)]
    #[case::not_ascii("igc-20261121-120305-k3é", false)]
    #[case::wide_digits("igc-2026112１-120305-k3", false)]
    #[case::trailing_newline("igc-20261121-120305-k3f9\n", false)]
    fn only_our_clusters(#[case] text: &str, #[case] ours: bool) {
        assert_eq!(ClusterName::parse(text).map(|name| name.to_string()), ours.then(|| text.to_owned()));
    }

    #[test]
    fn a_run_and_its_cluster_name_each_other() {
        let run: RunName = "20261121-120305-k3f9".parse().unwrap();
        assert_eq!(run.cluster().to_string(), "igc-20261121-120305-k3f9");
        assert_eq!(run.cluster().run(), &run);
        insta::assert_snapshot!("igc-foo".parse::<RunName>().unwrap_err(), @"`igc-foo` is not the name of a run: YYYYMMDD-HHMMSS-xxxx, the last four of a-z and 0-9");
    }
}
