//! Why a place does not do what was asked of it, and whose fault that is.

use verdict::folder::FolderError;

use crate::{
    api::{ApiFailure, ConnectError},
    gateway::GatewayError,
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
    /// What was asked for makes no sense here: exit 2.
    #[error("{0}")]
    Usage(String),
    /// The machine, the cluster or the install: exit 3.
    #[error("{0}")]
    Environment(String),
}

/// Errors whose fault is always the same.
macro_rules! places_of_fault {
    ($($fault:ident: $($error:ty),+;)+) => {$($(
        impl From<$error> for PlaceError {
            fn from(error: $error) -> Self {
                Self::$fault(error.to_string())
            }
        }
    )+)+};
}

places_of_fault! {
    Usage: DataError, ProfileError, NotAName, GatewayError;
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
