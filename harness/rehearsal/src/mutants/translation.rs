//! How what a dialect makes of its resources is wrong: tables of the data plane, statuses, children. And how it is mended.

use std::{cmp::Ordering, sync::Arc};

use serde_json::{Value, json};

use super::{Mutants, mutant};
use crate::{
    dataplane::{
        pool::{Asks, Follows, Picker, Pool, Served, WithoutPicker},
        routing::{Backend, Entry, Filter, HeaderEdit, PathMatch, Rule, Table, Target, regex_before_prefix},
    },
    dialects::{
        object::{self, Name, list, text},
        pools,
        snapshot::Snapshot,
        translation::{StatusOf, Translation},
    },
    kinds,
};

impl Mutants {
    pub(crate) fn distort(&self, snapshot: &Snapshot, translation: &mut Translation) {
        if self.0.which.is_none() && !self.0.mended {
            return;
        }
        self.statuses(snapshot, translation);
        self.children(&mut translation.children);
        for (gateway, table) in &mut translation.tables {
            let mut wrong = Table::clone(table);
            self.keep_stale(snapshot, gateway, &mut wrong);
            self.table(snapshot, &mut wrong);
            *table = Arc::new(wrong);
        }
    }

    fn keep_stale(&self, snapshot: &Snapshot, gateway: &Name, table: &mut Table) {
        if !self.could_be(&[mutant::STALE_ROUTE_ANSWERS]) {
            return;
        }
        for listener in &mut table.listeners {
            let mut memory = self.memory();
            let known = memory.entries.entry((gateway.clone(), listener.name.clone())).or_default();
            let is_gone = |e: &&Arc<Entry>| snapshot.get(&kinds::HTTP_ROUTE, &e.id.namespace, &e.id.name).is_none();
            let stale: Vec<_> = known.iter().filter(is_gone).cloned().collect();
            if !stale.is_empty() && self.is(mutant::STALE_ROUTE_ANSWERS) {
                listener.entries.extend(stale);
            }
            known.clone_from(&listener.entries);
        }
    }

    fn table(&self, snapshot: &Snapshot, table: &mut Table) {
        if self.is_mended() {
            table.passes_keep_alive = false;
        }
        if self.is(mutant::LEAKS_UPSTREAM_KEEP_ALIVE) {
            table.passes_keep_alive = true;
        }
        let order: Option<fn(&PathMatch, &PathMatch) -> Ordering> = if self.is(mutant::PREFERS_SHORT_PREFIX) {
            Some(short_prefix_first)
        } else if self.is(mutant::REGEX_ALWAYS_LOSES) {
            Some(regex_last)
        } else if self.is(mutant::REGEX_ALWAYS_WINS) {
            Some(regex_first)
        } else {
            None
        };
        if let Some(order) = order {
            table.precedence.paths = order;
        }
        let spread = spread(self, table);
        let first_picker = table.entries().find_map(|e| picker_of(&e.rule));
        for listener in &mut table.listeners {
            for entry in &mut listener.entries {
                let mut rule = Rule::clone(&entry.rule);
                if let Some(spread) = &spread {
                    take(&mut rule, spread);
                }
                self.rule(snapshot, entry, &mut rule);
                for backend in &mut rule.backends {
                    self.backend(snapshot, entry, &first_picker, backend);
                }
                *entry = Arc::new(Entry { rule: Arc::new(rule), ..Entry::clone(entry) });
            }
            listener.entries.sort_by(|a, b| table.precedence.compare(a, b));
        }
    }

