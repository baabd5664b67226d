//! What applying a release costs, next to `kubectl apply --server-side` of the same objects in the same
//! run: wall time and peak resident memory, creating everything and finding that nothing is to be done.
//! Fails when a goal was missed; the goals are for the build that is shipped.
//!
//! `cargo build --release -p mendix-agent -p mendix-e2e && target/release/apply [--objects 500,4000]`

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use kube::{Api, Client, api::ListParams};
use mendix_agent::crd::patch_bundle::{PatchBundle, PatchBundleStatus};
use mendix_agent_core::bundle::index::{Gates, ReleaseClass};
use mendix_control_plane::{
    Running,
    manifests::{self, ComponentSpec, ReleaseSpec},
    repository::{self, Expiry},
};
use mendix_e2e::{
    bench::{self, Launcher},
    install::NAMESPACE,
};
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    assets::Assets,
    progress::Progress,
    wait::eventually,
};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// Where the agent's objects go; kubectl's have a namespace of their own.
const COMPONENT: &str = "mendix-monitoring";
/// Longest wait for a session and for a run.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often kubectl's memory is looked at; the kernel keeps the peak.
const LOOK: Duration = Duration::from_millis(2);

/// How long the watches get to become warm, and how long requests are counted then.
const WARM: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(20));

/// Goal: how many times faster the agent's apply phase creates.
const CREATE_GOAL: f64 = 1.4;
/// Goal: the whole run with verification, dry run and gates, as a multiple of kubectl's time.
const WHOLE_GOAL: f64 = 1.5;
/// Goal: how many times faster a cold agent finds that nothing is to be done.
const NO_OP_GOAL: f64 = 2.0;
/// Goal: requests an object while nothing happens. Not zero, since the server's own are counted, too.
const IDLE_GOAL: f64 = 0.01;
/// Goal: peak resident memory of the agent, MiB.
const MEMORY_GOAL: f64 = 40.0;

#[derive(Parser)]
struct Arguments {
    /// Numbers of objects, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "500,4000")]
    objects: Vec<usize>,
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let assets = tokio::task::spawn_blocking(|| Assets::built(&Progress::stderr())).await??;
    let kubectl = Kubectl { program: assets.program("kubectl") };
    println!("{}", kubectl.version().await?);
    let mut missed = vec![];
    for objects in arguments.objects {
        let mut rounds = vec![];
        for round in 1..=arguments.rounds.max(1) {
            eprintln!("{objects} objects, round {round} of {}", arguments.rounds.max(1));
            rounds.push(measure(&kubectl, objects).await?);
        }
        missed.extend(Figures::median(rounds).print(objects));
    }
    for goal in &missed {
        eprintln!("missed: {goal}");
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One program doing one thing.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// The work itself: of kubectl the whole process, of the agent its apply phase.
    seconds: f64,
    /// From the release's offer to its end; as `seconds` for kubectl.
    whole: f64,
    /// Peak resident memory, MiB.
    mib: f64,
    /// Requests for the objects that reached the API server, per object.
    requests: f64,
    /// The same while nothing happens and the watches are warm; 0 for kubectl, which then runs not at all.
    idle: f64,
}

/// Both, creating and finding nothing to do.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    kubectl: [Cost; 2],
    agent: [Cost; 2],
}

/// Both do the same on an API server of their own: whoever comes second must not find it warm.
async fn measure(kubectl: &Kubectl, objects: usize) -> Result<Figures> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let mut figures = Figures::default();

    let server = ApiServer::start(ApiServerOptions::default()).await?;
    let client = server.client().await?;
    let files = folder.path().join("kubectl");
    let namespace = server.namespace("kubectl").await?;
    write(&files, &manifests_of(objects, &namespace))?;
    kubectl.warm_up(server.kubeconfig_path()).await?;
    for cost in &mut figures.kubectl {
        let before = requests(&client).await?;
        *cost = kubectl.apply(server.kubeconfig_path(), &files).await?;
        cost.requests = (requests(&client).await? - before) / objects as f64;
    }
    drop((client, server));

    let server = ApiServer::start(ApiServerOptions::default()).await?;
    let plane = bench::control_plane(folder.path()).await?;
    let site = Site {
        client: server.client().await?,
        launcher: Launcher::install(&server, &plane, folder.path()).await?,
        plane,
        manifests: folder.path().join("agent"),
        objects,
    };
    write(&site.manifests, &manifests_of(objects, COMPONENT))?;
    // The second release is of the same content, and the process that takes it knows nothing yet.
    for (release, cost) in ["1", "2"].into_iter().zip(&mut figures.agent) {
        *cost = site.release(release).await?;
    }
    site.plane.shutdown().await?;
    Ok(figures)
}

