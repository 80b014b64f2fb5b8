//! Redaction: credentials never reach a transcript, but two that are equal can be seen to be equal.

use sha2::{Digest, Sha256};
use verdict::history::hex;

/// The value of a header as it may be written down: credentials become `redacted:<first 12 hex of their SHA-256>`.
pub fn redacted(name: &str, value: &[u8]) -> String {
    if is_credential(name) {
        let mut digest = hex(&Sha256::digest(value));
        digest.truncate(12);
        format!("redacted:{digest}")
    } else {
        String::from_utf8_lossy(value).into_owned()
    }
}

fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let named = ["authorization", "proxy-authorization", "cookie", "set-cookie", "api-key", "apikey", "x-auth-token"];
    named.contains(&name.as_str())
        || ["-api-key", "-apikey", "-security-token", "-access-token"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::redacted;

    #[rstest]
    #[case("Authorization", true)]
    #[case("x-goog-api-key", true)]
    #[case("api-key", true)]
    #[case("Set-Cookie", true)]
    #[case("x-amz-security-token", true)]
    #[case("x-ratelimit-remaining-tokens", false)]
    #[case("x-api-version", false)]
    fn credentials_and_nothing_else(#[case] name: &str, #[case] secret: bool) {
        let shown = redacted(name, b"Bearer abc");
        assert_eq!(shown == "Bearer abc", !secret, "{shown}");
        if secret {
            // first 12 digits of sha256("Bearer abc")
            assert_eq!(shown, "redacted:c355dce96c16");
            assert_ne!(shown, redacted(name, b"Bearer abd"));
        }
    }
}
