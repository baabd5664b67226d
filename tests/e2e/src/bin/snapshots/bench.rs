//! What is measured: the agent in this process, an API server whose pods and logs are made here, and the
//! control plane as a process of its own behind a proxy.

use std::{
    fs,
    net::SocketAddr,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mendix_agent::{
    audit::Audit,
    channel,
    cluster::Cluster,
    config::{Config, LogConfig, LogFormat, Route},
    crd::log_sharing_policy::LogSharingPolicy,
    logs,
    requests::RequestOutcomes,
};
use mendix_agent_core::consent::grant::Budget;
use mendix_control_plane::{
    Store,
    pki::ServerNames,
    portal::{self, GrantTerms, NewTicket},
    repository::Expiry,
    store::{DoneRequest, TicketOrigin, TicketSeverity, TicketStatus},
};
use mendix_e2e::{
    install,
    source::{self, COMPONENT, Source},
};
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    progress::Progress,
    proxy::FaultProxy,
    wait::eventually,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// Clock ticks per second in /proc (fixed by Linux for user space).
const TICKS: f64 = 100.0;

/// Everything that takes part.
pub(crate) struct Bench {
    server: ApiServer,
    pub(crate) store: Store,
    receiver: Child,
    pub(crate) proxy: FaultProxy,
    uid: String,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) source: Arc<Source>,
}

