//! `igc picker`: our own endpoint picker as a program, in a container or by hand.

use std::path::{Path, PathBuf};
use std::{fs, net::Ipv4Addr, sync::Arc, time::Duration};

use clap::{ArgAction, Args as ClapArgs, ValueEnum};
use cluster::api::{Cluster, ObjectRef};
use cluster::pool;
use futures::future::join_all;
use picker::{AnswerBy, Endpoint, Listeners, Load, Options, Scheduling, Tls};
use tokio::time::{interval, timeout};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use wire::{Call, Client, Tcp};

use crate::failure::Failure;

/// How long requests under way may last once the picker is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
const ASK: Duration = Duration::from_secs(1);

pub const HELP: &str = "\
Examples:
  igc picker --endpoints 127.0.0.1:8001,127.0.0.1:8002 --secure-serving=false
  igc picker --pool-name qwen --pool-namespace models --kubeconfig ~/.kube/config
  igc picker --pool-name qwen                     in a pod of the pool's namespace

In a pod, its service account has to get, list and watch inferencepools and pods there.

How it chooses (--config-file or --config-text: an EndpointPickerConfig, read strictly):
  apiVersion: inference.networking.x-k8s.io/v1alpha1
  kind: EndpointPickerConfig
  plugins:
  - type: prefix-cache-scorer       # more of the prompt's beginning seen before
    parameters: {blockSizeTokens: 16, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250}
  - type: queue-scorer              # fewer requests waiting
  - type: max-score-picker
    parameters: {maxNumOfEndpoints: 2}    # the second is the fallback
  - type: concurrency-detector      # more than this for each endpoint: 429
    parameters: {maxConcurrency: 100}
  schedulingProfiles:
  - name: default
    plugins:
    - {pluginRef: prefix-cache-scorer, weight: 3}
    - {pluginRef: queue-scorer, weight: 2}
    - {pluginRef: max-score-picker}
  saturationDetector: {pluginRef: concurrency-detector}
Without one: queue-scorer 2, prefix-cache-scorer 3, one endpoint, no bound. Other scorers:
running-requests-size-scorer, active-request-scorer, kv-cache-utilization-scorer.
Load is what is in flight through this picker, unless --metrics-every asks the models for theirs.
Blocks of a prompt are counted in bytes, 4 to a token.

Request headers command it:
  test-epp-endpoint-selection: 10.0.0.1:8000,10.0.0.2
                     these of the pool, in this order; none of them there: 503
  x-igc-pick: endpoints=10.0.0.1:9,10.0.0.2:8000
                     exactly these, in the pool or not
  x-igc-pick: none   503; shed: 429; silent: names no endpoint; abort: ends the stream

What it saw, on --records-port:
  GET /igc/records?since=N
      one JSON object a request: exchange, request_id, candidates, chosen, reason, prefix,
      request and response (bytes, sha256, messages, ends of stream), refused, served, ended
  GET /igc/marker?x-igc-exchange=ID
      writes a record of its own: where it is found, none is missing";

#[derive(Clone, Debug, ClapArgs)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Endpoints to choose among, with commas
    #[arg(long, value_name = "ADDRESS:PORT,...", value_delimiter = ',', value_parser = endpoint, required_unless_present = "pool_name")]
    endpoints: Vec<String>,
    /// InferencePool whose ready pods are chosen among
    #[arg(long, value_name = "NAME", conflicts_with = "endpoints")]
    pool_name: Option<String>,
    /// Namespace of the pool
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "default")]
    pool_namespace: String,
    /// API group of the pool
    #[arg(long, value_name = "GROUP", default_value = POOL_GROUPS[0].0, value_parser = [POOL_GROUPS[0].0, POOL_GROUPS[1].0])]
    pool_group: String,
    /// Kubeconfig that leads to the pool's cluster; without it, the cluster that this runs in
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of that kubeconfig; without it, its current one
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
    /// Port of ext_proc, on all addresses
    #[arg(long, value_name = "PORT", default_value_t = 9002)]
    grpc_port: u16,
    /// Port of the health services alone, in plaintext
    #[arg(long, value_name = "PORT", default_value_t = 9003)]
    grpc_health_port: u16,
    /// Port of the records, HTTP/1.1
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    records_port: u16,
    /// TLS on the port of ext_proc
    #[arg(long, value_name = "true|false", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    secure_serving: bool,
    /// Folder with tls.crt and tls.key; without it, a certificate is made and signed by itself
    #[arg(long, value_name = "DIR")]
    cert_path: Option<PathBuf>,
    /// File with an EndpointPickerConfig
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// An EndpointPickerConfig itself
    #[arg(long, value_name = "YAML", conflicts_with = "config_file")]
    config_text: Option<String>,
    /// How the choice is told to the gateway
    #[arg(long, value_enum, value_name = "WAY", default_value_t)]
    answer_by: AnswerChannel,
    /// Ask the models for their load (/metrics) so often; 0 is never
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    metrics_every: u64,
    /// Name of the pod, as records give it
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod: Option<String>,
}

