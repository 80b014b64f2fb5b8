//! Limits: what a request is checked against, and what its reply is charged.

use std::sync::Arc;

use http::response::Parts;

use super::{Exchange, headers, reply::Reply};
use crate::dataplane::{
    bodies::{self, AtEnd, Deadline, MeteredBody},
    limits::WindowState,
    local_reply::Failure,
    metering::{Charges, MeteredReply, Metering},
    routing::{Backend, Entry, LocalLimit, Rule, Unit},
    upstream::UpstreamReply,
    usage::UsageReader,
};

impl Exchange<'_> {
    /// Asks the limits that know nothing of the body.
    pub(super) fn check_limits(&mut self, entry: &Entry) -> Result<(), Failure> {
        for limit in entry.rule.local_limits.iter().filter(|l| l.unit == Unit::Requests) {
            self.proxy.admit(limit, 1)?;
        }
        self.check_budgets(entry)
    }

    fn check_budgets(&mut self, entry: &Entry) -> Result<(), Failure> {
        let (now, interceptor) = (self.proxy.clock().now_ms(), self.interceptor());
        let mut windows = self.proxy.windows();
        for limit in &entry.rule.global_limits {
            let bucket = limit.bucket(&entry.id, &self.headers);
            if let Some(bucket) = interceptor.bucket(limit, &entry.id, &self.headers, bucket) {
                let time = interceptor.limiter_time(&bucket, limit.limit.seconds * 1000, now);
                let hits = interceptor.request_hits(limit.request_hits);
                self.budgets.push(windows.ask(time, &bucket, limit.limit, hits));
                self.buckets.push((bucket, limit.clone()));
            }
        }
        drop(windows);
        interceptor.budgets(now, &mut self.budgets);
        match WindowState::tightest(self.budgets.iter().copied()) {
            Some(state) if state.over => Err(Failure::OverWindow(state)),
            _ => Ok(()),
        }
    }

    /// Asks the local limits on tokens, which count replies of AI backends: a request passes while any token is left.
    pub(super) fn reserve_tokens(&self, rule: &Rule, backend: &Backend) -> Result<(), Failure> {
        let mut reservations: Vec<(&LocalLimit, u64)> = Vec::new();
        if backend.provider.is_some() {
            let of_tokens = rule.local_limits.iter().filter(|limit| limit.unit == Unit::Tokens);
            reservations.extend(of_tokens.map(|limit| (limit, 0)));
        }
        self.interceptor().reservations(rule, backend, &mut reservations);
        reservations.into_iter().try_for_each(|(limit, tokens)| self.proxy.admit(limit, tokens))
    }

    pub(super) fn meter(
        &mut self,
        rule: &Arc<Rule>,
        backend: &Backend,
        (mut parts, reply): (Parts, UpstreamReply),
        deadline: Option<Deadline>,
    ) -> Reply {
        let facts = MeteredReply {
            of_ai: backend.provider.is_some(),
            success: parts.status.is_success(),
            streaming: reply.streaming,
            usage_asked: self.usage_asked,
        };
        let metering = self.interceptor().metering(&facts, Metering::of(&facts));
        let (body, connection) = self.interceptor().reply(&mut parts.headers, reply);
        let (usage, at_end) = match metering {
            Metering::Never => (UsageReader::Nothing, None),
            Metering::AtEnd => (UsageReader::of(headers::content_type(&parts.headers)), Some(self.charge(rule))),
            Metering::AtHead(usage) => {
                self.charge(rule)(Some(usage));
                (UsageReader::Nothing, None)
            }
        };
        let body = bodies::boxed(MeteredBody { body, usage, at_end, deadline, connection });
        Reply { parts, body, streaming: facts.streaming }
    }

    fn charge(&mut self, rule: &Arc<Rule>) -> AtEnd {
        let (proxy, rule, asked) = (self.proxy.clone(), Arc::clone(rule), std::mem::take(&mut self.buckets));
        Box::new(move |usage| {
            let Some(usage) = usage else { return };
            let mut charges = Charges::of(&rule, asked, &usage);
            proxy.interceptor().charges(&proxy.table(), &rule, &usage, &mut charges);
            proxy.charge(&charges);
        })
    }
}
