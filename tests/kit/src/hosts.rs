//! Two hosts with a cable between them: network namespaces of the real kernel, joined by a veth pair.
//! What runs on a host is a thread of this process, and a runtime in it.
//!
//! What [`crate::proxy`] can't do: let a peer vanish. A proxy on loopback always has a kernel that
//! acknowledges what it receives.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::Ipv4Addr,
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

use crate::process::{self, ProcessError};

/// Commands that are called, with their Debian packages.
const TOOLS: [(&str, &str); 2] = [("ip", "iproute2"), ("unshare", "util-linux")];

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The one that stays.
    Near,
    /// The one that may vanish.
    Far,
}

impl Host {
    /// Its only address besides loopback.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        match self {
            Self::Near => Ipv4Addr::new(10, 98, 0, 1),
            Self::Far => Ipv4Addr::new(10, 98, 0, 2),
        }
    }

    fn link(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    fn hardware(self) -> &'static str {
        match self {
            Self::Near => "02:00:00:00:00:01",
            Self::Far => "02:00:00:00:00:02",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }
}

/// Why there are no two hosts.
#[derive(Debug, Error)]
pub enum HostsError {
    /// Only root may make network namespaces.
    #[error("network namespaces need root")]
    NotRoot,
    /// A command is missing.
    #[error("`{tool}` is missing; on Debian: apt-get install {package}")]
    NoTool {
        /// The command.
        tool: &'static str,
        /// Its package.
        package: &'static str,
    },
    /// A namespace can't be made or entered.
    #[error("can't make a network namespace")]
    Namespace(#[source] io::Error),
    /// A command failed.
    #[error(transparent)]
    Command(#[from] ProcessError),
}

/// The two hosts. They are gone when this is dropped and what was started on them has ended.
#[derive(Clone, Debug)]
pub struct Hosts {
    near: Arc<File>,
    far: Arc<File>,
}

impl Hosts {
    /// Why this machine can't have two hosts; `None` when it can.
    #[must_use]
    pub fn obstacle() -> Option<HostsError> {
        if !rustix::process::geteuid().is_root() {
            return Some(HostsError::NotRoot);
        }
        let (tool, package) = TOOLS.into_iter().find(|(tool, _)| !process::on_path(tool))?;
        Some(HostsError::NoTool { tool, package })
    }

    /// Makes them, each with an address and a way to the other.
    ///
    /// # Errors
    /// See [`HostsError`].
    pub fn join() -> Result<Self, HostsError> {
        let (near, far) = (Namespace::make()?, Namespace::make()?);
        let far_pid = far.holder.id().to_string();
        let hosts = Self { near: near.file.clone(), far: far.file.clone() };
        let (ours, theirs) = (Host::Near, Host::Far);
        hosts.ip(
            ours,
            &[
                &["link", "add", "name", ours.link(), "address", ours.hardware(), "type", "veth"][..],
                &["peer", "name", theirs.link(), "address", theirs.hardware(), "netns", &far_pid],
            ]
            .concat(),
        )?;
        for host in [ours, theirs] {
            let (link, other) = (host.link(), host.other());
            let address = format!("{}/24", host.address());
            hosts.ip(host, &["link", "set", "lo", "up"])?;
            hosts.ip(host, &["address", "add", &address, "dev", link])?;
            hosts.ip(host, &["link", "set", link, "up"])?;
            // As if there were a router between them: a host that vanishes is not missed by whoever
            // asks for its hardware address, its packets just stay away.
            let to = other.address().to_string();
            let neighbour = ["neighbour", "add", &to, "lladdr", other.hardware(), "dev", link];
            hosts.ip(host, &[&neighbour[..], &["nud", "permanent"]].concat())?;
        }
        Ok(hosts)
    }

    /// Runs something on a host, in a thread of its own.
    pub fn run<T: Send + 'static>(
        &self,
        host: Host,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<Result<T, HostsError>> {
        let namespace = match host {
            Host::Near => self.near.clone(),
            Host::Far => self.far.clone(),
        };
        thread::spawn(move || {
            // For this thread alone, and those that it starts.
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| HostsError::Namespace(error.into()))?;
            Ok(work())
        })
    }

    /// The far host neither hears nor says anything from now on, and nobody is told: not even its
    /// kernel answers.
    ///
    /// # Errors
    /// When the command fails.
    pub fn vanish(&self) -> Result<(), HostsError> {
        self.ip(Host::Far, &["link", "set", Host::Far.link(), "down"])
    }

    /// Ends [`Hosts::vanish`].
    ///
    /// # Errors
    /// When the command fails.
    pub fn reappear(&self) -> Result<(), HostsError> {
        self.ip(Host::Far, &["link", "set", Host::Far.link(), "up"])
    }

    fn ip(&self, host: Host, words: &[&str]) -> Result<(), HostsError> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let ran = self.run(host, move || process::run(Command::new("ip").args(words)));
        match ran.join() {
            Ok(ran) => Ok(ran?.map(drop)?),
            Err(_) => Err(HostsError::Namespace(io::Error::other("a thread died"))),
        }
    }
}

/// A new network namespace; it lives as long as a file, a thread or a process is in it.
struct Namespace {
    file: Arc<File>,
    holder: Child,
}

impl Namespace {
    fn make() -> Result<Self, HostsError> {
        // Says when it is in the namespace, and ends with its standard input.
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo here; read -r _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(HostsError::Namespace)?;
        let mut line = String::new();
        let said = holder.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        match said {
            Some(Ok(5)) => {}
            Some(Err(error)) => return Err(HostsError::Namespace(error)),
            _ => return Err(HostsError::Namespace(io::Error::other("unshare was not allowed"))),
        }
        let file = File::open(format!("/proc/{}/ns/net", holder.id()));
        Ok(Self { file: Arc::new(file.map_err(HostsError::Namespace)?), holder })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
