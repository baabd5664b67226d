//! What the demo plays on: a cluster, the control plane as a process of its own, the images, and one
//! folder with everybody's state and logs.

mod commands;
mod plane;

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use kube::Client;
use mendix_control_plane::{Store, store::AgentRecord};
use mendix_test_kit::{
    agent_image,
    apiserver::AuditLog,
    helm::{Helm, HelmError},
    image::Image,
    inventory::{inventory, unsettled},
    node::{Node, NodeOptions},
    progress::Progress as KitProgress,
    wait::eventually,
};
use tokio::process::Child;

use self::plane::{control_plane, free_port};
use crate::{
    binaries::{self, Binaries, workspace},
    chart::{self, Chart},
    install,
    ui::Ui,
};

/// Longest wait for the control plane to listen.
const LISTENING: Duration = Duration::from_secs(120);

/// Which cluster the demo runs on.
#[derive(Clone, Debug)]
pub enum Where {
    /// A one-node Kubernetes of its own.
    Own {
        /// Let it outlive the demo.
        keep: bool,
    },
    /// One that is there already.
    Given(Given),
}

/// What the demo has to be told about a cluster it did not make.
#[derive(Clone, Debug)]
pub struct Given {
    /// Context of the kubeconfig.
    pub context: Option<String>,
    /// The agent's image there, by digest.
    pub agent_image: String,
    /// An image with `sh` there, by digest, for the managed components.
    pub workload_image: String,
    /// Address of this machine that pods reach; the control plane listens there.
    pub listen: IpAddr,
}

/// Everything the steps use.
pub struct Stage {
    /// What is shown.
    pub ui: Ui,
    /// A client that may do everything.
    pub client: Client,
    /// The cluster's name on every surface.
    pub cluster_uid: String,
    /// State and logs of this run.
    pub folder: PathBuf,
    /// Image of the managed components.
    pub workload_image: String,
    agent_image: String,
    endpoint: SocketAddr,
    binaries: Binaries,
    kubectl: PathBuf,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    server: Child,
    node: Option<Node>,
    keep: bool,
    chart: OnceCell<Chart>,
    /// What was there before the agent; none in a cluster where others make objects, too.
    before: Option<BTreeSet<String>>,
}

impl Stage {
    /// Builds, starts and connects everything but the agent.
    ///
    /// # Errors
    /// Whatever can't be built or started, with what to do about it.
    pub async fn set(at: Where, folder: PathBuf) -> Result<Self> {
        let ui = Ui::default();
        ui.heading(0, "Set the stage");
        let progress = ui.progress("building");
        let binaries = binaries::build(&progress).await?;
        progress.done("the agent and the control plane are built");
        match at {
            Where::Own { keep } => Self::own(ui, binaries, folder, keep).await,
            Where::Given(given) => Self::given(ui, binaries, folder, given).await,
        }
    }

    async fn own(ui: Ui, binaries: Binaries, folder: PathBuf, keep: bool) -> Result<Self> {
        let progress = ui.progress("starting Kubernetes");
        let options = NodeOptions {
            audit: true,
            detached: keep,
            progress: KitProgress::to(progress.sayer()),
            ..NodeOptions::default()
        };
        let node = Node::start(options).await?;
        progress.say("importing the images");
        let agent = agent_image::image(&binaries.agent, "demo")
            .write(&folder.join("mendix-agent.tar"))
            .context("write the agent's image")?;
        node.import_image(&agent.path).await?;
        let workload = workload_image(&node, &folder)?;
        node.import_image(&workload.path).await?;
        let client = node.client().await?;
        let before = eventually(LISTENING, "the controllers have made their objects", async || {
            let now = inventory(&client).await?;
            unsettled(&now).is_none().then_some(now)
        })
        .await?;
        progress.done("one node, its own API server, two images loaded from files");
        ui.line(format!("KUBECONFIG={}", node.kubeconfig_path().display()));
        let address = free_port(node.node_ip())?;
        let (endpoint, server) = control_plane(&ui, &binaries, &folder, address, keep).await?;
        let cluster_uid = install::cluster_uid(&client).await?;
        Ok(Self {
            ui,
            client,
            cluster_uid,
            folder,
            workload_image: workload.by_digest,
            agent_image: agent.by_digest,
            endpoint,
            binaries,
            kubectl: node.kubectl(),
            kubeconfig: Some(node.kubeconfig_path().to_owned()),
            context: None,
            server,
            node: Some(node),
            keep,
            chart: OnceCell::new(),
            before: Some(before),
        })
    }

