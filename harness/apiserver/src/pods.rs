//! Pods as the server reaches them: logs, proxies and forwards go through the world's dialer.

use std::{io, net::SocketAddr};

use futures::future::BoxFuture;
use tokio::net::TcpStream;

pub trait PodDialer: Send + Sync + 'static {
    /// Connects to a pod's own address, `10.244.0.7:8080`.
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>>;

    /// What a container has written, or `None` where there is no such container.
    fn log(&self, namespace: &str, pod: &str, container: Option<&str>) -> Option<String>;
}

/// The dialer of a world without pods: nothing answers.
#[derive(Clone, Copy, Debug)]
pub struct NoPods;

impl PodDialer for NoPods {
    fn dial(&self, _address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        Box::pin(async { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) })
    }

    fn log(&self, _namespace: &str, _pod: &str, _container: Option<&str>) -> Option<String> {
        None
    }
}
