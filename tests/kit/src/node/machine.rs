//! What a node needs of the machine, and what it must give back: tools, the lock that makes it the
//! only one, addresses, folders.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{CONTAINERD_SOCKET, LINK, NODE_IP, NodeError, SERVICE_IP};
use crate::{
    apiserver::write,
    process::{self, Lifetime},
    progress::Progress,
};

/// The node's addresses exist once per machine, so its lock does too, whatever cache is used.
const LOCK: &str = "/run/mendix-agent-node.lock";
/// Pause between two tries for the lock.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// Commands that are called, with their Debian packages.
const TOOLS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("bash", "bash"),
];
/// Control groups that the kubelet and containerd make at the root of each hierarchy.
const CONTROL_GROUPS: &str = "kubepods\nk8s.io\n";

/// Why this machine can't run a node, in words for a skipped test; `None` when it can.
pub(super) fn obstacle() -> Option<NodeError> {
    if !rustix::process::geteuid().is_root() {
        return Some(NodeError::NotRoot);
    }
    let (tool, package) = missing_tool()?;
    // With apt it is installed when a node is first started.
    (!process::on_path("apt-get")).then_some(NodeError::NoTool { tool, package })
}

fn missing_tool() -> Option<(&'static str, &'static str)> {
    TOOLS.into_iter().find(|(tool, _)| !process::on_path(tool))
}

/// Installs the commands that a node needs and this machine lacks. Blocks.
pub(super) fn install_tools(progress: &Progress) -> Result<(), NodeError> {
    let mut last = "";
    while let Some((tool, package)) = missing_tool() {
        if package == last || !process::on_path("apt-get") {
            return Err(NodeError::NoTool { tool, package });
        }
        last = package;
        progress.say(format!("installing {package}, for `{tool}`"));
        process::run(Command::new("apt-get").args(["-q", "update"]))?;
        let install = ["-q", "-y", "install", "--no-install-recommends", package];
        process::run(
            Command::new("apt-get").args(install).env("DEBIAN_FRONTEND", "noninteractive"),
        )?;
    }
    Ok(())
}

/// What the lock file says about the node that holds the lock.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its state folder.
    pub(super) state: PathBuf,
    /// It is to outlive the process that started it …
    pub(super) detached: bool,
    /// … which has finished starting it.
    pub(super) ready: bool,
    /// Who started it, as in a pid file.
    pub(super) starter: String,
}

impl Record {
    fn read(mut file: &File) -> Option<Self> {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).ok()?;
        file.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(super) fn write(&self, mut file: &File) -> Result<(), NodeError> {
        let failed = |source| NodeError::Machine { what: LOCK.into(), source };
        let text = serde_json::to_string(self).map_err(|error| failed(error.into()))?;
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)
    }

    /// A finished node that is to stay. A record without its etcd is one of the past, which whoever
    /// holds the lock now has not yet overwritten.
    fn is_kept(&self) -> bool {
        let etcd = fs::read_to_string(self.state.join("etcd.pid")).unwrap_or_default();
        self.detached && self.ready && process::runs(&etcd)
    }

    fn starter_lives(&self) -> bool {
        process::runs(&self.starter)
    }

    /// Who uses it, for people.
    fn holder(&self) -> String {
        let pid = self.starter.split(' ').next().unwrap_or_default();
        if !self.starter_lives() {
            return format!("process {pid}, which has ended and is being cleaned up after");
        }
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        format!("process {pid} ({})", words.trim_end())
    }
}

fn open_lock() -> Result<File, NodeError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(LOCK)
        .map_err(|source| NodeError::Machine { what: LOCK.into(), source })
}

/// The kept node that runs now.
pub(super) fn kept() -> Result<Option<Record>, NodeError> {
    let file = open_lock()?;
    match file.try_lock() {
        // Nobody holds it: what the file says is of the past.
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Record::read(&file).filter(Record::is_kept)),
        Err(TryLockError::Error(source)) => Err(NodeError::Machine { what: LOCK.into(), source }),
    }
}

