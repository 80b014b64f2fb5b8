//! `igc model`: our own simulator as a program, in a container or by hand.

use clap::Args as ClapArgs;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// A model name to answer for; may be given several times
    #[arg(long = "model", required = true, value_name = "NAME")]
    models: Vec<String>,
    /// Port to listen on, on all addresses
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Answer chats on this path instead of /v1/chat/completions
    #[arg(long, value_name = "PATH")]
    chat_path: Option<String>,
    /// Name of the pod, as replies and records give it
    #[arg(long, env = "POD_NAME")]
    pod: Option<String>,
    /// Namespace of the pod, as replies give it
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
}

pub async fn serve(args: Args, cancel: CancellationToken) -> Result<u8, Failure> {
    let pod = args.pod.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "igc-model".to_owned());
    let config = model::Config {
        models: args.models,
        pod,
        namespace: args.namespace,
        port: args.port,
        chat_path: args.chat_path,
        ..model::Config::default()
    };
    model::run(config, cancel.cancelled_owned()).await?;
    Ok(0)
}
