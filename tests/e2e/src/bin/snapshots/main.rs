//! What log snapshots cost, and how fast they stop: figures next to their goals.
//!
//! `cargo run --release -p mendix-e2e --bin snapshots -- pipeline|memory|revocation`
//!
//! The agent runs in this process with a real API server behind it; the pods and their logs are made
//! here, so that neither a kubelet nor a container runtime is measured. The control plane is a process
//! of its own. Everything goes over mTLS on loopback. It fails when a goal was missed.

mod bench;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use flate2::{Compression, write::GzEncoder};
use mendix_control_plane::{
    ControlPlane, Options, Store, snapshots::UploadState, store::TicketStatus,
};
use mendix_test_kit::{
    agent_image::HEAPS,
    proxy::{Direction, Rule},
    wait::eventually,
};
use tokio::process::Command;

use self::bench::{Bench, PATIENCE, cpu_seconds, memory_of};

/// How often files and memory are looked at.
const LOOK: Duration = Duration::from_millis(2);
const MIB: f64 = 1024.0 * 1024.0;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Throughput of the whole pipeline next to gzip alone on the same bytes.
    Pipeline {
        /// Bytes of logs, MiB.
        #[arg(long, default_value_t = 256)]
        mib: usize,
        /// Logs they are spread over.
        #[arg(long, default_value_t = 500)]
        streams: usize,
        /// How often to measure.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Peak resident memory over idle, with a fast, a slow and a stalled receiver: each in a process
    /// of its own, so that what one run left to the allocator is not the idle memory of the next.
    Memory {
        /// Only with this receiver, in this process.
        #[arg(long)]
        receiver: Option<Pace>,
        /// Bytes of logs, MiB.
        #[arg(long, default_value_t = 256)]
        mib: usize,
        /// Logs they are spread over.
        #[arg(long, default_value_t = 500)]
        streams: usize,
    },
    /// From a veto, or the end of a ticket, to the last byte.
    Revocation {
        /// How often to measure each.
        #[arg(long, default_value_t = 100)]
        runs: usize,
    },
    /// The control plane as a process of its own.
    #[command(hide = true)]
    Receiver { state: PathBuf },
}

/// How the other end takes what is sent.
#[derive(Clone, Copy, ValueEnum)]
enum Pace {
    Fast,
    Slow,
    Stalled,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    // The same provider that the agent installs; it fails only when it is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Arguments::parse().command {
        What::Pipeline { mib, streams, rounds } => pipeline(mib, streams, rounds).await,
        What::Memory { receiver: Some(pace), mib, streams } => memory(pace, mib, streams).await,
        What::Memory { receiver: None, mib, streams } => memory_of_each(mib, streams).await,
        What::Revocation { runs } => revocation(runs).await,
        What::Receiver { state } => receive(&state).await,
    }
}

