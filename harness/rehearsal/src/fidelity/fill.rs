//! What only a world knows: addresses and names of pods and Services, put where a case writes `${ip of pod NAME}`.

use std::sync::LazyLock;

use apiserver::Store;
use regex::Regex;

use super::{
    exchange::{Reply, Request, Upstream},
    rules::{Rule, TextRule},
};
use crate::{
    dialects::object::{name, text},
    kinds,
};

/// `${ip of pod NAME}`, `${name of pod NAMESPACE/NAME 2}`, `${ip of service NAME}`.
static WANTED: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"\$\{(?<what>ip|name) of (?<kind>pod|service) (?<name>[a-z0-9./-]+)(?: (?<nth>[0-9]+))?\}";
    Regex::new(pattern).unwrap_or_else(|error| unreachable!("the pattern is fixed: {error}"))
});

pub(super) struct Fill<'a> {
    store: &'a Store,
    namespace: &'a str,
}

impl<'a> Fill<'a> {
    pub(super) fn new(store: &'a Store, namespace: &'a str) -> Self {
        Self { store, namespace }
    }

    pub(super) fn text(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = 0;
        for found in WANTED.captures_iter(text) {
            let Some(whole) = found.get(0) else { continue };
            filled.push_str(&text[rest..whole.start()]);
            filled.push_str(&self.look_up(&found)?);
            rest = whole.end();
        }
        if text[rest..].contains("${") {
            return Err(format!(
                "{text:?}: write ${{ip of pod NAME}}, ${{name of pod NAME 2}} or ${{ip of service NAME}}"
            ));
        }
        filled.push_str(&text[rest..]);
        Ok(filled)
    }

    fn look_up(&self, wanted: &regex::Captures<'_>) -> Result<String, String> {
        let (home, prefix) = wanted["name"].split_once('/').unwrap_or((self.namespace, &wanted["name"]));
        let nth = wanted.name("nth").map_or(Ok(1), |n| n.as_str().parse::<usize>()).unwrap_or(0);
        let (kind, address) = match &wanted["kind"] {
            "pod" => (kinds::POD, "/status/podIP"),
            _ => (kinds::SERVICE, "/spec/clusterIP"),
        };
        let all = self.store.list(&kind, Some(home)); // by name
        let mut fitting = all.iter().filter(|o| name(o) == prefix || kind == kinds::POD && name(o).starts_with(prefix));
        let object = nth.checked_sub(1).and_then(|at| fitting.nth(at));
        let object = object.ok_or_else(|| format!("{}: there is none in {home}", &wanted[0]))?;
        Ok(match &wanted["what"] {
            "name" => name(object).to_owned(),
            _ => text(object, address).to_owned(),
        })
    }

    pub(super) fn request(&self, request: &mut Request) -> Result<(), String> {
        request.path = self.text(&request.path)?;
        for text in request.host.iter_mut().chain(request.headers.values_mut().flat_map(|v| &mut v.0)) {
            *text = self.text(text)?;
        }
        Ok(())
    }

    pub(super) fn reply(&self, reply: &mut Reply) -> Result<(), String> {
        let arrived = match &mut reply.upstream {
            Some(Upstream::Arrived(arrived)) => Some(arrived),
            _ => None,
        };
        let arrived = arrived.into_iter().flat_map(|a| a.headers.values_mut().chain(&mut a.pod));
        reply.headers.values_mut().chain(arrived).try_for_each(|rule| self.rule(rule))
    }

    fn rule(&self, Rule(rule): &mut Rule<TextRule>) -> Result<(), String> {
        for text in rule.equals.iter_mut().chain(&mut rule.one_of) {
            *text = self.text(text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiserver::{Definitions, NoHooks};
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("plain", Ok("plain"))]
    #[case("a ${ip of pod x} b", Ok("a 10.0.0.1 b"))]
    #[case("${ip of pod x 2},${name of pod ns/x 2}", Ok("10.0.0.2,x-2"))]
    #[case("${ip of service s}:80", Ok("10.96.0.9:80"))]
    #[case("${ip of pod x 3}", Err("${ip of pod x 3}: there is none in ns"))]
    #[case("${ip of node x}", Err("write ${ip of pod NAME}"))]
    fn texts_are_filled(#[case] text: &str, #[case] filled: Result<&str, &str>) {
        let store = Store::new(NoHooks, &Definitions::default());
        store.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})).unwrap();
        for (at, pod) in [(1, "x-1"), (2, "x-2")] {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": "ns"},
                "spec": {"containers": [{"name": "c", "image": "i"}]}});
            let pod = store.create(pod).unwrap();
            let ip = format!("10.0.0.{at}");
            store.update_status(&kinds::POD, "ns", name(&pod), |status| status["podIP"] = json!(ip)).unwrap();
        }
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "ns"},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}});
        store.create(service).unwrap();
        match (Fill::new(&store, "ns").text(text), filled) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted),
            (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{found}"),
            (found, wanted) => panic!("{found:?}, not {wanted:?}"),
        }
    }
}
