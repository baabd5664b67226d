//! One node with an installed agent, and the control plane on the machine beside it.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, ContainerStatus, Event, Pod, PodTemplateSpec},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams, Patch, PatchParams},
};
use mendix_agent::crd::{
    patch_bundle::PatchBundle,
    upgrade_trial::{UpgradeTrial, UpgradeTrialStatus},
};
use mendix_agent_core::bundle::index::{Gates, ReleaseClass};
use mendix_control_plane::{
    ControlPlane, Options, Running, Store,
    manifests::{self, ComponentSpec, ReleaseSpec},
    pki::ServerNames,
    repository::{self, Expiry},
};
use mendix_e2e::install::{self, NAMESPACE};
use mendix_test_kit::{
    agent_image,
    node::{Node, NodeOptions},
    progress::Progress,
    wait::eventually,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for the end of a run: a trial, and the pods that come and go around it.
const RUN: Duration = Duration::from_secs(900);
/// Longest wait for pods to be there, or a session.
const PODS: Duration = Duration::from_secs(600);
/// How long a session has to be held before an upgrade and during one.
const STABLE_SECONDS: u32 = 3;
const AGENT: &str = "mendix-agent";
const GUARD: &str = "mendix-agent-guard";

/// In what a version differs besides its image.
pub(crate) enum Change {
    None,
    /// Fields of the container.
    Container(Value),
    /// Volumes.
    Volumes(Value),
}

/// What ran before a release.
pub(crate) struct Before {
    pods: PodTemplateSpec,
    guard: String,
}

pub(crate) struct World {
    node: Node,
    client: Client,
    uid: String,
    binary: std::path::PathBuf,
    store: Store,
    plane: Option<Running>,
    listen: SocketAddr,
    releases: u32,
    images: u32,
    folder: TempDir,
}

impl World {
    /// Installed, enrolled, connected.
    pub(crate) async fn new() -> Result<Self> {
        let build = || agent_image::build(agent_image::AGENT, &Progress::silent());
        let binary = tokio::task::spawn_blocking(build).await??;
        let node = Node::start(NodeOptions::default()).await?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let client = node.client().await?;
        let uid = install::cluster_uid(&client).await?;
        let names = ServerNames { dns: vec![], ips: vec![node.node_ip()] };
        let state = folder.path().join("plane");
        let store = mendix_control_plane::init(&state, &names, Expiry::default()).await?;
        let listen = SocketAddr::from((node.node_ip(), 0));
        let mut world = Self {
            node,
            client,
            uid,
            binary,
            store,
            plane: None,
            listen,
            releases: 0,
            images: 0,
            folder,
        };
        world.start_plane().await?;
        let token = world.store.register_cluster(&world.uid, "default")?;
        let image = world.next_image().await?;
        let site = install::Site {
            image: &image,
            endpoint: &format!("https://{}", world.listen),
            trust: &world.store.trust_dir(),
            token: &token.0,
            settings: &format!("upgradeAfterSeconds: {STABLE_SECONDS}\n"),
        };
        install::install(&world.client, &site).await?;
        world.sound().await?;
        Ok(world)
    }

    pub(crate) fn scenario(&self, name: &str) {
        println!("{} {name}", Timestamp::now().strftime("%H:%M:%S"));
    }

    /// An image of the agent that the node has and that no other release has named.
    pub(crate) async fn next_image(&mut self) -> Result<String> {
        self.images += 1;
        let tag = format!("upgrade-{}", self.images);
        // With what answers probes and is no agent.
        let busybox = self.node.programs_folder().join("busybox");
        let image = agent_image::image(&self.binary, &tag)
            .label("version", &tag)
            .file("usr/bin/busybox", 0o755, &busybox)
            .folder("www", 0o755)
            .bytes("www/livez", 0o644, "ok")
            .bytes("www/readyz", 0o644, "ok");
        let archive = image.write(&self.folder.path().join(format!("{tag}.tar")))?;
        self.node.import_image(&archive.path).await?;
        fs::remove_file(&archive.path)?;
        Ok(archive.by_digest)
    }

    /// Publishes and pushes a release of the agent with a trial that lasts so many seconds.
    pub(crate) async fn release(&mut self, image: &str, change: Change, lasts: u32) -> Result<()> {
        let gates = Gates { timeout_seconds: lasts, soak_seconds: STABLE_SECONDS };
        self.release_with(image, change, gates).await
    }

    pub(crate) async fn release_with(
        &mut self,
        image: &str,
        change: Change,
        gates: Gates,
    ) -> Result<()> {
        self.releases += 1;
        let id = self.release_id();
        let mut container = json!({"name": "agent", "image": image});
        let mut pods = json!({});
        match change {
            Change::None => {}
            Change::Container(fields) => {
                let fields = fields.as_object().context("fields")?.clone();
                container.as_object_mut().context("a container")?.extend(fields);
            }
            Change::Volumes(volumes) => pods["volumes"] = volumes,
        }
        pods["containers"] = json!([container]);
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": AGENT, "namespace": NAMESPACE},
            "spec": {"template": {"spec": pods}}});
        let dir = self.folder.path().join(&id);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("agent.json"), deployment.to_string())?;
        let mut spec = ReleaseSpec::new(&id, ReleaseClass::Critical);
        spec.gates = gates;
        spec.components = vec![ComponentSpec::new(AGENT, format!("0.1.{}", self.releases), dir)];
        let draft = manifests::draft(&spec)?;
        Box::pin(repository::publish(&self.store, draft, None, Expiry::default())).await?;
        self.store.push_release(&id, Some(&self.uid))?;
        Ok(())
    }

    /// A version that has to be put back for this cause, and its release with it.
    pub(crate) async fn reverted(&mut self, change: Change, lasts: u32, cause: &str) -> Result<()> {
        let before = self.before().await?;
        let image = self.next_image().await?;
        self.release(&image, change, lasts).await?;
        self.put_back(before, cause).await
    }

    /// What runs now.
    pub(crate) async fn before(&self) -> Result<Before> {
        let pods = self.deployment(AGENT).await?.spec.template;
        Ok(Before { pods, guard: self.image(GUARD).await? })
    }

    /// Waits until the last release has gone back for this cause; all is as before it then.
    pub(crate) async fn put_back(&self, before: Before, cause: &str) -> Result<()> {
        self.ended("RolledBack").await?;
        let trial = self.trial().await?;
        ensure!(trial.phase == "Reverted" && trial.cause.as_deref() == Some(cause), "{trial:?}");
        let after = self.before().await?;
        ensure!(before.pods == after.pods, "the pods are not as before");
        ensure!(before.guard == after.guard, "the guard stays what it was");
        self.sound().await
    }

    fn release_id(&self) -> String {
        format!("2026.11.{}", self.releases)
    }

    async fn bundle(&self) -> Result<Option<PatchBundle>> {
        let api: Api<PatchBundle> = Api::namespaced(self.client.clone(), NAMESPACE);
        let id = self.release_id();
        let all = api.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().find(|bundle| bundle.spec.release_id == id))
    }

    /// Waits until the run of the last release has ended, which has to be so.
    pub(crate) async fn ended(&self, wanted: &str) -> Result<()> {
        let ends = ["Committed", "RolledBack", "Postponed", "Held", "Refused"];
        // A release that was postponed is tried again: that is no end where another is waited for.
        let passing = |state: &str| state == "Postponed" && wanted != "Postponed";
        let what = format!("release {} is {wanted}", self.release_id());
        let status = eventually(RUN, what, async || {
            let status = self.bundle().await.ok()??.status?;
            let state = status.state.as_str();
            (ends.contains(&state) && !passing(state)).then_some(status)
        })
        .await?;
        ensure!(status.state == wanted, "it is {}: {:?}", status.state, status.message);
        println!("  {} {}", status.state, status.message.unwrap_or_default());
        Ok(())
    }

    /// The newest trial of the last release.
    pub(crate) async fn trial(&self) -> Result<UpgradeTrialStatus> {
        let api: Api<UpgradeTrial> = Api::namespaced(self.client.clone(), NAMESPACE);
        let id = self.release_id();
        let all = api.list(&ListParams::default()).await?.items;
        let mine = all.into_iter().filter(|trial| trial.spec.release_id == id);
        let newest = mine.max_by_key(|trial| trial.metadata.creation_timestamp.clone());
        newest.and_then(|trial| trial.status).context("no trial was taken up")
    }

    /// Waits until the new version is rolled out.
    pub(crate) async fn on_trial(&self) -> Result<()> {
        let api: Api<UpgradeTrial> = Api::namespaced(self.client.clone(), NAMESPACE);
        eventually(PODS, "the new version is rolled out", async || {
            let deployment = serde_json::to_value(self.deployment(AGENT).await.ok()?).ok()?;
            let trial = api.get(mendix_agent::upgrade::trial_of(&deployment)?).await.ok()?;
            (trial.spec.release_id == self.release_id()).then_some(())
        })
        .await?;
        Ok(())
    }

    pub(crate) async fn deadline_passed(&self) -> Result<()> {
        let deadline = self.trial().await?.deadline.context("no deadline")?;
        // Late enough for a guard to have acted.
        let late = deadline + jiff::SignedDuration::from_secs(10);
        eventually(RUN, "the deadline passes", async || (Timestamp::now() > late).then_some(()))
            .await?;
        Ok(())
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn deployment(&self, name: &str) -> Result<Deployment> {
        self.deployments().get(name).await.with_context(|| format!("get Deployment {name}"))
    }

    /// The image that a Deployment asks for.
    pub(crate) async fn image(&self, name: &str) -> Result<String> {
        let pods = self.deployment(name).await?.spec.template.spec;
        let container = pods.and_then(|pods| pods.containers.into_iter().next());
        container.and_then(|container| container.image).context("no image")
    }

    pub(crate) async fn scale_guard(&self, replicas: u32) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.deployments().patch(GUARD, &PatchParams::default(), &patch).await?;
        eventually(PODS, format!("{replicas} guards run"), async || {
            let status = self.deployment(GUARD).await.ok()?.status?;
            (status.replicas.unwrap_or(0) == i32::try_from(replicas).ok()?).then_some(())
        })
        .await?;
        Ok(())
    }

    /// The kubelet, the container runtime and all processes of all pods are gone at once in the middle
    /// of a trial, and none could say goodbye. When Kubernetes has noticed, the node boots again; the
    /// guard and the agent run on it once more, in containers of after that.
    pub(crate) async fn power_failure(&mut self) -> Result<()> {
        self.node.power_off().await?;
        ensure!(self.trial().await?.phase == "Trial", "it went down in the middle of the trial");
        // Kubernetes tells times of containers in whole seconds.
        let booted = Timestamp::from_second(Timestamp::now().as_second())?;
        self.node.power_on().await?;
        println!("  the node is up again");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        for name in [AGENT, GUARD] {
            let of = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
            eventually(PODS, format!("{name} runs again"), async || {
                let pods = pods.list(&of).await.ok()?.items;
                let containers = pods.iter().filter_map(|pod| pod.status.as_ref());
                let mut containers =
                    containers.flat_map(|status| status.container_statuses.iter().flatten());
                let running = |container: &ContainerStatus| {
                    let running = container.state.as_ref()?.running.as_ref()?;
                    Some(running.started_at.as_ref()?.0 >= booted)
                };
                containers.any(|container| running(container) == Some(true)).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// A copy of the trust folder in which the portal's keys can't be read.
    pub(crate) async fn trust_without_keys(&self, name: &str) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
        let mut data = maps.get("mendix-agent-trust").await?.data.unwrap_or_default();
        data.insert("consent-keys.json".into(), "{}".into());
        let map = ConfigMap {
            metadata: kube::api::ObjectMeta { name: Some(name.into()), ..Default::default() },
            data: Some(data),
            ..Default::default()
        };
        maps.create(&Default::default(), &map).await?;
        Ok(())
    }

    pub(crate) async fn stop_plane(&mut self) -> Result<()> {
        let plane = self.plane.take().context("no control plane runs")?;
        Ok(plane.shutdown().await?)
    }

    pub(crate) async fn start_plane(&mut self) -> Result<()> {
        let options = Options { listen: self.listen, ..Options::default() };
        let plane = ControlPlane::start(self.store.clone(), options).await?;
        // The same address from now on.
        self.listen = plane.address();
        self.plane = Some(plane);
        Ok(())
    }

    /// All is as it should be between two scenarios: both Deployments are rolled out and none of their
    /// pods is left over, and the agent is connected.
    pub(crate) async fn sound(&self) -> Result<()> {
        for name in [AGENT, GUARD] {
            eventually(PODS, format!("{name} is rolled out"), async || {
                let deployment = self.deployment(name).await.ok()?;
                let status = deployment.status?;
                let wanted = deployment.spec.replicas;
                let settled = status.observed_generation == deployment.metadata.generation
                    && status.updated_replicas == wanted
                    && status.available_replicas == wanted
                    && status.replicas == wanted;
                settled.then_some(())
            })
            .await?;
        }
        let plane = self.plane.as_ref().context("no control plane runs")?;
        eventually(PODS, "the agent is connected", async || {
            (plane.counters().sessions_open > 0).then_some(())
        })
        .await?;
        Ok(())
    }

    /// Prints what is needed to understand a failure.
    pub(crate) async fn explain(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let all = pods.list(&ListParams::default()).await.map(|list| list.items);
        for pod in all.unwrap_or_default() {
            println!("== {} {:?}", pod.name_any(), pod.status.and_then(|s| s.container_statuses));
            let tail = LogParams { tail_lines: Some(25), ..Default::default() };
            let name = pod.metadata.name.unwrap_or_default();
            println!("{}", pods.logs(&name, &tail).await.unwrap_or_default());
        }
        let trials: Api<UpgradeTrial> = Api::namespaced(self.client.clone(), NAMESPACE);
        for trial in trials.list(&ListParams::default()).await.map(|l| l.items).unwrap_or_default()
        {
            println!("== {} {:?}", trial.name_any(), trial.status);
        }
        let events: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        let all = events.list(&ListParams::default()).await.map(|list| list.items);
        for event in all.unwrap_or_default() {
            let about = event.involved_object.name.unwrap_or_default();
            let (reason, note) = (event.reason, event.message);
            println!("{about}: {} {}", reason.unwrap_or_default(), note.unwrap_or_default());
        }
    }
}
