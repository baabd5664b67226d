//! The server: one TLS port with all four services.
//!
//! ```text
//! accept ─▶ TLS 1.3, ALPN h2, client certificate if there is one ─▶ HTTP/2 ─┬─ enrollment
//!                                                                           ├─ control (sessions)
//!                                                                           ├─ bundle (repository files)
//!                                                                           └─ snapshot (sealed uploads)
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mendix_agent_proto::limits;
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;

use crate::{
    pki::{ChannelCa, PkiError, ServerNames},
    store::{AgentRecord, Store, StoreError, files},
};

mod bundle;
mod enrollment;
mod incoming;
mod metrics;
mod page;
mod peer;
mod rates;
mod routes;
mod session;
mod shared;
mod snapshot;
mod uploads;

pub use rates::Rate;
use routes::Routes;
pub use shared::Counters;
use shared::Shared;

/// HTTP/2 window of one stream: two snapshot chunks and their frames.
const STREAM_WINDOW: u32 = 512 * 1024;
/// HTTP/2 window of one connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams one agent may have open on one connection.
const MAX_STREAMS: u32 = 32;
/// How long connections may take to end once sessions have.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What the server may be told. [`Options::default`] is what production would use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names for the server's certificate besides those given at `init`.
    pub names: ServerNames,
    /// How long an agent's certificate is valid.
    pub certificate_lifetime: Duration,
    /// What `Welcome` says; agents clamp it to [`limits::HEARTBEAT_BOUNDS`].
    pub heartbeat_interval: Duration,
    /// What `Welcome` says; agents clamp it to [`limits::SESSION_AGE_BOUNDS`].
    pub max_session_age: Duration,
    /// Sessions at once; more are told to come back after [`Options::retry_after`].
    pub max_sessions: usize,
    /// See [`Options::max_sessions`].
    pub retry_after: Duration,
    /// How long sessions are kept after a shutdown began.
    pub drain: Duration,
    /// Over which time agents are told to come back after a shutdown, at most. A few are told a
    /// shorter one, see [`Options::comebacks`].
    pub spread: Duration,
    /// How many agents may come back at once without doing harm: agents are spread over no more
    /// time than that takes.
    pub comebacks: Rate,
    /// TLS handshakes; what comes faster waits in the listen backlog.
    pub handshakes: Rate,
    /// Enrolments, renewals and recoveries; more are refused with UNAVAILABLE.
    pub enrolments: Rate,
    /// Sessions that one identity opens; more are told when to come back.
    pub sessions_per_identity: Rate,
    /// Where `/metrics` is served, a loopback address; nowhere if none.
    pub metrics: Option<SocketAddr>,
    /// Age at which a connection is told to end once its calls have (GOAWAY); never if none.
    pub connection_age: Option<Duration>,
    /// Largest sealed snapshot, bytes.
    pub max_snapshot: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            names: ServerNames::default(),
            certificate_lifetime: Duration::from_secs(24 * 3600),
            heartbeat_interval: limits::HEARTBEAT_DEFAULT,
            max_session_age: limits::SESSION_AGE_DEFAULT,
            max_sessions: 20_000,
            retry_after: Duration::from_secs(30),
            drain: Duration::from_secs(2),
            spread: Duration::from_secs(60),
            comebacks: Rate::per_second(50),
            handshakes: Rate::per_second(500),
            enrolments: Rate::per_second(50),
            // An agent in trouble dials about twelve times in its first minute, and seldom more than 22
            // times in two; failover and a new certificate come on top.
            sessions_per_identity: Rate { count: 30, per: Duration::from_secs(120) },
            metrics: None,
            connection_age: None,
            max_snapshot: 1024 * 1024 * 1024,
        }
    }
}

