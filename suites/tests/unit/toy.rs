//! A gateway that is a folder alone, in a cluster where it stands: here a world of the gateway that the folder copies.

use std::collections::BTreeMap;

use cluster::{
    api::Cluster,
    environment::{Environment, GatewayEnvironment},
    gateway::GatewayFolder,
    install::{
        component::Catalogue,
        profile::{Profile, RECORDED, Selection},
    },
    shared::{self, Existing},
};
use rehearsal::{
    clock::Clock,
    mutants::{Mutant, Mutants},
    world::{World, WorldConfig},
};
use rstest::rstest;
use shipped::Root;
use suites::registry;
use verdict::{
    folder::RunFolder,
    plan::{PlaceName, RunInfo},
    record::Verdict,
    tests_list::{CHECKS_ALONE, TestList},
};

/// Of the suites, one whose drive sends requests and whose judge reads the model's records.
const CHECK: &str = "routing/query-and-encoding";

/// The suites judge it as they judge the gateway that it copies, though this program was built without it.
#[rstest]
#[case::agentgateway("agentgateway", None, Verdict::Pass)]
#[case::agentgateway_with_a_fault("agentgateway", Some("normalizes-targets"), Verdict::Fail)]
#[case::envoy_ai_gateway("envoy-ai-gateway", None, Verdict::Pass)]
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_judged(#[case] copied: &str, #[case] mutant: Option<&str>, #[case] expected: Verdict) {
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("manifests");
    testtools::copy(&Root::of_the_environment().unwrap().absolute().join("manifests"), &manifests).unwrap();
    testtools::add_toy(&manifests, copied).unwrap();
    let gateway = GatewayFolder::read(&manifests.join("gateways"), "toy").unwrap();
    let profile = Profile::read(&manifests, RECORDED).unwrap();
    let selection = Selection::of(&Catalogue::read(&manifests).unwrap(), &profile, &gateway.components).unwrap();
    let planned = selection.plan(&gateway, None).unwrap();
    let mut config = WorldConfig::new(copied, &planned.versions[&planned.version_of]).unwrap();
    config.clock = Clock::real();
    config.kserve_gateway = (gateway.gateway.namespace.clone(), gateway.gateway.name.clone());
    let mutants = Mutants::new(mutant.map(|name| Mutant::named(name).unwrap()), false);
    config.mutants = mutants.clone();
    let world = World::start(config).await.unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    world.write_kubeconfig(&kubeconfig).unwrap();
    cluster::api::init();
    let cluster = Cluster::connect(&kubeconfig, None).await.unwrap();

    let requirements = registry::requirements().unwrap();
    let run = RunFolder::create(folder.path(), "run").unwrap();
    let info = RunInfo {
        id: run.id().to_owned(),
        place: PlaceName::Context,
        checks: vec![CHECK.to_owned()],
        ..RunInfo::rehearsal(RECORDED, &["a", "test"])
    };
    let tests = TestList::of(&requirements);
    let plan = verdict::plan::build(&requirements, vec![planned], info, &tests).unwrap();
    run.write_plan(&plan).unwrap();
    let environment = GatewayEnvironment::rehearsed(&manifests, &plan.gateways[0].versions).unwrap();
    let reached =
        shared::stand_up(&cluster, &manifests, &gateway, &environment.images, &[], run.id(), Existing::Applied);
    let addresses = vec![reached.await.unwrap().address];
    let environment =
        GatewayEnvironment { kubeconfig, kubernetes: cluster.version().to_owned(), addresses, ..environment };
    run.write_environment(&Environment { gateways: BTreeMap::from([("toy".to_owned(), environment)]) }).unwrap();

    mutants.wake();
    let mut command = super::alone(&CHECKS_ALONE);
    command.arg(CHECK.replace("/", "::").replace("-", "_"));
    command.env("IGC_RUN", run.path()).env(shipped::VARIABLE, folder.path());
    let output = tokio::task::spawn_blocking(move || command.output().expect("the test binary runs")).await.unwrap();
    let records = run.read_records().unwrap().records;
    let got: Vec<_> = records.iter().map(|r| (r.key.gateway.as_str(), r.key.check.as_str(), r.verdict)).collect();
    assert_eq!(got, [("toy", CHECK, expected)], "{}\n{records:#?}", super::said(&output));
}
