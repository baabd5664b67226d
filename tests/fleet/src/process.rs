//! What the kernel says of a process.

use anyhow::{Context, Result};

/// Figures of one moment.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Sample {
    /// Resident memory, KiB.
    pub resident_kib: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// CPU time used so far, milliseconds.
    pub cpu_millis: u64,
}

/// Samples a process.
///
/// # Errors
/// When it has ended, or `/proc` is not there.
pub fn sample(pid: u32) -> Result<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid}"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name)).context("no such field")?;
        line.split_whitespace().nth(1).context("no value")?.parse().context("not a number")
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the command's name in brackets: state is field 3, utime and stime are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Sample {
        resident_kib: field("VmRSS:")?,
        threads: field("Threads:")?,
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
        // USER_HZ is 100 on every Linux that Rust runs on.
        cpu_millis: ticks * 10,
    })
}