/// A running agent.
pub(crate) struct Agent {
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Bench {
    pub(crate) async fn start(mib: usize, streams: usize) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let options =
            ApiServerOptions { progress: Progress::stderr(), ..ApiServerOptions::default() };
        let server = ApiServer::start(options).await?;
        let client = server.client().await?;
        install::foundation(&client).await?;
        source::install_component(&client).await?;
        let names = ServerNames { dns: vec![], ips: vec![[127, 0, 0, 1].into()] };
        let state = folder.path().join("plane");
        let store = mendix_control_plane::init(&state, &names, Expiry::default()).await?;
        let uid = install::cluster_uid(&client).await?;
        let token = store.register_cluster(&uid, "default")?;
        fs::write(folder.path().join("token"), token.0).context("write the token")?;
        let mut receiver = Command::new(std::env::current_exe()?)
            .arg("receiver")
            .arg(&state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the receiver")?;
        let stdout = receiver.stdout.take().context("the receiver has no output")?;
        let address = BufReader::new(stdout).lines().next_line().await?;
        let address: SocketAddr = address.context("the receiver said nothing")?.parse()?;
        let proxy = FaultProxy::start(address).await?;
        let source = Arc::new(Source::new(mib * 1024 * 1024, streams));
        Ok(Self { server, store, receiver, proxy, uid, folder, source })
    }

    pub(crate) async fn agent(&self) -> Result<Agent> {
        let real = self.server.client_for(install::NAMESPACE, "mendix-agent").await?;
        let client = Arc::clone(&self.source).before(real);
        let cluster = Cluster::connect(client, install::NAMESPACE.into()).await?;
        let config = Config {
            endpoint: format!("https://{}", self.proxy.address()).parse()?,
            allow_public_endpoint: false,
            allow_loopback_endpoint: true,
            route: Route::default(),
            trust_dir: self.store.trust_dir(),
            bootstrap_token_file: self.folder.path().join("token"),
            service_account_token_file: None,
            identity_dir: None,
            namespace: install::NAMESPACE.into(),
            listen: ([127, 0, 0, 1], 0).into(),
            upgrade_after: std::time::Duration::from_secs(600),
            log: LogConfig { filter: "off".into(), format: LogFormat::Text },
        };
        let (handles, worker) = channel::open(&config, &cluster)?;
        let audit = Audit::new(&cluster, handles.checkpoints.clone());
        // The keys that came with the trust folder; nobody rotates them here.
        let (unrotated, keys) = watch::channel(None);
        let portal = logs::Portal { trust_dir: config.trust_dir.clone(), found: keys };
        let outcomes =
            RequestOutcomes::new(handles.desired.requests.clone(), handles.reports.clone());
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let token = shutdown.clone();
        tasks.spawn(async move {
            if let Err(error) = worker.run(token).await {
                eprintln!("the channel ended: {error}");
            }
        });
        tasks.spawn(outcomes.clone().run(shutdown.clone()));
        let (recorded, of_audit, token) = (audit.clone(), handles.clone(), shutdown.clone());
        tasks.spawn(async move {
            if let Err(error) = mendix_agent::audit::run(recorded, of_audit, token).await {
                eprintln!("the audit log ended: {error}");
            }
        });
        let token = shutdown.clone();
        tasks.spawn(async move {
            // Kept: a closed channel would mean that the other side has gone.
            let _unrotated = unrotated;
            if let Err(error) = logs::run(cluster, handles, portal, outcomes, audit, token).await {
                eprintln!("the log path ended: {error}");
            }
        });
        Ok(Agent { shutdown, tasks })
    }

    /// Opens a ticket with consent; gives it and the id of the request that comes with it.
    pub(crate) fn ticket(&self) -> Result<(String, String)> {
        let budget = Budget { snapshots: 5, bytes: 1024 * 1024 * 1024 };
        let terms = GrantTerms { budget, ..GrantTerms::for_components(vec![COMPONENT.into()]) };
        let new = NewTicket {
            ticket_id: None,
            cluster_uid: self.uid.clone(),
            title: "measured".into(),
            severity: TicketSeverity::Low,
            origin: TicketOrigin::Customer,
            grant: Some(terms),
        };
        let (ticket, request) = portal::open_ticket(&self.store, new)?;
        Ok((ticket.ticket_id, request.context("nothing was requested")?.request_id))
    }

    pub(crate) async fn outcome(&self, request: &str) -> Result<DoneRequest> {
        Ok(eventually(PATIENCE, format!("{request} is answered"), async || {
            let done = self.store.cluster(&self.uid).ok()?.done;
            done.into_iter().find(|done| done.request.request_id == request)
        })
        .await?)
    }

    /// Sealed bytes that the control plane has of a ticket's upload; none before it begins and after
    /// it was discarded.
    pub(crate) fn received(&self, ticket: &str) -> Option<(String, u64)> {
        let upload = self.store.uploads().ok()?.into_iter().find(|u| u.ticket_id == ticket)?;
        let sealed = self.store.dir().join("snapshots").join(&upload.snapshot_id).join("sealed");
        Some((upload.snapshot_id, fs::metadata(sealed).ok()?.len()))
    }

    /// Takes a snapshot; gives how long it took and how long it is.
    pub(crate) async fn snapshot(&self) -> Result<(Duration, u64)> {
        let began = Instant::now();
        let (ticket, request) = self.ticket()?;
        let done = self.outcome(&request).await?;
        let took = began.elapsed();
        ensure!(done.outcome == "Succeeded", "{}: {}", done.reason, done.message);
        let (_, bytes) = self.received(&ticket).context("there is no upload")?;
        self.store.set_ticket_status(&ticket, TicketStatus::Solved)?;
        Ok((took, bytes))
    }

    pub(crate) async fn set_policy(&self, suspend: bool) -> Result<()> {
        let client = self.server.client().await?;
        let api: Api<LogSharingPolicy> = Api::namespaced(client, install::NAMESPACE);
        let spec = json!({ "spec": { "mode": "WithConsent", "suspend": suspend } });
        api.patch("default", &PatchParams::default(), &Patch::Merge(spec)).await?;
        Ok(())
    }

    pub(crate) fn receiver_cpu(&self) -> Result<f64> {
        cpu_seconds(&self.receiver.id().context("the receiver has ended")?.to_string())
    }
}

impl Agent {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.join_all().await;
    }
}

/// User and system time of a process, seconds.
pub(crate) fn cpu_seconds(process: &str) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let rest = stat.rsplit_once(')').context("no name in stat")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    Ok((ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS)
}

/// A field of /proc/self/status, bytes.
pub(crate) fn memory_of(field: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    let kib: f64 = line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024.0)
}
