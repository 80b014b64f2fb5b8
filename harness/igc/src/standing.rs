//! A standing rehearsal: one world in this process, on real time, for kubectl and curl.

use std::time::Duration;

use cluster::api::{Apply, Cluster, ObjectRef, Target, WaitCondition};
use cluster::install::profile::{Selected, Selection};
use cluster::shared::{self, Existing};
use cluster::{
    environment::GatewayEnvironment, gateway::SharedGateway, install::component::Variables, run::PlannedRun,
};
use rehearsal::world::{World, WorldConfig};
use rehearsal::{clock::Clock, controllers::NodePorts, hops::Hops};
use serde_json::json;
use verdict::plan::GatewayPlan;

use crate::failure::Failure;

/// How long the Gateway of KServe may take to have a proxy.
const PROXY: Duration = Duration::from_secs(30);

/// A world with everything that the gateway's folder names, its shared Gateway, and the Gateway that KServe's chart and
/// the guides call `kserve/kserve-ingress-gateway`. It ends when the value is dropped.
pub async fn stand(run: &PlannedRun, gateway: &GatewayPlan) -> Result<World, Failure> {
    let (folder, selection) = run.selection(gateway)?;
    let version = gateway.versions.get(&gateway.version_of);
    let version = version.ok_or_else(|| Failure::Usage(format!("the plan names no version of {}", gateway.name)))?;
    let mut config = WorldConfig::new(&gateway.name, version).map_err(Failure::usage)?;
    config.clock = Clock::real();
    config.node_ports = NodePorts::AsWritten;
    config.hops = Hops::of_the_environment().map_err(Failure::usage)?;
    let world = World::start(config).await?;

    let kubeconfig = std::path::absolute(run.folder.path().join(format!("{}.kubeconfig", gateway.name)))?;
    world.write_kubeconfig(&kubeconfig)?;
    cluster::api::init();
    let cluster = Cluster::connect(&kubeconfig, None).await?;
    let environment = GatewayEnvironment::rehearsed(&run.manifests, &gateway.versions).map_err(Failure::usage)?;
    let id = run.folder.id();
    components(&cluster, &selection, id).await?;
    let reached =
        shared::stand_up(&cluster, &run.manifests, &folder, &environment.images, &[], id, Existing::Applied).await?;
    let of_kserve = of_kserve(&world, &cluster, &folder.gateway, id).await?;
    run.note(&gateway.name, |current| {
        *current = GatewayEnvironment {
            kubeconfig,
            kubernetes: cluster.version().to_owned(),
            addresses: vec![reached.address],
            notes: vec![format!("KServe's routes: http://{of_kserve}")],
            keep: true,
            ..environment
        }
    })?;
    world.network().hops().wake();
    Ok(world)
}

/// What other components than the gateway's own would have left: the Deployments that an install waits for.
async fn components(cluster: &Cluster, selection: &Selection, run: &str) -> Result<(), Failure> {
    for Selected { component, version } in selection.components.values() {
        let variables = Variables::of(component, version, &json!({"versions": selection.versions}));
        let deployments = component.waits.iter().map(|wait| &wait.object).filter(|object| object.kind == "Deployment");
        for (object, image) in deployments.zip(&component.images) {
            if cluster.get(object).await?.is_some() {
                continue;
            }
            let image = variables.text(image).map_err(Failure::Usage)?;
            let labels = json!({"app.kubernetes.io/instance": component.name, "app.kubernetes.io/name": object.name});
            let all = [
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": object.namespace}}),
                json!({
                    "apiVersion": object.api_version, "kind": object.kind,
                    "metadata": {"name": object.name, "namespace": object.namespace, "labels": labels},
                    "spec": {"selector": {"matchLabels": labels}, "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [{"name": object.name, "image": image}]}}},
                }),
            ];
            cluster.apply_all(&all, Apply::of_run(run)).await?;
        }
    }
    Ok(())
}

/// Makes the Gateway that KServe's routes attach to, as plain as the guides have it; returns where it answers.
async fn of_kserve(world: &World, cluster: &Cluster, shared: &SharedGateway, run: &str) -> Result<String, Failure> {
    let made = cluster.get(&shared.object()).await?.unwrap_or_default();
    let kserve = shared.named("kserve", "kserve-ingress-gateway");
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": kserve.name, "namespace": kserve.namespace},
        "spec": {
            "gatewayClassName": made["spec"]["gatewayClassName"],
            "listeners": [{"name": kserve.listener, "protocol": "HTTP", "port": kserve.port,
                "allowedRoutes": {"namespaces": {"from": "All"}}}],
        },
    });
    cluster.apply(&gateway, Apply::of_run(run)).await?;
    let labelled = Target::labelled("v1", "Service", None, &kserve.address_ask(&[]).service_labels);
    let waited = cluster.wait(labelled, WaitCondition::Exists, PROXY).await?;
    let service = ObjectRef::of(waited.object()).map_err(Failure::usage)?;
    cluster.wait(&service, WaitCondition::EndpointsReady, PROXY).await?;
    let address = world.node_port(service.namespace.as_deref().unwrap_or_default(), &service.name, kserve.port);
    address.map(|a| a.to_string()).ok_or_else(|| Failure::Environment(format!("{service} has no node port")))
}
