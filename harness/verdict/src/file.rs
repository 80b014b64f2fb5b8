//! Files that people write, in YAML: how they are read, and what can be wrong with them, by line.

use std::path::{Path, PathBuf};
use std::{fmt::Display, io};

use regex::Regex;
use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("failed to read {}: {source}{advice}", path.display())]
    Read {
        path: PathBuf,
        source: io::Error,
        /// What to do, after `; `, or nothing.
        advice: &'static str,
    },
    #[error("failed to understand {}: {message}", path.display())]
    Shape { path: PathBuf, message: String },
    #[error("failed to accept {} line {line}: {problem}", path.display())]
    Entry { path: PathBuf, line: u64, problem: String },
}

impl FileError {
    pub fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source, advice: "" }
    }

    pub fn shape(path: &Path, message: impl Display) -> Self {
        Self::Shape { path: path.to_owned(), message: message.to_string() }
    }

    pub fn entry(path: &Path, line: u64, problem: impl Into<String>) -> Self {
        Self::Entry { path: path.to_owned(), line, problem: problem.into() }
    }
}

/// YAML of this shape; the error is one line.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, FileError> {
    let first_line = |error: serde_saphyr::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    serde_saphyr::from_str(text).map_err(|error| FileError::shape(path, first_line(error)))
}

/// A regular expression that has to match the whole of a text.
pub fn whole(written: &Spanned<String>, path: &Path) -> Result<Regex, FileError> {
    let none =
        |_| FileError::entry(path, written.referenced.line(), format!("{:?} is no regular expression", written.value));
    Regex::new(&format!("^(?:{})$", written.value)).map_err(none)
}

pub fn read_if_there(path: &Path) -> Result<Option<String>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::read(path, source)),
    }
}
