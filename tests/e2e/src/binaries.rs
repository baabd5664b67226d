//! Builds what the demo runs: the agent as one static binary, and the control plane.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use mendix_test_kit::{agent_image, progress::Progress as KitProgress};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    task::spawn_blocking,
};

use crate::ui::Progress;

/// The two programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `mendix-agent`, statically linked: the only file of its image.
    pub agent: PathBuf,
    /// `mendix-control-plane`.
    pub control_plane: PathBuf,
}

/// Builds both with the dev profile, which shares its artefacts with the tests.
///
/// # Errors
/// When cargo can't be run or a build fails; the compiler's last lines are in the error.
pub async fn build(progress: &Progress) -> Result<Binaries> {
    progress.say("building mendix-control-plane");
    // Both packages, so that cargo gives their dependencies the same features as in the demo's own
    // build, and builds none of them twice.
    cargo(progress, &["build", "--package", "mendix-control-plane", "--package", "mendix-agent"])
        .await?;
    let control_plane = target_folder().await?.join("debug/mendix-control-plane");
    let say = KitProgress::to(progress.sayer());
    let agent = spawn_blocking(move || agent_image::build(agent_image::AGENT, &say)).await??;
    Ok(Binaries { agent, control_plane })
}

/// Root of the workspace.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

async fn target_folder() -> Result<PathBuf> {
    let output = Command::new(cargo_program())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .await
        .context("run cargo metadata")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("read the output of cargo metadata")?;
    let folder =
        metadata["target_directory"].as_str().context("cargo metadata: no target folder")?;
    Ok(folder.into())
}

fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// How many of the compiler's last lines an error shows.
const LAST_LINES: usize = 30;

async fn cargo(progress: &Progress, arguments: &[&str]) -> Result<()> {
    let mut child = Command::new(cargo_program())
        .args(arguments)
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("run cargo")?;
    let stderr = child.stderr.take().context("cargo has no standard error")?;
    let mut lines = BufReader::new(stderr).lines();
    let mut last: Vec<String> = Vec::new();
    while let Some(line) = lines.next_line().await.context("read cargo's output")? {
        if let Some(crate_name) = line.trim().strip_prefix("Compiling ") {
            progress.say(&format!("compiling {crate_name}"));
        }
        last.push(line);
        if last.len() > LAST_LINES {
            last.remove(0);
        }
    }
    let status = child.wait().await.context("wait for cargo")?;
    if !status.success() {
        bail!("cargo {} failed ({status}):\n{}", arguments.join(" "), last.join("\n"));
    }
    Ok(())
}
