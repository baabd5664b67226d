//! The agent's binary as systemd runs it: a real notification socket, a real watchdog's terms.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longest wait for anything; what is waited for comes within a second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// A cluster that is not there: the connection is refused at once.
const KUBECONFIG: &str = r#"{
  "apiVersion": "v1", "kind": "Config", "current-context": "none",
  "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
  "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
  "users": [{"name": "none", "user": {"token": "none"}}]
}"#;

/// A trust folder that the agent can start with.
fn trust(folder: &Path) -> PathBuf {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new([]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&key).unwrap().pem();
    std::fs::write(folder.join("channel-ca.pem"), pem).unwrap();
    folder.to_owned()
}

/// The agent, and what it tells.
struct Unit {
    agent: Child,
    socket: UnixDatagram,
}

impl Unit {
    fn start(folder: &Path, watchdog: Option<Duration>) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let kubeconfig = folder.join("kubeconfig");
        std::fs::write(&kubeconfig, KUBECONFIG).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mendix-agent"));
        command
            .args(["run", "--endpoint", "https://127.0.0.1:1", "--listen", "127.0.0.1:0"])
            .arg("--trust-dir")
            .arg(trust(folder))
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("NOTIFY_SOCKET", path)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap());
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        Self { agent: command.spawn().unwrap(), socket }
    }

    /// Reads messages until one has the line.
    fn told(&self, line: &str) -> Instant {
        let begin = Instant::now();
        let mut buffer = [0; 4096];
        while begin.elapsed() < DEADLINE {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let message = std::str::from_utf8(&buffer[..length]).unwrap();
                    if message.lines().any(|told| told == line) {
                        return Instant::now();
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{line} was not told within {DEADLINE:?}");
    }

    fn signal(&self, signal: &str) {
        let pid = self.agent.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

#[test]
fn systemd_is_told_of_start_life_and_end_while_the_cluster_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut unit = Unit::start(folder.path(), Some(Duration::from_millis(900)));
    unit.told("READY=1");
    // Alive, again and again, although nothing that it needs answers.
    for _ in 0..3 {
        unit.told("WATCHDOG=1");
    }
    unit.signal("-TERM");
    unit.told("STOPPING=1");
    assert_eq!(unit.agent.wait().unwrap().code(), Some(0));
}

#[test]
fn an_agent_that_no_longer_runs_is_silent_until_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let unit = Unit::start(folder.path(), Some(Duration::from_millis(300)));
    unit.told("WATCHDOG=1");
    unit.signal("-STOP");
    // What was sent before it stopped is read until there is nothing for a whole timeout.
    let silent = Duration::from_millis(300);
    unit.socket.set_read_timeout(Some(silent)).unwrap();
    let mut buffer = [0; 4096];
    let begin = Instant::now();
    while unit.socket.recv(&mut buffer).is_ok() {
        assert!(begin.elapsed() < DEADLINE, "a stopped agent goes on telling that it is alive");
    }
    unit.signal("-CONT");
    unit.told("WATCHDOG=1");
}

#[test]
fn a_configuration_that_cannot_be_used_is_never_called_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mendix-agent"))
        .args(["run", "--endpoint", "http://not-https"])
        .env_clear()
        .env("NOTIFY_SOCKET", path)
        .output()
        .unwrap();
    // What RestartPreventExitStatus in the unit names: starting again would not help.
    assert_eq!(output.status.code(), Some(3));
    assert!(socket.recv(&mut [0; 16]).is_err(), "it told something");
}