    fn rule(&self, snapshot: &Snapshot, entry: &Entry, rule: &mut Rule) {
        if self.is_mended() {
            rule.local_limits.append(&mut rule.unenforced_limits);
        }
        let several = rule.local_limits.len() + rule.unenforced_limits.len() > 1 || rule.global_limits.len() > 1;
        if several && self.is(mutant::ONLY_FIRST_LIMIT) {
            rule.local_limits.truncate(1);
            rule.global_limits.truncate(1);
        }
        if several && self.is(mutant::ONLY_LAST_LIMIT) {
            rule.local_limits.append(&mut rule.unenforced_limits);
            rule.local_limits.drain(..rule.local_limits.len().saturating_sub(1));
            rule.global_limits.drain(..rule.global_limits.len().saturating_sub(1));
        }
        if !rule.local_limits.is_empty() && self.is(mutant::OFF_BY_ONE_LIMIT) {
            for limit in &mut rule.local_limits {
                limit.limit.capacity += 1;
                limit.limit.per_fill += 1;
            }
        }
        if rule.transformation.is_some() && self.is(mutant::ACCEPTED_WITHOUT_EFFECT) {
            rule.transformation = None;
        }
        let route = snapshot.get(&kinds::HTTP_ROUTE, &entry.id.namespace, &entry.id.name);
        if route.is_some_and(|route| object::generation(route) > 1) && self.is(mutant::TRANSFORMATION_LOST_AFTER_UPDATE)
        {
            rule.transformation = None;
            rule.filters.retain(|filter| !is_of_reply(filter));
        }
        let granted = snapshot.all(&kinds::REFERENCE_GRANT).any(|g| object::namespace(g) == entry.id.namespace);
        if granted && self.is(mutant::TAKES_A_GRANT_FOR_A_BAN) {
            rule.backends.iter_mut().for_each(|backend| backend.target = Target::Broken);
        }
        for filter in &mut rule.filters {
            if let Filter::Request(changes) | Filter::Response(changes) = filter {
                self.header_edit(changes);
            }
        }
    }

    fn header_edit(&self, changes: &mut HeaderEdit) {
        if !changes.set.is_empty() && self.is(mutant::APPENDS_INSTEAD_OF_SET) {
            changes.add.append(&mut changes.set);
        }
        if !changes.remove.is_empty() && self.is(mutant::IGNORES_HEADER_REMOVAL) {
            changes.remove.clear();
        }
    }

    fn backend(&self, snapshot: &Snapshot, entry: &Entry, first: &Option<Arc<Pool>>, backend: &mut Backend) {
        let referred = referred_pool(snapshot, entry);
        let lacks_picker = |p: &Picker| snapshot.get(&kinds::SERVICE, &p.namespace, &p.service).is_none();
        if let Target::Pool(pool) = &backend.target
            && self.is_mended()
            && pool.picker.as_ref().is_some_and(lacks_picker)
        {
            backend.target = Target::Broken;
        }
        if let (Target::Broken | Target::NoService, Some(pool)) = (&backend.target, &referred)
            && self.is(mutant::SERVES_WITHOUT_A_PICKER)
        {
            backend.target = Target::Pool(Arc::new(Pool {
                picker: None,
                endpoints: pools::endpoints(snapshot, pool),
                follows: Follows::Endpoints,
                without_picker: WithoutPicker::GoOn,
                served: Served::Untold,
                asks: Asks::Once,
            }));
        }
        let Target::Pool(pool) = &mut backend.target else { return };
        let mut wrong = Pool::clone(pool);
        let chooses = [
            mutant::SKIPS_PICKER,
            mutant::IGNORES_CHOICE,
            mutant::SERVES_WITHOUT_A_PICKER,
            mutant::FAILS_OPEN_ALWAYS,
            mutant::USES_THE_BACKEND_REFS_PORT,
            mutant::KEEPS_THE_FIRST_ENDPOINTS,
        ];
        if let Some(referred) = &referred {
            if self.is_mended() || self.could_be(&chooses) {
                wrong.endpoints = pools::endpoints(snapshot, referred);
            }
            if self.is_mended() && pools::fails_open(referred) {
                wrong.without_picker = WithoutPicker::GoOn;
            }
            if self.is_mended() {
                wrong.served = Served::Reported;
            }
        }
        if self.is(mutant::SKIPS_PICKER)
            || wrong.picker.as_ref().is_some_and(lacks_picker) && self.is(mutant::SERVES_WITHOUT_A_PICKER)
        {
            wrong.picker = None;
        }
        if let Some(first) = first.as_ref().filter(|first| first.picker != wrong.picker)
            && self.is(mutant::ONE_PICKER_FOR_ALL_POOLS)
        {
            wrong.picker.clone_from(&first.picker);
        }
        if self.is(mutant::FAILS_OPEN_ALWAYS) {
            wrong.without_picker = WithoutPicker::GoOn;
            wrong.follows = Follows::Endpoints;
        }
        if self.is(mutant::FAILS_OPEN_NEVER) {
            wrong.without_picker = WithoutPicker::Refuse;
        }
        if wrong.without_picker == WithoutPicker::GoOn && self.is(mutant::FAILS_OPEN_WITHOUT_A_BODY_ONLY) {
            wrong.without_picker = WithoutPicker::GoOnWithoutBody;
        }
        if self.is_mended() {
            wrong.asks = Asks::Once;
        }
        if self.is(mutant::ASKS_FOR_EVERY_MATCH) {
            wrong.asks = Asks::ForEveryMatch;
        }
        if self.is(mutant::DOES_NOT_REPORT_SERVED) {
            wrong.served = Served::Untold;
        }
        if let Some(port) = referred_port(snapshot, entry)
            && wrong.endpoints.iter().any(|e| e.port() != port)
            && self.is(mutant::USES_THE_BACKEND_REFS_PORT)
        {
            wrong.endpoints.iter_mut().for_each(|endpoint| endpoint.set_port(port));
            wrong.follows = Follows::Endpoints;
        }
        if let Some(picker) = &wrong.picker
            && self.could_be(&[mutant::KEEPS_THE_FIRST_ENDPOINTS])
        {
            let mut memory = self.memory();
            let first = memory.endpoints.entry(format!("{}/{}", picker.namespace, picker.service)).or_default();
            if first.len() < 2 {
                first.clone_from(&wrong.endpoints);
            } else if *first != wrong.endpoints && self.is(mutant::KEEPS_THE_FIRST_ENDPOINTS) {
                wrong.endpoints.clone_from(first);
                wrong.follows = Follows::Endpoints;
            }
        }
        *pool = Arc::new(wrong);
    }

