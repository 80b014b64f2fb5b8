//! The stand-in endpoint picker: an external processor (`envoy.service.ext_proc.v3`) that speaks the Inference Extension's
//! endpoint picker protocol (GIE protocol 004), chooses by load and prefix or as a request commands, and writes a record
//! of every request. It runs in the rehearsal and as `igc picker`.
//!
//! | port | what it serves |
//! |---|---|
//! | gRPC, TLS or plaintext | `envoy.service.ext_proc.v3.ExternalProcessor`, `grpc.health.v1.Health` |
//! | health, plaintext | `grpc.health.v1.Health` |
//! | admin, HTTP/1.1 | `GET /igc/records?since=N`: the records, as [`logbook`] says; `GET /igc/marker?x-igc-exchange=ID`: writes a record that proves that none is missing; `GET /healthz` |
//!
//! Bodies pass by unchanged and unkept: they are counted and hashed, and only their beginnings are held, until the choice
//! is made. Choices are commanded by request headers: see [`command`].

pub mod command;
mod config;
mod message;
mod prefix;
mod prompt;
mod schedule;
mod serve;
mod session;
mod tls;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use futures::FutureExt;
use logbook::Log;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;
use verdict::history::PickerRecord;

pub use config::{ConfigError, Scheduling};
pub use message::{AnswerBy, DESTINATION, NAMESPACE, SERVED, SUBSET};
pub use session::Session;
pub use tls::{Tls, TlsError};

use crate::{schedule::Scheduler, serve::Services};

/// Body of the 503 that says that no endpoint is ready.
pub const NO_ENDPOINT: &str =
    r#"{"error":{"message":"no endpoint is ready","type":"ServiceUnavailableError","param":null,"code":503}}"#;
/// Body of the 429 that says that all endpoints have enough to do.
pub const SHED: &str =
    r#"{"error":{"message":"all endpoints have enough to do","type":"RateLimitError","param":null,"code":429}}"#;
/// Body of the 400 that says that a command cannot be read.
pub const UNREADABLE: &str = r#"{"error":{"message":"Failed to follow test-epp-endpoint-selection or x-igc-pick","type":"BadRequestError","param":null,"code":400}}"#;

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// `address:port`, as the gateway is told it. The picker never connects to it.
    pub address: String,
    /// What the model says of its load, where it was asked.
    pub load: Option<Load>,
}

impl From<&str> for Endpoint {
    fn from(address: &str) -> Self {
        Self { address: address.to_owned(), load: None }
    }
}

/// What a model says of its load (vLLM's gauges).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// `vllm:num_requests_waiting`.
    pub waiting: u64,
    /// `vllm:num_requests_running`.
    pub running: u64,
    /// `vllm:kv_cache_usage_perc`, from 0 to 1.
    pub kv_cache: f64,
}

/// The ready endpoints of the pool; `None` until they are known for the first time.
pub type Endpoints = watch::Receiver<Option<Vec<Endpoint>>>;

/// Called with each record when it is complete.
pub type OnRecord = logbook::OnRecord<PickerRecord>;

#[derive(Clone)]
pub struct Options {
    pub pod: String,
    /// TLS on the gRPC port; `None` for plaintext.
    pub tls: Option<Tls>,
    pub answer_by: AnswerBy,
    pub scheduling: Scheduling,
    /// How many bytes of a body are held to choose by.
    pub keep_prompt: usize,
    pub keep_records: usize,
    /// Milliseconds since the Unix epoch, for the records; nothing else here needs time.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub on_record: Option<OnRecord>,
}

impl Default for Options {
    fn default() -> Self {
        let machine_now =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        Self {
            pod: String::new(),
            tls: None,
            answer_by: AnswerBy::default(),
            scheduling: Scheduling::default(),
            keep_prompt: 64 * 1024,
            keep_records: 20_000,
            now_ms: Arc::new(machine_now),
            on_record: None,
        }
    }
}

pub struct Listeners {
    /// ext_proc and health, with [`Options::tls`].
    pub grpc: TcpListener,
    /// Health alone, in plaintext.
    pub health: Option<TcpListener>,
    pub admin: Option<TcpListener>,
}

pub(crate) struct Shared {
    options: Options,
    endpoints: Endpoints,
    scheduler: Mutex<Scheduler>,
    log: Log<PickerRecord>,
}

impl Shared {
    fn new(options: Options, endpoints: Endpoints) -> Arc<Self> {
        let scheduler = Mutex::new(Scheduler::new(options.scheduling.clone()));
        let log = Log::new(options.keep_records, options.on_record.clone());
        Arc::new(Self { options, endpoints, scheduler, log })
    }

    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.borrow().clone().unwrap_or_default()
    }
}

/// A picker that serves. Dropping it cuts all connections at once, as the death of its process would.
pub struct Handle {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// Serves a picker on these listeners, on the runtime that this is called on.
pub fn serve(listeners: Listeners, options: Options, endpoints: Endpoints) -> Handle {
    let shared = Shared::new(options, endpoints);
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let reporter = HealthReporter::new();
    let services = Services::new(&shared, &reporter);
    tasks.spawn(stop.clone().run_until_cancelled_owned(serve::report_health(Arc::clone(&shared), reporter)).map(drop));

    let tls = shared.options.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
    let mut grpc = |listener, tls: Option<TlsAcceptor>, services: Services| {
        let stopped = stop.clone();
        tasks.spawn(serve::listen(listener, stop.clone(), move |stream| {
            serve::grpc(stream, tls.clone(), services.clone(), stopped.clone())
        }));
    };
    if let Some(health) = listeners.health {
        grpc(health, None, services.only_health());
    }
    grpc(listeners.grpc, tls, services);
    if let Some(admin) = listeners.admin {
        let (records, stopped) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(serve::listen(admin, stop.clone(), move |stream| {
            serve::admin(stream, Arc::clone(&records), stopped.clone())
        }));
    }
    Handle { shared, stop, tasks }
}

/// The records of a picker, for those who do not keep it alive.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

impl Journal {
    /// Waits until every request that was begun has ended, and gives all records. It waits for ever: the caller bounds it.
    pub async fn at_rest(&self) -> Vec<PickerRecord> {
        self.0.log.at_rest().await
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("pod", &self.0.options.pod).finish_non_exhaustive()
    }
}

impl Handle {
    pub fn journal(&self) -> Journal {
        Journal(Arc::clone(&self.shared))
    }

    /// The records of all requests whose streams have ended, in order of arrival.
    pub fn records(&self) -> Vec<PickerRecord> {
        self.page(0).records
    }

    /// The records from number `since` on, and what is missing among them.
    pub fn page(&self, since: u64) -> logbook::Page<PickerRecord> {
        self.shared.log.page(since, usize::MAX)
    }

    /// Waits until the records are as wanted, and gives them. It waits for ever: the caller bounds it.
    pub async fn wait(&self, wanted: impl Fn(&[PickerRecord]) -> bool) -> Vec<PickerRecord> {
        self.shared.log.wait(wanted).await
    }

    /// Accepts no more connections and no more requests, and waits for those under way. The caller bounds it.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
