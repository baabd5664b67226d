//! `/metrics`: a listener of its own, plain HTTP, for a scraper on the same host or in the same pod.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{ServeError, Shared, metrics::Metrics};

/// Connections served at once: a scraper and a person need two.
const CONNECTIONS: usize = 8;
/// How long a client may take to send its request's head.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// How long one connection may live.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);

/// Serves the page until `stop`; returns where.
pub(super) async fn serve(
    listen: SocketAddr,
    shared: &Arc<Shared>,
    stop: CancellationToken,
) -> Result<SocketAddr, ServeError> {
    if !listen.ip().is_loopback() {
        return Err(ServeError::MetricsAddress { address: listen });
    }
    let listen_error = |source| ServeError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let metrics = Arc::new(Metrics::new(shared));
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // Over the limit it is closed unanswered; a scraper comes again.
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let (metrics, stop) = (metrics.clone(), stop.clone());
            tokio::spawn(async move {
                let _slot = slot;
                let service = service_fn(|request| {
                    let answer = answer(&request, &metrics);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_DEADLINE)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = timeout(CONNECTION_DEADLINE, connection) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    });
    Ok(address)
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<String> {
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match metrics.encode() {
            Ok(page) => Response::new(page),
            Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        (&Method::GET, _) => refused(StatusCode::NOT_FOUND, "try /metrics"),
        _ => refused(StatusCode::METHOD_NOT_ALLOWED, "only GET"),
    };
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    );
    response
}

fn refused(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(format!("{text}\n"));
    *response.status_mut() = status;
    response
}
