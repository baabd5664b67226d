//! The agent as a process of this machine, with its own service account's rights, that can be killed.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use mendix_e2e::install::NAMESPACE;
use mendix_test_kit::{agent_image, progress::Progress};
use tokio::{
    process::{Child, Command},
    sync::OnceCell,
    task::spawn_blocking,
};

/// Lines of the agent's log that a failed scenario shows.
const LAST_LINES: usize = 60;

/// How the agent is started.
pub(crate) struct Launcher {
    program: PathBuf,
    kubeconfig: PathBuf,
    endpoint: SocketAddr,
    trust: PathBuf,
    token: PathBuf,
    log: PathBuf,
}

/// A running agent. It dies with this.
pub(crate) struct Agent {
    child: Child,
    kubeconfig: PathBuf,
}

impl Launcher {
    /// `folder` takes the bootstrap token and the log of all processes that are started.
    pub(crate) async fn new(
        kubeconfig: PathBuf,
        endpoint: SocketAddr,
        trust: PathBuf,
        token: &str,
        folder: &Path,
    ) -> Result<Self> {
        let token_file = folder.join("token");
        fs::write(&token_file, token).context("write the token")?;
        Ok(Self {
            program: program().await?,
            kubeconfig,
            endpoint,
            trust,
            token: token_file,
            log: folder.join("agent.log"),
        })
    }

    /// Puts another bootstrap token in the place of the last one.
    pub(crate) fn give(&self, token: &str) -> Result<()> {
        fs::write(&self.token, token).context("write the token")
    }

    /// Starts another process.
    pub(crate) fn start(&self) -> Result<Agent> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.context("open the agent's log")?;
        // Ends the agent also when this process is killed; it replaces itself by the agent.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .arg("run")
            .args(self.settings())
            .args(["--listen", "127.0.0.1:0"])
            .args(["--log-format", "json", "--log-filter", "info,mendix_agent=debug"])
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the agent's log")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start the agent")?;
        Ok(Agent { child, kubeconfig: self.kubeconfig.clone() })
    }

    /// Runs `preflight` with the same configuration and rights.
    pub(crate) async fn preflight(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.arg("preflight").args(arguments).args(self.settings());
        command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
        command.output().await.context("run preflight")
    }

    /// What the agent is configured with, as flags.
    fn settings(&self) -> [OsString; 8] {
        let endpoint = format!("https://{}", self.endpoint);
        [
            "--endpoint".into(),
            endpoint.into(),
            "--allow-loopback-endpoint".into(),
            "true".into(),
            "--trust-dir".into(),
            self.trust.clone().into(),
            "--bootstrap-token-file".into(),
            self.token.clone().into(),
        ]
    }

    /// Passes a scenario's result on; shows the end of the agent's log when it failed.
    pub(crate) fn explained<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            eprintln!("the agent's log ends with:\n{}", last.join("\n"));
        }
        result
    }
}

impl Agent {
    /// SIGKILL, and waits until the process is gone. Its Lease is given up in its name: the next
    /// process would otherwise wait it out, which takes half a minute and is shown elsewhere.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("kill the agent")?;
        give_up_lease(&self.kubeconfig).await
    }
}

async fn give_up_lease(kubeconfig: &Path) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
    let client = Client::try_from(config.await.context("use the kubeconfig")?)?;
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    while let Some(mut lease) = leases.get_opt(NAMESPACE).await.context("get the Lease")? {
        lease.spec.get_or_insert_default().holder_identity = None;
        match leases.replace(NAMESPACE, &PostParams::default(), &lease).await {
            // What the dead one had sent landed just now.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            written => return written.context("give the Lease up").map(drop),
        }
    }
    Ok(())
}

/// The agent's program, built once per test process; the same file as in the demo's image.
async fn program() -> Result<PathBuf> {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || -> Result<PathBuf> {
        let build = || agent_image::build(agent_image::AGENT, &Progress::silent());
        Ok(spawn_blocking(build).await??)
    };
    PROGRAM.get_or_try_init(build).await.cloned()
}
