//! Versions: what of them decides whether two observations can be compared.

use semver::Version;

/// A version with or without a leading `v`, also with one or two numbers only. Suffixes are kept.
pub(crate) fn lenient(version: &str) -> Option<Version> {
    let plain = version.trim().trim_start_matches(['v', 'V']);
    let end = plain.find(['-', '+']).unwrap_or(plain.len());
    let (numbers, suffix) = plain.split_at(end);
    let missing = 2_usize.checked_sub(numbers.matches('.').count())?;
    Version::parse(&format!("{numbers}{}{suffix}", ".0".repeat(missing))).ok()
}

/// `1.0` of `v1.0.3-rc.1`; a version that is not three numbers is compared as it is.
pub fn minor(version: &str) -> String {
    lenient(version).map_or_else(|| version.trim().to_owned(), |v| format!("{}.{}", v.major, v.minor))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("v1.0.3", "1.0")]
    #[case("1.0.3-rc.1", "1.0")]
    #[case("1.2", "1.2")]
    #[case("v2", "2.0")]
    #[case("3fb70258", "3fb70258")]
    #[case("latest", "latest")]
    #[case("1.2.3.4", "1.2.3.4")]
    fn minors(#[case] version: &str, #[case] expected: &str) {
        assert_eq!(minor(version), expected);
    }
}
