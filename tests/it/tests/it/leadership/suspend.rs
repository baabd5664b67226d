//! A suspend of the machine, as one process of it feels it: it stands still, and the monotonic clock
//! stands still with it; the clock since boot and the wall clock go on. Stopping a process is half of
//! that; `suspend.c`, preloaded, is the other half.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

/// Environment of a process that can sleep: the file that says how long it did.
const SLEPT: &str = "MENDIX_IT_SLEPT";

/// What a replica needs that can be suspended.
pub(super) struct Sleep {
    library: PathBuf,
    /// How long it has slept, nanoseconds; read by the process that sleeps.
    slept: PathBuf,
    total: Duration,
}

impl Sleep {
    /// Builds the library with the compiler that Rust links with.
    pub(super) fn new(folder: &Path) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/leadership/suspend.c");
        let library = folder.join("suspend.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&library, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let slept = folder.join("slept");
        fs::write(&slept, 0_i64.to_ne_bytes()).unwrap();
        Self { library, slept, total: Duration::ZERO }
    }

    /// What makes a process one that can sleep.
    pub(super) fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), (SLEPT, &self.slept)]
    }

    /// Says that the process stood still for so long: before it goes on, and never for longer than it did.
    pub(super) fn add(&mut self, stood_still: Duration) {
        self.total += stood_still;
        let nanos = i64::try_from(self.total.as_nanos()).unwrap();
        // In place and at once: the process has this file mapped.
        let mut file = File::options().write(true).open(&self.slept).unwrap();
        file.write_all(&nanos.to_ne_bytes()).unwrap();
    }
}

/// Waits until a process that was told to stop has done so, and tells since when.
pub(super) fn stopped(pid: u32) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name in brackets: the state.
        if stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T') {
            return Instant::now();
        }
        assert!(Instant::now() < deadline, "it does not stop: {stat}");
        std::thread::yield_now();
    }
}

/// Not a test: what the next one starts. Without its environment it does nothing.
#[test]
fn one_that_reads_its_clocks() {
    let Some(slept) = std::env::var_os(SLEPT) else { return };
    let hour = Duration::from_secs(3600);
    let (before, wall) = (Instant::now(), SystemTime::now());
    fs::write(slept, i64::try_from(hour.as_nanos()).unwrap().to_ne_bytes()).unwrap();
    let back = before.saturating_duration_since(Instant::now());
    assert!(back > hour / 2, "the monotonic clock went on: {back:?}");
    assert!(SystemTime::now() >= wall, "the wall clock did not");
}

/// Else those who were suspended would only have been stopped, and nobody would know.
#[test]
fn the_monotonic_clock_of_a_process_stands_still_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let sleep = Sleep::new(folder.path());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leadership::suspend::one_that_reads_its_clocks"])
        .envs(sleep.environment())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
