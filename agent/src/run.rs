//! Wires the three paths together and keeps them going until the agent is told to stop.
//!
//! ```text
//! every replica      http, leadership
//!                              │ Term, while it leads
//!                              ▼
//! the leader         channel, requests, patch, logs, health, initialization, agent-status
//! ```
//!
//! The leader's tasks belong to its [`Term`](crate::term::Term): they start with it and end with it,
//! all of them, before the next one begins.

mod leader;
mod replica;

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use kube::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use self::replica::{Replica, Stopped};
use crate::{
    channel,
    cluster::{ClusterError, Connections, Site},
    config::{Config, GuardConfig},
    console::Exit,
    errors::describe,
    http::{self, Of, Pages},
    kubeconfig,
    logging::Level,
    metrics::Metrics,
    service::{self, Service},
    supervise::Supervisor,
    upgrade::guard,
};

/// Pauses between attempts to reach the Kubernetes API at start-up: a service mesh or the API
/// server itself may come up after the agent.
const CLUSTER_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why the agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither a pod's service account nor a kubeconfig was found.
    #[error("no access to Kubernetes: run in a pod, or point KUBECONFIG at a kubeconfig")]
    Kubeconfig(#[source] kubeconfig::NoAccess),
    /// The client can't be made from the configuration.
    #[error("make a Kubernetes client")]
    Client(#[source] kube::Error),
    /// The cluster could not be read.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The channel can't be set up.
    #[error("set up the channel")]
    Channel(#[from] channel::OpenError),
    /// Signals can't be received.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
}

impl RunError {
    /// The exit code that says so.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Kubeconfig(_) | Self::Client(_) | Self::Cluster(_) => Exit::Cluster,
            Self::Channel(_) => Exit::Config,
            Self::Signals(_) => Exit::Failed,
        }
    }
}

/// A client with the rights that the process was given: a pod's, or those of a kubeconfig.
pub(crate) async fn client() -> Result<Client, RunError> {
    let config = kubeconfig::infer().await.map_err(RunError::Kubeconfig)?;
    Client::try_from(config).map_err(RunError::Client)
}

/// Runs the agent until SIGTERM or SIGINT; a second signal does not wait for the tasks.
///
/// # Errors
/// When there is no way to reach Kubernetes. What can heal is retried, not returned.
pub async fn run(config: Config, level: Level) -> Result<Exit, RunError> {
    let mut signals = Signals::new()?;
    // Not one of the supervised tasks: it also serves while there is no cluster yet. It ends with the
    // runtime.
    tokio::spawn(level.follow(signal(SignalKind::hangup()).map_err(RunError::Signals)?));
    let connections = Connections::new(kubeconfig::infer().await.map_err(RunError::Kubeconfig)?)
        .map_err(RunError::Client)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), endpoint = %config.endpoint, "starting");
    channel::check(&config)?;
    let _service = Service::ready();
    let site = tokio::select! {
        site = connect(connections, config.namespace.clone()) => site?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the cluster was reached");
            return Ok(Exit::Success);
        }
    };
    let replica = Replica::start(config, site);
    match replica.serve(&mut signals).await {
        Stopped::InTime(0) => tracing::info!("stopped"),
        Stopped::InTime(left) => tracing::warn!(left, "stopped; some tasks did not end in time"),
        Stopped::AtOnce(signal) => tracing::warn!(signal, "stopped at once by a second signal"),
    }
    Ok(Exit::Success)
}

/// Runs the guard until SIGTERM or SIGINT.
///
/// # Errors
/// As [`run`].
pub async fn guard(config: GuardConfig, level: Level) -> Result<Exit, RunError> {
    let mut signals = Signals::new()?;
    tokio::spawn(level.follow(signal(SignalKind::hangup()).map_err(RunError::Signals)?));
    let client = client().await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "guarding");
    let shutdown = CancellationToken::new();
    let mut supervisor = Supervisor::new(shutdown.clone());
    let (shown, seen) = watch::channel(guard::Shown::default());
    let metrics = Metrics::of_guard(seen.clone(), supervisor.tasks());
    let of = Of::Guard { tasks: supervisor.tasks(), shown: seen };
    let pages = Pages { of, metrics: Arc::new(metrics) };
    let listen = config.listen;
    supervisor.spawn("http", move |token| http::serve(listen, pages.clone(), token));
    supervisor.spawn("guard", move |token| {
        guard::run(client.clone(), config.namespace.clone(), shown.clone(), token)
    });
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    shutdown.cancel();
    tokio::select! {
        left = supervisor.join() => tracing::info!(left, "stopped"),
        signal = signals.next() => tracing::warn!(signal, "stopped at once by a second signal"),
    }
    Ok(Exit::Success)
}

async fn connect(connections: Connections, namespace: String) -> Result<Site, ClusterError> {
    (|| Site::connect(connections.clone(), namespace.clone()))
        .retry(
            ExponentialBuilder::default()
                .with_min_delay(CLUSTER_RETRY.0)
                .with_max_delay(CLUSTER_RETRY.1)
                .without_max_times()
                .with_jitter(),
        )
        .when(|error| !matches!(error, ClusterError::NoUid))
        .notify(|error, pause| {
            tracing::warn!(
                error = describe(error),
                ?pause,
                "the Kubernetes API is not reached yet"
            );
        })
        .await
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let listen = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        service::stopping(signal);
        signal
    }
}
