//! Dialling: how a client gets a byte stream to what it talks to.

use std::{io, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::{net::TcpStream, time::timeout};

/// How long [`Tcp`] waits for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A two-way stream of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections: over TCP, through a port-forward, or into the rehearsal's own network.
pub trait Dial: Send + Sync + 'static {
    fn dial(&self) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
    /// Where it leads, in words for transcripts and errors: `127.0.0.1:8080`.
    fn describe(&self) -> String;
}

/// Plain TCP to an address or a `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp(String);

impl Tcp {
    pub fn to(target: impl ToString) -> Self {
        Self(target.to_string())
    }
}

impl Dial for Tcp {
    fn dial(&self) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let target = self.0.clone();
        async move {
            let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&target)).await.map_err(|_elapsed| {
                io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {target} within {CONNECT_TIMEOUT:?}"))
            })??;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }
        .boxed()
    }

    fn describe(&self) -> String {
        self.0.clone()
    }
}
