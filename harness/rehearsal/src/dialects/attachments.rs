//! Routes that are attached to the listeners of Gateways: entries for the data plane, and what statuses say of them.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    gateway_api::{self, Attached},
    object::{self, Name, list, text},
    translation::StatusOf,
};
use crate::dataplane::routing::{Entry, HostPattern, Listener, RouteId, Rule};

#[derive(Debug, Default)]
pub struct Attachments {
    pub statuses: Vec<StatusOf>,
    /// The Gateways that each is attached to, one for every parentRef.
    pub parents: BTreeMap<Name, Vec<Name>>,
    listeners: BTreeMap<(Name, usize), OfListener>,
}

#[derive(Debug, Default)]
struct OfListener {
    routes: u64,
    entries: Vec<Arc<Entry>>,
}

pub struct Unresolved {
    pub reason: &'static str,
    pub message: String,
}

impl Attachments {
    /// Attaches a route to listeners of a Gateway. Each rule stands beside what was written; `policies` completes it for the
    /// rule's name and the listener's place.
    pub fn attach(
        &mut self,
        route: &Value,
        gateway: &Value,
        listeners: Vec<Attached>,
        rules: &[(&Value, Rule)],
        policies: impl Fn(&mut Rule, &str, usize),
    ) {
        let (parent, (namespace, name)) = (object::key(gateway), object::key(route));
        self.parents.entry(object::key(route)).or_default().push(parent.clone());
        for (listener, hosts) in listeners {
            let of_listener = self.listeners.entry((parent.clone(), listener)).or_default();
            of_listener.routes += 1;
            for (at, (written, rule)) in rules.iter().enumerate() {
                let mut rule = rule.clone();
                policies(&mut rule, text(written, "/name"), listener);
                let rule = Arc::new(rule);
                for (matched, matches) in gateway_api::matches(written).into_iter().enumerate() {
                    of_listener.entries.extend(hosts.iter().map(|host| {
                        let (namespace, name, host) = (namespace.clone(), name.clone(), host.clone());
                        Arc::new(Entry {
                            id: RouteId { namespace, name, rule: at, matched, host },
                            created: text(route, "/metadata/creationTimestamp").to_owned(),
                            matches: matches.clone(),
                            rule: Arc::clone(&rule),
                        })
                    }));
                }
            }
        }
    }

    /// How many routes are attached to a listener of a Gateway, by its place.
    pub fn count(&self, gateway: &Name, listener: usize) -> u64 {
        self.listeners.get(&(gateway.clone(), listener)).map_or(0, |l| l.routes)
    }

    /// Takes the listeners of a Gateway out, with the entries that are attached to them.
    pub fn take_listeners(&mut self, gateway: &Value) -> Vec<Listener> {
        list(gateway, "/spec/listeners")
            .enumerate()
            .filter_map(|(at, listener)| {
                let of_listener = self.listeners.get_mut(&(object::key(gateway), at));
                Some(Listener {
                    name: text(listener, "/name").to_owned(),
                    port: object::port(listener, "/port")?,
                    host: HostPattern::parse(Some(text(listener, "/hostname"))),
                    entries: of_listener.map(|l| std::mem::take(&mut l.entries)).unwrap_or_default(),
                })
            })
            .collect()
    }
}
