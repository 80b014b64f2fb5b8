//! Names: their form, and which known names a mistyped one may have meant.

/// Whether this is lower-case letters and digits in words joined by single dashes.
pub fn is_kebab(name: &str) -> bool {
    !name.is_empty()
        && name
            .split('-')
            .all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
}

/// Whether this is `suite/name`, both in kebab case.
pub fn is_check_id(id: &str) -> bool {
    id.split_once('/').is_some_and(|(suite, name)| is_kebab(suite) && is_kebab(name))
}

/// Up to three of the known names that look like the wanted one, the nearest first.
pub fn near<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, &str)> =
        known.into_iter().map(|name| (likeness(&wanted, name), name)).filter(|(score, _)| *score >= 0.6).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// `; did you mean a, b?`, or nothing where no known name is near.
pub fn suggestion(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

fn likeness(wanted: &str, name: &str) -> f64 {
    let whole = strsim::normalized_damerau_levenshtein(wanted, name);
    // A name typed without its suite is near all the same.
    let last = name.rsplit('/').next().unwrap_or(name);
    let part = strsim::normalized_damerau_levenshtein(wanted, last) * 0.95;
    whole.max(part)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("host", true)]
    #[case("shape-429", true)]
    #[case("429-without-headers", true)]
    #[case("", false)]
    #[case("Host", false)]
    #[case("a--b", false)]
    #[case("-a", false)]
    #[case("a_b", false)]
    #[case("a/b", false)]
    fn kebab(#[case] name: &str, #[case] holds: bool) {
        assert_eq!(is_kebab(name), holds);
    }

    #[rstest]
    #[case("routing/host", true)]
    #[case("routing", false)]
    #[case("routing/host/a", false)]
    #[case("routing/", false)]
    #[case("../host", false)]
    fn check_ids(#[case] id: &str, #[case] holds: bool) {
        assert_eq!(is_check_id(id), holds);
    }

    #[rstest]
    #[case("routing/hots", &["routing/host"])]
    #[case("hots", &["routing/host"])]
    #[case("agentgatway", &["agentgateway"])]
    #[case("zzzzzz", &[])]
    fn near_names(#[case] wanted: &str, #[case] expected: &[&str]) {
        let known = ["routing/host", "tokens/exact", "agentgateway"];
        assert_eq!(near(wanted, known), expected);
    }
}