const POOL_GROUPS: [(&str, &str); 2] =
    [("inference.networking.k8s.io", "v1"), ("inference.networking.x-k8s.io", "v1alpha2")];

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum AnswerChannel {
    /// By header and by dynamic metadata, as the protocol wants it
    #[default]
    Both,
    /// Only by the request header x-gateway-destination-endpoint
    Header,
    /// Only by the dynamic metadata envoy.lb
    Metadata,
}

impl From<AnswerChannel> for AnswerBy {
    fn from(channel: AnswerChannel) -> Self {
        match channel {
            AnswerChannel::Both => Self::HeaderAndMetadata,
            AnswerChannel::Header => Self::Header,
            AnswerChannel::Metadata => Self::Metadata,
        }
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let (address, port) = text.rsplit_once(':').ok_or("ADDRESS:PORT expected, for example 10.0.0.1:8000")?;
    match port.parse::<u16>() {
        Ok(_) if !address.is_empty() => Ok(text.to_owned()),
        _ => Err("ADDRESS:PORT expected, for example 10.0.0.1:8000".to_owned()),
    }
}

pub async fn serve(args: Args, cancel: CancellationToken) -> Result<u8, Failure> {
    let pod = args.pod.clone().or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "igc-picker".to_owned());
    let options = Options {
        pod,
        tls: tls(&args)?,
        answer_by: args.answer_by.into(),
        scheduling: scheduling(&args)?,
        ..Options::default()
    };
    let connected = match (&args.pool_name, &args.kubeconfig) {
        (None, _) => Ok(None),
        (Some(_), None) => Cluster::connect_in_pod().await.map(Some),
        (Some(_), Some(file)) => Cluster::connect(file, args.context.as_deref()).await.map(Some),
    };
    let cluster = connected.map_err(|e| if e.is_usage() { Failure::usage(&e) } else { e.into() })?;
    let security = if args.secure_serving { "TLS" } else { "plaintext" };
    let listeners = Listeners {
        grpc: listen(args.grpc_port, &format!("ext_proc ({security})")).await?,
        health: Some(listen(args.grpc_health_port, "health").await?),
        admin: Some(listen(args.records_port, "records").await?),
    };

    let (addresses, known) = watch::channel((!args.endpoints.is_empty()).then(|| args.endpoints.clone()));
    let (endpoints, told) = watch::channel(None);
    let picker = picker::serve(listeners, options, told);
    let following = async {
        let pool = args.pool_name.as_ref().zip(cluster.as_ref());
        let Some((name, cluster)) = pool else { return std::future::pending().await };
        let version = POOL_GROUPS.iter().find(|(group, _)| *group == args.pool_group).map_or("v1", |(_, v)| v);
        let api_version = format!("{}/{version}", args.pool_group);
        let object = ObjectRef::new(&api_version, "InferencePool", &args.pool_namespace, name);
        pool::follow(cluster, &object, |found| _ = addresses.send_replace(found)).await
    };
    let every = (args.metrics_every > 0).then(|| Duration::from_millis(args.metrics_every));
    tokio::select! {
        () = cancel.cancelled() => {}
        failure = following => return Err(failure.into()),
        () = tell(known, every, &endpoints) => {}
    }
    let _what_lasts_longer_is_cut = timeout(DRAIN, picker.stop()).await;
    Ok(0)
}

/// Listens on all addresses, and says so: with port 0 nobody else knows the port.
async fn listen(port: u16, what: &str) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let bound = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(|error| {
        Failure::Environment(format!("failed to listen on port {port} for {what}: {error}; name another port"))
    })?;
    println!("{what}: {address}");
    Ok(listener)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::Usage(format!("failed to read {}: {error}", path.display())))
}

fn tls(args: &Args) -> Result<Option<Tls>, Failure> {
    let tls = match &args.cert_path {
        _ if !args.secure_serving => return Ok(None),
        None => Tls::self_signed(&["localhost"]),
        Some(folder) => Tls::from_pem(&read(&folder.join("tls.crt"))?, &read(&folder.join("tls.key"))?),
    };
    tls.map(Some).map_err(|error| Failure::Usage(format!("failed to {error}")))
}

