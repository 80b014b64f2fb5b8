//! Redaction: credentials never reach a transcript, but two that are equal can be seen to be equal.

use verdict::redact;

/// The value of a header as it may be written down: credentials become the marks of [`verdict::redact`].
pub fn redacted(name: &str, value: &[u8]) -> String {
    let value = String::from_utf8_lossy(value);
    if redact::is_secret_header(name) { redact::header(name, &value) } else { value.into_owned() }
}

pub fn redacted_all(headers: Vec<(String, Vec<u8>)>) -> Vec<(String, String)> {
    let shown = |(name, value): (String, Vec<u8>)| {
        let value = redacted(&name, &value);
        (name, value)
    };
    headers.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use verdict::redact::mark;

    use super::redacted;

    #[rstest]
    #[case("Authorization", "Bearer <abc>")]
    #[case("x-goog-api-key", "<Bearer abc>")]
    #[case("x-tenant-api-key", "<Bearer abc>")]
    #[case("Set-Cookie", "<Bearer abc>")]
    #[case("x-amz-security-token", "<Bearer abc>")]
    #[case("x-ratelimit-remaining-tokens", "Bearer abc")]
    #[case("x-api-version", "Bearer abc")]
    fn credentials_and_nothing_else(#[case] name: &str, #[case] shown: &str) {
        let marked = shown.replace("<abc>", &mark("abc")).replace("<Bearer abc>", &mark("Bearer abc"));
        assert_eq!(redacted(name, b"Bearer abc"), marked);
    }
}