    fn statuses(&self, snapshot: &Snapshot, translation: &mut Translation) {
        if self.is_mended() {
            let idle = |(at, status): (usize, &StatusOf)| limits_nothing(snapshot, translation, status).then_some(at);
            let idle: Vec<usize> = translation.statuses.iter().enumerate().filter_map(idle).collect();
            for at in idle {
                if !self.is(mutant::ACCEPTED_WITHOUT_EFFECT) {
                    each_condition(&mut translation.statuses[at].status, |condition| {
                        condition["status"] = json!("False");
                        condition["reason"] = json!("Invalid");
                    });
                }
            }
        }
        for StatusOf { kind, status, .. } in &mut translation.statuses {
            each_condition(status, |condition| self.condition(kind, condition));
        }
        translation.statuses.retain(|s| s.kind != kinds::INFERENCE_POOL || !self.swallows(snapshot, s));
        if self.could_be(&[mutant::ACCEPTS_GATEWAYS_OF_NO_CLASS]) {
            let classless = snapshot.all(&kinds::GATEWAY).filter(|g| {
                let class = text(g, "/spec/gatewayClassName");
                snapshot.get(&kinds::GATEWAY_CLASS, "", class).is_none()
            });
            let accepted = |g: &Arc<Value>| {
                let condition = object::observed(g, "Accepted", true, "Accepted", "");
                StatusOf::new(kinds::GATEWAY, g, json!({"conditions": [condition]}))
            };
            let classless = classless.filter(|_| self.is(mutant::ACCEPTS_GATEWAYS_OF_NO_CLASS));
            translation.statuses.extend(classless.map(accepted));
        }
    }

    fn swallows(&self, snapshot: &Snapshot, status: &StatusOf) -> bool {
        let (home, name) = &status.name;
        let before = snapshot.get(&status.kind, home, name).map_or(0, |pool| list(pool, "/status/parents").count());
        let clears = before > list(&status.status, "/parents").count();
        self.is(mutant::POOL_STATUS_NEVER_WRITTEN) || clears && self.is(mutant::STATUS_NEVER_CLEARED)
    }