/// Takes the lock, waiting for a node that another process uses, and undoes what a killed run left.
pub(super) async fn take(
    state: &Path,
    wait: Duration,
    progress: &Progress,
) -> Result<File, NodeError> {
    let file = open_lock()?;
    let start = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(source)) => {
                return Err(NodeError::Machine { what: LOCK.into(), source });
            }
            Err(TryLockError::WouldBlock) => {}
        }
        let record = Record::read(&file);
        let holder = record.as_ref().map(Record::holder);
        match record {
            Some(record) if record.is_kept() => {
                return Err(NodeError::Kept { state: record.state });
            }
            // Killed while it started a node that was to be kept.
            Some(record) if record.detached && !record.ready && !record.starter_lives() => {
                undo(record.state).await?;
            }
            _ => {}
        }
        if !told {
            let holder = holder.as_deref().unwrap_or("another process");
            progress.say(format!("waiting for the test node, which is used by {holder}"));
            told = true;
        }
        if start.elapsed() >= wait {
            return Err(NodeError::Busy { waited: wait, lock: LOCK });
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
    let before = Record::read(&file).map(|record| record.state);
    for left in before.into_iter().chain([state.to_owned()]) {
        if left.exists() {
            progress.say("clearing what a killed run left");
            undo(left).await?;
        }
    }
    Ok(file)
}

/// Runs the undo script without holding up the runtime.
pub(super) async fn undo(state: PathBuf) -> Result<(), NodeError> {
    tokio::task::spawn_blocking(move || process::undo(&state))
        .await
        .map_err(|error| NodeError::Machine {
            what: "undoing".into(),
            source: std::io::Error::other(error),
        })?
        .map_err(NodeError::from)
}

/// Makes the state folder, with the notes by which everything that follows is undone.
pub(super) fn note_what_to_undo(state: &Path) -> Result<(), NodeError> {
    let host = state.join("host");
    make(&host)?;
    let note = |name: &str, content: &str| write(&host.join(name), content);
    note("links", &format!("{LINK}\n"))?;
    note("addresses", &format!("{SERVICE_IP}/32\n{NODE_IP}/32\n"))?;
    note("cgroups", CONTROL_GROUPS)?;
    note("sockets", &format!("{CONTAINERD_SOCKET}\n{CONTAINERD_SOCKET}.ttrpc\n"))?;
    // The bridge plugin turns it on for the whole machine.
    let forward = Path::new("/proc/sys/net/ipv4/ip_forward");
    let value = fs::read_to_string(forward)
        .map_err(|source| NodeError::Machine { what: forward.into(), source })?;
    note("ip_forward", &value)?;
    let missing: String = mount_points()
        .into_iter()
        .filter(|folder| !folder.exists())
        .map(|folder| format!("{}\n", folder.display()))
        .collect();
    note("folders", &missing)?;
    Ok(())
}

/// Addresses on lo and the folders that the node mounts over.
pub(super) fn change() -> Result<(), NodeError> {
    for folder in mount_points() {
        make(&folder)?;
    }
    let present = process::run(Command::new("ip").args(["-o", "address", "show", "dev", "lo"]))?;
    for address in [SERVICE_IP, NODE_IP] {
        let address = format!("{address}/32");
        if !present.contains(&address) {
            process::run(Command::new("ip").args(["address", "add", &address, "dev", "lo"]))?;
        }
    }
    Ok(())
}

fn mount_points() -> [PathBuf; 5] {
    let socket = Path::new(CONTAINERD_SOCKET).parent().unwrap_or(Path::new("/run"));
    [
        PathBuf::from("/var/lib/kubelet"),
        PathBuf::from("/var/lib/cni"),
        PathBuf::from("/run/containerd"),
        PathBuf::from("/run/netns"),
        socket.to_owned(),
    ]
}

pub(super) fn make(folder: &Path) -> Result<(), NodeError> {
    fs::create_dir_all(folder)
        .map_err(|source| NodeError::Machine { what: folder.to_owned(), source })
}

/// An overlay can't be the upper layer of another overlay: inside of a container the node copies
/// instead.
pub(super) fn snapshotter(state: &Path) -> &'static str {
    /// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
    const OVERLAY: u64 = 0x794c_7630;
    match rustix::fs::statfs(state) {
        Ok(system) if u64::try_from(system.f_type) == Ok(OVERLAY) => "native",
        _ => "overlayfs",
    }
}

pub(super) fn lifetime(detached: bool) -> Lifetime {
    if detached { Lifetime::Detached } else { Lifetime::ThisProcess }
}
