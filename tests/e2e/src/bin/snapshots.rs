//! What log snapshots cost, and how fast they stop: figures next to their goals.
//!
//! `cargo run --release -p mendix-e2e --bin snapshots -- pipeline|memory|revocation`
//!
//! The agent runs in this process with a real API server behind it; the pods and their logs are made
//! here, so that neither a kubelet nor a container runtime is measured. The control plane is a process
//! of its own. Everything goes over mTLS on loopback. It fails when a goal was missed.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use flate2::{Compression, write::GzEncoder};
use kube::{Api, api::Patch, api::PatchParams};
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
    ControlPlane, Options, Store,
    pki::ServerNames,
    portal::{self, GrantTerms, NewTicket},
    repository::Expiry,
    snapshots::UploadState,
    store::{DoneRequest, TicketOrigin, TicketSeverity, TicketStatus},
};
use mendix_e2e::{
    install,
    source::{self, COMPONENT, Source},
};
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    progress::Progress,
    proxy::{Direction, FaultProxy, Rule},
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
const PATIENCE: Duration = Duration::from_secs(600);
/// How often files and memory are looked at.
const LOOK: Duration = Duration::from_millis(2);
/// Clock ticks per second in /proc (fixed by Linux for user space).
const TICKS: f64 = 100.0;
const MIB: f64 = 1024.0 * 1024.0;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Throughput of the whole pipeline next to gzip alone on the same bytes.
    Pipeline {
        /// Bytes of logs, MiB.
        #[arg(long, default_value_t = 256)]
        mib: usize,
        /// Logs they are spread over.
        #[arg(long, default_value_t = 500)]
        streams: usize,
        /// How often to measure.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Peak resident memory over idle, with a fast, a slow and a stalled receiver: each in a process
    /// of its own, so that what one run left to the allocator is not the idle memory of the next.
    Memory {
        /// Only with this receiver, in this process.
        #[arg(long)]
        receiver: Option<Pace>,
        /// Bytes of logs, MiB.
        #[arg(long, default_value_t = 256)]
        mib: usize,
        /// Logs they are spread over.
        #[arg(long, default_value_t = 500)]
        streams: usize,
    },
    /// From a veto, or the end of a ticket, to the last byte.
    Revocation {
        /// How often to measure each.
        #[arg(long, default_value_t = 100)]
        runs: usize,
    },
    /// The control plane as a process of its own.
    #[command(hide = true)]
    Receiver { state: PathBuf },
}

/// How the other end takes what is sent.
#[derive(Clone, Copy, ValueEnum)]
enum Pace {
    Fast,
    Slow,
    Stalled,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    // The same provider that the agent installs; it fails only when it is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Arguments::parse().command {
        What::Pipeline { mib, streams, rounds } => pipeline(mib, streams, rounds).await,
        What::Memory { receiver: Some(pace), mib, streams } => memory(pace, mib, streams).await,
        What::Memory { receiver: None, mib, streams } => memory_of_each(mib, streams).await,
        What::Revocation { runs } => revocation(runs).await,
        What::Receiver { state } => receive(&state).await,
    }
}

async fn receive(state: &Path) -> Result<()> {
    let options = Options { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Options::default() };
    let plane = ControlPlane::start(Store::open(state.to_owned())?, options).await?;
    println!("{}", plane.address());
    // Until the other end of standard input is closed.
    tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    Ok(plane.shutdown().await?)
}

/// Everything that takes part.
struct Bench {
    server: ApiServer,
    store: Store,
    receiver: Child,
    proxy: FaultProxy,
    uid: String,
    folder: tempfile::TempDir,
    source: Arc<Source>,
}

