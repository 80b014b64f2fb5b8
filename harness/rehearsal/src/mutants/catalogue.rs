//! All mutants: those of the common tables, and those of the dialects.

use super::{
    mutant::{self, Mutant},
    upstream,
};
use crate::dialects;

impl Mutant {
    pub fn all() -> impl Iterator<Item = Self> {
        mutant::ALL.iter().chain(upstream::ALL).chain(dialects::mutants()).copied()
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
}
