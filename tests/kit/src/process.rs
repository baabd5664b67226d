//! Programs that the kit runs: started so that they end with the process that started them, named
//! on disk so that they can be found again, and undone by one script.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use thiserror::Error;

use crate::wait::{NotInTime, eventually_blocking};

/// Ends what a state folder names and puts the machine back; see its head.
const UNDO: &str = include_str!("undo.sh");
/// Longest time the undo script may take: ending containers and removing their control groups and
/// files took at most 4 s on two busy cores.
const UNDO_DEADLINE: Duration = Duration::from_secs(180);
/// How much of a log an error shows.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 20;

/// Why a program could not be run.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// Starting failed.
    #[error("can't start {program}")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of its state folder can't be written.
    #[error("can't write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It ended although it should run.
    #[error("{name} ended ({status}); its log {} ends with:\n{tail}", log.display())]
    Ended {
        /// The daemon.
        name: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its whole log.
        log: PathBuf,
        /// The end of its log.
        tail: String,
    },
    /// A short command failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// Undoing took too long.
    #[error("putting the machine back took too long")]
    Undo(#[source] NotInTime),
}

/// How long a daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// It is killed when this process ends, however that happens.
    ThisProcess,
    /// It stays until it is stopped by its pid file.
    Detached,
}

/// A program that should be running.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
    how: How,
}

/// How a daemon was started, and can be again.
#[derive(Debug)]
struct How {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    state: PathBuf,
    lifetime: Lifetime,
}

/// What to start and where its files go: `<state>/<name>.log` and `<state>/<name>.pid`.
pub(crate) struct Launch<'a> {
    pub(crate) name: &'static str,
    pub(crate) program: &'a Path,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, OsString)>,
    pub(crate) state: &'a Path,
    pub(crate) lifetime: Lifetime,
    pub(crate) stdin: Stdio,
}

impl Launch<'_> {
    pub(crate) fn start(self) -> Result<Daemon, ProcessError> {
        let log = self.state.join(format!("{}.log", self.name));
        let how = How {
            program: self.program.to_owned(),
            args: self.args,
            env: self.env,
            state: self.state.to_owned(),
            lifetime: self.lifetime,
        };
        let child = how.start(self.name, &log, self.stdin)?;
        Ok(Daemon { name: self.name, child, log, how })
    }
}

impl How {
    fn start(&self, name: &str, log: &Path, stdin: Stdio) -> Result<Child, ProcessError> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .and_then(|out| Ok((out.try_clone()?, out)))
            .map_err(|source| ProcessError::Write { path: log.to_owned(), source })?;
        let mut command = match self.lifetime {
            Lifetime::ThisProcess => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
                command
            }
            Lifetime::Detached => Command::new(&self.program),
        };
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            // A group of its own: Ctrl-C on the terminal is for the program in front, which then
            // stops its daemons in order.
            .process_group(0)
            .stdin(stdin)
            .stdout(output.0)
            .stderr(output.1);
        let mut child = spawn_from_the_long_lived_thread(command).map_err(|source| {
            ProcessError::Start { program: self.program.display().to_string(), source }
        })?;
        let pid_file = self.state.join(format!("{name}.pid"));
        if let Err(source) = fs::write(&pid_file, identity(child.id())) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(ProcessError::Write { path: pid_file, source });
        }
        Ok(child)
    }
}

impl Daemon {
    /// Fails with the end of the log when the program has ended.
    pub(crate) fn check(&mut self) -> Result<(), ProcessError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(ProcessError::Ended {
                name: self.name,
                status,
                tail: tail(&self.log),
                log: self.log.clone(),
            }),
            // An error here means that the child is gone and was waited for: nothing more to learn.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// What it was launched as.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Kills it (its state is thrown away anyway) and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again as it was started, after it was [killed](Self::kill); its input is empty.
    pub(crate) fn start_again(&mut self) -> Result<(), ProcessError> {
        self.child = self.how.start(self.name, &self.log, Stdio::null())?;
        Ok(())
    }

