//! The runs: what is done to a control plane with agents, and what comes of it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mendix_test_kit::wait::eventually;
use serde::Serialize;

use crate::{
    agents::{Fleet, members},
    curve,
    plane::{Plane, Site},
    process::{self, Sample},
    record::{Record, What},
};

/// Longest wait for all agents to connect at the beginning, beyond what the pace takes.
const CONNECT: Duration = Duration::from_secs(300);
/// Longest wait for all agents to come back, beyond the spread.
const COME_BACK: Duration = Duration::from_secs(300);
/// Time in which reports are told and acknowledged, and buffers go back to where they rest.
const SETTLE: Duration = Duration::from_secs(5);
/// How often a soak looks.
const LOOK: Duration = Duration::from_secs(5);

/// How many agents, and how they begin.
#[derive(Clone, Debug)]
pub struct Load {
    /// The binary `mendix-fleet-plane`.
    pub program: PathBuf,
    /// How many agents.
    pub agents: u32,
    /// How many of them start in a second.
    pub per_second: u32,
}

/// A control plane with all its agents connected.
struct Run {
    site: Site,
    plane: Plane,
    fleet: Fleet,
    record: Record,
    /// The server before its first agent.
    empty: Sample,
    /// This process before its first agent.
    empty_fleet: Sample,
    took: Duration,
}

impl Run {
    async fn begin(load: &Load, serve: &[&str]) -> Result<Self> {
        let serve = serve.iter().map(ToString::to_string).collect();
        let site = Site::new(load.program.clone(), serve).await?;
        let (store, count) = (site.store()?, load.agents);
        eprintln!("making {count} identities");
        let members = tokio::task::spawn_blocking(move || members(&store, count)).await??;
        let plane = site.start(None).await?;
        let (empty, empty_fleet) = (plane.sample()?, process::sample(std::process::id())?);
        let record = Record::default();
        eprintln!("starting {count} agents, {} a second", load.per_second);
        let begin = Instant::now();
        let fleet = Fleet::start(&members, plane.address(), load.per_second, &record).await?;
        let run = Self { site, plane, fleet, record, empty, empty_fleet, took: Duration::ZERO };
        run.all_connected(CONNECT).await?;
        let took = begin.elapsed();
        eprintln!("all connected after {:.1} s", took.as_secs_f64());
        tokio::time::sleep(SETTLE).await;
        Ok(Self { took, ..run })
    }

    async fn all_connected(&self, deadline: Duration) -> Result<()> {
        let all = async || (self.fleet.connected() == self.fleet.len()).then_some(());
        if eventually(deadline, "all agents are connected", all).await.is_err() {
            bail!(
                "{} of {} agents are connected; of the others: {:#?}",
                self.fleet.connected(),
                self.fleet.len(),
                self.fleet.failures()
            );
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
        self.fleet.stop().await;
        self.plane.kill().await
    }
}

/// What sessions cost.
#[derive(Clone, Debug, Serialize)]
pub struct Sessions {
    /// How many.
    pub agents: u32,
    /// Until all were connected, seconds.
    pub connect_seconds: f64,
    /// Resident memory of the server, KiB: empty and with all sessions.
    pub server_kib: (u64, u64),
    /// What one session adds to it, KiB.
    pub kib_per_session: f64,
    /// What one agent adds to this process, KiB.
    pub kib_per_agent: f64,
    /// CPU of the server with idle sessions, millicores.
    pub server_millicores: f64,
    /// Sessions that were lost while they idled.
    pub lost: usize,
}

/// Holds `load.agents` sessions for `hold`.
///
/// # Errors
/// When not all connect.
pub async fn sessions(load: &Load, hold: Duration) -> Result<Sessions> {
    let run = Run::begin(load, &["--handshakes", "2000"]).await?;
    let (before, begin) = (run.plane.sample()?, Instant::now());
    tokio::time::sleep(hold).await;
    let after = run.plane.sample()?;
    let own = process::sample(std::process::id())?;
    let each = |more: u64, less: u64| more.saturating_sub(less) as f64 / f64::from(load.agents);
    let cpu = (after.cpu_millis - before.cpu_millis) as f64;
    let moments = run.record.since(begin);
    let result = Sessions {
        agents: load.agents,
        connect_seconds: run.took.as_secs_f64(),
        server_kib: (run.empty.resident_kib, after.resident_kib),
        kib_per_session: each(after.resident_kib, run.empty.resident_kib),
        kib_per_agent: each(own.resident_kib, run.empty_fleet.resident_kib),
        server_millicores: cpu / begin.elapsed().as_secs_f64(),
        lost: moments.iter().filter(|moment| moment.what == What::Lost).count(),
    };
    run.end().await?;
    Ok(result)
}

/// How the server goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// SIGTERM: agents are told to come back over the spread.
    Drain,
    /// SIGKILL: agents find out by themselves.
    Kill,
}