/// Why the server did not start, or ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// State can't be read, or another server runs on it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The channel CA can't be used.
    #[error("can't use the channel CA")]
    Pki(#[from] PkiError),
    /// The TLS settings were refused.
    #[error("can't set up TLS")]
    Tls(#[from] rustls::Error),
    /// Client certificates can't be checked against the CA.
    #[error("can't set up the check of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Metrics are for this host alone.
    #[error("metrics can't be served on {address}: choose a loopback address")]
    MetricsAddress {
        /// The address.
        address: SocketAddr,
    },
    /// A part of the server ended by itself.
    #[error("the server ended by itself: {0}")]
    Ended(String),
}

/// The control plane.
#[derive(Debug)]
pub struct ControlPlane;

impl ControlPlane {
    /// Starts a server on the state in `store`. It runs until [`Running`] is shut down or dropped.
    ///
    /// # Errors
    /// When the state is in use by another server, or the address can't be listened on.
    pub async fn start(store: Store, options: Options) -> Result<Running, ServeError> {
        let server_lock = store.server_lock()?;
        let ca = ChannelCa::load(&store)?;
        let mut names = store.server_names()?;
        names.dns.extend(options.names.dns.iter().cloned());
        names.ips.extend(options.names.ips.iter().copied());
        names.dns.sort();
        names.dns.dedup();
        names.ips.sort();
        names.ips.dedup();
        let tls = incoming::tls_config(&ca, &names)?;
        let listen_error = |source| ServeError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;

        let stop = CancellationToken::new();
        let shared = Arc::new(Shared::new(store, ca, options));
        shared.disconnect_all()?;
        let metrics = match shared.options.metrics {
            Some(listen) => Some(page::serve(listen, &shared, stop.clone()).await?),
            None => None,
        };
        let incoming = incoming::accept(listener, tls, shared.clone(), stop.clone());
        let graceful = CancellationToken::new();
        let serving = tokio::spawn(serve(incoming, shared.clone(), graceful.clone()));
        let upkeep = tokio::spawn(shared::upkeep(shared.clone(), stop.clone()));
        tracing::info!(%address, "the control plane is up");
        Ok(Running {
            address,
            metrics,
            shared,
            graceful,
            serving,
            upkeep,
            stop: stop.clone(),
            _stop_on_drop: stop.drop_guard(),
            _server_lock: server_lock,
        })
    }
}

async fn serve(
    incoming: ReceiverStream<io::Result<incoming::AgentStream>>,
    shared: Arc<Shared>,
    graceful: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let mut server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(limits::HTTP2_PING.0))
        .http2_keepalive_timeout(Some(limits::HTTP2_PING.1));
    if let Some(age) = shared.options.connection_age {
        server = server.max_connection_age(age);
    }
    server
        .serve_with_incoming_shutdown(Routes::new(&shared), incoming, graceful.cancelled_owned())
        .await
}

/// A server that runs. Dropping it ends it at once, as a crash would, except that what was accepted
/// is on disk.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    shared: Arc<Shared>,
    graceful: CancellationToken,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    upkeep: JoinHandle<()>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
    _server_lock: files::Lock,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its metrics are; none if it was not asked for any.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// What it has counted since its start.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// The state it works on.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The newest that is known of a cluster's agent, up to a second ahead of [`Store::agent`].
    pub fn agent(&self, uid: &str) -> Option<AgentRecord> {
        self.shared.agent(uid)
    }

    /// Ends it: nobody new is let in, sessions are told to move (`Drain`) and given
    /// [`Options::drain`], then everything is closed. Takes at most that and a few seconds.
    ///
    /// # Errors
    /// When what agents reported last can't be written.
    pub async fn shutdown(self) -> Result<(), StoreError> {
        let started = Instant::now();
        self.shared.begin_drain();
        let drained = self.shared.options.drain + SHUTDOWN_GRACE;
        while self.shared.counters().sessions_open > 0 && started.elapsed() < drained {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.graceful.cancel();
        let serving = tokio::time::timeout(SHUTDOWN_GRACE, self.serving).await;
        self.stop.cancel();
        if serving.is_err() {
            tracing::info!("some connections were still open and have been cut");
        }
        // Ends by itself once `stop` is cancelled.
        let _ = self.upkeep.await;
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || shared.flush_agents())
            .await
            .map_err(|error| StoreError::Refused(format!("writing the last reports: {error}")))?
    }

    /// Waits until the server ends by itself, which only a fault makes it do.
    pub async fn ended(&mut self) -> ServeError {
        let reason = match (&mut self.serving).await {
            Ok(Ok(())) => "it stopped accepting connections".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        ServeError::Ended(reason)
    }
}
