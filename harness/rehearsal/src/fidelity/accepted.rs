//! Accepted differences: `golden/<gateway>/fidelity.yaml`. Each has a reason, and is stale once the rehearsal agrees.

use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;
use serde_saphyr::Spanned;
use verdict::file::{self, FileError};

#[derive(Clone, Debug, Default)]
pub struct Accepted {
    pub path: PathBuf,
    pub entries: Vec<Acceptance>,
}

#[derive(Clone, Debug)]
pub struct Acceptance {
    /// Its line in the file, counted from 1.
    pub line: u64,
    pub case: String,
    pub reason: String,
    /// Where it differs; everything where it is absent.
    at: Option<Regex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    accepted: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    case: Spanned<String>,
    at: Option<Spanned<String>>,
    reason: String,
}

impl Accepted {
    /// Reads `<root>/<gateway>/fidelity.yaml`; a gateway without one has no accepted differences.
    pub fn find(root: &Path, gateway: &str) -> Result<Self, FileError> {
        let path = root.join(gateway).join("fidelity.yaml");
        match file::read_if_there(&path)? {
            Some(text) => Self::parse(&text, &path),
            None => Ok(Self { path, entries: vec![] }),
        }
    }

    /// The path is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let file: File = file::parse(text, path)?;
        let mut entries = Vec::new();
        for Written { case, at, reason } in file.accepted {
            let line = case.referenced.line();
            if reason.trim().is_empty() {
                let problem = "an empty reason: say why the rehearsal may differ";
                return Err(FileError::entry(path, line, problem));
            }
            let at = at.map(|at| file::whole(&at, path)).transpose()?;
            entries.push(Acceptance { line, case: case.value, reason, at });
        }
        Ok(Self { path: path.to_owned(), entries })
    }
}

impl Acceptance {
    pub fn covers(&self, case: &str, at: &str) -> bool {
        self.case == case && self.at.as_ref().is_none_or(|wanted| wanted.is_match(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const GOOD: &str = "accepted:\n- case: a/b\n  at: reply \\d+ header x\n  reason: because\n";

    #[rstest]
    #[case("a/b", "reply 3 header x", true)]
    #[case("a/b", "reply 3 header xy", false)]
    #[case("a/c", "reply 3 header x", false)]
    fn covers(#[case] case: &str, #[case] at: &str, #[case] covered: bool) {
        let accepted = Accepted::parse(GOOD, Path::new("f.yaml")).unwrap();
        assert_eq!(accepted.entries[0].covers(case, at), covered);
    }

    #[rstest]
    #[case("reason: because", "reason: ' '", &["line 2", "empty reason"])]
    #[case("at: reply", "at: (reply", &["line 3", "no regular expression"])]
    #[case("case:", "cse:", &["f.yaml", "cse"])]
    fn refuses(#[case] right: &str, #[case] wrong: &str, #[case] said: &[&str]) {
        assert!(GOOD.contains(right));
        let message = Accepted::parse(&GOOD.replace(right, wrong), Path::new("f.yaml")).unwrap_err().to_string();
        for words in said {
            assert!(message.contains(words), "{words:?} is not in {message}");
        }
    }
}
