//! Built-in kinds: what the API server itself fills in when one of them is written.

use std::{collections::BTreeSet, ops::RangeInclusive};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::meta::{self, meta_mut};
use super::{definition, kind::Kind};

/// The addresses and node ports that Services take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    hosts: BTreeSet<u16>,
    ports: BTreeSet<u16>,
}

impl Addresses {
    fn host(&mut self) -> String {
        // 10.96.0.1 is the API server's own, the first ones are kept for DNS.
        let host = take_free(&mut self.hosts, 11..=u16::MAX);
        format!("10.96.{}.{}", host >> 8, host & 0xff)
    }

    fn take(&mut self, service: &Value) {
        self.hosts.extend(service["spec"]["clusterIP"].as_str().and_then(host_of));
        self.ports.extend(ports_of(service));
    }

    /// Gives back what a deleted Service held.
    pub(crate) fn release(&mut self, service: &Value) {
        if let Some(host) = service["spec"]["clusterIP"].as_str().and_then(host_of) {
            self.hosts.remove(&host);
        }
        for port in ports_of(service) {
            self.ports.remove(&port);
        }
    }
}

/// The first number of a range that is not taken, or the last where all are.
fn take_free(taken: &mut BTreeSet<u16>, range: RangeInclusive<u16>) -> u16 {
    let free = range.clone().find(|n| !taken.contains(n)).unwrap_or(*range.end());
    taken.insert(free);
    free
}

fn host_of(address: &str) -> Option<u16> {
    let rest = address.strip_prefix("10.96.")?;
    let (a, b) = rest.split_once('.')?;
    Some(u16::from(a.parse::<u8>().ok()?) << 8 | u16::from(b.parse::<u8>().ok()?))
}

fn ports_of(service: &Value) -> impl Iterator<Item = u16> {
    service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| u16::try_from(p["nodePort"].as_u64()?).ok())
}

/// Fills in what the API server allocates or derives.
pub(crate) fn prepare(kind: &Kind, object: &mut Value, current: Option<&Value>, addresses: &mut Addresses) {
    match (kind.group.as_ref(), kind.kind.as_ref()) {
        ("", "Namespace") => namespace(object),
        ("", "Service") => service(object, current, addresses),
        ("", "Secret") => secret(object),
        ("", "Pod") => pod(object, current),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::complete(object),
        _ => {}
    }
}

fn namespace(object: &mut Value) {
    let name = meta::name(object).to_owned();
    let meta = meta_mut(object);
    let labels = meta.entry("labels").or_insert_with(|| json!({}));
    if labels.is_object() {
        labels["kubernetes.io/metadata.name"] = json!(name);
    }
    if object["spec"].is_null() {
        object["spec"] = json!({});
    }
    if object["spec"].is_object() && object["spec"]["finalizers"].is_null() {
        object["spec"]["finalizers"] = json!(["kubernetes"]);
    }
    if object["status"].is_null() {
        object["status"] = json!({"phase": "Active"});
    }
}

fn service(object: &mut Value, current: Option<&Value>, addresses: &mut Addresses) {
    if !object["spec"].is_object() {
        return;
    }
    let spec = &mut object["spec"];
    let kind = spec["type"].as_str().unwrap_or("ClusterIP").to_owned();
    if let Some(current) = current {
        for field in ["clusterIP", "clusterIPs"] {
            if spec[field].is_null() && !current["spec"][field].is_null() {
                spec[field] = current["spec"][field].clone();
            }
        }
    }
    if kind == "ExternalName" {
        return;
    }
    if spec["clusterIP"].as_str().unwrap_or("").is_empty() {
        spec["clusterIP"] = json!(addresses.host());
    }
    let address = spec["clusterIP"].clone();
    spec["clusterIPs"] = json!([address]);
    let outside = kind == "NodePort" || kind == "LoadBalancer";
    for (field, value, applies) in [
        ("ipFamilies", json!(["IPv4"]), true),
        ("ipFamilyPolicy", json!("SingleStack"), true),
        ("internalTrafficPolicy", json!("Cluster"), true),
        ("externalTrafficPolicy", json!("Cluster"), outside),
        ("allocateLoadBalancerNodePorts", json!(true), kind == "LoadBalancer"),
    ] {
        if applies && spec[field].is_null() {
            spec[field] = value;
        }
    }
    if let Some(ports) = spec["ports"].as_array_mut() {
        for port in ports.iter_mut().filter(|p| p.is_object()) {
            if port["targetPort"].is_null() {
                port["targetPort"] = port["port"].clone();
            }
            if !outside || !port["nodePort"].is_null() {
                continue;
            }
            let mut before = current.and_then(|c| c["spec"]["ports"].as_array()).into_iter().flatten();
            let before = before.find(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"]);
            let before = before.map(|p| p["nodePort"].clone()).filter(|p| !p.is_null());
            port["nodePort"] = before.unwrap_or_else(|| json!(take_free(&mut addresses.ports, 30000..=32767)));
        }
    }
    if object["status"].is_null() {
        object["status"] = json!({"loadBalancer": {}});
    }
    addresses.take(object);
}

fn secret(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    map.entry("type").or_insert_with(|| json!("Opaque"));
    if let Some(Value::Object(plain)) = map.remove("stringData") {
        let data = map.entry("data").or_insert_with(|| json!({}));
        if !data.is_object() {
            *data = json!({});
        }
        for (key, value) in plain {
            if let Some(text) = value.as_str() {
                data[key] = json!(BASE64_STANDARD.encode(text));
            }
        }
    }
}

fn pod(object: &mut Value, current: Option<&Value>) {
    if current.is_none() && object["status"].is_null() {
        object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_keeps_its_address_and_gives_it_back() {
        let mut addresses = Addresses::default();
        let written = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let mut first = written.clone();
        service(&mut first, None, &mut addresses);
        assert_eq!(first["spec"]["clusterIP"], "10.96.0.11");
        assert_eq!(first["spec"]["ports"][0]["nodePort"], 30000);
        let mut again = written.clone();
        service(&mut again, Some(&first), &mut addresses);
        assert_eq!(again["spec"]["clusterIP"], "10.96.0.11");
        assert_eq!(again["spec"]["ports"][0]["nodePort"], 30000);
        let mut second = written.clone();
        service(&mut second, None, &mut addresses);
        assert_eq!(second["spec"]["clusterIP"], "10.96.0.12");
        addresses.release(&first);
        let mut third = written;
        service(&mut third, None, &mut addresses);
        assert_eq!(third["spec"]["clusterIP"], "10.96.0.11");
    }
}