    async fn given(ui: Ui, binaries: Binaries, folder: PathBuf, given: Given) -> Result<Self> {
        let options = kube::config::KubeConfigOptions {
            context: given.context.clone(),
            ..Default::default()
        };
        let config =
            kube::Config::from_kubeconfig(&options).await.context("read the kubeconfig")?;
        let client = Client::try_from(config).context("make a Kubernetes client")?;
        let cluster_uid = install::cluster_uid(&client).await?;
        let address = free_port(given.listen)?;
        let (endpoint, server) = control_plane(&ui, &binaries, &folder, address, false).await?;
        Ok(Self {
            ui,
            client,
            cluster_uid,
            folder,
            workload_image: given.workload_image,
            agent_image: given.agent_image,
            endpoint,
            binaries,
            kubectl: "kubectl".into(),
            kubeconfig: None,
            context: given.context,
            server,
            node: None,
            keep: false,
            chart: OnceCell::new(),
            before: None,
        })
    }

    /// Registers the cluster and installs the agent as a pod.
    ///
    /// # Errors
    /// When the API server refuses a manifest, or the control plane the cluster.
    pub async fn install_agent(&self) -> Result<()> {
        let registered =
            self.operator(&["cluster", "register", "--uid", &self.cluster_uid]).await?;
        let token = registered["token"].as_str().context("no token was printed")?;
        let store = self.store()?;
        let site = install::Site {
            image: &self.agent_image,
            endpoint: &format!("https://{}", self.endpoint),
            trust: &store.trust_dir(),
            token,
            settings: "",
        };
        match tokio::task::spawn_blocking(Helm::find).await? {
            Ok(helm) => {
                let version = self.client.apiserver_version().await.context("get /version")?;
                let chart = Chart::new(helm, &site, version.git_version, &self.folder)?;
                let (file, rendered) = self.rendered(&chart, "agent.yaml", &[])?;
                self.kubectl(&["apply", "-f", &file]).await?;
                let policy = workspace().join("packaging/manifests/30-policy.yaml");
                self.kubectl(&["create", "-f", &policy.display().to_string()]).await?;
                let objects = chart::entries(&rendered)?.len() + 1;
                self.ui.line(format!("{objects} objects applied; image {}", self.agent_image));
                self.chart.set(chart).map_err(|_| anyhow!("the agent was installed before"))
            }
            // What was fetched and is not what was pinned is no reason to go on without.
            Err(error @ HelmError::Digest { .. }) => Err(error.into()),
            Err(error) => {
                self.ui.line(format!("{error}\nso packaging/manifests is installed instead"));
                let objects = install::install(&self.client, &site).await?;
                self.ui.line(format!("{objects} objects applied; image {}", self.agent_image));
                Ok(())
            }
        }
    }

    /// Deletes what the chart brought, except the namespaces of the components, and returns that as
    /// it was rendered; nothing when the agent was installed otherwise. Does not wait for the end.
    ///
    /// # Errors
    /// When Helm or kubectl refuses.
    pub async fn uninstall_agent(&self) -> Result<Option<String>> {
        let Some(chart) = self.chart.get() else { return Ok(None) };
        let keep = ["--set", "managedNamespaces.create=false"];
        let (file, rendered) = self.rendered(chart, "uninstall.yaml", &keep)?;
        self.kubectl(&["delete", "--wait=false", "-f", &file]).await?;
        Ok(Some(rendered))
    }

