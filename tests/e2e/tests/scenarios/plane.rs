//! The control plane of a scenario: made afresh, running in the test's process.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use mendix_control_plane::{
    ControlPlane, Options, Running, Store, pki::ServerNames, repository::Expiry,
};

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