    /// Takes note of an end that somebody else brought about, so that no zombie stays.
    pub(crate) fn reap(&mut self) {
        let _ = self.child.try_wait();
    }
}

/// Waits for the end of this process, in whatever way it ends, and then runs the undo script.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Janitor {
    /// `held` is kept open until the undoing is finished: a lock on it ends then.
    pub(crate) fn start(state: &Path, held: Option<File>) -> Result<Self, ProcessError> {
        let mut command = undo_command(state, "after-parent");
        command.process_group(0).stdin(Stdio::piped()).stderr(Stdio::null());
        command.stdout(held.map_or_else(Stdio::null, Stdio::from));
        let mut child = command
            .spawn()
            .map_err(|source| ProcessError::Start { program: "sh".to_owned(), source })?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    /// Undoes now and waits for it.
    pub(crate) fn finish(&mut self) -> Result<(), ProcessError> {
        drop(self.stdin.take());
        wait_for_undo(&mut self.child)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// Undoes what the state folder names, which a process that is no more may have left.
pub(crate) fn undo(state: &Path) -> Result<(), ProcessError> {
    let mut command = undo_command(state, "now");
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|source| ProcessError::Start { program: "sh".to_owned(), source })?;
    wait_for_undo(&mut child)
}

fn undo_command(state: &Path, when: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", UNDO, "undo"]).arg(state).arg(when);
    command
}

fn wait_for_undo(child: &mut Child) -> Result<(), ProcessError> {
    let ended = eventually_blocking(UNDO_DEADLINE, "the undo script", || {
        child.try_wait().map_or(Some(()), |status| status.map(|_| ()))
    });
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    ended.map_err(ProcessError::Undo)
}

/// Runs a short command to its end and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, ProcessError> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ProcessError::Start { program: shown.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Err(ProcessError::Command { command: shown, status: output.status, output: said })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Is the program on the search path?
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

/// `<pid> <start time>`: the start time (in clock ticks since boot, field 22 of `/proc/<pid>/stat`)
/// tells the process from a later one with the same number.
pub(crate) fn identity(pid: u32) -> String {
    let start = stat_field(pid, 19).unwrap_or_else(|| "unknown".to_owned());
    format!("{pid} {start}\n")
}

/// Is the process of this identity still there?
pub(crate) fn runs(process: &str) -> bool {
    let pid = process.split(' ').next().and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| identity(pid) == process && !is_zombie(pid))
}

/// It has ended, and nobody has waited for it yet.
fn is_zombie(pid: u32) -> bool {
    stat_field(pid, 0).is_some_and(|state| state == "Z")
}

/// The processes that this one has started, by identity.
pub(crate) fn children(parent: u32) -> Vec<String> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = parent.to_string();
    let is_child = |pid: &u32| stat_field(*pid, 1).is_some_and(|found| found == parent);
    pids.filter(is_child).map(identity).collect()
}

/// A field of `/proc/<pid>/stat`, counted from the one after the name: state, parent.
fn stat_field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold blanks.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(number).map(str::to_owned)
}

