//! Both ends of a forward: the pod, and the client's WebSocket.

use std::sync::Arc;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;

use crate::{http::proxy::pod_address, pods::PodDialer, store::Store};

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

#[derive(Clone)]
pub(super) struct Pod {
    pub store: Store,
    pub pods: Arc<dyn PodDialer>,
    pub namespace: String,
    pub name: String,
}

impl Pod {
    /// A connection to a port of the pod; what went wrong in words.
    pub(super) async fn dial(&self, port: &str) -> Result<TcpStream, String> {
        let address = pod_address(&self.store, &self.namespace, &self.name, port).map_err(|failure| failure.message)?;
        self.pods.dial(address).await.map_err(|error| format!("failed to connect to {address}: {error}"))
    }
}
