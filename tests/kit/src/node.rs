//! A whole Kubernetes with one node on this machine: real pods, real logs, real restarts.
//!
//! etcd, kube-apiserver, controllers and scheduler run beside containerd and a kubelet, which live in
//! a mount and process namespace of their own. Nothing is installed and nothing is asked of the
//! network. Needs root. There is no DNS for pods and no kube-proxy: Services have addresses, but
//! nothing forwards to them, except for the API server itself, which listens on its Service's
//! address.
//!
//! The addresses are fixed, so there is one node per machine at a time, behind a lock: a second
//! start waits. [`Node::shared`] gives all tests of a process the same one. With
//! [`NodeOptions::detached`] it outlives the process; [`Node::attach`] finds it again.

mod machine;
mod power;
mod pressure;
mod runtime;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;
use thiserror::Error;
use tokio::sync::OnceCell;

pub use self::runtime::BUSYBOX_IMAGE;
use self::{machine::Record, runtime::Containerd};
use crate::{
    apiserver::{Access, Plane, ServerError, Settings, until},
    assets::{AssetError, Assets, cache_folder},
    image::ImageError,
    pki::PkiError,
    process::{self, Daemon, Janitor, ProcessError},
    progress::Progress,
    wait::NotInTime,
};

/// The node's name in Kubernetes.
pub const NODE_NAME: &str = "node1";
/// Where pods find the API server.
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
const SERVICE_RANGE: &str = "10.213.0.0/24";
/// The node's own address; servers on this machine that pods shall reach listen here.
const NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 213, 2, 1);
const POD_RANGE: &str = "10.213.1.0/24";
/// The bridge that pods hang on.
const LINK: &str = "mxa-node0";
/// A path below 108 bytes, as sockets need it, wherever the cache is.
const CONTAINERD_SOCKET: &str = "/run/mendix-agent-node/containerd.sock";
/// Default of [`NodeOptions::lock_wait`].
const LOCK_WAIT: Duration = Duration::from_secs(15 * 60);

/// Why there is no node.
#[derive(Debug, Error)]
pub enum NodeError {
    /// Namespaces, mounts and addresses need root.
    #[error(
        "a Kubernetes node needs root; run as root, or name an existing cluster (KUBECONFIG, --context)"
    )]
    NotRoot,
    /// A command is missing.
    #[error("`{tool}` is missing; on Debian: apt-get install {package}")]
    NoTool {
        /// The command.
        tool: &'static str,
        /// Its package.
        package: &'static str,
    },
    /// The programs of a node are missing.
    #[error("no programs for a node")]
    Assets(#[from] AssetError),
    /// An envtest folder was given where the whole set is needed.
    #[error("the set of programs has none for a node")]
    NoPrograms,
    /// A node was kept running.
    #[error(
        "a node that was kept runs on this machine (state in {}); attach to it or stop it first", state.display()
    )]
    Kept {
        /// Its state folder.
        state: PathBuf,
    },
    /// It belongs to another process.
    #[error("another process started the node, so this one can't switch it off")]
    Elsewhere,
    /// No kept node to attach to.
    #[error("no kept node runs on this machine")]
    NoneKept,
    /// Another process uses it.
    #[error("another process still uses the test node after {} s (lock {lock})", waited.as_secs())]
    Busy {
        /// How long it was waited for.
        waited: Duration,
        /// The lock file.
        lock: &'static str,
    },
    /// The machine refused.
    #[error("this machine refuses: {}", what.display())]
    Machine {
        /// The file or action.
        what: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The control plane of the node.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Certificates.
    #[error("no certificates for the kubelet")]
    Pki(#[from] PkiError),
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// An image can't be imported.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Something took too long.
    #[error(transparent)]
    NotInTime(#[from] NotInTime),
}

/// What kind of node to start.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Write every API request to an audit log, see [`Access::audit_log`].
    pub audit: bool,
    /// Let it outlive this process: stop it later with [`Node::attach`] and [`Node::stop`].
    pub detached: bool,
    /// Longest wait for another process that uses the node.
    pub lock_wait: Duration,
    /// Where to say what is going on.
    pub progress: Progress,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { audit: true, detached: false, lock_wait: LOCK_WAIT, progress: Progress::default() }
    }
}

/// A running node. Unless it is detached it ends, and the machine is put back, when this is dropped
/// or the process ends.
#[derive(Debug)]
pub struct Node {
    access: Access,
    assets: Assets,
    containerd: Containerd,
    daemons: Vec<Daemon>,
    /// None for a detached node.
    janitor: Option<Janitor>,
}

impl Node {
    /// Why this machine can't run a node, for tests that then [`crate::skip()`]; `None` when it can.
    #[must_use]
    pub fn obstacle() -> Option<NodeError> {
        machine::obstacle()
    }