struct Kubectl {
    program: PathBuf,
}

impl Kubectl {
    async fn version(&self) -> Result<String> {
        let output = Command::new(&self.program).args(["version", "--client", "--short"]).output();
        let output = output.await.context("run kubectl")?;
        Ok(format!("kubectl: {}", String::from_utf8_lossy(&output.stdout).trim()))
    }

    fn command(&self, kubeconfig: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--cache-dir")
            .arg(kubeconfig.with_extension("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Fills its cache of the server's kinds.
    async fn warm_up(&self, kubeconfig: &Path) -> Result<()> {
        let status = self.command(kubeconfig).arg("api-resources").status().await?;
        ensure!(status.success(), "kubectl api-resources: {status}");
        Ok(())
    }

    async fn apply(&self, kubeconfig: &Path, files: &Path) -> Result<Cost> {
        let started = Instant::now();
        let mut child = self
            .command(kubeconfig)
            .args(["apply", "--server-side", "--force-conflicts", "-f"])
            .arg(files)
            .spawn()
            .context("run kubectl")?;
        let mut peak = 0.0;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                () = tokio::time::sleep(LOOK) => peak = resident_peak(&child).unwrap_or(peak),
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        ensure!(status.success(), "kubectl apply: {status}");
        Ok(Cost { seconds, whole: seconds, mib: peak, ..Cost::default() })
    }
}

struct Site {
    client: Client,
    launcher: Launcher,
    plane: Running,
    manifests: PathBuf,
    objects: usize,
}

impl Site {
    /// A fresh agent, and a release that it takes to its end.
    async fn release(&self, id: &str) -> Result<Cost> {
        let gates = Gates { timeout_seconds: 600, soak_seconds: 0 };
        let spec = ReleaseSpec {
            components: vec![ComponentSpec::new(COMPONENT, id, self.manifests.clone())],
            gates,
            ..ReleaseSpec::new(id, ReleaseClass::Critical)
        };
        let store = self.plane.store();
        repository::publish(store, manifests::draft(&spec)?, None, Expiry::default()).await?;
        let mut agent = self.launcher.start()?;
        eventually(PATIENCE, "the agent's session is up", async || {
            (self.plane.counters().sessions_open == 1).then_some(())
        })
        .await?;
        forget_peak(&agent)?;
        let before = requests(&self.client).await?;
        store.push_release(id, Some(&self.launcher.cluster_uid))?;
        let ended = eventually(PATIENCE, format!("release {id} ends"), async || {
            let status = self.bundle(id).await?;
            status.finished_at.is_some().then_some(status)
        });
        let status = ended.await?;
        if status.state != "Committed" {
            bail!(
                "release {id} ended as {}: {:?} {:?}",
                status.state,
                status.message,
                status.refusals
            );
        }
        let mib = resident_peak(&agent).context("the agent has ended")?;
        let per_object = |from: f64, to: f64| (to - from) / self.objects as f64;
        let taken = per_object(before, requests(&self.client).await?);
        tokio::time::sleep(WARM.0).await;
        let warm = requests(&self.client).await?;
        tokio::time::sleep(WARM.1).await;
        let idle = per_object(warm, requests(&self.client).await?);
        agent.kill().await?;
        eventually(PATIENCE, "the session has ended", async || {
            (self.plane.counters().sessions_open == 0).then_some(())
        })
        .await?;
        let at = |state: &str| -> Result<Timestamp> {
            let entered = status.history.iter().find(|transition| transition.state == state);
            entered.and_then(|transition| transition.at).with_context(|| format!("no {state}"))
        };
        let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
        Ok(Cost {
            seconds: seconds(at("Applying")?, at("Gating")?),
            whole: seconds(at("Receiving")?, at("Committed")?),
            mib,
            requests: taken,
            idle,
        })
    }

    async fn bundle(&self, release_id: &str) -> Option<PatchBundleStatus> {
        let bundles: Api<PatchBundle> = Api::namespaced(self.client.clone(), NAMESPACE);
        let all = bundles.list(&ListParams::default()).await.ok()?.items;
        all.into_iter().find(|bundle| bundle.spec.release_id == release_id)?.status
    }
}

/// Objects as a component has them: of ten, seven ConfigMaps of a kilobyte, a ServiceAccount, a Role, a
/// Service. Nothing among them has to get ready, so that both only apply.
fn manifests_of(objects: usize, namespace: &str) -> Vec<Value> {
    let text = "what a component reads when it starts\n".repeat(26);
    (0..objects)
        .map(|n| {
            let metadata = json!({"name": format!("object-{n}"), "namespace": namespace,
                "labels": {"app.kubernetes.io/part-of": "bench", "app.kubernetes.io/instance": n.to_string()}});
            match n % 10 {
                7 => json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
                8 => json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                    "metadata": metadata, "rules": [{"apiGroups": [""], "resources": ["configmaps"],
                    "resourceNames": [format!("object-{n}")], "verbs": ["get", "list", "watch"]}]}),
                9 => json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {
                    "clusterIP": "None", "selector": {"app": format!("object-{n}")},
                    "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}}),
                _ => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
                    "data": {"number": n.to_string(), "text": text}}),
            }
        })
        .collect()
}