    fn condition(&self, kind: &apiserver::Kind, condition: &mut Value) {
        let (is_route, is_pool) = (*kind == kinds::HTTP_ROUTE, *kind == kinds::INFERENCE_POOL);
        if is_pool && self.is_mended() && condition["type"] == "ResolvedRefs" && condition["status"] == "False" {
            condition["reason"] = json!("InvalidExtensionRef");
        }
        let says = |wanted: &str, field: &str| condition[field] == wanted;
        let unresolved = says("ResolvedRefs", "type") && says("False", "status");
        if is_route && unresolved && says("BackendNotFound", "reason") && self.is(mutant::RESOLVES_MISSING_BACKENDS)
            || is_pool && unresolved && self.is(mutant::RESOLVES_MISSING_PICKERS)
        {
            condition["status"] = json!("True");
            condition["reason"] = json!("ResolvedRefs");
        } else if is_route
            && unresolved
            && says("InvalidKind", "reason")
            && self.is(mutant::BACKEND_NOT_FOUND_FOR_UNKNOWN_KINDS)
        {
            condition["reason"] = json!("BackendNotFound");
        } else if (is_pool || *kind == kinds::GATEWAY) && self.is(mutant::STALE_OBSERVED_GENERATION) {
            condition["observedGeneration"] = json!(0);
        } else if *kind == kinds::GATEWAY && says("Programmed", "type") && self.is(mutant::PROGRAMMED_NEVER) {
            condition["status"] = json!("False");
        }
    }

    fn children(&self, children: &mut [Value]) {
        for child in children.iter_mut() {
            if let Some(labels) = child["metadata"]["labels"].as_object_mut()
                && labels.contains_key("serving.kserve.io/gateway")
                && self.is(mutant::FORGETS_INFRASTRUCTURE_LABELS)
            {
                labels.remove("serving.kserve.io/gateway");
            }
            if child["kind"] == "Service" && self.is(mutant::OPENS_PORT_443) {
                let more = json!({"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443});
                child["spec"]["ports"].as_array_mut().into_iter().for_each(|ports| ports.push(more.clone()));
            }
        }
    }

    /// The Services among a translation's children that a gateway would name otherwise: not that of the Gateway which all
    /// checks share, which has to be found.
    pub(crate) fn services_named_otherwise<'t>(
        &self,
        snapshot: &Snapshot,
        children: &'t mut [Value],
    ) -> impl Iterator<Item = &'t mut Value> {
        let kserves = snapshot.all(&kinds::CONFIG_MAP).find(|c| object::name(c) == "inferenceservice-config");
        let kserves = kserves.map(|config| text(config, "/data/ingress").to_owned()).unwrap_or_default();
        let is_shared = move |child: &Value| {
            let labels = object::texts(child.pointer("/metadata/labels"));
            labels.values().filter_map(Value::as_str).any(|name| kserves.contains(&format!("/{name}\"")))
        };
        let services = children.iter_mut().filter(move |child| child["kind"] == "Service" && !is_shared(child));
        services.filter(move |_| self.is(mutant::NAMES_SERVICES_OTHERWISE))
    }
}

/// What of one rule every rule gets.
fn spread(mutants: &Mutants, table: &Table) -> Option<Rule> {
    let rules = || table.entries().map(|e| &e.rule);
    let limited = |r: &&Arc<Rule>| !r.local_limits.is_empty() || !r.global_limits.is_empty();
    let transforms = |r: &&Arc<Rule>| r.transformation.is_some() || r.filters.iter().any(is_of_reply);
    if let Some(rule) = rules().find(limited)
        && mutants.is(mutant::LIMITS_EVERY_ROUTE)
    {
        let (local_limits, global_limits) = (rule.local_limits.clone(), rule.global_limits.clone());
        Some(Rule { local_limits, global_limits, ..Rule::default() })
    } else if let Some(rule) = rules().find(transforms)
        && mutants.is(mutant::TRANSFORMATION_ON_ALL_ROUTES)
    {
        let filters = rule.filters.iter().filter(|f| is_of_reply(f)).cloned().collect();
        Some(Rule { filters, transformation: rule.transformation.clone(), ..Rule::default() })
    } else {
        None
    }
}

fn is_of_reply(filter: &Filter) -> bool {
    matches!(filter, Filter::Response(_))
}

