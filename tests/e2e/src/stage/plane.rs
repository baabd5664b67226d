//! The control plane of the demo: a process of its own, with a fresh CA, repository and keys.

use std::{
    fs::File,
    io::Read,
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use mendix_test_kit::wait::eventually;
use tokio::process::{Child, Command};

use super::{LISTENING, commands::text};
use crate::{binaries::Binaries, ui::Ui};

/// A port that is free now; the control plane binds it a moment later.
pub(super) fn free_port(address: IpAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0))
        .with_context(|| format!("listen on {address}, which pods must reach"))?;
    Ok(listener.local_addr()?)
}

/// Sets up a control plane in `folder` and starts it; returns once it listens.
pub(super) async fn control_plane(
    ui: &Ui,
    binaries: &Binaries,
    folder: &Path,
    address: SocketAddr,
    keep: bool,
) -> Result<(SocketAddr, Child)> {
    let state = folder.join("control-plane");
    let made = Command::new(&binaries.control_plane)
        .arg("--state")
        .arg(&state)
        .args(["init", "--ip", &address.ip().to_string()])
        .output()
        .await
        .context("run mendix-control-plane init")?;
    if !made.status.success() {
        bail!("mendix-control-plane init: {}", text(&made.stderr));
    }
    let log_path = folder.join("control-plane.log");
    let log = File::create(&log_path).context("create control-plane.log")?;
    let mut command = Command::new(&binaries.control_plane);
    command
        .arg("--state")
        .arg(&state)
        .args(["serve", "--listen", &address.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share control-plane.log")?)
        .stderr(log)
        // Ctrl-C is for the demo, which then ends this in order.
        .process_group(0)
        .kill_on_drop(!keep);
    let mut child = command.spawn().context("start mendix-control-plane")?;
    let listening = async || tokio::net::TcpStream::connect(address).await.ok();
    let came_up = tokio::select! {
        up = eventually(LISTENING, "the control plane listens", listening) => up.is_ok(),
        _ = child.wait() => false,
    };
    if !came_up {
        let mut said = String::new();
        File::open(&log_path)?.read_to_string(&mut said)?;
        bail!("the control plane did not start:\n{said}");
    }
    ui.line(format!(
        "the control plane listens on {address}, with a fresh CA, TUF repository and keys"
    ));
    Ok((address, child))
}
