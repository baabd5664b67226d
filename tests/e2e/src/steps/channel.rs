//! Job 1: the agent connects, and its pod is what SECURITY.md says.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kube::Api;
use mendix_agent::crd::agent_status::{self, AgentStatus};
use mendix_test_kit::wait::eventually;

use super::CONNECT;
use crate::{install::NAMESPACE, stage::Stage};

/// The agent's pod starts, makes a key, enrols with the one-time token and holds its session.
///
/// # Errors
/// When it is not connected in time.
pub async fn connects(stage: &Stage) -> Result<()> {
    stage.install_agent().await?;
    let api: Api<AgentStatus> = Api::namespaced(stage.client.clone(), NAMESPACE);
    eventually(CONNECT, "AgentStatus says Connected", async || {
        let status = api.get(agent_status::NAME).await.ok()?.status?;
        (status.link == "Connected").then_some(())
    })
    .await?;
    eventually(CONNECT, "the control plane sees the session", async || {
        let agent = stage.agent().ok()??;
        (agent.sessions > 0 && agent.disconnected_at.is_none()).then_some(())
    })
    .await?;
    stage.look(&["-n", NAMESPACE, "get", "agentstatuses"]).await?;
    let agents = stage.operator(&["agents"]).await?;
    stage.ui.line(format!(
        "the control plane sees agent {} on Kubernetes {}: {}",
        agents[0]["agent_version"].as_str().unwrap_or("?"),
        agents[0]["kubernetes_version"].as_str().unwrap_or("?"),
        agents[0]["state"].as_str().unwrap_or("?"),
    ));
    Ok(())
}

/// Preflight, run in the agent's pod with its rights and its identity, passes.
///
/// # Errors
/// When a check fails.
pub async fn preflight(stage: &Stage) -> Result<()> {
    let exec = ["-n", NAMESPACE, "exec", "deploy/mendix-agent", "--", "mendix-agent", "preflight"];
    stage.look(&exec).await
}

/// The agent's process has no more than it needs, as the kernel sees it.
///
/// # Errors
/// When it runs as root, with a capability, without seccomp or on a writable root.
pub async fn confined(stage: &Stage) -> Result<()> {
    let Some(process) = agent_process()? else {
        stage.ui.line("skipped: the agent does not run on this machine");
        return Ok(());
    };
    let status = std::fs::read_to_string(process.join("status")).context("read its status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    let checks = [
        ("user", "Uid:", "65532 65532 65532 65532"),
        ("group", "Gid:", "65532 65532 65532 65532"),
        ("effective capabilities", "CapEff:", "0000000000000000"),
        ("bounding capabilities", "CapBnd:", "0000000000000000"),
        ("no new privileges", "NoNewPrivs:", "1"),
        ("seccomp filter", "Seccomp:", "2"),
    ];
    for (what, name, expected) in checks {
        let found = field(name);
        ensure!(found == expected, "{what}: the kernel says {found}, not {expected}");
        stage.ui.line(format!("{what:<24}{found}"));
    }
    let mounts = std::fs::read_to_string(process.join("mountinfo")).context("read its mounts")?;
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"));
    let options = root.and_then(|line| line.split(' ').nth(5)).context("it has no root mount")?;
    ensure!(options.split(',').any(|option| option == "ro"), "its root is mounted {options}");
    stage.ui.line("root file system        read-only");
    Ok(())
}

/// `/proc/<pid>` of the agent in its pod: its root holds nothing but the agent.
fn agent_process() -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let path = entry.context("read /proc")?.path();
        if std::fs::read(path.join("cmdline"))
            .is_ok_and(|line| line == b"/usr/bin/mendix-agent\0run\0")
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
