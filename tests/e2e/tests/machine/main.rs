//! The Debian package on a machine of its own, where systemd is process 1: installed, configured, connected
//! from within its sandbox to a real API server and a control plane, ended by the watchdog, upgraded,
//! removed.
//!
//! A binary of its own: what is packaged is linked where the static program of other tests is.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mendix_control_plane::Running;
use mendix_e2e::{
    bench,
    install::{self, NAMESPACE},
};
use mendix_test_kit::{
    apiserver::ApiServer,
    deb::{self, DebError},
    machine::{Machine, MachineError},
    port,
    wait::eventually,
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

const UNIT: &str = "mendix-agent.service";
/// The package as a file there.
const PACKAGE: &str = "/mendix-agent.deb";
const EXAMPLE: &str = "/usr/share/doc/mendix-agent/examples/config.yaml";
const CONFIG: &str = "/etc/mendix-agent/config.yaml";
/// Longest wait for a session, the watchdog's 60 s and a Lease to wait out included.
const CONNECTED: Duration = Duration::from_secs(420);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_package_runs_under_systemd_until_it_is_removed() -> Result<()> {
    let package = match spawn_blocking(deb::build).await? {
        Err(error @ DebError::NoBuilder) => return skipped(&error),
        package => package?,
    };
    let machine = match spawn_blocking(Machine::boot).await? {
        Err(MachineError::Process(error)) => return Err(error.into()),
        Err(error) => return skipped(&error),
        Ok(machine) => machine,
    };
    let host = Host::new(machine).await?;
    host.provide(&package)?;
    let result = lived_through(&host).await;
    if result.is_err() {
        eprintln!("the journal ends with:\n{}", host.journal(&["--lines=60"])?);
    }
    result
}

fn skipped(why: &dyn std::error::Error) -> Result<()> {
    mendix_test_kit::skip(&why.to_string());
    Ok(())
}

async fn lived_through(host: &Host) -> Result<()> {
    host.run(&["dpkg", "--install", PACKAGE])?;
    ensure!(host.run(&["systemctl", "is-enabled", UNIT])?.trim() == "enabled", "not enabled");
    let state = host.state(["ActiveState", "ConditionResult"])?;
    ensure!(state == ["inactive", "no"], "it starts without a configuration: {state:?}");

    host.configure()?;
    host.run(&["systemctl", "start", UNIT])?;
    let first = host.connected(0).await?;
    sandboxed(host, &first)?;

    // The token is spent, and may be gone from here on.
    fs::remove_file(host.machine.path("/etc/mendix-agent/bootstrap-token"))?;
    host.settings("logFilter: info,mendix_agent=debug\n")?;
    host.run(&["systemctl", "reload", UNIT])?;
    host.told("the log filter was changed").await?;
    ensure!(host.state(["MainPID"])? == [first.as_str()], "a reload is no restart");

    // It stands still, and systemd notices.
    host.run(&["systemctl", "kill", "--kill-whom=main", "--signal=STOP", UNIT])?;
    let second = host.connected(1).await?;
    ensure!(first != second, "the process that stood still is the one that runs");
    host.told("Watchdog timeout").await?;

    host.run(&["systemctl", "stop", UNIT])?;
    let state = host.state(["ActiveState", "Result", "ExecMainStatus"])?;
    ensure!(state == ["inactive", "success", "0"], "stopped: {state:?}");
    let runtime = host.machine.path("/run/mendix-agent");
    ensure!(!runtime.exists(), "the runtime folder outlives the service");

    // A configuration that can't be used is not tried again and again.
    fs::write(host.machine.path(CONFIG), "endpoint: http://plain\n")?;
    let started = host.machine.output(&["systemctl", "start", UNIT])?;
    ensure!(!started.status.success(), "it starts without TLS");
    let state = host.state(["ActiveState", "ExecMainStatus", "NRestarts"])?;
    ensure!(state == ["failed", "3", "0"], "with a wrong configuration: {state:?}");

    host.settings("")?;
    host.run(&["systemctl", "start", UNIT])?;
    let before = host.connected(0).await?;
    host.run(&["dpkg", "--install", PACKAGE])?;
    ensure!(host.connected(0).await? != before, "an upgrade leaves the old program running");

    host.run(&["dpkg", "--remove", "mendix-agent"])?;
    ensure!(host.state(["ActiveState"])? == ["inactive"], "it runs after its removal");
    ensure!(host.machine.path(CONFIG).is_file(), "the configuration is gone with the package");
    host.run(&["dpkg", "--install", PACKAGE])?;
    host.connected(0).await?;
    host.run(&["dpkg", "--purge", "mendix-agent"])?;
    ensure!(host.state(["LoadState", "ActiveState"])? == ["not-found", "inactive"], "it is known");
    ensure!(!host.machine.path("/etc/mendix-agent").exists(), "secrets outlive the purge");
    let failed = host.run(&["systemctl", "--failed", "--quiet", "--no-legend"])?;
    ensure!(failed.trim().is_empty(), "{failed}");
    Ok(())
}

/// What the unit promises of the process, seen from outside of it.
fn sandboxed(host: &Host, pid: &str) -> Result<()> {
    let status = fs::read_to_string(host.machine.path(&format!("/proc/{pid}/status")))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    let user = host.run(&["id", "-u", "mendix-agent"])?;
    ensure!(field("Uid") == user.trim() && user.trim() != "0", "it runs as {}", field("Uid"));
    ensure!(field("CapBnd") == "0000000000000000", "it may get {}", field("CapBnd"));
    ensure!(field("NoNewPrivs") == "1" && field("Seccomp") == "2", "{status}");

    // Its files, with the rights of root: what holds is the mount, not the mode.
    let seen = |path: &str| host.machine.path(&format!("/proc/{pid}/root{path}"));
    for folder in ["/etc", "/usr/bin", "/etc/mendix-agent"] {
        let written = fs::write(seen(folder).join("planted"), "").map_err(|error| error.kind());
        ensure!(written == Err(ErrorKind::ReadOnlyFilesystem), "{folder}: {written:?}");
    }
    for folder in ["/var", "/home", "/root"] {
        ensure!(fs::read_dir(seen(folder))?.next().is_none(), "{folder} can be seen");
    }
    let entered = format!("--target={pid}");
    let other = host.machine.output(&["nsenter", &entered, "--mount", "--", "/usr/bin/id"])?;
    ensure!(said(&other).contains("Permission denied"), "programs run there: {}", said(&other));

    for secret in ["kubeconfig", "bootstrap-token"] {
        let path = format!("/run/credentials/{UNIT}/{secret}");
        let file = fs::metadata(seen(&path)).with_context(|| path.clone())?;
        ensure!(file.mode() & 0o777 == 0o400, "{path} has mode {:o}", file.mode());
        ensure!(file.uid().to_string() == user.trim(), "{path} is {}'s", file.uid());
    }

    // Datagrams from its control group: documentation's network is outside of the unit's list.
    let (near, public) = (host.sends("127.0.0.1")?, host.sends("203.0.113.7")?);
    ensure!(near.is_empty(), "loopback: {near}");
    if public.contains("unreachable") || host.journal(&[])?.contains("does not support BPF") {
        mendix_test_kit::skip("no way to a public address, or no filter in this kernel");
    } else {
        ensure!(public.contains("Operation not permitted"), "a public address: {public:?}");
    }
    Ok(())
}

/// The machine, the cluster that it manages, and the control plane that it reports to.
struct Host {
    machine: Machine,
    plane: Running,
    kubeconfig: PathBuf,
    token: String,
    _server: ApiServer,
    _folder: TempDir,
}

impl Host {
    async fn new(machine: Machine) -> Result<Self> {
        let server = ApiServer::start(Default::default()).await?;
        let client = server.client().await?;
        install::foundation(&client).await?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let plane = bench::control_plane(folder.path()).await?;
        let uid = install::cluster_uid(&client).await?;
        let token = plane.store().register_cluster(&uid, "default")?.0;
        let kubeconfig = server.kubeconfig_for(NAMESPACE, "mendix-agent").await?;
        Ok(Self { machine, plane, kubeconfig, token, _server: server, _folder: folder })
    }

    /// Puts the package and all that the configuration is made of where they belong.
    fn provide(&self, package: &Path) -> Result<()> {
        fs::copy(package, self.machine.path(PACKAGE)).context("copy the package")?;
        let unit = self.machine.path(&format!("/etc/systemd/system/{UNIT}.d"));
        fs::create_dir(&unit).context("make a folder for the unit")?;
        // The network is this machine's, where others may listen on the port that the unit names.
        let port = port::free()?;
        let listen = format!("[Service]\nEnvironment=MENDIX_AGENT_LISTEN=127.0.0.1:{port}\n");
        fs::write(unit.join("listen.conf"), listen).context("change the port")
    }

    /// As [`EXAMPLE`] says.
    fn configure(&self) -> Result<()> {
        let folder = self.machine.path("/etc/mendix-agent");
        for name in ["root.json", "consent-keys.json", "channel-ca.pem"] {
            let text = fs::read(self.plane.store().trust_dir().join(name)).context(name)?;
            fs::write(folder.join("trust").join(name), text).context(name)?;
        }
        fs::copy(&self.kubeconfig, folder.join("kubeconfig")).context("copy the kubeconfig")?;
        fs::write(folder.join("bootstrap-token"), &self.token).context("write the token")?;
        self.settings("")
    }

    /// Writes the example as the configuration file, with more lines or none.
    fn settings(&self, more: &str) -> Result<()> {
        let example = fs::read_to_string(self.machine.path(EXAMPLE)).context("read the example")?;
        let endpoint = format!("endpoint: https://{}\n", self.plane.address());
        let text = example.replace("endpoint: https://10.20.0.4:8443\n", &endpoint);
        ensure!(text.contains(&endpoint), "the example names another endpoint");
        let text = format!("{text}allowLoopbackEndpoint: true\n{more}");
        fs::write(self.machine.path(CONFIG), text).context("write the configuration")
    }

    /// Runs a program there, to success.
    fn run(&self, command: &[&str]) -> Result<String> {
        let output = self.machine.output(command)?;
        ensure!(output.status.success(), "`{}`: {}", command.join(" "), said(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What systemd knows of the unit.
    fn state<const N: usize>(&self, properties: [&str; N]) -> Result<[String; N]> {
        let mut values = properties.map(str::to_owned);
        for value in &mut values {
            let property = format!("--property={value}");
            *value = self.run(&["systemctl", "show", "--value", &property, UNIT])?.trim().into();
        }
        Ok(values)
    }

    /// Waits until the process that was started after so many restarts has a session, and returns its
    /// number.
    async fn connected(&self, restarts: u32) -> Result<String> {
        let restarts = restarts.to_string();
        let found = eventually(CONNECTED, "the service is connected", async || {
            let [active, count, status, pid] =
                self.state(["ActiveState", "NRestarts", "StatusText", "MainPID"]).ok()?;
            let there = active == "active" && count == restarts && status == "Connected";
            there.then_some(pid)
        });
        Ok(found.await?)
    }

    fn journal(&self, arguments: &[&str]) -> Result<String> {
        let all = ["journalctl", "--no-pager", "--output=cat", "--unit", UNIT];
        self.run(&[&all, arguments].concat())
    }

    /// Waits until the unit's journal has these words.
    async fn told(&self, words: &str) -> Result<()> {
        let told = eventually(CONNECTED, format!("the journal says {words}"), async || {
            self.journal(&[]).ok()?.contains(words).then_some(())
        });
        Ok(told.await?)
    }

    /// What is said against a datagram from the unit's control group to this address.
    fn sends(&self, address: &str) -> Result<String> {
        let script = format!(
            "echo $$ >/sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs && echo x >/dev/udp/{address}/9"
        );
        Ok(said(&self.machine.output(&["bash", "-c", &script])?))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).trim().to_owned()
}
