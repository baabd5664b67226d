//! What measurements share: a control plane, and the agent as a process of this machine with its own
//! service account's rights.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use mendix_control_plane::{ControlPlane, Options, Running, pki::ServerNames, repository::Expiry};
use mendix_test_kit::{agent_image::HEAPS, apiserver::ApiServer};
use tokio::process::{Child, Command};

use crate::install;

/// A control plane on loopback with its state below `folder`.
///
/// # Errors
/// When it can't be made or started.
pub async fn control_plane(folder: &Path) -> Result<Running> {
    let names = ServerNames { dns: vec![], ips: vec![[127, 0, 0, 1].into()] };
    let store =
        mendix_control_plane::init(&folder.join("plane"), &names, Expiry::default()).await?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(ControlPlane::start(store, Options { listen, ..Options::default() }).await?)
}

/// How the agent is started, again and again if need be.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
    kubeconfig: PathBuf,
    endpoint: SocketAddr,
    trust: PathBuf,
    token: PathBuf,
    /// The cluster's name at the control plane.
    pub cluster_uid: String,
}

impl Launcher {
    /// Installs what the agent needs in the cluster and registers the cluster.
    ///
    /// # Errors
    /// When the agent is not built, or the cluster or the control plane refuses.
    pub async fn install(server: &ApiServer, plane: &Running, folder: &Path) -> Result<Self> {
        let client = server.client().await?;
        let cluster_uid = install::cluster_uid(&client).await?;
        let secret = plane.store().register_cluster(&cluster_uid, "default")?;
        install::foundation(&client).await?;
        let token = folder.join("token");
        std::fs::write(&token, secret.0).context("write the token")?;
        Ok(Self {
            program: sibling("mendix-agent")?,
            kubeconfig: server.kubeconfig_for("mendix-agent", "mendix-agent").await?,
            endpoint: plane.address(),
            trust: plane.store().trust_dir(),
            token,
            cluster_uid,
        })
    }

    /// Starts a process.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self) -> Result<Child> {
        spawn(
            Command::new(&self.program)
                .arg("run")
                .arg("--endpoint")
                .arg(format!("https://{}", self.endpoint))
                .args(["--allow-loopback-endpoint", "true", "--listen", "127.0.0.1:0"])
                .arg("--trust-dir")
                .arg(&self.trust)
                .arg("--bootstrap-token-file")
                .arg(&self.token)
                .env("KUBECONFIG", &self.kubeconfig)
                // As the image and the unit start it.
                .envs(HEAPS),
        )
    }
}

/// A program of the same build as this one.
///
/// # Errors
/// When it is not built.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing: run `cargo build --workspace --bins` first", path.display());
    }
    Ok(path)
}

/// Starts a program that says nothing and ends with this one.
///
/// # Errors
/// When it can't be started.
pub fn spawn(command: &mut Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start a program")
}
