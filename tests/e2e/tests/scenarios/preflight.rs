//! `mendix-agent preflight` as a person calls it, before the agent was ever started: how it ends says
//! what it found.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use mendix_test_kit::apiserver::ApiServer;
use serde_json::{Value, json};

use crate::plane::{self, Installed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflight_ends_with_10_when_there_are_warnings_alone() -> Result<()> {
    let server = ApiServer::start(Default::default()).await?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let Installed { client, plane: _plane, launcher, .. } =
        plane::installed(&server, folder.path()).await?;
    node(&client, "ready", false).await?;
    node(&client, "cordoned", true).await?;

    let report = launcher.preflight(&["--output", "json"]).await?;
    let found: Value = serde_json::from_slice(&report.stdout).context("read the report")?;
    ensure!(report.status.code() == Some(10), "{:?}: {found:#}", report.status);
    let checks = found["checks"].as_array().context("no checks")?;
    let nodes = checks.iter().find(|check| check["name"] == "nodes").context("no nodes")?;
    ensure!(nodes["result"] == "Warn", "{nodes:#}");
    ensure!(nodes["detail"].as_str().is_some_and(|it| it.ends_with("not: cordoned")), "{nodes:#}");

    // Whoever can live with that says so, and the token was not spent by looking.
    let report = launcher.preflight(&["--accept-warnings"]).await?;
    ensure!(report.status.code() == Some(0), "{}", String::from_utf8_lossy(&report.stdout));
    Ok(())
}

/// A node that is ready and large enough.
async fn node(client: &Client, name: &str, cordoned: bool) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"unschedulable": cordoned}});
    let params = PatchParams::apply("test");
    nodes.patch(name, &params, &Patch::Apply(&node)).await.context("make a node")?;
    let status = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
    "status": {
        "allocatable": {"cpu": "4", "memory": "8Gi"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let patched = nodes.patch_status(name, &params, &Patch::Apply(&status)).await;
    patched.context("say that the node is ready").map(drop)
}