async fn receive(state: &Path) -> Result<()> {
    let options = Options { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Options::default() };
    let plane = ControlPlane::start(Store::open(state.to_owned())?, options).await?;
    println!("{}", plane.address());
    // Until the other end of standard input is closed.
    tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    Ok(plane.shutdown().await?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn pipeline(mib: usize, streams: usize, rounds: usize) -> Result<()> {
    let bench = Bench::start(mib, streams).await?;
    let agent = bench.agent().await?;
    let raw = bench.source.bytes() as f64;
    let mut ratios = vec![];
    // Warm: the session, the files, the allocator.
    bench.snapshot().await?;
    for round in 1..=rounds {
        let alone = Instant::now();
        let mut gzip = GzEncoder::new(io::sink(), Compression::new(6));
        bench.source.write_all(&mut gzip)?;
        gzip.finish()?;
        let alone = alone.elapsed().as_secs_f64();
        let cpu = (cpu_seconds("self")?, bench.receiver_cpu()?);
        let (took, sealed) = bench.snapshot().await?;
        let took = took.as_secs_f64();
        let cpu = (cpu_seconds("self")? - cpu.0, bench.receiver_cpu()? - cpu.1);
        ratios.push(alone / took);
        println!(
            "round {round}: gzip alone {:.1} MB/s; pipeline {:.1} MB/s ({took:.1} s wall, {:.1} s CPU of \
             agent and source, {:.1} s of the receiver); {:.1} MiB sealed; ratio {:.2}",
            raw / alone / 1e6,
            raw / took / 1e6,
            cpu.0,
            cpu.1,
            sealed as f64 / MIB,
            alone / took,
        );
    }
    let ratio = median(ratios);
    println!(
        "{mib} MiB over {streams} logs: median ratio {ratio:.2}; goal 0.5: {}",
        met(ratio >= 0.5)
    );
    agent.stop().await;
    ensure!(ratio >= 0.5, "a goal was missed");
    Ok(())
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

async fn memory_of_each(mib: usize, streams: usize) -> Result<()> {
    let mut met = true;
    for pace in Pace::value_variants() {
        let name = pace.to_possible_value().context("a pace without a name")?;
        let run = Command::new(std::env::current_exe()?)
            .args(["memory", "--receiver", name.get_name()])
            .args(["--mib", &mib.to_string(), "--streams", &streams.to_string()])
            // As the image and the unit start it.
            .envs(HEAPS)
            .status();
        met &= run.await?.success();
    }
    ensure!(met, "a goal was missed");
    Ok(())
}

async fn memory(pace: Pace, mib: usize, streams: usize) -> Result<()> {
    let (name, rule) = match pace {
        Pace::Fast => ("fast", Rule::Pass),
        Pace::Slow => ("slow (16 KiB per 20 ms)", Rule::Delay(Duration::from_millis(20))),
        Pace::Stalled => ("stalled after 1 MiB", Rule::StallAfter(1024 * 1024)),
    };
    let bench = Bench::start(mib, streams).await?;
    let agent = bench.agent().await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    // The peak so far is forgotten.
    fs::write("/proc/self/clear_refs", "5").context("reset the peak")?;
    let idle = memory_of("VmRSS")?;
    bench.proxy.set(Direction::Up, rule);
    let (_, request) = bench.ticket()?;
    let how = if let Pace::Stalled = pace {
        // Long enough for every buffer to fill and for the upload to be given up.
        tokio::time::sleep(Duration::from_secs(90)).await;
        "stalled".to_owned()
    } else {
        bench.outcome(&request).await?.outcome
    };
    let over = (memory_of("VmHWM")? - idle) / MIB;
    println!(
        "{name}: {:.1} MiB idle, peak {over:.1} MiB over it ({how}); goal 48: {}",
        idle / MIB,
        met(over <= 48.0)
    );
    bench.proxy.set_both(Rule::Pass);
    bench.proxy.cut();
    agent.stop().await;
    ensure!(over <= 48.0, "a goal was missed");
    Ok(())
}

/// One revocation, as seen from the control plane.
struct Stopped {
    /// From the act to the last byte, seconds.
    latency: f64,
    /// Bytes that arrived although nothing was to leave any more.
    after: u64,
}

async fn revocation(runs: usize) -> Result<()> {
    let bench = Bench::start(128, 16).await?;
    let agent = bench.agent().await?;
    let mut missed = false;
    for (name, local, goal) in [("local veto", true, 1.0), ("ticket solved", false, 2.0)] {
        let mut latencies = vec![];
        let mut after = 0;
        for _ in 0..runs {
            let stopped = one_revocation(&bench, local).await?;
            latencies.push(stopped.latency);
            after = after.max(stopped.after);
        }
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] * 1000.0;
        println!(
            "{name}, {runs} runs: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms; goal {goal} s: {}; at most \
             {after} bytes after; goal 262144: {}; nothing of it opens",
            at(0.5),
            at(0.99),
            at(1.0),
            met(at(0.99) <= goal * 1000.0),
            met(after <= 262_144),
        );
        missed |= at(0.99) > goal * 1000.0 || after > 262_144;
    }
    agent.stop().await;
    ensure!(!missed, "a goal was missed");
    Ok(())
}

/// Ends consent in the middle of an upload over a slow connection. Counted is from the moment before
/// the act, so what is sent while the agent does not know yet is in the figures.
async fn one_revocation(bench: &Bench, local: bool) -> Result<Stopped> {
    bench.proxy.set(Direction::Up, Rule::Delay(Duration::from_millis(10)));
    let (ticket, request) = bench.ticket()?;
    let id = eventually(PATIENCE, "bytes arrive", async || {
        bench.received(&ticket).filter(|(_, bytes)| *bytes > 0).map(|(id, _)| id)
    })
    .await?;
    let act = Instant::now();
    if local {
        bench.set_policy(true).await?;
    } else {
        bench.store.set_ticket_status(&ticket, TicketStatus::Solved)?;
    }
    let before = bench.received(&ticket).map_or(0, |(_, bytes)| bytes);
    let (mut last, mut at) = (before, Instant::now());
    let begun = Instant::now();
    loop {
        match bench.received(&ticket) {
            Some((_, bytes)) if bytes > last => (last, at) = (bytes, Instant::now()),
            // Discarded: that is the end, too.
            None => break,
            Some(_) => {}
        }
        ensure!(begun.elapsed() < PATIENCE, "it did not end");
        tokio::time::sleep(LOOK).await;
    }
    let done = bench.outcome(&request).await?;
    ensure!(done.outcome == "Revoked", "{}: {} {}", done.outcome, done.reason, done.message);
    let upload = bench.store.upload(&id)?;
    ensure!(matches!(upload.state, UploadState::Aborted { .. }), "{:?}", upload.state);
    let out = bench.folder.path().join("opened");
    ensure!(mendix_control_plane::snapshots::open(&bench.store, &id, &out).is_err(), "it opens");
    if local {
        bench.set_policy(false).await?;
        bench.store.set_ticket_status(&ticket, TicketStatus::Solved)?;
    }
    Ok(Stopped { latency: at.duration_since(act).as_secs_f64(), after: last - before })
}