fn scheduling(args: &Args) -> Result<Scheduling, Failure> {
    let (place, text) = match (&args.config_file, &args.config_text) {
        (Some(path), _) => (path.display().to_string(), String::from_utf8_lossy(&read(path)?).into_owned()),
        (None, Some(text)) => ("--config-text".to_owned(), text.clone()),
        (None, None) => return Ok(Scheduling::default()),
    };
    Scheduling::read(&text).map_err(|error| Failure::Usage(format!("{place}: {error}")))
}

/// Tells the picker its endpoints whenever they change, and as often as said with their load.
async fn tell(
    mut known: watch::Receiver<Option<Vec<String>>>,
    every: Option<Duration>,
    endpoints: &watch::Sender<Option<Vec<Endpoint>>>,
) {
    let mut again = every.map(interval);
    loop {
        let addresses = known.borrow_and_update().clone();
        let found = match (addresses, &every) {
            (Some(addresses), Some(_)) => Some(join_all(addresses.iter().map(|address| asked(address))).await),
            (addresses, _) => addresses.map(|all| all.iter().map(|address| Endpoint::from(address.as_str())).collect()),
        };
        endpoints.send_if_modified(|told| {
            let changed = *told != found;
            *told = found;
            changed
        });
        let tick = async {
            match &mut again {
                Some(again) => _ = again.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tick => {}
            Ok(()) = known.changed() => {}
        }
    }
}

async fn asked(address: &str) -> Endpoint {
    let client = Client::new(Arc::new(Tcp::to(address)), "load");
    let exchange = client.send("load", Call::get("/metrics").timeout(ASK)).await;
    let text = exchange.response().filter(|r| r.status == 200).and_then(|r| r.body.text.as_deref());
    Endpoint { load: text.and_then(load), ..Endpoint::from(address) }
}

/// Reads the gauges of vLLM, the first of each name.
fn load(metrics: &str) -> Option<Load> {
    let gauge = |name: &str| {
        let value = metrics.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = if rest.starts_with('{') { rest.rsplit_once('}')?.1 } else { rest };
            value.split_whitespace().next()
        })?;
        value.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)
    };
    Some(Load {
        waiting: gauge("vllm:num_requests_waiting")? as u64,
        running: gauge("vllm:num_requests_running")? as u64,
        kv_cache: gauge("vllm:kv_cache_usage_perc")?,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::ipv4("10.0.0.1:8000", true)]
    #[case::ipv6("[fd00::1]:8000", true)]
    #[case::name("model:8000", true)]
    #[case::no_port("10.0.0.1", false)]
    #[case::no_address(":8000", false)]
    #[case::no_number("a:b", false)]
    #[case::too_large("a:65536", false)]
    fn endpoints(#[case] text: &str, #[case] good: bool) {
        assert_eq!(endpoint(text).is_ok(), good);
    }

    const SAID: &str = "# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name=\"a{b}\"} 3
vllm:num_requests_running{model_name=\"c\"} 9
vllm:num_requests_waiting 2.0 1700000000
vllm:kv_cache_usage_perc{model_name=\"a\"} 0.25
";

    #[rstest]
    #[case::all(SAID.to_owned(), Some(Load { waiting: 2, running: 3, kv_cache: 0.25 }))]
    #[case::one_missing(SAID.replace("waiting", "weighting"), None)]
    #[case::no_number(SAID.replace("0.25", "NaN"), None)]
    #[case::less_than_none(SAID.replace("2.0", "-1"), None)]
    #[case::nothing(String::new(), None)]
    fn loads(#[case] metrics: String, #[case] expected: Option<Load>) {
        assert_eq!(load(&metrics), expected);
    }

    #[tokio::test]
    async fn a_model_is_asked_for_its_load() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let model = model::Model::new(model::Config::default());
        tokio::spawn(async move { model.serve(listener).await });
        let (addresses, known) = watch::channel(Some(vec![address.clone(), nobody.clone()]));
        let (endpoints, mut told) = watch::channel(None);
        tokio::spawn(async move { tell(known, Some(Duration::from_millis(1)), &endpoints).await });
        let all = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let idle =
            Endpoint { load: Some(Load { waiting: 0, running: 0, kv_cache: 0.0 }), ..Endpoint::from(address.as_str()) };
        assert_eq!(all, [idle, Endpoint::from(nobody.as_str())]);
        addresses.send_replace(Some(vec![nobody]));
        told.wait_for(|all| all.as_ref().is_some_and(|all| all.len() == 1)).await.unwrap();
    }
}