    /// Renders the chart into a file of the run's folder; shown as it would be typed.
    fn rendered(&self, chart: &Chart, file: &str, more: &[&str]) -> Result<(String, String)> {
        self.ui.command(&format!("{} > {file}", chart.command(more)));
        let rendered = chart.render(more)?;
        let path = self.folder.join(file);
        std::fs::write(&path, &rendered).with_context(|| format!("write {file}"))?;
        Ok((path.display().to_string(), rendered))
    }

    /// Whether the cluster and the agent outlive the demo.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// Whether an object, as an inventory names it, came since the stage was set; none did where that
    /// can't be told.
    pub fn is_new(&self, entry: &str) -> bool {
        self.before.as_ref().is_some_and(|before| !before.contains(entry))
    }

    /// The control plane's state, to look at.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn store(&self) -> Result<Store> {
        Ok(Store::open(self.state())?)
    }

    /// What the control plane knows of the agent; `None` before the first session.
    ///
    /// # Errors
    /// When its state can't be read.
    pub fn agent(&self) -> Result<Option<AgentRecord>> {
        Ok(self.store()?.agent(&self.cluster_uid)?)
    }

    /// The API server's audit log; only a node of our own has one.
    pub fn audit(&self) -> Option<AuditLog> {
        self.node.as_ref().and_then(|node| node.audit_log())
    }

    fn state(&self) -> PathBuf {
        self.folder.join("control-plane")
    }

    /// Leaves everything running and says how to go on and how to end it.
    pub fn keep(self) {
        let kubeconfig = self.kubeconfig.clone().unwrap_or_default();
        let plane =
            format!("{} --state {}", self.binaries.control_plane.display(), self.state().display());
        let pid = self.server.id().unwrap_or_default();
        self.ui.line(format!(
            "\nAll of it is still running. Go on with:\n\n\
             export KUBECONFIG={}\n\
             alias kubectl={}\n\
             alias plane='{plane}'\n\
             kubectl get mendix -A\n\
             plane agents --watch\n\
             plane release publish --id my.1 --class weekly --component mendix-operator=YOUR-FOLDER\n\
             plane release push my.1\n\
             plane ticket open --title 'look at this' --grant --components mendix-monitoring\n\
             plane snapshot list\n\n\
             End it with:\n\n\
             kill {pid} && cargo demo --stop",
            kubeconfig.display(),
            self.kubectl.display(),
        ));
        if let Some(node) = self.node {
            std::mem::forget(node);
        }
        std::mem::forget(self.server);
    }

    /// Ends everything that was started and puts the machine back.
    ///
    /// # Errors
    /// When the node does not end.
    pub async fn strike(mut self) -> Result<Ui> {
        self.server.start_kill().context("end the control plane")?;
        self.server.wait().await.context("wait for the control plane")?;
        if let Some(node) = self.node.take() {
            tokio::task::spawn_blocking(move || node.stop()).await??;
        }
        Ok(self.ui)
    }
}

/// The image of the managed components: a shell and what their scripts call.
///
/// # Errors
/// When it can't be written.
pub fn workload_image(node: &Node, folder: &Path) -> Result<mendix_test_kit::image::Archive> {
    let busybox = node.programs_folder().join("busybox");
    let tools = ["sh", "echo", "sleep", "true", "false", "cat"];
    let image = Image::new("localhost/demo-workload", "1").folder("tmp", 0o1777).file(
        "bin/busybox",
        0o755,
        &busybox,
    );
    let image = tools
        .iter()
        .fold(image, |image, tool| image.symlink(&format!("bin/{tool}"), "busybox"))
        .entrypoint(&["/bin/sh"]);
    image.write(&folder.join("workload.tar")).context("write the workload's image")
}
