//! The stand-in model: OpenAI endpoints with the arithmetic and wire shapes of llm-d-inference-sim v0.10.2 in echo mode,
//! a record of every request, and replies that a request can script. It runs in the rehearsal and as `igc model`.
//!
//! | endpoint | what it does |
//! |---|---|
//! | `POST /v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/v1/embeddings`, `GET /v1/models` | as the simulator; also under `/openai/v1`. Chats may be asked to be elsewhere |
//! | `GET /health`, `/healthz`, `/ready`, `/health/ready` | 200 |
//! | `GET /metrics` | three gauges of vLLM |
//! | `GET /igc/records?since=N` | the records, as a JSON array; see below. Not recorded itself |
//! | `POST /igc/gates/NAME/open?n=K` | lets K tokens pass that gate, all of them without `n`. Not recorded itself |
//! | anything else | 404, recorded |
//!
//! Headers of a reply with records: `x-igc-next`, what to ask for next so that nothing is missed; `x-igc-open`, how many
//! requests are still being answered; `x-igc-dropped`, how many records were dropped because nobody read them (absent
//! where there are none); `x-igc-more`, where there are more records than fit into one reply.
//!
//! Replies are scripted by request headers: see [`script`]. A request with canaries ([`verdict::canary`]) among its headers
//! is answered with others of the same exchange.

pub mod answer;
pub mod clock;
mod gates;
pub mod openai;
mod reply;
pub mod script;
mod serve;
mod shapes;
pub mod tokens;

use std::{fmt, io, net::Ipv4Addr, sync::Arc, time::Duration};

use logbook::Log;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use verdict::history::ModelRecord;

use crate::gates::Gates;
pub use clock::{Clock, RealClock};

pub type OnRecord = logbook::OnRecord<ModelRecord>;

/// What a model wrote down, as far as a reader asked for it.
pub type Page = logbook::Page<ModelRecord>;

/// What a model is called and where it seems to run.
#[derive(Clone)]
pub struct Config {
    /// Names that it answers to; the first is its own.
    pub models: Vec<String>,
    /// Name of the pod, for `x-inference-pod`. Empty: that header and `x-inference-port` are left out.
    pub pod: String,
    /// Namespace of the pod, for `x-inference-namespace`. Empty: that header is left out.
    pub namespace: String,
    /// Port that [`run`] listens on, and that `x-inference-port` says.
    pub port: u16,
    /// What may stand before `/v1`.
    pub openai_prefixes: Vec<String>,
    /// Where chats are answered instead of below `/v1`, for example `/llm/chat/completions` as httpbun does.
    pub chat_path: Option<String>,
    /// Tokens of a prompt and its completion together.
    pub max_model_len: u64,
    /// Value of the `server` header.
    pub server: String,
    pub max_body: usize,
    pub keep_records: usize,
    pub clock: Arc<dyn Clock>,
    /// Called with each record when it is complete.
    pub on_record: Option<OnRecord>,
    /// How long [`run`] waits for replies in flight when it is told to stop.
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            models: vec!["mock-llm".to_owned()],
            pod: String::new(),
            namespace: String::new(),
            port: 8080,
            openai_prefixes: vec![String::new(), "/openai".to_owned()],
            chat_path: None,
            max_model_len: 1_024,
            server: "fasthttp".to_owned(),
            max_body: 4 * 1024 * 1024,
            keep_records: 20_000,
            clock: Arc::new(RealClock),
            on_record: None,
            drain: Duration::from_secs(10),
        }
    }
}

/// A handle on a model. Clones share it.
#[derive(Clone)]
pub struct Model(Arc<Shared>);

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("models", &self.0.config.models).finish_non_exhaustive()
    }
}

struct Shared {
    config: Config,
    log: Log<ModelRecord>,
    gates: Gates,
    stop: CancellationToken,
}

impl Model {
    pub fn new(config: Config) -> Self {
        let log = Log::new(config.keep_records, config.on_record.clone());
        Self(Arc::new(Shared { config, log, gates: Gates::default(), stop: CancellationToken::new() }))
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The records of all replies that have ended, in order of arrival.
    pub fn records(&self) -> Vec<ModelRecord> {
        self.page(0).records
    }

    /// The records from number `since` on, and what is missing among them.
    pub fn page(&self, since: u64) -> Page {
        self.0.log.page(since, usize::MAX)
    }

    /// Waits until the records are as wanted, and gives them. It waits for ever: the caller bounds it.
    pub async fn wait(&self, wanted: impl Fn(&[ModelRecord]) -> bool) -> Vec<ModelRecord> {
        self.0.log.wait(wanted).await
    }

    /// Waits until every reply that was asked for has ended, and gives all records. It waits for ever: the caller bounds it.
    pub async fn at_rest(&self) -> Vec<ModelRecord> {
        self.0.log.at_rest().await
    }

    /// Lets `tokens` tokens pass a gate, counted from the beginning of the stream.
    pub fn open_gate(&self, name: &str, tokens: u64) {
        self.0.gates.open(name, tokens);
    }

    /// Accepts connections until [`Model::stop`], then lets replies in flight end, for as long as the configuration says.
    /// Dropping the future cuts all connections.
    pub async fn serve(&self, listener: TcpListener) {
        serve::listen(self, listener).await;
    }

    /// Serves one connection, of any kind, until it ends.
    pub async fn serve_connection<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        serve::connection(self, stream).await;
    }

    /// Accepts no more connections and no more requests.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("start a model without a name")]
    NoModel,
    #[error("listen on port {port}")]
    Listen { port: u16, source: io::Error },
}

/// The program `igc model`: listens on all addresses until `shutdown` completes, then lets replies in flight end.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    if config.models.is_empty() {
        return Err(RunError::NoModel);
    }
    let port = config.port;
    let listener =
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(|source| RunError::Listen { port, source })?;
    let model = Model::new(config);
    let serving = model.serve(listener);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = shutdown => {
            model.stop();
            serving.await;
        }
    }
    Ok(())
}