/// A rule that has nothing of the kind takes what is spread.
fn take(rule: &mut Rule, spread: &Rule) {
    if rule.local_limits.is_empty() && rule.global_limits.is_empty() {
        rule.local_limits.clone_from(&spread.local_limits);
        rule.global_limits.clone_from(&spread.global_limits);
    }
    if rule.transformation.is_none() {
        rule.transformation.clone_from(&spread.transformation);
    }
    if !rule.filters.iter().any(is_of_reply) {
        rule.filters.extend(spread.filters.iter().cloned());
    }
}

fn short_prefix_first(a: &PathMatch, b: &PathMatch) -> Ordering {
    match (a, b) {
        (PathMatch::Prefix(a), PathMatch::Prefix(b)) => a.len().cmp(&b.len()),
        _ => regex_before_prefix(a, b),
    }
}

fn regex_first(a: &PathMatch, b: &PathMatch) -> Ordering {
    let rank = |path: &PathMatch| !matches!(path, PathMatch::Regex(..));
    rank(a).cmp(&rank(b)).then_with(|| regex_before_prefix(a, b))
}

fn regex_last(a: &PathMatch, b: &PathMatch) -> Ordering {
    let rank = |path: &PathMatch| matches!(path, PathMatch::Regex(..));
    rank(a).cmp(&rank(b)).then_with(|| regex_before_prefix(a, b))
}

fn picker_of(rule: &Rule) -> Option<Arc<Pool>> {
    rule.backends.iter().find_map(|backend| match &backend.target {
        Target::Pool(pool) if pool.picker.is_some() => Some(Arc::clone(pool)),
        _ => None,
    })
}

fn backend_ref<'a>(snapshot: &'a Snapshot, entry: &Entry) -> Option<(&'a Value, &'a Value)> {
    let route = snapshot.get(&kinds::HTTP_ROUTE, &entry.id.namespace, &entry.id.name)?;
    Some((route, route.pointer(&format!("/spec/rules/{}/backendRefs/0", entry.id.rule))?))
}

fn referred_pool<'a>(snapshot: &'a Snapshot, entry: &Entry) -> Option<&'a Arc<Value>> {
    let (route, written) = backend_ref(snapshot, entry)?;
    let (namespace, name) = pools::named(route, written)?;
    snapshot.get(&kinds::INFERENCE_POOL, &namespace, &name)
}

fn referred_port(snapshot: &Snapshot, entry: &Entry) -> Option<u16> {
    let (route, written) = backend_ref(snapshot, entry)?;
    pools::named(route, written)?;
    object::port(written, "/port")
}

/// Whether a status is of a policy that limits tokens on routes where nobody says how many were used.
fn limits_nothing(snapshot: &Snapshot, translation: &Translation, status: &StatusOf) -> bool {
    let Some(policy) = snapshot.get(&status.kind, &status.name.0, &status.name.1) else { return false };
    let limits = policy.pointer("/spec/traffic/rateLimit").or_else(|| policy.pointer("/spec/rateLimit")).is_some();
    let targets: Vec<&str> = list(policy, "/spec/targetRefs")
        .chain(policy.pointer("/spec/targetRef"))
        .filter(|t| text(t, "/kind") == "HTTPRoute")
        .map(|t| text(t, "/name"))
        .collect();
    let mut entries = translation
        .tables
        .values()
        .flat_map(|table| table.entries())
        .filter(|e| e.id.namespace == status.name.0 && targets.contains(&e.id.name.as_str()))
        .peekable();
    limits && entries.peek().is_some() && entries.all(|e| e.rule.backends.iter().all(|b| b.provider.is_none()))
}

pub(crate) fn each_rule(translation: &mut Translation, mut change: impl FnMut(&mut Rule)) {
    for table in translation.tables.values_mut() {
        for entry in Arc::make_mut(table).listeners.iter_mut().flat_map(|listener| &mut listener.entries) {
            change(Arc::make_mut(&mut Arc::make_mut(entry).rule));
        }
    }
}

/// All conditions in a status, wherever they stand.
pub(crate) fn each_condition(status: &mut Value, mut change: impl FnMut(&mut Value)) {
    fn walk(value: &mut Value, change: &mut dyn FnMut(&mut Value)) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::Array(all) if name == "conditions" => all.iter_mut().for_each(&mut *change),
                        other => walk(other, change),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
            _ => {}
        }
    }
    walk(status, &mut change);
}
