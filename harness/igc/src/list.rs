//! `list`: the checks, and which gateway declares what they need.

use std::collections::BTreeMap;

use serde::Serialize;
use shipped::Root;
use verdict::plan::{Disposition, Level, ModelName, Plan};
use verdict::requirements::{Requirement, Requirements};
use verdict::tests_list::TestList;

use crate::options::{self, Format};
use crate::{failure::Failure, mutants::everything, plan::gateways, suites::Suites};

const PROFILE: &str = "current";

#[derive(Debug, Serialize)]
struct Listed<'r> {
    id: &'r str,
    level: Level,
    sentence: &'r str,
    source: &'r str,
    capability: Option<&'r str>,
    cases: &'r [String],
    model: Option<ModelName>,
    /// By the gateway's folder; those that the check does not belong to are left out.
    gateways: BTreeMap<String, Support>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    Declared,
    /// It does not, in no case of the check: why.
    Unsupported(String),
}

pub async fn list(root: &Root, options: &options::List) -> Result<u8, Failure> {
    let requirements = Suites::find(root)?.requirements().await?;
    let plan = declared(root, &options.gateway, &requirements)?;
    let listed = |requirement| {
        let gateways = support(&plan, requirement);
        (options.gateway == "all" || !gateways.is_empty()).then(|| Listed::of(requirement, gateways))
    };
    let all: Vec<Listed> = requirements.checks.iter().filter_map(listed).collect();
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&all)?),
        Format::Text => all.iter().for_each(|check| print!("{}", check.text())),
    }
    Ok(0)
}

pub fn declared(root: &Root, gateway: &str, requirements: &Requirements) -> Result<Plan, Failure> {
    everything(root, &gateways(root, gateway)?, PROFILE, requirements, &TestList::of(requirements))
}

pub fn support(plan: &Plan, requirement: &Requirement) -> BTreeMap<String, Support> {
    let mut gateways = BTreeMap::new();
    for check in plan.checks.iter().filter(|c| c.check == requirement.check) {
        let support = match &check.disposition {
            Disposition::Unsupported { reason } => Support::Unsupported(reason.clone()),
            Disposition::Run | Disposition::NotRun { .. } => Support::Declared,
        };
        // One case that it supports is enough.
        let known = gateways.entry(check.gateway.clone()).or_insert_with(|| support.clone());
        if support == Support::Declared {
            *known = support;
        }
    }
    gateways
}

impl<'r> Listed<'r> {
    fn of(requirement: &'r Requirement, gateways: BTreeMap<String, Support>) -> Self {
        Self {
            id: &requirement.check,
            level: requirement.level,
            sentence: &requirement.sentence,
            source: &requirement.source,
            capability: requirement.capability.as_deref(),
            cases: &requirement.cases,
            model: requirement.model.clone(),
            gateways,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{:<6}  {:<44}  {}\n", self.level.word(), self.id, self.sentence);
        for (gateway, support) in &self.gateways {
            if let Support::Unsupported(reason) = support {
                text += &format!("{:8}{gateway}: unsupported: {reason}\n", "");
            }
        }
        text
    }
}