fn write(folder: &Path, objects: &[Value]) -> Result<()> {
    fs::create_dir_all(folder).context("make a folder")?;
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    // A file that begins with a brace is taken for one JSON object.
    let text = format!("---\n{}", documents.join("\n---\n"));
    fs::write(folder.join("objects.yaml"), text).context("write manifests")
}

/// Requests for the kinds of [`manifests_of`] that the API server has answered; watches not counted.
async fn requests(client: &Client) -> Result<f64> {
    let text = client.request_text(http::Request::get("/metrics").body(vec![])?).await?;
    let kinds = ["configmaps", "serviceaccounts", "roles", "services"];
    let counts = text.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && !line.contains("verb=\"WATCH\"")
            && kinds.iter().any(|kind| line.contains(&format!("resource=\"{kind}\"")))
    });
    Ok(counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

/// Peak resident memory, MiB.
fn resident_peak(child: &Child) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()?)).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Lets the peak begin anew: what starting cost is not what the release costs.
fn forget_peak(child: &Child) -> Result<()> {
    let pid = child.id().context("the agent has ended")?;
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak of memory")
}

impl Figures {
    /// The median of each figure by itself.
    fn median(rounds: Vec<Self>) -> Self {
        let of = |figure: &dyn Fn(&Self) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let cost = |side: &dyn Fn(&Self) -> Cost| Cost {
            seconds: of(&|round| side(round).seconds),
            whole: of(&|round| side(round).whole),
            mib: of(&|round| side(round).mib),
            requests: of(&|round| side(round).requests),
            idle: of(&|round| side(round).idle),
        };
        Self {
            kubectl: [cost(&|round| round.kubectl[0]), cost(&|round| round.kubectl[1])],
            agent: [cost(&|round| round.agent[0]), cost(&|round| round.agent[1])],
        }
    }

    /// Prints the figures and returns the goals that were missed.
    fn print(&self, objects: usize) -> Vec<String> {
        let mut table = Table::new();
        let header = ["", "agent", "kubectl", "kubectl / agent"];
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
        let mut row = |name: &str, agent: f64, kubectl: f64| {
            let ratio = format!("{:.2}", kubectl / agent);
            table.add_row([name, &format!("{agent:.2}"), &format!("{kubectl:.2}"), &ratio]);
        };
        for (at, what) in ["create", "no-op"].into_iter().enumerate() {
            let (agent, kubectl) = (self.agent[at], self.kubectl[at]);
            row(&format!("{what}: applying, s"), agent.seconds, kubectl.seconds);
            row(&format!("{what}: whole run, s"), agent.whole, kubectl.whole);
            row(&format!("{what}: peak memory, MiB"), agent.mib, kubectl.mib);
            row(&format!("{what}: requests an object"), agent.requests, kubectl.requests);
            row(&format!("{what}: requests an object, idle after"), agent.idle, kubectl.idle);
        }
        println!("{objects} objects\n{table}");
        let [create, no_op] = [0, 1].map(|at| (self.agent[at], self.kubectl[at]));
        let mut missed = vec![];
        let mut goal = |met: bool, text: String| {
            if !met {
                missed.push(format!("{objects} objects: {text}"));
            }
        };
        let faster = create.1.seconds / create.0.seconds;
        goal(
            faster >= CREATE_GOAL,
            format!("creates {faster:.2} times as fast, the goal is {CREATE_GOAL}"),
        );
        let whole = create.0.whole / create.1.whole;
        goal(
            whole <= WHOLE_GOAL,
            format!("the whole run takes {whole:.2} times as long, the goal is {WHOLE_GOAL}"),
        );
        let faster = no_op.1.seconds / no_op.0.seconds;
        goal(
            faster >= NO_OP_GOAL,
            format!("finds nothing to do {faster:.2} times as fast, the goal is {NO_OP_GOAL}"),
        );
        let idle = no_op.0.idle;
        goal(
            idle <= IDLE_GOAL,
            format!("{idle:.3} requests an object while the watches are warm, the goal is none"),
        );
        let mib = create.0.mib.max(no_op.0.mib);
        goal(mib <= MEMORY_GOAL, format!("{mib:.1} MiB at the peak, the goal is {MEMORY_GOAL}"));
        missed
    }
}
