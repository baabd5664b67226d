//! What stands between everything that writes to Kubernetes and the API server: a write passes only
//! while its term allows it.
//!
//! The bound on a write that was begun in time is told to the API server as well (`timeout` in the
//! query), which gives up by itself then: a connection may be dead in one direction only.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use http::{Method, Request, Response, Uri};
use kube::client::{Body, Client};
use mendix_agent_core::leadership::WRITE_DEADLINE;
use tokio::time::{sleep, timeout};

use super::{Term, nanos};
use crate::{clock::boot, denials::Denials};

/// Why a write was not sent, or not waited for.
#[derive(Debug, thiserror::Error)]
pub enum Fenced {
    /// This replica leads no longer.
    #[error("this replica no longer leads (epoch {epoch}); nothing is written")]
    Over {
        /// Epoch of the term that ended.
        epoch: u64,
    },
    /// No answer in time; the server has given up as well.
    #[error("no answer from the Kubernetes API to a write within {} s", WRITE_DEADLINE.as_secs())]
    Deadline,
    /// The task that carried it died.
    #[error("the write was not carried out")]
    Lost,
}

impl Term {
    /// A client whose writes stand under this term. Reads pass. What the API server refuses is counted.
    pub(crate) fn fence(&self, client: Client, namespace: &str, denials: &Denials) -> Client {
        if self.is_sole() {
            return client;
        }
        let (term, denials) = (self.clone(), denials.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (term, client, denials) = (term.clone(), client.clone(), denials.clone());
            async move {
                let answered = term.pass(client, request).await;
                if let Ok(answer) = &answered {
                    denials.count(answer.status());
                }
                answered
            }
        });
        Client::new(service, namespace)
    }

    async fn pass(
        self,
        client: Client,
        request: Request<Body>,
    ) -> Result<Response<Body>, kube::Error> {
        if *request.method() == Method::GET {
            return client.send(request).await;
        }
        self.admitted().await.map_err(error)?;
        // Carried out by a task of its own: a caller that goes away must not leave a write behind of
        // which nobody knows whether it landed.
        let write = self.0.writes.spawn(self.clone().write(client, request));
        write.await.unwrap_or_else(|_| Err(error(Fenced::Lost)))
    }

    /// Waits until writes of predecessors have landed.
    async fn admitted(&self) -> Result<(), Fenced> {
        let over = || Fenced::Over { epoch: self.epoch() };
        loop {
            let now = nanos(boot());
            if self.0.over.is_cancelled() || now >= self.0.until.load(SeqCst) {
                return Err(over());
            }
            let wait = self.0.from.load(SeqCst).saturating_sub(now);
            if wait == 0 {
                return Ok(());
            }
            tokio::select! {
                () = self.0.over.cancelled() => return Err(over()),
                () = sleep(Duration::from_nanos(wait)) => {}
            }
        }
    }

    async fn write(
        self,
        client: Client,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, kube::Error> {
        let begun = boot();
        if nanos(begun) >= self.0.until.load(SeqCst) {
            return Err(error(Fenced::Over { epoch: self.epoch() }));
        }
        *request.uri_mut() = bounded(request.uri());
        let answered = tokio::select! {
            answered = timeout(WRITE_DEADLINE, client.send(request)) => {
                answered.unwrap_or_else(|_| Err(error(Fenced::Deadline)))
            }
            () = self.0.over.cancelled() => Err(error(Fenced::Over { epoch: self.epoch() })),
        };
        // A gateway's answer says nothing about what became of the request.
        let unknown = match &answered {
            Ok(response) => matches!(response.status().as_u16(), 502 | 504),
            Err(_) => true,
        };
        if unknown {
            self.0.unsettled.fetch_max(nanos(begun + WRITE_DEADLINE), SeqCst);
        }
        answered
    }
}

fn error(fenced: Fenced) -> kube::Error {
    kube::Error::Service(Box::new(fenced))
}

/// The same address with the server's own bound on the request.
fn bounded(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let joint = if path.contains('?') { '&' } else { '?' };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query =
        format!("{path}{joint}timeout={}s", WRITE_DEADLINE.as_secs()).parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}
