//! The registry: every check of this binary, as the checks themselves declare it.

use anyhow::{Context, Result};
use verdict::requirements::{Requirement, Requirements};

use crate::check::{Check, dashed};

#[derive(Debug)]
pub struct Entry {
    check: &'static Check,
    file: &'static str,
    line: u32,
}

impl Entry {
    pub const fn at(check: &'static Check, file: &'static str, line: u32) -> Self {
        Self { check, file, line }
    }
}

inventory::collect!(Entry);

/// Every check of this binary, by suite and then as its file has them.
fn entries() -> Vec<&'static Entry> {
    let mut all: Vec<&Entry> = inventory::iter::<Entry>().collect();
    all.sort_by_key(|entry| (entry.check.suite, entry.file, entry.line));
    all
}

pub fn find(id: &str) -> Option<&'static Check> {
    inventory::iter::<Entry>().map(|entry| entry.check).find(|check| check.id() == id)
}

pub fn requirements() -> Result<Requirements> {
    let all: Result<Vec<Requirement>> = entries().into_iter().map(|entry| requirement(entry.check)).collect();
    Ok(Requirements::of(all?)?)
}

fn requirement(check: &Check) -> Result<Requirement> {
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect();
    let model = |name: &str| {
        serde_json::from_value(name.into()).with_context(|| format!("{}: there is no model called {name}", check.id()))
    };
    let reasoned = check.not_with.iter().map(|(name, reason)| Ok((model(name)?, (*reason).to_owned())));
    Ok(Requirement {
        check: check.id(),
        level: check.level,
        sentence: check.sentence.to_owned(),
        source: check.source.to_owned(),
        how: check.how.to_owned(),
        capability: check.capability.map(|capability| capability.name.to_owned()),
        case_capabilities: check
            .case_capabilities
            .iter()
            .map(|(c, needs)| (dashed(c), needs.name.to_owned()))
            .collect(),
        model: check.model.map(model).transpose()?,
        usual_model: check.usual_model.map(model).transpose()?,
        cases: check.cases.iter().map(|case| dashed(case)).collect(),
        kills: words(check.kills),
        gateways: words(check.gateways),
        exclusive: check.exclusive,
        counts_every_answer: check.counts_every_answer,
        not_on: check.not_on.iter().map(|(place, reason)| (*place, (*reason).to_owned())).collect(),
        not_with: reasoned.collect::<Result<_>>()?,
        about: words(check.about),
    })
}
