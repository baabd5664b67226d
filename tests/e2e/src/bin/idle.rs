//! What an idle agent costs: resident memory, threads and CPU seconds per minute with its session up
//! and no work, next to the smallest tonic client that holds a session to the same control plane in
//! the same run. Fails when a goal was missed; the goals are for the build that is shipped.
//!
//! `cargo build --release -p mendix-agent -p mendix-e2e && target/release/idle [--seconds 60]`

use std::{net::SocketAddr, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Parser;
use comfy_table::{Table, presets};
use mendix_agent_proto::v1::{EnrollRequest, enrollment_service_client::EnrollmentServiceClient};
use mendix_control_plane::Running;
use mendix_e2e::bench::{self, Launcher, sibling, spawn};
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    progress::Progress,
    wait::eventually,
};
use tokio::process::{Child, Command};

/// Time for both to settle before the measurement.
const WARM_UP: Duration = Duration::from_secs(10);
/// Longest wait for a session.
const CONNECTED: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Arguments {
    /// How long to measure.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Goal: resident memory of the agent as a multiple of the minimal client's.
const RESIDENT_GOAL: f64 = 2.5;
/// Goal: CPU of the idle agent, thousandths of a core.
const CPU_GOAL: f64 = 2.0;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let window = Duration::from_secs(arguments.seconds);
    let folder = tempfile::tempdir().context("make a folder")?;
    let server = ApiServer::start(ApiServerOptions {
        progress: Progress::stderr(),
        ..ApiServerOptions::default()
    })
    .await?;
    let plane = bench::control_plane(folder.path()).await?;
    let mut agent = Launcher::install(&server, &plane, folder.path()).await?.start()?;
    let mut minimal = minimal(&plane, folder.path()).await?;
    eventually(CONNECTED, "both sessions are up", async || {
        (plane.counters().sessions_open == 2).then_some(())
    })
    .await?;
    eprintln!("both sessions are up; measuring for {} s", window.as_secs());
    tokio::time::sleep(WARM_UP).await;
    let before = [sample(&agent)?, sample(&minimal)?];
    tokio::time::sleep(window).await;
    let after = [sample(&agent)?, sample(&minimal)?];
    let missed = print(window, &before, &after);
    agent.kill().await?;
    minimal.kill().await?;
    plane.shutdown().await?;
    for goal in &missed {
        eprintln!("missed: {goal}");
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn minimal(plane: &Running, folder: &Path) -> Result<Child> {
    const UID: &str = "00000000-0000-4000-8000-000000000001";
    let token = plane.store().register_cluster(UID, "default")?;
    let identity = folder.join("identity");
    std::fs::create_dir(&identity).context("make the identity's folder")?;
    let ca = std::fs::read(plane.store().trust_dir().join("channel-ca.pem"))?;
    std::fs::write(identity.join("ca.pem"), &ca)?;
    let key = rcgen::KeyPair::generate()?;
    let mut request = rcgen::CertificateParams::new(Vec::new())?;
    request.distinguished_name.push(rcgen::DnType::CommonName, UID);
    let csr_der = request.serialize_request(&key)?.der().to_vec();
    let issued = enroll(plane.address(), &ca, UID, token.0, csr_der).await?;
    std::fs::write(identity.join("cert.pem"), issued)?;
    std::fs::write(identity.join("key.pem"), key.serialize_pem())?;
    spawn(
        Command::new(sibling("minimal-client")?)
            .arg("--address")
            .arg(plane.address().to_string())
            .arg("--identity")
            .arg(identity)
            .args(["--cluster-uid", UID]),
    )
}

/// Enrols over server-authenticated TLS and returns the chain as PEM.
async fn enroll(
    address: SocketAddr,
    ca: &[u8],
    cluster_uid: &str,
    bootstrap_token: String,
    csr_der: Vec<u8>,
) -> Result<String> {
    let channel = mendix_e2e::wire::server_authenticated(address, ca).await?;
    let answer = EnrollmentServiceClient::new(channel)
        .enroll(EnrollRequest {
            cluster_uid: cluster_uid.into(),
            bootstrap_token,
            csr_der,
            agent_version: "0.0.0".into(),
            ..EnrollRequest::default()
        })
        .await?
        .into_inner();
    let chain = answer.issued.context("no certificate was issued")?.chain_der;
    Ok(chain
        .iter()
        .map(|der| {
            let body = STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        })
        .collect())
}

/// What the kernel says of a process.
struct Sample {
    resident_kib: u64,
    threads: u64,
    cpu_ticks: u64,
}

fn sample(child: &Child) -> Result<Sample> {
    let pid = child.id().context("the process has ended; run it by hand to see why")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name)).context("no such field")?;
        line.split_whitespace().nth(1).context("no value")?.parse().context("not a number")
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the command's name in brackets: state is field 3, utime and stime are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    Ok(Sample {
        resident_kib: field("VmRSS:")?,
        threads: field("Threads:")?,
        cpu_ticks: fields[11].parse::<u64>()? + fields[12].parse::<u64>()?,
    })
}

/// Prints the figures and returns the goals that were missed.
fn print(window: Duration, before: &[Sample; 2], after: &[Sample; 2]) -> Vec<String> {
    // USER_HZ is 100 on every Linux that Rust runs on: a tick is 10 ms.
    let millicores =
        |n: usize| (after[n].cpu_ticks - before[n].cpu_ticks) as f64 * 10.0 / window.as_secs_f64();
    let mib = |n: usize| after[n].resident_kib as f64 / 1024.0;
    let rows: [(&str, f64, f64); 3] = [
        ("resident, MiB", mib(0), mib(1)),
        ("threads", after[0].threads as f64, after[1].threads as f64),
        ("CPU, millicores", millicores(0), millicores(1)),
    ];
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "",
        "agent",
        "minimal client",
        "ratio",
    ]);
    for (name, agent, minimal) in rows {
        let ratio = if minimal > 0.0 { format!("{:.2}", agent / minimal) } else { "-".into() };
        table.add_row([name, &format!("{agent:.2}"), &format!("{minimal:.2}"), &ratio]);
    }
    println!("{table}");
    let mut missed = Vec::new();
    if mib(0) > RESIDENT_GOAL * mib(1) {
        missed
            .push(format!("{:.2} times the memory, the goal is {RESIDENT_GOAL}", mib(0) / mib(1)));
    }
    if millicores(0) > CPU_GOAL {
        missed.push(format!("{:.2} millicores, the goal is {CPU_GOAL}", millicores(0)));
    }
    missed
}
