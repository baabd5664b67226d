//! The control plane of a scenario: made afresh, running in the test's process.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use kube::Client;
use mendix_control_plane::{
    ControlPlane, Options, Running, Store, pki::ServerNames, repository::Expiry,
};
use mendix_e2e::install::{self, NAMESPACE};
use mendix_test_kit::apiserver::ApiServer;

use crate::agent::Launcher;

/// Makes the state of a control plane that is reached by loopback.
pub(crate) async fn init(folder: &Path) -> Result<Store> {
    let names = ServerNames { dns: vec![], ips: vec![[127, 0, 0, 1].into()] };
    Ok(mendix_control_plane::init(&folder.join("plane"), &names, Expiry::default()).await?)
}

/// Starts it on a free port.
pub(crate) async fn start(store: &Store) -> Result<Running> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options { listen, ..Options::default() };
    Ok(ControlPlane::start(store.clone(), options).await?)
}

/// A cluster on which the agent is installed and which a control plane knows, with no agent running yet.
pub(crate) struct Installed {
    pub(crate) client: Client,
    pub(crate) uid: String,
    pub(crate) plane: Running,
    pub(crate) launcher: Launcher,
}

/// Installs the agent on a cluster and starts a control plane for it.
pub(crate) async fn installed(server: &ApiServer, folder: &Path) -> Result<Installed> {
    let client = server.client().await?;
    install::foundation(&client).await?;
    let uid = install::cluster_uid(&client).await?;
    let plane = start(&init(folder).await?).await?;
    let token = plane.store().register_cluster(&uid, "default")?;
    let kubeconfig = server.kubeconfig_for(NAMESPACE, "mendix-agent").await?;
    let trust = plane.store().trust_dir();
    let launcher = Launcher::new(kubeconfig, plane.address(), trust, &token.0, folder).await?;
    Ok(Installed { client, uid, plane, launcher })
}
