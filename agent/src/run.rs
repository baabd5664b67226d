//! Wires the three paths together and keeps them going until the agent is told to stop.
//!
//! ```text
//! every replica      http, leadership
//!                              │ Term, while it leads
//!                              ▼
//! the leader         channel, requests, patch, logs, health, initialization, agent-status
//! ```
//!
//! The leader's tasks belong to its [`Term`]: they start with it and end with it, all of them, before
//! the next one begins.

use std::{convert::Infallible, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use kube::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent_status, audit,
    audit::Audit,
    channel::{self, identity::Standing},
    cluster::{Cluster, ClusterError, Connections, Site},
    config::{Config, ConfigError, GuardConfig},
    console::{self, Exit, Output, Reader, ShowError},
    errors::describe,
    health,
    http::{self, Of, Pages},
    initialization, kubeconfig,
    leadership::{self, Post, Term},
    logging::Level,
    logs,
    metrics::{Metrics, Work},
    patch, preflight,
    requests::RequestOutcomes,
    service::{self, Service},
    status::{Overview, StatusError},
    supervise::Supervisor,
    upgrade::{Own, TRIAL_VARIABLE, guard},
};

/// Pauses between attempts to reach the Kubernetes API at start-up: a service mesh or the API
/// server itself may come up after the agent.
const CLUSTER_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Pause before the channel is set up again.
const OPEN_RETRY: Duration = Duration::from_secs(5);

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
    /// The agent's objects can't be listed.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The result can't be printed.
    #[error(transparent)]
    Show(#[from] ShowError),
    /// The channel can't be set up.
    #[error("set up the channel")]
    Channel(#[from] channel::OpenError),
    /// There is no preview.
    #[error(transparent)]
    Preview(#[from] logs::preview::PreviewError),
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
            Self::Preview(logs::preview::PreviewError::Record(_)) => Exit::Cluster,
            Self::Preview(_) => Exit::Failed,
            Self::Signals(_) | Self::Show(_) => Exit::Failed,
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

/// How the agent ended.
enum Stopped {
    /// With so many tasks that had to be dropped.
    InTime(usize),
    /// By a second signal.
    AtOnce(&'static str),
}

/// What every replica runs.
struct Replica {
    config: Config,
    site: Site,
    supervisor: Supervisor,
    shutdown: CancellationToken,
    posts: watch::Receiver<Post>,
    work: watch::Sender<Option<Work>>,
}

impl Replica {
    fn start(config: Config, site: Site) -> Self {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let blind = Post::Blind { why: "it was not read yet".into() };
        let (post_tx, posts) = watch::channel(blind);
        let (work, seen) = watch::channel(None);
        let metrics = Metrics::new(seen.clone(), supervisor.tasks(), env!("CARGO_PKG_VERSION"));
        let of = Of::Replica { tasks: supervisor.tasks(), post: posts.clone(), work: seen.clone() };
        let pages = Pages { of, metrics: Arc::new(metrics) };
        if service::is_listened_to() {
            let told = (supervisor.tasks(), posts.clone(), seen);
            supervisor.spawn("service", move |token| {
                let (tasks, posts, work) = told.clone();
                service::follow(tasks, posts, work, token)
            });
        }
        let listen = config.listen;
        supervisor.spawn("http", move |token| http::serve(listen, pages.clone(), token));
        let (lease_site, post_tx) = (site.clone(), Arc::new(post_tx));
        let me = identity();
        supervisor.spawn("leadership", move |token| {
            leadership::run(lease_site.clone(), me.clone(), post_tx.clone(), token)
        });
        Self { config, site, supervisor, shutdown, posts, work }
    }

    /// Leads whenever it may, until a signal.
    async fn serve(mut self, signals: &mut Signals) -> Stopped {
        let left = loop {
            let term = tokio::select! {
                signal = signals.next() => {
                    tracing::info!(signal, "stopping");
                    break 0;
                }
                term = next_term(&mut self.posts) => term,
            };
            let (tasks, signal) = self.lead(&term, signals).await;
            if let Some(signal) = signal {
                tracing::info!(signal, "stopping");
            }
            self.work.send_replace(None);
            // The term still holds while its tasks end, unless it is what ended.
            tasks.shutdown.cancel();
            let left = tokio::select! {
                left = tasks.supervisor.join() => left,
                second = signals.next(), if signal.is_some() => return Stopped::AtOnce(second),
            };
            if left > 0 {
                term.abandon();
            }
            if signal.is_some() {
                break left;
            }
            tracing::info!(left, "the tasks of the term have ended");
        };
        // Releases the Lease, so that the other replica takes over at once.
        self.shutdown.cancel();
        tokio::select! {
            more = self.supervisor.join() => Stopped::InTime(left + more),
            signal = signals.next() => Stopped::AtOnce(signal),
        }
    }

    /// Does a leader's work until the term is over or a signal comes; its tasks then still run.
    async fn lead(&self, term: &Term, signals: &mut Signals) -> (Tasks, Option<&'static str>) {
        let shutdown = term.over().child_token();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let cluster = self.site.lead(term);
        let opened = loop {
            match channel::open(&self.config, &cluster) {
                Ok(opened) => break Some(opened),
                // It could be when the agent started: the trust folder is being changed.
                Err(error) => {
                    let error = describe(&error);
                    tracing::error!(error, "the channel can't be set up; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(OPEN_RETRY) => {}
                () = term.over().cancelled() => break None,
                signal = signals.next() => return (Tasks { supervisor, shutdown }, Some(signal)),
            }
        };
        if let Some((handles, worker)) = opened {
            let audit = Audit::new(&cluster, handles.checkpoints.clone());
            self.work.send_replace(Some(Work {
                epoch: term.epoch(),
                link: handles.link.clone(),
                reports: handles.reports.clone(),
                audit: audit.clone(),
                tasks: supervisor.tasks(),
            }));
            start(&mut supervisor, self.config.clone(), cluster, handles, worker, audit);
        }
        let signal = tokio::select! {
            () = term.over().cancelled() => None,
            signal = signals.next() => Some(signal),
        };
        (Tasks { supervisor, shutdown }, signal)
    }
}

/// The tasks of one term.
struct Tasks {
    supervisor: Supervisor,
    shutdown: CancellationToken,
}

/// The next term of this replica. Without one it waits.
async fn next_term(posts: &mut watch::Receiver<Post>) -> Term {
    loop {
        if let Post::Leader(term) = &*posts.borrow_and_update()
            && !term.over().is_cancelled()
        {
            return term.clone();
        }
        if posts.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// This process as the Lease names it: the pod's or machine's name, and what no other process has.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty());
    format!("{}_{:016x}", host.unwrap_or_else(|| "mendix-agent".into()), channel::random())
}

/// Starts the tasks of a leader.
fn start(
    supervisor: &mut Supervisor,
    config: Config,
    cluster: Cluster,
    handles: channel::Handles,
    worker: channel::Worker,
    audit: Audit,
) {
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
    let trial = std::env::var(TRIAL_VARIABLE).ok();
    let is_deployment = trial.is_some();
    let identity = patch::driver::Identity {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ring: Arc::new(move || match &*standing.borrow() {
            Standing::Enrolled(credentials) => credentials.identity().ring().to_owned(),
            Standing::NotEnrolled { .. } => String::new(),
        }),
        own: trial.map(|trial| Own {
            trial,
            link: handles.link.clone(),
            stable_for: config.upgrade_after,
            has_trust: Arc::default(),
            tasks: supervisor.tasks(),
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
    let path = (cluster.clone(), handles.clone(), outcomes.clone(), audit);
    supervisor.spawn("logs", move |token| {
        let (cluster, handles, outcomes, audit) = path.clone();
        logs::run(cluster, handles, portal.clone(), outcomes, audit, token)
    });
    let (health_cluster, reports) = (cluster.clone(), handles.reports.clone());
    supervisor.spawn("health", move |token| {
        health::run(health_cluster.clone(), reports.clone(), is_deployment, token)
    });
    let path = (cluster.clone(), config.clone(), handles.link.clone(), handles.reports.clone());
    supervisor.spawn("preflight", move |token| {
        let (cluster, config, link, reports) = path.clone();
        preflight::watch::run(cluster, config, link, reports, token)
    });
    let path = (cluster.clone(), handles.clone(), outcomes);
    supervisor.spawn("initialization", move |token| {
        let (cluster, handles, outcomes) = path.clone();
        initialization::run(cluster, handles, outcomes, token)
    });
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

/// The command `preflight`: checks everything and changes nothing.
///
/// # Errors
/// None: what is wrong is in the report, and the worst of it in the exit code.
pub async fn preflight(
    config: Result<Config, ConfigError>,
    output: Output,
) -> Result<Exit, RunError> {
    let report = match &config {
        Ok(config) => {
            let client = client().await.map_err(|error| describe(&error));
            preflight::run(config, client).await
        }
        Err(error) => preflight::Report::unconfigured(error),
    };
    output.show(&report.body(), || report.table())?;
    Ok(report.exit())
}

/// The command `status`: reads the agent's objects with the caller's rights and prints them; with
/// `watch` again whenever they changed, looking that often, until nobody reads any more.
///
/// # Errors
/// When Kubernetes can't be reached or refuses; while it watches, that is said, and it goes on.
pub async fn status(
    namespace: String,
    output: Output,
    watch: Option<Duration>,
) -> Result<Exit, RunError> {
    let client = client().await?;
    let mut shown = None;
    loop {
        let read = Overview::read(&client, &namespace).await;
        let Some(pause) = watch else {
            let overview = read?;
            output.show(&overview, || overview.table())?;
            return Ok(Exit::Success);
        };
        match read {
            Ok(overview) => {
                let now = serde_json::to_value(&overview).map_err(ShowError::Json)?;
                if shown.as_ref() != Some(&now) {
                    let between = output.between(shown.is_none());
                    let reader = match console::print(between)? {
                        Reader::Listens => output.show(&now, || overview.table())?,
                        Reader::Gone => Reader::Gone,
                    };
                    if reader == Reader::Gone {
                        return Ok(Exit::Success);
                    }
                    shown = Some(now);
                }
            }
            Err(error) => eprintln!("mendix-agent: {}", describe(&error)),
        }
        tokio::time::sleep(pause).await;
    }
}

/// The command `logs preview`: reads with the caller's rights, sends nothing.
///
/// # Errors
/// When Kubernetes can't be reached or refuses, or the preview can't be written.
pub async fn preview(
    namespace: String,
    arguments: logs::preview::Arguments,
) -> Result<Exit, RunError> {
    let cluster = Cluster::connect(client().await?, namespace).await?;
    eprint!("{}", logs::preview::run(cluster, arguments).await?);
    Ok(Exit::Success)
}
