//! Serving: the connections that clients make to a replica.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpStream;

use super::{exchange, proxy::Proxy};

impl Proxy {
    pub fn serve(&self, stream: TcpStream, port: u16) {
        let proxy = self.clone();
        let peer = stream.peer_addr().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        let stop = self.stop().clone();
        tokio::spawn(async move {
            if stream.set_nodelay(true).is_err() {
                return; // the client has gone
            }
            let used = AtomicBool::default();
            let service = service_fn(move |request: Request<Incoming>| {
                let (proxy, used) = (proxy.clone(), used.swap(true, Ordering::Relaxed));
                async move {
                    if used && proxy.interceptor().hangs_up() {
                        return Err(io::Error::other("hung up"));
                    }
                    Ok(exchange::answer(&proxy, port, peer, request).await)
                }
            });
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().preserve_header_case(true).half_close(false);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a client's connection broke");
                },
                () = stop.cancelled() => {}
            }
        });
    }
}