/// The last lines of a log, for an error.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("(unreadable: {error})"));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// The kernel sends the parent-death signal when the *thread* that forked ends, and test threads
/// end with their test. So one thread, which lives as long as the process, does all the starting.
fn spawn_from_the_long_lived_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
    static THREAD: OnceLock<mpsc::SyncSender<Order>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (orders, received) = mpsc::sync_channel::<Order>(0);
        let spawned = std::thread::Builder::new().name("kit-spawner".to_owned()).spawn(move || {
            for (mut command, answer) in received {
                let _ = answer.send(command.spawn());
            }
        });
        // When no thread can be made, the channel is closed and every start says so.
        drop(spawned);
        orders
    });
    let (answer, answered) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts programs could not be made");
    thread.send((command, answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(state: &Path) -> Daemon {
        Launch {
            name: "sleeper",
            program: Path::new("sleep"),
            args: vec!["600".into()],
            env: Vec::new(),
            state,
            lifetime: Lifetime::ThisProcess,
            stdin: Stdio::null(),
        }
        .start()
        .unwrap()
    }

    #[test]
    fn a_daemon_outlives_the_thread_that_asked_for_it() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().to_owned();
        let mut daemon = std::thread::spawn(move || sleeper(&folder)).join().unwrap();
        // Another round trip through the spawner: had the daemon been bound to the ended thread,
        // its signal would have been sent before this one is forked.
        let other = tempfile::tempdir().unwrap();
        sleeper(other.path()).kill();
        daemon.check().unwrap();
        daemon.kill();
    }

    #[test]
    fn a_process_that_ended_does_not_run_though_nobody_has_waited_for_it() {
        let mut child = Command::new("sh").args(["-c", "read line"]).stdin(Stdio::piped()).spawn();
        let child = child.as_mut().unwrap();
        let own = identity(child.id());
        assert!(runs(&own));
        assert!(children(std::process::id()).contains(&own));
        drop(child.stdin.take());
        eventually_blocking(Duration::from_secs(120), "its end", || (!runs(&own)).then_some(()))
            .unwrap();
        assert!(is_zombie(child.id()));
        child.wait().unwrap();
        assert!(!runs(&own));
    }

    #[test]
    fn a_daemon_that_is_started_again_does_the_same() {
        let state = tempfile::tempdir().unwrap();
        let mut daemon = sleeper(state.path());
        let first = identity(daemon.id());
        daemon.kill();
        daemon.start_again().unwrap();
        daemon.check().unwrap();
        assert_ne!(identity(daemon.id()), first);
        let noted = fs::read_to_string(state.path().join("sleeper.pid")).unwrap();
        assert_eq!(noted, identity(daemon.id()));
        daemon.kill();
    }

    #[test]
    fn a_daemon_that_ended_is_reported_with_the_end_of_its_log() {
        let state = tempfile::tempdir().unwrap();
        let mut daemon = Launch {
            name: "broken",
            program: Path::new("sh"),
            args: vec!["-c".into(), "echo no such flag >&2; exit 3".into()],
            env: Vec::new(),
            state: state.path(),
            lifetime: Lifetime::ThisProcess,
            stdin: Stdio::null(),
        }
        .start()
        .unwrap();
        let error =
            eventually_blocking(Duration::from_secs(120), "its end", || daemon.check().err())
                .unwrap();
        let text = error.to_string();
        assert!(text.contains("broken ended (exit status: 3)"), "{text}");
        assert!(text.contains("no such flag"), "{text}");
    }

    #[test]
    fn undo_kills_by_pid_file_and_removes_the_folder() {
        let state = tempfile::tempdir().unwrap().keep();
        let mut daemon = sleeper(&state);
        undo(&state).unwrap();
        eventually_blocking(Duration::from_secs(120), "its end", || daemon.check().err()).unwrap();
        assert!(!state.exists());
    }

    #[test]
    fn undo_leaves_a_process_alone_that_only_has_the_same_number() {
        let state = tempfile::tempdir().unwrap().keep();
        let mut daemon = sleeper(&state);
        fs::write(state.join("sleeper.pid"), format!("{} 1\n", daemon.child.id())).unwrap();
        undo(&state).unwrap();
        daemon.check().unwrap();
        daemon.kill();
    }

    #[test]
    fn the_janitor_undoes_when_its_parent_lets_go() {
        let state = tempfile::tempdir().unwrap().keep();
        let mut daemon = sleeper(&state);
        let janitor = Janitor::start(&state, None).unwrap();
        daemon.check().unwrap();
        drop(janitor);
        assert!(!state.exists());
        eventually_blocking(Duration::from_secs(120), "its end", || daemon.check().err()).unwrap();
    }
}
