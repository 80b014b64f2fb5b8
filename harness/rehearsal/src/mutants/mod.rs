//! Mutants: gateways that are wrong on purpose, one way at a time, so that every check is seen to fail.
//!
//! A mutant is a row of the table in [`mutant`], or of a dialect's own where only that gateway can be wrong so. It acts at a
//! boundary between two stages of an exchange, on what a dialect translated, or on what a controller or the API server is
//! about to do. Where it would act it asks [`Mutants::is`], once, and last of all that decides: an answer of true means that
//! the mutant acts, and is remembered ([`Mutants::reached`]). A world can also be mended: rid of the faults that the real
//! gateways have, for checks that would fail without a mutant.

mod limits;
pub(crate) mod mutant;
mod picking;
mod routing;
pub(crate) mod translation;
mod unfaithful;
mod upstream;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
pub use mutant::Mutant;
pub(crate) use mutant::mutants;

use crate::{
    dataplane::{interceptor::Interceptor, routing::Entry},
    dialects::{self, object::Name},
    lock,
};

/// What is wrong with one world. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Mutants(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    which: Option<Mutant>,
    mended: bool,
    awake: AtomicBool,
    noticed: AtomicBool,
    reached: AtomicBool,
    turns: AtomicU64,
    under_way: AtomicU64,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    first: HashMap<String, u64>,
    last: HashMap<String, u64>,
    endpoints: HashMap<String, Vec<SocketAddr>>,
    entries: HashMap<(Name, String), Vec<Arc<Entry>>>,
    choice: Option<SocketAddr>,
    crowded: bool,
    /// The last reply that was seen whole.
    reply: Option<(StatusCode, HeaderMap, Bytes)>,
    /// The id of the last request.
    id: Option<HeaderValue>,
}

/// Which of ten times a mutant acts that acts once in ten: one that few exchanges reach.
const THIRD: u64 = 2;

impl Mutants {
    /// A world with this mutant, or none, rid of the faults of real gateways or not.
    pub fn new(which: Option<Mutant>, mended: bool) -> Self {
        Self(Arc::new(Inner { which, mended, ..Inner::default() }))
    }

    /// From here on the world is wrong. Until then it is as it should be, so that it can be stood up.
    pub fn wake(&self) {
        self.0.awake.store(true, Ordering::Relaxed);
    }

    /// Whether one woke since this was asked last.
    pub(crate) fn just_woke(&self) -> bool {
        self.0.which.is_some() && self.0.awake.load(Ordering::Relaxed) && !self.0.noticed.swap(true, Ordering::Relaxed)
    }

    /// Whether the world is to be wrong in this way, here and now. To be asked last: it counts as reached.
    pub fn is(&self, mutant: Mutant) -> bool {
        let which = self.0.which.filter(|which| which.does_as(mutant) && self.0.awake.load(Ordering::Relaxed));
        let is = which.is_some_and(|which| {
            which.one_in() == 1 || self.0.turns.fetch_add(1, Ordering::Relaxed) % which.one_in() == THIRD
        });
        if is {
            self.0.reached.store(true, Ordering::Relaxed);
        }
        is
    }

    /// Whether one of these is the world's mutant; nothing is reached yet.
    pub(crate) fn could_be(&self, mutants: &[Mutant]) -> bool {
        self.0.which.is_some_and(|which| mutants.iter().any(|mutant| mutant.does_as(which)))
    }

    /// Whether the world is rid of the faults that real gateways are known to have.
    pub fn is_mended(&self) -> bool {
        self.0.mended
    }

    pub fn reached(&self) -> bool {
        self.0.reached.load(Ordering::Relaxed)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.0.memory)
    }

    fn is_one_in(&self, many: u64) -> bool {
        self.0.turns.fetch_add(1, Ordering::Relaxed) % many == many - 1
    }

    /// One more; how many there are already.
    fn enter(&self) -> u64 {
        self.0.under_way.fetch_add(1, Ordering::Relaxed)
    }

    /// One fewer; how many there are still.
    fn leave(&self) -> u64 {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed).saturating_sub(1)
    }

    /// One fewer; whether others were under way at any time since it or one of them came.
    fn leaves_others(&self) -> bool {
        let last = self.leave() == 0;
        let mut memory = self.memory();
        let crowded = memory.crowded;
        memory.crowded &= !last;
        crowded
    }

    #[cfg(test)]
    fn awake(which: Mutant) -> Self {
        let mutants = Self::new(Some(which), false);
        mutants.wake();
        mutants
    }
}

impl Interceptor for Mutants {}

impl Mutant {
    /// Those of the common tables, and those of the dialects.
    pub fn all() -> impl Iterator<Item = Self> {
        mutant::ALL.iter().chain(upstream::ALL).chain(unfaithful::ALL).chain(dialects::mutants()).copied()
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|mutant| mutant.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_told_apart() {
        let names: BTreeSet<&str> = Mutant::all().map(Mutant::name).collect();
        assert_eq!(names.len(), Mutant::all().count());
        assert!(Mutant::all().all(|m| Mutant::named(m.name()) == Some(m)));
        assert_eq!(Mutant::named("none-of-them"), None);
    }

    #[test]
    fn a_mutant_is_reached_where_it_is_the_one_that_is_asked_for() {
        let mutants = Mutants::new(Some(mutant::DROPS_DONE), false);
        assert!(!mutants.is(mutant::DROPS_DONE), "it sleeps");
        mutants.wake();
        assert!(!mutants.is(mutant::IGNORES_HOST) && !mutants.reached());
        assert!(mutants.is(mutant::DROPS_DONE) && mutants.reached());
        assert!(Mutant::all().all(|m| !Mutants::default().is(m)));
    }
}