/// How agents came back after the server was restarted.
#[derive(Clone, Debug, Serialize)]
pub struct Restart {
    /// How many agents.
    pub agents: u32,
    /// How the server went down.
    pub ending: Ending,
    /// Over which time agents were told to come back, seconds.
    pub spread_seconds: f64,
    /// From the signal until it listened again, seconds.
    pub down_seconds: f64,
    /// Agents that did not come back.
    pub starved: u32,
    /// Connections that agents began in each second after the signal.
    pub dials: Vec<u32>,
    /// Sessions that began in each second after the signal.
    pub connects: Vec<u32>,
    /// The most of them in one second.
    pub peak_dials: u32,
    /// See [`Restart::peak_dials`].
    pub peak_connects: u32,
    /// Twice the agents over the spread: what the peak of dials should stay under.
    pub limit: f64,
    /// Time from the server's return to an agent's, seconds: half of them, 99 of 100, the last.
    pub comeback_p50: f64,
    /// See [`Restart::comeback_p50`].
    pub comeback_p99: f64,
    /// See [`Restart::comeback_p50`].
    pub comeback_last: f64,
}

/// Restarts the server under `load.agents` sessions.
///
/// # Errors
/// When not all connect at first. Agents that don't come back are in the result.
pub async fn restart(load: &Load, ending: Ending, spread: Duration) -> Result<Restart> {
    let seconds = format!("{}s", spread.as_secs());
    let serve = ["--spread", &seconds, "--comebacks", "1", "--handshakes", "2000"];
    let mut run = Run::begin(load, &serve).await?;
    let address: SocketAddr = run.plane.address();
    let begin = Instant::now();
    match ending {
        Ending::Drain => run.plane.drain().await?,
        Ending::Kill => run.plane.kill().await?,
    }
    run.plane = run.site.start(Some(address)).await?;
    let back = Instant::now();
    eprintln!("the control plane is back after {:.1} s", (back - begin).as_secs_f64());
    // How many are missing is part of the result.
    let _ = run.all_connected(spread + COME_BACK).await;
    let moments = run.record.since(begin);
    let dials = curve::per_second(&moments, What::Dialled, begin);
    let connects = curve::per_second(&moments, What::Connected, begin);
    let times = curve::comebacks(&moments, begin, back);
    let peak = |values: &[u32]| values.iter().copied().max().unwrap_or(0);
    let result = Restart {
        agents: load.agents,
        ending,
        spread_seconds: spread.as_secs_f64(),
        down_seconds: (back - begin).as_secs_f64(),
        starved: load.agents.saturating_sub(u32::try_from(times.len())?),
        peak_dials: peak(&dials),
        peak_connects: peak(&connects),
        dials,
        connects,
        limit: 2.0 * f64::from(load.agents) / spread.as_secs_f64().max(1.0),
        comeback_p50: curve::percentile(&times, 50.0).as_secs_f64(),
        comeback_p99: curve::percentile(&times, 99.0).as_secs_f64(),
        comeback_last: curve::percentile(&times, 100.0).as_secs_f64(),
    };
    run.end().await?;
    Ok(result)
}

/// What a soak looks at, once in [`LOOK`].
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Look {
    /// Seconds since the beginning.
    pub second: u64,
    /// The server.
    pub server: Sample,
    /// This process with its agents.
    pub agents: Sample,
    /// Tasks of this process.
    pub tasks: usize,
    /// Agents with a session.
    pub connected: usize,
}

/// Whether anything grew.
#[derive(Clone, Debug, Serialize)]
pub struct Soak {
    /// How many agents.
    pub agents: u32,
    /// Sessions that were lost, all agents together.
    pub lost: usize,
    /// Sessions that began, all agents together, replaced ones not counted.
    pub connects: usize,
    /// Least share of agents that were connected at any look.
    pub least_connected: f64,
    /// All looks.
    pub looks: Vec<Look>,
    /// What grew; empty is good.
    pub grew: Vec<String>,
}

