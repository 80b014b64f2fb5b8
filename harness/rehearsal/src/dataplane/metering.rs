//! Metering: when a reply is charged, and what.

use super::{
    routing::{GlobalLimit, LocalLimit, Rule, Unit},
    usage::{Cost, Usage},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metering {
    Never,
    /// When it has ended, for the usage that it reports.
    AtEnd,
    AtHead(Usage),
}

#[derive(Clone, Copy, Debug)]
pub struct MeteredReply {
    pub of_ai: bool,
    pub success: bool,
    pub streaming: bool,
    pub usage_asked: bool,
}

impl Metering {
    /// Successful replies of AI backends are charged when they have ended.
    pub fn of(reply: &MeteredReply) -> Self {
        if reply.of_ai && reply.success { Self::AtEnd } else { Self::Never }
    }
}

#[derive(Debug, Default)]
pub struct Charges {
    pub windows: Vec<WindowCharge>,
    /// Buckets of this replica, with the tokens for each.
    pub buckets: Vec<(LocalLimit, u64)>,
}

#[derive(Debug)]
pub struct WindowCharge {
    pub bucket: String,
    pub limit: GlobalLimit,
    /// The number of the usage that the limit counts, where it counts any.
    pub cost: Option<Cost>,
    pub hits: u64,
}

impl Charges {
    pub fn of(rule: &Rule, asked: Vec<(String, GlobalLimit)>, usage: &Usage) -> Self {
        let window = |(bucket, limit)| WindowCharge::of(rule, bucket, limit, usage);
        let of_tokens = rule.local_limits.iter().filter(|limit| limit.unit == Unit::Tokens);
        Self {
            windows: asked.into_iter().map(window).collect(),
            buckets: of_tokens.map(|limit| (limit.clone(), usage.tokens())).collect(),
        }
    }
}

impl WindowCharge {
    /// A window is charged the first cost of the rule that has the limit's name.
    pub fn of(rule: &Rule, bucket: String, limit: GlobalLimit, usage: &Usage) -> Self {
        let named = |key: &String| rule.costs.iter().find(|(name, _)| name == key).map(|(_, cost)| *cost);
        let cost = limit.response_key.as_ref().and_then(named);
        Self { bucket, limit, cost, hits: cost.map_or(0, |cost| usage.cost(cost)) }
    }
}
