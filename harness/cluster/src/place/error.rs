//! Errors of places. Their exit code tells a wrong command (2) from a machine, cluster or install that failed (3).

use verdict::folder::FolderError;

use crate::{
    api::{ApiFailure, ConnectError},
    install::{
        bundle::BundleError,
        component::DataError,
        failure::{Cause, Failure},
        profile::ProfileError,
    },
    name::NotAName,
    programs::{child::ChildError, engine::EngineError, image::ImageError, kind::KindError},
};

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The command or the data of the project is wrong: exit 2.
    #[error("{0}")]
    Usage(String),
    /// The machine, the cluster or the install failed: exit 3.
    #[error("{0}")]
    Environment(String),
}

/// Errors that always have the same exit code.
macro_rules! from_errors {
    ($($variant:ident: $($error:ty),+;)+) => {$($(
        impl From<$error> for PlaceError {
            fn from(error: $error) -> Self {
                Self::$variant(error.to_string())
            }
        }
    )+)+};
}

from_errors! {
    Usage: DataError, ProfileError, NotAName;
    Environment: ChildError, EngineError, KindError, ImageError, BundleError, ApiFailure, FolderError, std::io::Error,
        serde_json::Error;
}

impl From<ConnectError> for PlaceError {
    fn from(error: ConnectError) -> Self {
        let said = error.to_string();
        if error.is_usage() { Self::Usage(said) } else { Self::Environment(said) }
    }
}

impl From<Failure> for PlaceError {
    fn from(failure: Failure) -> Self {
        let said = failure.to_string();
        if failure.cause.as_ref().is_some_and(Cause::is_usage) { Self::Usage(said) } else { Self::Environment(said) }
    }
}
