//! Wires the three paths together and keeps them going until the agent is told to stop.

use std::{convert::Infallible, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    agent_status, audit,
    audit::Audit,
    channel::{self, identity::Standing},
    cluster::{Cluster, ClusterError},
    config::Config,
    console::{Exit, Output},
    errors::describe,
    health,
    http::{self, Pages},
    kubeconfig, logs,
    metrics::Metrics,
    patch, preflight,
    requests::RequestOutcomes,
    status::{Overview, StatusError},
    supervise::Supervisor,
};

/// Pauses between attempts to reach the Kubernetes API at start-up: a service mesh or the API
/// server itself may come up after the agent.
const CLUSTER_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Fencing epoch that `Hello` carries. With one replica and strategy Recreate there is one writer;
/// an epoch per leader comes with the Lease.
const LEASE_EPOCH: u64 = 1;

/// Why the agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither a pod's service account nor a kubeconfig was found.
    #[error("no access to Kubernetes: run in a pod, or point KUBECONFIG at a kubeconfig")]
    Kubeconfig(#[source] kube::config::InferConfigError),
    /// The client can't be made from the configuration.
    #[error("make a Kubernetes client")]
    Client(#[source] kube::Error),
    /// The cluster could not be read.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The agent's objects can't be listed.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The result can't be written as JSON.
    #[error("write the result as JSON")]
    Json(#[source] serde_json::Error),
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
            Self::Kubeconfig(_) | Self::Client(_) | Self::Cluster(_) | Self::Status(_) => {
                Exit::Cluster
            }
            Self::Channel(_) => Exit::Config,
            Self::Signals(_) | Self::Json(_) => Exit::Failed,
        }
    }
}

pub(crate) async fn client() -> Result<Client, RunError> {
    let config = kubeconfig::infer().await.map_err(RunError::Kubeconfig)?;
    Client::try_from(config).map_err(RunError::Client)
}

/// Runs the agent until SIGTERM or SIGINT; a second signal does not wait for the tasks.
///
/// # Errors
/// When there is no way to reach Kubernetes. What can heal is retried, not returned.
pub async fn run(config: Config) -> Result<Exit, RunError> {
    let shutdown = CancellationToken::new();
    let mut signals = Signals::new()?;
    let client = client().await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), endpoint = %config.endpoint, "starting");
    let cluster = tokio::select! {
        cluster = connect(client, config.namespace.clone()) => cluster?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the cluster was reached");
            return Ok(Exit::Success);
        }
    };
    let (handles, worker) = channel::open(&config, &cluster, LEASE_EPOCH)?;
    let mut supervisor = Supervisor::new(shutdown.clone());
    start(&mut supervisor, config, cluster, handles, worker);
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    shutdown.cancel();
    tokio::select! {
        left = supervisor.join() => match left {
            0 => tracing::info!("stopped"),
            left => tracing::warn!(left, "stopped; some tasks did not end in time"),
        },
        signal = signals.next() => tracing::warn!(signal, "stopped at once by a second signal"),
    }
    Ok(Exit::Success)
}

/// Starts every task of the agent.
fn start(
    supervisor: &mut Supervisor,
    config: Config,
    cluster: Cluster,
    handles: channel::Handles,
    worker: channel::Worker,
) {
    let audit = Audit::new(&cluster, handles.checkpoints.clone());
    let metrics = Arc::new(Metrics::new(
        handles.link.clone(),
        handles.reports.clone(),
        audit.clone(),
        supervisor.tasks(),
        env!("CARGO_PKG_VERSION"),
    ));
    let pages = Pages { tasks: supervisor.tasks(), metrics };
    let listen = config.listen;
    supervisor.spawn("http", move |token| http::serve(listen, pages.clone(), token));
    supervisor.spawn("channel", move |token| {
        let worker = worker.clone();
        async move { worker.run(token).await }
    });
    let outcomes = RequestOutcomes::new(handles.desired.requests.clone(), handles.reports.clone());
    let kept = outcomes.clone();
    supervisor.spawn("requests", move |token| {
        let kept = kept.clone();
        async move {
            kept.run(token).await;
            Ok::<_, Infallible>(())
        }
    });
    let standing = handles.standing.clone();
    let identity = patch::driver::Identity {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ring: Arc::new(move || match &*standing.borrow() {
            Standing::Enrolled(credentials) => credentials.identity().ring().to_owned(),
            Standing::NotEnrolled { .. } => String::new(),
        }),
    };
    let kept = (audit.clone(), handles.clone());
    supervisor.spawn("audit", move |token| {
        let (audit, handles) = kept.clone();
        audit::run(audit, handles, token)
    });
    let (portal_keys, found) = watch::channel(None);
    let roots = patch::Roots { trust_dir: config.trust_dir.clone(), portal_keys };
    let path = (cluster.clone(), handles.clone(), outcomes.clone(), audit.clone());
    supervisor.spawn("patch", move |token| {
        let (cluster, handles, outcomes, audit) = path.clone();
        patch::run(cluster, roots.clone(), identity.clone(), handles, outcomes, audit, token)
    });
    let portal = logs::Portal { trust_dir: config.trust_dir.clone(), found };
    let path = (cluster.clone(), handles.clone(), outcomes, audit);
    supervisor.spawn("logs", move |token| {
        let (cluster, handles, outcomes, audit) = path.clone();
        logs::run(cluster, handles, portal.clone(), outcomes, audit, token)
    });
    let (health_cluster, reports) = (cluster.clone(), handles.reports.clone());
    supervisor
        .spawn("health", move |token| health::run(health_cluster.clone(), reports.clone(), token));
    supervisor.spawn("agent-status", move |token| {
        agent_status::run(
            cluster.clone(),
            config.clone(),
            handles.link.clone(),
            handles.reports.clone(),
            token,
        )
    });
}

async fn connect(client: Client, namespace: String) -> Result<Cluster, ClusterError> {
    (|| Cluster::connect(client.clone(), namespace.clone()))
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
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The command `preflight`: checks everything and changes nothing.
///
/// # Errors
/// None: what is wrong is in the report, and the worst of it in the exit code.
pub async fn preflight(config: Config, output: Output) -> Result<Exit, RunError> {
    let client = client().await.map_err(|error| describe(&error));
    let report = preflight::run(&config, client).await;
    match output {
        Output::Table => print!("{}", report.table()),
        Output::Json => print!("{}", report.json()),
    }
    Ok(report.exit())
}

/// The command `status`: reads the agent's objects with the caller's rights and prints them.
///
/// # Errors
/// When Kubernetes can't be reached or refuses.
pub async fn status(namespace: String, output: Output) -> Result<Exit, RunError> {
    let overview = Overview::read(&client().await?, &namespace).await?;
    match output {
        Output::Table => print!("{}", overview.table()),
        Output::Json => {
            println!("{}", serde_json::to_string_pretty(&overview).map_err(RunError::Json)?)
        }
    }
    Ok(Exit::Success)
}
