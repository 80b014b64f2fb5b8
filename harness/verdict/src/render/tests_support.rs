//! Made-up reports that show everything, for tests of all renderings.

use crate::plan::{Disposition, Level};
use crate::record::{GoldenState, Verdict};
use crate::{judge::Holds, record::tests_support::clause, report::tests::World};

pub(crate) fn everything() -> World {
    let mut world = World::new();
    world.plan.gateways[0].stand_ins = vec!["cert-manager (self-made certificates)".into()];
    world.check("routing/path", Level::Must);
    world.attempt("routing/path", 1, Verdict::Fail).clauses.push(clause("others-hold", Holds::Yes));
    world.check("routing/known", Level::Must);
    world.attempt("routing/known", 1, Verdict::Fail);
    world.known("check: routing/known, reason: it answers 200");
    world.check("routing/stale", Level::Must);
    world.attempt("routing/stale", 1, Verdict::Pass);
    world.known("check: routing/stale");
    world.check("tokens/flaky", Level::Must);
    world.attempt("tokens/flaky", 1, Verdict::Fail);
    world.attempt("tokens/flaky", 2, Verdict::Pass);
    world.check("tokens/unproven", Level::Must);
    world.attempt("tokens/unproven", 1, Verdict::Unproven);
    world.check("tokens/error", Level::Must);
    world.check("tokens/should", Level::Should);
    world.attempt("tokens/should", 1, Verdict::Fail);
    world.check("tokens/info", Level::Info);
    world.attempt("tokens/info", 1, Verdict::Fail);
    world.check("tokens/changed", Level::Must);
    let changed = world.attempt("tokens/changed", 1, Verdict::Pass);
    changed.golden = GoldenState::Changed;
    changed.golden_note = Some(crate::golden::difference(
        &serde_json::json!({"exchanges": [{"status": 404, "label": "wrong-host"}]}),
        &serde_json::json!({"exchanges": [{"status": 200, "label": "wrong-host"}]}),
    ));
    let unsupported = Disposition::Unsupported { reason: "it has no pools (issue 12)".into() };
    world.check("pool/asked", Level::Must).disposition = unsupported.clone();
    world.check("pool/choice", Level::Must).disposition = unsupported;
    let filtered = Disposition::NotRun { reason: "not selected by --suite or --check".into(), filtered: true };
    world.check("change/flip", Level::Must).disposition = filtered;
    world
}

pub(crate) fn hostile() -> World {
    let attack = format!(
        "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\u{0}\u{ffff}]]></failure><x>\r\nrouting/forged pass\n{}",
        "A".repeat(1_000_000)
    );
    let mut world = everything();
    for check in &mut world.plan.checks {
        check.sentence.clone_from(&attack);
        check.source.clone_from(&attack);
        if let Disposition::Unsupported { reason } = &mut check.disposition {
            reason.clone_from(&attack);
        }
    }
    world.plan.gateways[0].versions.insert("x".into(), attack.clone());
    for record in &mut world.records.records {
        record.reason.clone_from(&attack);
        record.golden_note = Some(attack.clone());
        for clause in &mut record.clauses {
            (clause.name, clause.expected, clause.got) = (attack.clone(), attack.clone(), attack.clone());
        }
    }
    world.ending = crate::report::Ending::Broken(attack);
    world
}
