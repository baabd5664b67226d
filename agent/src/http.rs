//! The only listener of the agent, and of its guard: `/livez`, `/readyz` and `/metrics`, plain HTTP
//! inside the pod network, read-only.
//!
//! `/livez` fails only when the process can't be cured without a restart. `/readyz` fails while a
//! task is down, and while the replica has not seen the Lease: it could not take over, and a rolling
//! update must not go on. Losing the control plane is neither: restarting the agent would not bring it
//! back.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    leadership::Post,
    metrics::{Metrics, Work},
    supervise::Tasks,
    upgrade::guard::Shown,
};

/// Connections served at once: probes and a scraper need two or three.
const CONNECTIONS: usize = 16;
/// How long a client may take to send its request's head.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// How long one connection may live: probes and scrapes are short.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);

/// Why the listener ended.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address can't be listened on.
    #[error("listen on {address} for /livez, /readyz and /metrics")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// Who answers.
    pub of: Of,
    /// Metrics to encode.
    pub metrics: Arc<Metrics>,
}

/// Who answers, and what its readiness hangs on.
#[derive(Clone)]
pub enum Of {
    /// A replica of the agent.
    Replica {
        /// States of the tasks that every replica has.
        tasks: Tasks,
        /// What this replica does.
        post: watch::Receiver<Post>,
        /// The work of a replica that leads.
        work: watch::Receiver<Option<Work>>,
    },
    /// The guard.
    Guard {
        /// States of its tasks.
        tasks: Tasks,
        /// What it shows.
        shown: watch::Receiver<Shown>,
    },
}

/// Listens until `shutdown`.
///
/// # Errors
/// When `address` can't be bound.
pub async fn serve(
    address: SocketAddr,
    pages: Pages,
    shutdown: CancellationToken,
) -> Result<(), HttpError> {
    let listener =
        TcpListener::bind(address).await.map_err(|source| HttpError::Bind { address, source })?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Over the limit the connection is closed unanswered; a probe tries again.
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (pages, shutdown) = (pages.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            let service = service_fn(|request| {
                let answer = answer(&request, &pages);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_DEADLINE)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = tokio::time::timeout(CONNECTION_DEADLINE, connection) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => ready(&pages.of),
        "/metrics" => match pages.metrics.encode() {
            Ok(body) => typed(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body,
            ),
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("encoding metrics: {error}\n"))
            }
        },
        _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz or /metrics\n".to_owned()),
    }
}

fn ready(of: &Of) -> Response<Full<Bytes>> {
    let mut status = StatusCode::OK;
    let (mut body, tasks) = match of {
        Of::Replica { tasks, post, work } => {
            let line = match &*post.borrow() {
                Post::Leader(term) => format!("[+] leader of epoch {}\n", term.epoch()),
                Post::Standby { leader: Some(leader) } => {
                    format!("[+] standby, {leader} leads\n")
                }
                Post::Standby { leader: None } => "[+] standby, nobody leads\n".to_owned(),
                Post::Blind { why } => {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                    format!("[-] lease {why}\n")
                }
            };
            let mut tasks = tasks.states();
            tasks.extend(work.borrow().iter().flat_map(|work| work.tasks.states()));
            (line, tasks)
        }
        Of::Guard { tasks, shown } => {
            let shown = shown.borrow();
            let line = match (shown.watches, &shown.problem) {
                (_, Some(why)) => {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                    format!("[-] trials {why}\n")
                }
                (false, None) => {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                    "[-] trials not seen yet\n".to_owned()
                }
                (true, None) => format!("[+] trials {} open\n", shown.open),
            };
            (line, tasks.states())
        }
    };
    for (name, state) in tasks {
        match state.down {
            None => body.push_str(&format!("[+] {name} ok\n")),
            Some(why) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                body.push_str(&format!("[-] {name} {why}\n"));
            }
        }
    }
    text(status, body)
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
