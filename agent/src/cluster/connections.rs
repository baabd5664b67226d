//! How an agent that runs for years calls the API server.
//!
//! Watches and calls share connections of HTTP/2, each of which would otherwise have one of its own:
//! about twenty, at 50 KiB of buffers and TLS state each (measured), and as many for the server. What
//! must not wait behind anything else goes [apart](Connections::apart).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Builder, Client as Connection, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt, retry::RetryPolicy},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

/// Requests that share a connection at most. Go's server allows 250, watches stay for minutes, and
/// what comes on top of the allowed would wait for one of them to end.
const SHARED_BY: usize = 64;
/// Pause between two PINGs, and how long an answer is waited for. A connection that is dead without a
/// word takes all its watches along until it is noticed.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));
/// Received and not read yet: of one request, and of all on a connection. All that may share it can
/// leave theirs unread without holding up another.
const WINDOW: u32 = 256 * 1024;
const WINDOW_OF_ALL: u32 = WINDOW * SHARED_BY as u32;

/// The clients of one agent.
#[derive(Clone)]
pub struct Connections {
    /// For watches and calls.
    pub shared: Client,
    /// A connection for each request under way: for the Lease, which must not depend on a connection
    /// that may be dead and not noticed yet, and for logs, whose reader may stop reading for minutes.
    pub apart: Client,
}

/// One client for everything: for commands that a person runs, and for tests.
impl From<Client> for Connections {
    fn from(client: Client) -> Self {
        Self { shared: client.clone(), apart: client }
    }
}

impl Connections {
    /// Clients for this configuration. Nothing is dialled yet.
    ///
    /// # Errors
    /// When the configuration's certificates or credentials can't be read, or it names a proxy.
    pub fn new(config: Config) -> Result<Self, kube::Error> {
        // Refuses what this program does not do, such as a proxy.
        let apart = Client::try_from(config.clone())?;
        Ok(Self { shared: shared(&config)?, apart })
    }
}

/// As kube makes its client, but over HTTP/2 where the server speaks it.
fn shared(config: &Config) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let mut tls = config.rustls_client_config()?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut connector = TimeoutConnector::new(HttpsConnector::from((tcp, Arc::new(tls))));
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let lanes = Lanes { connector, open: Arc::default() };
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(tower::service_fn(move |request| lanes.clone().send(request)));
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// The body of an answer.
trait Answer: hyper::body::Body<Data = Bytes, Error = hyper::Error> + Send + 'static {}
impl<B: hyper::body::Body<Data = Bytes, Error = hyper::Error> + Send + 'static> Answer for B {}

type Connector = TimeoutConnector<HttpsConnector<HttpConnector>>;

/// As many connections as the requests under way need, each shared by [`SHARED_BY`] of them.
#[derive(Clone)]
struct Lanes {
    connector: Connector,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    /// As its last answer said. While it is not known, every request dials that finds no connection;
    /// afterwards one dials and the others wait for it.
    speaks_http2: bool,
    lanes: Vec<Lane>,
}

/// One connection, dialled when it is needed and closed when it was idle for a while.
#[derive(Clone)]
struct Lane {
    connection: Connection<Connector, Body>,
    /// Held by each request until the last byte of its answer.
    used: Arc<()>,
}

impl Lanes {
    async fn send(self, request: Request<Body>) -> Result<Response<impl Answer>, Error> {
        let answer = self.free().send(request).await;
        match &answer {
            Ok(answer) if answer.version() == Version::HTTP_2 => self.learn(true),
            // Whatever listens there next may be another server.
            Err(error) if error.is_connect() => self.learn(false),
            _ => {}
        }
        answer
    }

    /// The first with room, so that those made for a moment of much work are left again.
    fn free(&self) -> Lane {
        let mut open = self.open();
        if let Some(lane) = open.lanes.iter().find(|lane| lane.has_room()) {
            return lane.clone();
        }
        let lane = Lane::new(self.connector.clone(), open.speaks_http2);
        open.lanes.push(lane.clone());
        lane
    }

    fn learn(&self, speaks_http2: bool) {
        let mut open = self.open();
        if open.speaks_http2 != speaks_http2 {
            *open = Open { speaks_http2, lanes: Vec::new() };
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing done with it can panic and leave it half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn new(connector: Connector, speaks_http2: bool) -> Self {
        let connection = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(speaks_http2)
            .http2_keep_alive_interval(PING.0)
            .http2_keep_alive_timeout(PING.1)
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW_OF_ALL)
            .build(connector);
        Self { connection, used: Arc::new(()) }
    }

    fn has_room(&self) -> bool {
        // One of them is the list's own.
        Arc::strong_count(&self.used) <= SHARED_BY
    }

    async fn send(self, request: Request<Body>) -> Result<Response<impl Answer>, Error> {
        let answer = self.connection.request(request).await?;
        let used = self.used;
        Ok(answer.map(|body| {
            body.map_frame(move |frame| {
                let _held = &used;
                frame
            })
        }))
    }
}
