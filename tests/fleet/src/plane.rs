//! The control plane under load: a process of its own, so that its memory is its own and it can be
//! killed.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use mendix_control_plane::{Store, init, pki::ServerNames, repository::Expiry};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::process::{self, Sample};

/// Longest wait for the server to listen.
const START: Duration = Duration::from_secs(180);

/// A control plane's state in a temporary folder, and how its server is run.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    program: PathBuf,
    /// Arguments of `serve` besides the address.
    pub serve: Vec<String>,
}

impl Site {
    /// Makes a control plane for 127.0.0.1. `program` is the binary `mendix-fleet-plane`.
    ///
    /// # Errors
    /// When its state can't be written.
    pub async fn new(program: PathBuf, serve: Vec<String>) -> Result<Self> {
        if !program.exists() {
            bail!("{} is missing: run `cargo build -p mendix-fleet` first", program.display());
        }
        let folder = tempfile::tempdir().context("make a folder")?;
        let names = ServerNames { dns: vec![], ips: vec![[127, 0, 0, 1].into()] };
        init(&folder.path().join("plane"), &names, Expiry::default()).await?;
        Ok(Self { folder, program, serve })
    }

    /// Its state.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn store(&self) -> Result<Store> {
        Ok(Store::open(self.state())?)
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("plane")
    }

    /// Starts the server, on `address` or on a free port.
    ///
    /// # Errors
    /// When it does not listen within a minute.
    pub async fn start(&self, address: Option<SocketAddr>) -> Result<Plane> {
        let listen = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut child = Command::new(&self.program)
            .arg("--state")
            .arg(self.state())
            .args(["--output", "json", "serve", "--listen"])
            .arg(listen.to_string())
            .args(["--metrics", "127.0.0.1:0"])
            .args(&self.serve)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the control plane")?;
        let stdout = child.stdout.take().context("its output")?;
        let mut lines = BufReader::new(stdout).lines();
        // Indented JSON, whole when its last line has come.
        let said = timeout(START, async {
            let mut said = String::new();
            while let Some(line) = lines.next_line().await? {
                said.push_str(&line);
                if let Ok(said) = serde_json::from_str::<serde_json::Value>(&said) {
                    return Ok(said);
                }
            }
            bail!("the control plane ended: {said}")
        })
        .await
        .context("the control plane does not listen")??;
        let address = said["listening"].as_str().context("no address")?.parse()?;
        Ok(Plane { child, address })
    }
}

/// A running server; killed when it is dropped.
#[derive(Debug)]
pub struct Plane {
    child: Child,
    address: SocketAddr,
}

impl Plane {
    /// Where agents reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it uses.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sample(&self) -> Result<Sample> {
        process::sample(self.child.id().context("the control plane has ended")?)
    }

    /// SIGTERM: tells its agents to move, and ends.
    ///
    /// # Errors
    /// When it does not end within a minute.
    pub async fn drain(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.context("the control plane has ended")?, Signal::TERM)?;
        timeout(START, self.child.wait()).await.context("the control plane does not end")??;
        Ok(())
    }

    /// SIGKILL: ends it without a word.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("kill the control plane")
    }
}
