//! What an idle agent costs: resident memory, threads and CPU seconds per minute with its session up
//! and no work, next to the smallest tonic client that holds a session to the same control plane in
//! the same run.
//!
//! `cargo build --workspace --bins && cargo run -p mendix-e2e --bin idle [-- --seconds 60]`

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Parser;
use comfy_table::{Table, presets};
use mendix_agent_proto::v1::{EnrollRequest, enrollment_service_client::EnrollmentServiceClient};
use mendix_control_plane::{ControlPlane, Options, Running, pki::ServerNames, repository::Expiry};
use mendix_e2e::install;
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