/// A running agent.
struct Agent {
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Bench {
    async fn start(mib: usize, streams: usize) -> Result<Self> {
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

    async fn agent(&self) -> Result<Agent> {
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
    fn ticket(&self) -> Result<(String, String)> {
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

    async fn outcome(&self, request: &str) -> Result<DoneRequest> {
        Ok(eventually(PATIENCE, format!("{request} is answered"), async || {
            let done = self.store.cluster(&self.uid).ok()?.done;
            done.into_iter().find(|done| done.request.request_id == request)
        })
        .await?)
    }

    /// Sealed bytes that the control plane has of a ticket's upload; none before it begins and after
    /// it was discarded.
    fn received(&self, ticket: &str) -> Option<(String, u64)> {
        let upload = self.store.uploads().ok()?.into_iter().find(|u| u.ticket_id == ticket)?;
        let sealed = self.store.dir().join("snapshots").join(&upload.snapshot_id).join("sealed");
        Some((upload.snapshot_id, fs::metadata(sealed).ok()?.len()))
    }

    /// Takes a snapshot; gives how long it took and how long it is.
    async fn snapshot(&self) -> Result<(Duration, u64)> {
        let began = Instant::now();
        let (ticket, request) = self.ticket()?;
        let done = self.outcome(&request).await?;
        let took = began.elapsed();
        ensure!(done.outcome == "Succeeded", "{}: {}", done.reason, done.message);
        let (_, bytes) = self.received(&ticket).context("there is no upload")?;
        self.store.set_ticket_status(&ticket, TicketStatus::Solved)?;
        Ok((took, bytes))
    }

    async fn set_policy(&self, suspend: bool) -> Result<()> {
        let client = self.server.client().await?;
        let api: Api<LogSharingPolicy> = Api::namespaced(client, install::NAMESPACE);
        let spec = json!({ "spec": { "mode": "WithConsent", "suspend": suspend } });
        api.patch("default", &PatchParams::default(), &Patch::Merge(spec)).await?;
        Ok(())
    }

    fn receiver_cpu(&self) -> Result<f64> {
        cpu_seconds(&self.receiver.id().context("the receiver has ended")?.to_string())
    }
}

impl Agent {
    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.join_all().await;
    }
}

/// User and system time of a process, seconds.
fn cpu_seconds(process: &str) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let rest = stat.rsplit_once(')').context("no name in stat")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    Ok((ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS)
}

/// A field of /proc/self/status, bytes.
fn memory_of(field: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    let kib: f64 = line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn pipeline(mib: usize, streams: usize, rounds: usize) -> Result<()> {
    let bench = Bench::start(mib, streams).await?;
    let agent = bench.agent().await?;
    let raw = bench.source.bytes() as f64;
    let mut ratios = vec![];
    // Warm: the session, the files, the allocator.
    bench.snapshot().await?;
    for round in 1..=rounds {
        let alone = Instant::now();
        let mut gzip = GzEncoder::new(io::sink(), Compression::new(6));
        bench.source.write_all(&mut gzip)?;
        gzip.finish()?;
        let alone = alone.elapsed().as_secs_f64();
        let cpu = (cpu_seconds("self")?, bench.receiver_cpu()?);
        let (took, sealed) = bench.snapshot().await?;
        let took = took.as_secs_f64();
        let cpu = (cpu_seconds("self")? - cpu.0, bench.receiver_cpu()? - cpu.1);
        ratios.push(alone / took);
        println!(
            "round {round}: gzip alone {:.1} MB/s; pipeline {:.1} MB/s ({took:.1} s wall, {:.1} s CPU of \
             agent and source, {:.1} s of the receiver); {:.1} MiB sealed; ratio {:.2}",
            raw / alone / 1e6,
            raw / took / 1e6,
            cpu.0,
            cpu.1,
            sealed as f64 / MIB,
            alone / took,
        );
    }
    let ratio = median(ratios);
    println!(
        "{mib} MiB over {streams} logs: median ratio {ratio:.2}; goal 0.5: {}",
        met(ratio >= 0.5)
    );
    agent.stop().await;
    ensure!(ratio >= 0.5, "a goal was missed");
    Ok(())
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

async fn memory_of_each(mib: usize, streams: usize) -> Result<()> {
    let mut met = true;
    for pace in Pace::value_variants() {
        let name = pace.to_possible_value().context("a pace without a name")?;
        let run = Command::new(std::env::current_exe()?)
            .args(["memory", "--receiver", name.get_name()])
            .args(["--mib", &mib.to_string(), "--streams", &streams.to_string()])
            .status();
        met &= run.await?.success();
    }
    ensure!(met, "a goal was missed");
    Ok(())
}

async fn memory(pace: Pace, mib: usize, streams: usize) -> Result<()> {
    let (name, rule) = match pace {
        Pace::Fast => ("fast", Rule::Pass),
        Pace::Slow => ("slow (16 KiB per 20 ms)", Rule::Delay(Duration::from_millis(20))),
        Pace::Stalled => ("stalled after 1 MiB", Rule::StallAfter(1024 * 1024)),
    };
    let bench = Bench::start(mib, streams).await?;
    let agent = bench.agent().await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    // The peak so far is forgotten.
    fs::write("/proc/self/clear_refs", "5").context("reset the peak")?;
    let idle = memory_of("VmRSS")?;
    bench.proxy.set(Direction::Up, rule);
    let (_, request) = bench.ticket()?;
    let how = if let Pace::Stalled = pace {
        // Long enough for every buffer to fill and for the upload to be given up.
        tokio::time::sleep(Duration::from_secs(90)).await;
        "stalled".to_owned()
    } else {
        bench.outcome(&request).await?.outcome
    };
    let over = (memory_of("VmHWM")? - idle) / MIB;
    println!(
        "{name}: {:.1} MiB idle, peak {over:.1} MiB over it ({how}); goal 48: {}",
        idle / MIB,
        met(over <= 48.0)
    );
    bench.proxy.set_both(Rule::Pass);
    bench.proxy.cut();
    agent.stop().await;
    ensure!(over <= 48.0, "a goal was missed");
    Ok(())
}

/// One revocation, as seen from the control plane.
struct Stopped {
    /// From the act to the last byte, seconds.
    latency: f64,
    /// Bytes that arrived although nothing was to leave any more.
    after: u64,
}

async fn revocation(runs: usize) -> Result<()> {
    let bench = Bench::start(128, 16).await?;
    let agent = bench.agent().await?;
    let mut missed = false;
    for (name, local, goal) in [("local veto", true, 1.0), ("ticket solved", false, 2.0)] {
        let mut latencies = vec![];
        let mut after = 0;
        for _ in 0..runs {
            let stopped = one_revocation(&bench, local).await?;
            latencies.push(stopped.latency);
            after = after.max(stopped.after);
        }
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] * 1000.0;
        println!(
            "{name}, {runs} runs: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms; goal {goal} s: {}; at most \
             {after} bytes after; goal 262144: {}; nothing of it opens",
            at(0.5),
            at(0.99),
            at(1.0),
            met(at(0.99) <= goal * 1000.0),
            met(after <= 262_144),
        );
        missed |= at(0.99) > goal * 1000.0 || after > 262_144;
    }
    agent.stop().await;
    ensure!(!missed, "a goal was missed");
    Ok(())
}

/// Ends consent in the middle of an upload over a slow connection. Counted is from the moment before
/// the act, so what is sent while the agent does not know yet is in the figures.
async fn one_revocation(bench: &Bench, local: bool) -> Result<Stopped> {
    bench.proxy.set(Direction::Up, Rule::Delay(Duration::from_millis(10)));
    let (ticket, request) = bench.ticket()?;
    let id = eventually(PATIENCE, "bytes arrive", async || {
        bench.received(&ticket).filter(|(_, bytes)| *bytes > 0).map(|(id, _)| id)
    })
    .await?;
    let act = Instant::now();
    if local {
        bench.set_policy(true).await?;
    } else {
        bench.store.set_ticket_status(&ticket, TicketStatus::Solved)?;
    }
    let before = bench.received(&ticket).map_or(0, |(_, bytes)| bytes);
    let (mut last, mut at) = (before, Instant::now());
    let begun = Instant::now();
    loop {
        match bench.received(&ticket) {
            Some((_, bytes)) if bytes > last => (last, at) = (bytes, Instant::now()),
            // Discarded: that is the end, too.
            None => break,
            Some(_) => {}
        }
        ensure!(begun.elapsed() < PATIENCE, "it did not end");
        tokio::time::sleep(LOOK).await;
    }
    let done = bench.outcome(&request).await?;
    ensure!(done.outcome == "Revoked", "{}: {} {}", done.outcome, done.reason, done.message);
    let upload = bench.store.upload(&id)?;
    ensure!(matches!(upload.state, UploadState::Aborted { .. }), "{:?}", upload.state);
    let out = bench.folder.path().join("opened");
    ensure!(mendix_control_plane::snapshots::open(&bench.store, &id, &out).is_err(), "it opens");
    if local {
        bench.set_policy(false).await?;
        bench.store.set_ticket_status(&ticket, TicketStatus::Solved)?;
    }
    Ok(Stopped { latency: at.duration_since(act).as_secs_f64(), after: last - before })
}
