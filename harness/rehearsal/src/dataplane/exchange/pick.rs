//! Where a request for a pool goes: what its endpoint picker says, and what a gateway makes of that.

use std::{net::SocketAddr, sync::Arc};

use http::header;
use hyper::body::Body as _;

use super::{
    super::{
        picking::{Conversation, Said, change},
        pool::{Asks, DESTINATION, Pool, Served, WithoutPicker},
        routing::{Entry, Target},
        words::{Answer, Failure},
    },
    Exchange,
};
use crate::mutants::Mutant;

/// What became of a request for a pool.
pub(super) enum Way {
    To(Picked),
    Instead(Answer),
}

/// The endpoint of a pool that a request goes to.
pub(super) struct Picked {
    pub(super) endpoint: SocketAddr,
    /// With its picker, in the order in which it was asked.
    pub(super) conversations: Vec<Conversation>,
    /// What the picker is told of where it went.
    pub(super) served: Option<SocketAddr>,
}

impl Exchange<'_> {
    /// Finds the endpoint of a pool: by its picker where that is asked and answers, else as the dialect has it.
    pub(super) async fn pick(&mut self, pool: &Pool) -> Result<Way, Failure> {
        let Some(picker) = &pool.picker else {
            let endpoint = pool.own_choice(self.proxy.own_choice())?;
            return Ok(Way::To(Picked { endpoint, conversations: vec![], served: None }));
        };
        let mut body = self.take_body();
        let has_body = !body.is_end_stream();
        if self.mutants().is_mended() && !self.is(Mutant::KeepsTheClientsDestination) {
            self.headers.remove(DESTINATION);
        }
        let clients = self.headers.get(DESTINATION).cloned();
        let mutants = self.mutants().clone();
        mutants.enter();
        let mut conversations = Vec::new();
        for _ in 0..self.asks(pool) {
            match Conversation::open(self.proxy.network(), picker).await {
                Ok(conversation) => {
                    let (pseudo, shown) = (self.pseudo_headers(), mutants.picked_by(body));
                    match conversation.request(&pseudo, &self.headers, shown, &mutants).await? {
                        Said::Instead(_) if self.is(Mutant::SwallowsImmediateResponses) => {
                            return Ok(Way::Instead(Answer::empty(500)));
                        }
                        Said::Instead(answer) => return Ok(Way::Instead(answer)),
                        Said::GoOn(changes, handed_back, conversation) => {
                            change(&mut self.headers, &changes);
                            if has_body {
                                self.headers.remove(header::CONTENT_LENGTH);
                            }
                            body = handed_back;
                            conversations.push(conversation);
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "an endpoint picker cannot be reached");
                    if let Some(endpoint) = self.elsewhere()
                        && self.is(Mutant::FailsOpenToAnotherPool)
                    {
                        self.body = Some(body);
                        return Ok(Way::To(Picked { endpoint, conversations: vec![], served: None }));
                    }
                    match pool.without_picker {
                        WithoutPicker::GoOn => {}
                        WithoutPicker::GoOnWithoutBody if !has_body => {}
                        // With a body on its way the stream is waited on before the failure is known.
                        _ if has_body => return Err(Failure::PickerSilent),
                        _ => return Err(Failure::PickerUnreachable),
                    }
                }
            }
        }
        self.body = Some(body);
        let others = mutants.leave();
        if let Some(clients) = clients
            && self.is(Mutant::KeepsTheClientsDestination)
        {
            self.headers.insert(DESTINATION, clients);
        }
        let said = self.headers.get(DESTINATION).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        let mut endpoint = match self.destination(pool, said.as_deref(), !conversations.is_empty())? {
            Some(endpoint) => endpoint,
            None => pool.own_choice(self.proxy.own_choice())?,
        };
        if let Some(another) = pool.endpoints.iter().find(|another| **another != endpoint)
            && self.is(Mutant::IgnoresChoice)
        {
            endpoint = *another;
        }
        if others > 0 && self.is(Mutant::SwapsChoices) {
            endpoint = mutants.choice_before(endpoint);
        }
        let served = (pool.served == Served::Reported).then_some(endpoint);
        Ok(Way::To(Picked { endpoint, conversations, served }))
    }

    /// How often the picker of a pool is asked for this request.
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

    /// Where a choice leads. Mended, a gateway goes on to the next endpoint of a list where one is dead, and nowhere where
    /// its picker named none.
    fn destination(&self, pool: &Pool, said: Option<&str>, asked: bool) -> Result<Option<SocketAddr>, Failure> {
        if !self.mutants().is_mended() {
            return pool.destination(said);
        }
        let listens = |e: &SocketAddr| self.proxy.network().socket(e.ip(), e.port()).is_ok();
        let mut named = said.into_iter().flat_map(|list| list.split(',')).filter_map(|e| e.trim().parse().ok());
        match said {
            Some(_) if self.is(Mutant::TakesTheFirstEndpointAlone) => named.next().map(Some).ok_or(Failure::NoEndpoint),
            Some(_) => named.find(listens).map(Some).ok_or(Failure::NoEndpoint),
            None if asked && !self.is(Mutant::ChoosesInThePickersPlace) => Err(Failure::NoEndpoint),
            None => Ok(None),
        }
    }

    /// An endpoint of somebody else.
    fn elsewhere(&self) -> Option<SocketAddr> {
        let rules = self.table.listeners.iter().flat_map(|l| &l.entries).map(|e| &e.rule);
        let network = self.proxy.network();
        rules.flat_map(|rule| &rule.backends).find_map(|backend| match &backend.target {
            Target::Service { namespace, name, port } => network.endpoint(namespace, name, *port).map(SocketAddr::from),
            Target::Host { host, port } => {
                let mut parts = host.split('.');
                let (name, namespace) = (parts.next()?, parts.next()?);
                network.endpoint(namespace, name, *port).map(SocketAddr::from)
            }
            _ => None,
        })
    }
}