/// Lets agents replace their sessions every minute and report every few seconds for `lasting`. The
/// network is the caller's: run it where packets get lost.
///
/// # Errors
/// When not all connect at first.
pub async fn soak(load: &Load, lasting: Duration) -> Result<Soak> {
    let serve = ["--session-age", "60s", "--heartbeat", "10s", "--handshakes", "2000"];
    let run = Run::begin(load, &serve).await?;
    let begin = Instant::now();
    let mut looks = Vec::new();
    let (mut lost, mut connects) = (0, 0);
    let metrics = tokio::runtime::Handle::current().metrics();
    let mut ticks = tokio::time::interval(LOOK);
    let mut last = begin;
    while begin.elapsed() < lasting {
        ticks.tick().await;
        run.fleet.report(looks.len() as u64);
        let now = Instant::now();
        let moments = run.record.since(last);
        lost += moments.iter().filter(|moment| moment.what == What::Lost).count();
        connects += moments.iter().filter(|moment| moment.what == What::Connected).count();
        run.record.clear();
        last = now;
        looks.push(Look {
            second: begin.elapsed().as_secs(),
            server: run.plane.sample().context("the server is gone")?,
            agents: process::sample(std::process::id())?,
            tasks: metrics.num_alive_tasks(),
            connected: run.fleet.connected(),
        });
        if looks.len() % 12 == 0 {
            eprintln!("{}", serde_json::to_string(&looks[looks.len() - 1])?);
        }
    }
    let least = looks.iter().map(|look| look.connected).min().unwrap_or(0);
    let grew = growth(&looks);
    run.end().await?;
    Ok(Soak {
        agents: load.agents,
        lost,
        connects,
        least_connected: least as f64 / f64::from(load.agents.max(1)),
        looks,
        grew,
    })
}

/// What is larger in the last quarter than in the second, by more than chance: a leak of one
/// session's worth per minute and agent would double it.
fn growth(looks: &[Look]) -> Vec<String> {
    type Figure = (&'static str, f64, fn(&Look) -> u64);
    let figures: [Figure; 5] = [
        ("memory of the server, KiB", 4096.0, |look| look.server.resident_kib),
        ("memory of the agents, KiB", 4096.0, |look| look.agents.resident_kib),
        ("descriptors of the server", 16.0, |look| look.server.descriptors),
        ("descriptors of the agents", 16.0, |look| look.agents.descriptors),
        ("tasks of the agents", 32.0, |look| look.tasks as u64),
    ];
    let quarter = looks.len() / 4;
    if quarter == 0 {
        return vec!["too short to say".into()];
    }
    let (second, last) = (&looks[quarter..2 * quarter], &looks[looks.len() - quarter..]);
    let mut grew = Vec::new();
    for (name, slack, figure) in figures {
        let median = |part: &[Look]| {
            let mut values: Vec<u64> = part.iter().map(figure).collect();
            values.sort_unstable();
            values[values.len() / 2] as f64
        };
        let (before, after) = (median(second), median(last));
        if after > before * 1.05 + slack {
            grew.push(format!("{name}: {before:.0} → {after:.0}"));
        }
    }
    grew
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(tasks: impl Fn(usize) -> usize) -> Vec<Look> {
        let sample = Sample { resident_kib: 50_000, threads: 2, descriptors: 100, cpu_millis: 0 };
        (0..40)
            .map(|at| Look {
                second: at as u64,
                server: sample,
                agents: sample,
                tasks: tasks(at),
                connected: 1,
            })
            .collect()
    }

    #[test]
    fn what_is_level_or_only_grew_in_the_beginning_did_not_grow() {
        assert_eq!(growth(&looks(|_| 500)), Vec::<String>::new());
        assert_eq!(growth(&looks(|at| if at < 8 { 10 } else { 500 })), Vec::<String>::new());
    }

    #[test]
    fn a_slow_leak_is_named() {
        let grew = growth(&looks(|at| 500 + 10 * at));
        assert!(grew.len() == 1 && grew[0].starts_with("tasks of the agents"), "{grew:?}");
        assert_eq!(growth(&[]), ["too short to say"]);
    }
}
