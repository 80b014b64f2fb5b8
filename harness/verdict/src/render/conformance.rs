//! ConformanceReport: what implementations of the Gateway API publish, filled with the results of one gateway.
//!
//! The profiles are this project's suites and carry its names: nobody may take them for the Gateway API's own.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::report::{CheckReport, GatewayReport, Report};
use crate::{plan::Level, record::Verdict};

use super::{Lines, inert};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Implementation {
    pub organization: String,
    pub project: String,
    pub url: String,
    pub contact: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConformanceReport<'a> {
    api_version: &'static str,
    kind: &'static str,
    date: &'a str,
    #[serde(rename = "gatewayAPIVersion")]
    gateway_api_version: &'a str,
    #[serde(rename = "gatewayAPIChannel")]
    gateway_api_channel: &'a str,
    mode: &'static str,
    implementation: Maker<'a>,
    profiles: Vec<Profile>,
}

#[derive(Serialize)]
struct Maker<'a> {
    organization: &'a str,
    project: &'a str,
    url: &'a str,
    version: &'a str,
    contact: &'a [String],
}

#[derive(Serialize)]
struct Profile {
    name: String,
    summary: String,
    core: Status,
    extended: Extended,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    result: &'static str,
    statistics: Statistics,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped_tests: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed_tests: Vec<String>,
}

/// The Gateway API's own type has no names for these in JSON, so that they are written as they are in Go.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statistics {
    passed: usize,
    skipped: usize,
    failed: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Extended {
    #[serde(flatten)]
    status: Status,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    supported_features: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    unsupported_features: BTreeSet<String>,
}

/// The ConformanceReport of one gateway of a report, as YAML; nothing where no gateway was tested.
///
/// Core are the MUST checks that the gateway does not declare unsupported, extended the SHOULD checks; capabilities are
/// features. A failure that the baseline knows is a failure here.
pub fn conformance(
    report: &Report,
    gateway: &GatewayReport,
    maker: &Implementation,
    channel: &str,
) -> Option<Result<String, serde_saphyr::ser::Error>> {
    if !report.run.place.is_real() {
        return None;
    }
    let mut suites: BTreeMap<&str, Vec<&CheckReport>> = BTreeMap::new();
    for check in report.checks.iter().filter(|c| c.gateway == gateway.name) {
        suites.entry(check.suite()).or_default().push(check);
    }
    let unknown = "unknown".to_owned();
    Some(serde_saphyr::to_string(&ConformanceReport {
        api_version: "gateway.networking.k8s.io/v1",
        kind: "ConformanceReport",
        date: &report.run.started,
        gateway_api_version: gateway.versions.get("gateway-api").unwrap_or(&unknown),
        gateway_api_channel: channel,
        mode: "default",
        implementation: Maker {
            organization: &maker.organization,
            project: &maker.project,
            url: &maker.url,
            version: gateway.version(),
            contact: &maker.contact,
        },
        profiles: suites.iter().map(|(suite, checks)| profile(suite, checks)).collect(),
    }))
}

fn profile(suite: &str, checks: &[&CheckReport]) -> Profile {
    let of =
        |level: Level| checks.iter().copied().filter(move |c| c.level == level && c.verdict != Verdict::Unsupported);
    let core = status(of(Level::Must));
    let features = |unsupported: bool| -> BTreeSet<String> {
        let these = checks.iter().filter(|c| (c.verdict == Verdict::Unsupported) == unsupported);
        these.filter_map(|c| c.capability.clone()).collect()
    };
    let (supported_features, unsupported_features) = (features(false), features(true));
    let Statistics { passed, skipped, failed } = core.statistics;
    let summary = format!("{passed} MUST checks hold, {failed} do not, {skipped} were not run.");
    let extended = Extended { status: status(of(Level::Should)), supported_features, unsupported_features };
    Profile { name: format!("IGC-{}", suite.to_uppercase()), summary, core, extended }
}

fn status<'c>(checks: impl Iterator<Item = &'c CheckReport>) -> Status {
    let (mut passed, mut skipped_tests, mut failed_tests) = (0, Vec::new(), Vec::new());
    for check in checks {
        let title = inert(&check.title(), 300, Lines::Joined);
        match check.verdict {
            Verdict::Pass => passed += 1,
            Verdict::NotRun | Verdict::Unsupported => skipped_tests.push(title),
            Verdict::Fail | Verdict::Flaky | Verdict::Unproven | Verdict::Error => failed_tests.push(title),
        }
    }
    let result = match (failed_tests.is_empty(), skipped_tests.is_empty()) {
        (false, _) => "failure",
        (true, true) if passed > 0 => "success",
        _ => "partial", // also where nothing was judged at all
    };
    let statistics = Statistics { passed, skipped: skipped_tests.len(), failed: failed_tests.len() };
    Status { result, statistics, skipped_tests, failed_tests }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::PlaceName, render::tests_support::everything, report::tests::World};

    fn maker() -> Implementation {
        Implementation {
            organization: "o".into(),
            project: "p".into(),
            url: "https://u.example".into(),
            contact: vec!["https://u.example/issues".into()],
        }
    }

    fn of(world: &World) -> Option<String> {
        let report = world.report();
        conformance(&report, &report.gateways[0], &maker(), "standard").map(Result::unwrap)
    }

    #[test]
    fn everything_is_there() {
        let mut world = everything();
        for check in &mut world.plan.checks {
            check.capability = Some(check.suite().to_owned());
        }
        insta::assert_snapshot!(of(&world).unwrap());
    }

    #[test]
    fn a_rehearsal_is_of_no_implementation() {
        let mut world = World::new();
        world.plan.run.place = PlaceName::Rehearsal;
        assert_eq!(of(&world), None);
    }

    #[test]
    fn a_check_that_was_not_run_is_no_success() {
        let mut world = World::new();
        assert!(of(&world).unwrap().contains("result: success"));
        world.check("routing/other", Level::Must).disposition =
            crate::plan::Disposition::NotRun { reason: "r".into(), filtered: true };
        let read: serde_json::Value = serde_saphyr::from_str(&of(&world).unwrap()).unwrap();
        assert_eq!(read["profiles"][0]["core"]["result"], "partial");
        assert_eq!(read["profiles"][0]["core"]["skippedTests"][0], "routing/other");
    }
}