    /// Starts the node and waits until it takes pods (about 20 s on two idle cores).
    ///
    /// Dropping the future (Ctrl-C) puts the machine back as well.
    ///
    /// # Errors
    /// [`NodeError`]; a program that ended is reported with the end of its log.
    pub async fn start(options: NodeOptions) -> Result<Self, NodeError> {
        if let Some(obstacle) = machine::obstacle() {
            return Err(obstacle);
        }
        let progress = &options.progress;
        let build = progress.clone();
        let ready = tokio::task::spawn_blocking(move || {
            machine::install_tools(&build)?;
            Ok::<_, NodeError>(Assets::built(&build)?)
        });
        let assets = ready.await.map_err(|error| NodeError::Machine {
            what: "building".into(),
            source: io::Error::other(error),
        })??;
        let state = cache_folder()?.join("node");
        let lock = machine::take(&state, options.lock_wait, progress).await?;
        let mut record = Record {
            state: state.clone(),
            detached: options.detached,
            ready: false,
            starter: process::identity(std::process::id()),
        };
        record.write(&lock)?;
        machine::note_what_to_undo(&state)?;
        // From here on something undoes it, whatever happens.
        let held = lock
            .try_clone()
            .map_err(|source| NodeError::Machine { what: "the lock".into(), source })?;
        let (undo, held) = if options.detached {
            (Undo { janitor: None, unfinished: Some(state.clone()) }, Some(held))
        } else {
            let janitor = Janitor::start(&state, Some(held))?;
            (Undo { janitor: Some(janitor), unfinished: None }, None)
        };
        machine::change()?;

        let lifetime = machine::lifetime(options.detached);
        let Plane { daemons: mut all, ca, access } = Settings {
            assets: &assets,
            state: &state,
            lifetime,
            address: SERVICE_IP,
            port: Some(443),
            service_range: SERVICE_RANGE,
            names: &[&NODE_IP.to_string()],
            controllers: true,
            scheduler: true,
            audit: options.audit,
            extra_flags: &[],
            held,
        }
        .start(progress)
        .await?;
        progress.say("starting containerd and the kubelet");
        let plane = Plane { daemons: Vec::new(), ca, access };
        let (init, containerd) = runtime::start(&assets, &state, lifetime, &plane).await?;
        all.push(init);
        progress.say("waiting for the node");
        let nodes = Api::<NodeObject>::all(plane.access.client().await?);
        until(&mut all, "the node is ready", || async {
            nodes.get(NODE_NAME).await.is_ok_and(|node| is_ready(&node))
        })
        .await?;

        record.ready = true;
        record.write(&lock)?;
        let janitor = undo.keep();
        Ok(Self { access: plane.access, assets, containerd, daemons: all, janitor })
    }

    /// The one that all tests of this process share. It is started by the first that asks, and ends
    /// with the process.
    ///
    /// # Errors
    /// As [`Node::start`]; the next caller tries again.
    pub async fn shared() -> Result<&'static Self, NodeError> {
        static SHARED: OnceCell<Node> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(NodeOptions::default())).await
    }

    /// The detached node that runs on this machine.
    ///
    /// # Errors
    /// [`NodeError::NoneKept`].
    pub async fn attach() -> Result<Self, NodeError> {
        if let Some(obstacle) = machine::obstacle() {
            return Err(obstacle);
        }
        let state = machine::kept()?.ok_or(NodeError::NoneKept)?.state;
        let assets = tokio::task::spawn_blocking(|| Assets::built(&Progress::silent()))
            .await
            .map_err(|error| NodeError::Machine {
                what: "building".into(),
                source: io::Error::other(error),
            })??;
        let ca = state.join("pki/ca.crt");
        let ca_pem = std::fs::read_to_string(&ca)
            .map_err(|source| NodeError::Machine { what: ca, source })?;
        let audit_log = Some(state.join("audit.log")).filter(|path| path.exists());
        let containerd = Containerd::new(&assets, &state)?;
        let access = Access {
            url: format!("https://{SERVICE_IP}:443"),
            ca_pem,
            kubeconfig: state.join("kubeconfig"),
            audit_log,
            controllers: true,
            state,
        };
        Ok(Self { access, assets, containerd, daemons: Vec::new(), janitor: None })
    }

    /// Makes the images of an archive usable by pods, under the names that the archive gives them.
    /// Pods need `imagePullPolicy: IfNotPresent` or `Never`.
    ///
    /// # Errors
    /// [`NodeError::Image`] when it is no OCI archive with names.
    pub async fn import_image(&self, archive: &Path) -> Result<Vec<String>, NodeError> {
        self.containerd.import(archive).await
    }

    /// Where a server on this machine must listen so that pods reach it.
    #[must_use]
    pub fn node_ip(&self) -> IpAddr {
        IpAddr::V4(NODE_IP)
    }

    /// The kubectl of the node's version.
    #[must_use]
    pub fn kubectl(&self) -> PathBuf {
        self.assets.program("kubectl")
    }

    /// The folder of the programs that the node itself runs, such as the static `busybox`.
    #[must_use]
    pub fn programs_folder(&self) -> &Path {
        // `built` always brings one; a start without it has failed before.
        self.assets.node_folder().unwrap_or(Path::new(""))
    }

    /// Where its state and logs (`*.log`) are.
    #[must_use]
    pub fn state_folder(&self) -> &Path {
        &self.access.state
    }

    /// Ends the node, also a detached one, and puts the machine back.
    ///
    /// # Errors
    /// [`NodeError::Process`] when that takes too long.
    pub fn stop(mut self) -> Result<(), NodeError> {
        match self.janitor.take() {
            Some(mut janitor) => janitor.finish()?,
            None => process::undo(&self.access.state)?,
        }
        Ok(())
    }
}

impl Deref for Node {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.janitor.take());
        self.daemons.iter_mut().for_each(Daemon::reap);
    }
}

/// What puts the machine back when a start fails or is given up.
struct Undo {
    janitor: Option<Janitor>,
    /// The state of a detached node that is not finished.
    unfinished: Option<PathBuf>,
}

impl Undo {
    /// The start succeeded: what is left to do at the end of the process.
    fn keep(mut self) -> Option<Janitor> {
        self.unfinished = None;
        self.janitor.take()
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(state) = &self.unfinished {
            // A failure to undo is found again, and undone, by the next start.
            let _ = process::undo(state);
        }
    }
}

fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
