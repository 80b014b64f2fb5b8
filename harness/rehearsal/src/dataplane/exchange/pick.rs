//! Picking an endpoint of a pool: what its picker says, and what a gateway makes of that.

use std::{net::SocketAddr, sync::Arc};

use http::header;
use hyper::body::Body as _;

use super::{Exchange, Stop, reply::Reply};
use crate::dataplane::{
    ext_proc::{Session, change},
    local_reply::Failure,
    pool::{Asks, DESTINATION, Picker, Pool, Served, WithoutPicker},
    routing::{Entry, Target},
};

pub(super) struct Picked {
    pub(super) endpoint: SocketAddr,
    /// With its picker, in the order in which it was asked.
    sessions: Vec<Session>,
    /// What the picker is told of where it went.
    served: Option<SocketAddr>,
}

impl Picked {
    fn without_picker(endpoint: SocketAddr) -> Self {
        Self { endpoint, sessions: Vec::new(), served: None }
    }
}

impl Exchange<'_> {
    pub(super) async fn pick(&mut self, pool: &Pool) -> Result<Picked, Stop> {
        let Some(picker) = &pool.picker else {
            return Ok(Picked::without_picker(pool.in_turn(self.proxy.next_endpoint())?));
        };
        self.interceptor().before_picker(&mut self.headers);
        let mut sessions = Vec::new();
        for _ in 0..self.asks(pool) {
            match Session::open(self.proxy.network(), picker).await {
                Ok(session) => sessions.push(self.ask_picker(session).await?),
                Err(error) => {
                    let Picker { namespace, service, .. } = picker;
                    tracing::debug!(%error, "endpoint picker {namespace}/{service} cannot be reached");
                    if let Some(endpoint) = self.interceptor().fallback(self.table, self.proxy.network()) {
                        return Ok(Picked::without_picker(endpoint));
                    }
                    self.go_on_without_picker(pool)?;
                }
            }
        }
        let named = self.headers.get(DESTINATION).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        let (named, asked) = (named.as_deref(), !sessions.is_empty());
        let destination =
            self.interceptor().destination(self.proxy.network(), named, asked, pool.destination(named))?;
        let endpoint = match destination {
            Some(endpoint) => endpoint,
            None => pool.in_turn(self.proxy.next_endpoint())?,
        };
        let endpoint = self.interceptor().endpoint(pool, endpoint);
        let served = (pool.served == Served::Reported).then_some(endpoint);
        Ok(Picked { endpoint, sessions, served })
    }

    async fn ask_picker(&mut self, session: Session) -> Result<Session, Stop> {
        let (pseudo, body) = (self.pseudo_headers(), self.take_body());
        let has_body = !body.is_end_stream();
        let body = self.interceptor().body_for_picker(body);
        let shown = self.interceptor().headers_for_picker(&self.headers);
        match session.request(&pseudo, &shown, body, Arc::clone(self.proxy.interceptor())).await? {
            Err(reply) => Err(Stop::Reply(self.interceptor().immediate_response(reply))),
            Ok((mut changes, handed_back, session)) => {
                self.interceptor().picker_changes(&self.headers, &mut changes);
                change(&mut self.headers, &changes);
                if has_body {
                    self.headers.remove(header::CONTENT_LENGTH);
                }
                self.body = Some(handed_back);
                Ok(session)
            }
        }
    }

    fn go_on_without_picker(&self, pool: &Pool) -> Result<(), Failure> {
        let has_body = self.read.as_ref().is_some_and(|read| !read.is_empty())
            || self.read.is_none() && self.body.as_ref().is_some_and(|body| !body.is_end_stream());
        match pool.without_picker {
            WithoutPicker::GoOn => Ok(()),
            WithoutPicker::GoOnWithoutBody if !has_body => Ok(()),
            // With a body on its way the stream is waited on before the failure is known.
            _ if has_body => Err(Failure::PickerSilent),
            _ => Err(Failure::PickerUnreachable),
        }
    }

    fn pseudo_headers(&self) -> [(&'static str, String); 4] {
        let host = self.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or(&self.host);
        [
            (":method", self.method.to_string()),
            (":scheme", "http".to_owned()),
            (":authority", host.to_owned()),
            (":path", self.target()),
        ]
    }

    fn asks(&self, pool: &Pool) -> usize {
        match pool.asks {
            Asks::Once => 1,
            Asks::ForEveryMatch => {
                let leads = |entry: &&Arc<Entry>| {
                    entry.rule.backends.iter().any(|b| matches!(&b.target, Target::Pool(p) if **p == *pool))
                };
                let listeners = self.table.listeners.iter().filter(|l| l.port == self.port);
                listeners.flat_map(|l| &l.entries).filter(leads).count().max(1)
            }
        }
    }
}

/// Passes the reply through the pickers' sessions, in reverse order of the request: Envoy's filter chain does the same.
pub(super) async fn tell_picker(picked: Option<Picked>, mut reply: Reply) -> Result<Reply, Stop> {
    let Some(Picked { sessions, served, .. }) = picked else { return Ok(reply) };
    for session in sessions.into_iter().rev() {
        reply.body = session.reply(&mut reply.parts, reply.body, served).await?.map_err(Stop::Reply)?;
    }
    Ok(reply)
}
