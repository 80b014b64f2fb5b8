//! Port forwarding.

use http::Request;
use hyper::body::Incoming;

use super::Hooks;
use super::answer::Answer;
use super::request::{Query, Target};
use crate::api::failure::Failure;
use crate::api::store::Store;

/// Starts forwarding.
pub(super) fn start(
    _store: &Store,
    _hooks: &Hooks,
    _target: &Target,
    _query: &Query,
    _request: Request<Incoming>,
) -> Result<Answer, Failure> {
    Err(Failure::no_such_resource())
}
