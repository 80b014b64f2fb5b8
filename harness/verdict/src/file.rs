//! Files that people write, in YAML: how they are read, and what can be wrong with them, by line.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

use regex::Regex;
use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;

/// What is wrong with a file that somebody wrote.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("failed to read {}: {source}{advice}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What to do, after `; `, or nothing.
        advice: &'static str,
    },
    /// It is not YAML of the known shape.
    #[error("failed to understand {}: {message}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// An entry says something that cannot be.
    #[error("failed to accept {} line {line}: {problem}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl FileError {
    /// It cannot be read.
    pub fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source, advice: "" }
    }

    /// It is not YAML of the known shape.
    pub fn shape(path: &Path, message: impl Display) -> Self {
        Self::Shape { path: path.to_owned(), message: message.to_string() }
    }

    /// An entry says something that cannot be.
    pub fn entry(path: &Path, line: u64, problem: impl Into<String>) -> Self {
        Self::Entry { path: path.to_owned(), line, problem: problem.into() }
    }
}

/// What such a file says.
///
/// # Errors
/// Where it is not YAML of this shape: what is wrong with it, in one line.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, FileError> {
    let first_line = |error: serde_saphyr::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    serde_saphyr::from_str(text).map_err(|error| FileError::shape(path, first_line(error)))
}

/// A regular expression that has to match the whole of a text.
///
/// # Errors
/// Where it is none, with its line.
pub fn whole(written: &Spanned<String>, path: &Path) -> Result<Regex, FileError> {
    let none =
        |_| FileError::entry(path, written.referenced.line(), format!("{:?} is no regular expression", written.value));
    Regex::new(&format!("^(?:{})$", written.value)).map_err(none)
}

/// The text of a file that need not be there.
pub fn read_if_there(path: &Path) -> Result<Option<String>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::read(path, source)),
    }
}
