//! Failure: what ends a command, with the exit code that it means.

use std::fmt;

use cluster::place::PlaceError;

#[derive(Debug)]
pub enum Failure {
    /// What was asked for makes no sense: exit 2.
    Usage(String),
    /// The machine, the cluster, the install or the harness: exit 3.
    Environment(String),
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Environment(_) => 3,
        }
    }

    pub fn usage(error: impl fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(words) | Failure::Environment(words) => f.write_str(words),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        match error.downcast_ref() {
            Some(PlaceError::Usage(words)) => Self::Usage(words.clone()),
            _ => Self::Environment(format!("{error:#}")),
        }
    }
}

impl From<Failure> for PlaceError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Usage(words) => Self::Usage(words),
            Failure::Environment(words) => Self::Environment(words),
        }
    }
}
