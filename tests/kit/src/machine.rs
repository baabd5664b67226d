//! A machine of its own, as far as systemd can tell: process 1 of new namespaces, over this machine's
//! files. A package is installed there as on any virtual machine, and what it changes is gone with it.
//!
//! The network is this machine's: what listens on loopback here is reached from there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use thiserror::Error;

use crate::{
    process::{self, Daemon, Janitor, Launch, Lifetime, ProcessError},
    wait::{NotInTime, eventually_blocking},
};

/// How it is booted; see its head.
const SCRIPT: &str = include_str!("machine.sh");
/// Commands that are called, with their Debian packages.
const TOOLS: [(&str, &str); 4] = [
    ("systemctl", "systemd"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
];
const SYSTEMD: &str = "/lib/systemd/systemd";
/// Where version 2 of control groups is, alone or next to version 1.
const CONTROL_GROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: u64 = 0x6367_7270;
/// Longest wait for systemd to have started what it starts. It takes 1 s on two busy cores.
const BOOT: Duration = Duration::from_secs(120);

/// Why there is no machine.
#[derive(Debug, Error)]
pub enum MachineError {
    /// Only root may make one.
    #[error("a machine of its own needs root")]
    NotRoot,
    /// A command is missing.
    #[error("`{tool}` is missing; on Debian: apt-get install {package}")]
    NoTool {
        /// The command.
        tool: &'static str,
        /// Its package.
        package: &'static str,
    },
    /// systemd needs version 2 of control groups, also when it controls nothing there.
    #[error("no version 2 of control groups is mounted at {} or {}", CONTROL_GROUPS[0], CONTROL_GROUPS[1])]
    NoControlGroups,
    /// A file, a folder or a control group can't be made.
    #[error("can't make {}", path.display())]
    Make {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// This machine's kernel, or what this process runs in, does not allow it.
    #[error("systemd can't be booted here: {said}")]
    Refused {
        /// The words of the command that was refused.
        said: String,
    },
    /// It does not come up.
    #[error("systemd does not come up: it is {state}")]
    NotUp {
        /// What `systemctl is-system-running` said last.
        state: String,
        /// The wait.
        #[source]
        source: NotInTime,
    },
    /// A program can't be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// A machine. It is gone when this is dropped.
#[derive(Debug)]
pub struct Machine {
    /// systemd's number among the processes of this machine.
    pid: u32,
    // In this order: the undo script waits for the end of the process.
    _daemon: Daemon,
    _janitor: Janitor,
}

impl Machine {
    /// Boots one and waits until systemd is up. Blocks.
    ///
    /// # Errors
    /// See [`MachineError`]: all but [`MachineError::Process`] say that this machine can't.
    pub fn boot() -> Result<Self, MachineError> {
        if !rustix::process::geteuid().is_root() {
            return Err(MachineError::NotRoot);
        }
        if let Some((tool, package)) = TOOLS.into_iter().find(|(tool, _)| !process::on_path(tool)) {
            return Err(MachineError::NoTool { tool, package });
        }
        if !Path::new(SYSTEMD).is_file() {
            return Err(MachineError::NoTool { tool: SYSTEMD, package: "systemd" });
        }
        let groups = control_groups().ok_or(MachineError::NoControlGroups)?;
        let state = TempDir::with_prefix("mendix-machine-")
            .map_err(|source| MachineError::Make { path: std::env::temp_dir(), source })?
            .keep();
        let name = state.file_name().unwrap_or(state.as_os_str());
        let group = groups.join(name);
        let (notes, script) = (state.join("host"), state.join("machine.sh"));
        make(&notes)?;
        write(&notes.join("cgroups"), &format!("{}\n", name.display()))?;
        write(&script, SCRIPT)?;
        let janitor = Janitor::start(&state, None)?;
        make(&group)?;
        let mut daemon = Launch {
            name: "machine",
            program: Path::new("sh"),
            args: vec![script.into(), "join".into(), state.clone().into(), group.into()],
            env: Vec::new(),
            state: &state,
            lifetime: Lifetime::ThisProcess,
            stdin: Stdio::null(),
        }
        .start()?;
        let pid = first_process(&mut daemon, &state)?;
        let machine = Self { pid, _daemon: daemon, _janitor: janitor };
        machine.is_up()?;
        Ok(machine)
    }

    /// Where a file of it, named by its absolute path there, is found from here.
    #[must_use]
    pub fn path(&self, there: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{there}", self.pid))
    }

    /// Runs a program there, as root and with nothing of this process's environment.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn output(&self, command: &[&str]) -> Result<Output, ProcessError> {
        let mut entering = Command::new("nsenter");
        entering
            .arg(format!("--target={}", self.pid))
            .args(["--mount", "--uts", "--ipc", "--cgroup", "--pid", "--root", "--wd", "--"])
            .args(command)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        entering
            .output()
            .map_err(|source| ProcessError::Start { program: command.join(" "), source })
    }

    fn is_up(&self) -> Result<(), MachineError> {
        let mut state = String::new();
        let up = eventually_blocking(BOOT, "systemd is up", || {
            // It fails until systemd listens, and while it starts what it starts.
            let output = self.output(&["systemctl", "is-system-running"]).ok()?;
            state = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().into();
            (state == "running").then_some(())
        });
        up.map_err(|source| MachineError::NotUp { state, source })
    }
}

fn control_groups() -> Option<&'static Path> {
    CONTROL_GROUPS.into_iter().map(Path::new).find(|path| {
        rustix::fs::statfs(*path).is_ok_and(|system| u64::try_from(system.f_type) == Ok(CGROUP2))
    })
}

fn make(path: &Path) -> Result<(), MachineError> {
    fs::create_dir(path).map_err(|source| MachineError::Make { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), MachineError> {
    fs::write(path, text).map_err(|source| MachineError::Make { path: path.to_owned(), source })
}

/// The number of the process that has become systemd.
fn first_process(daemon: &mut Daemon, state: &Path) -> Result<u32, MachineError> {
    let parent = daemon.id();
    let children = format!("/proc/{parent}/task/{parent}/children");
    let found = eventually_blocking(BOOT, "a process has become systemd", || {
        if daemon.check().is_err() {
            return Some(None);
        }
        let pid: u32 = fs::read_to_string(&children).ok()?.trim().parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "systemd").then_some(Some(pid))
    });
    match found {
        Ok(Some(pid)) => Ok(pid),
        Ok(None) => Err(MachineError::Refused { said: process::tail(&state.join("machine.log")) }),
        Err(source) => Err(MachineError::NotUp { state: "not begun".into(), source }),
    }
}
