//! The rehearsal: the stand-in world in which the harness tries itself. It is not a gateway and never says conformant.

pub mod clock;
pub mod controllers;
pub mod dataplane;
pub mod definitions;
pub mod dialects;
pub mod fidelity;
pub mod hops;
pub mod kinds;
pub mod mutants;
mod webhooks;
pub mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic of another holder does not take the value away.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
