//! Releases that meet a node which takes no pods: one under pressure, and one that is drained. The run
//! waits and says for what, however long its gate would have given it, and goes on when the node is
//! well; a disruption budget keeps what it protects all the time.

use std::{process::Output, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use mendix_agent::crd::patch_bundle::{PatchBundle, PatchBundleStatus};
use mendix_agent_core::bundle::index::{Gates, ReleaseClass};
use mendix_agent_proto::v1::{Section, report::Body};
use mendix_control_plane::{
    manifests::{self, ComponentSpec, ReleaseSpec},
    repository,
};
use mendix_test_kit::{
    node::{NODE_NAME, Node},
    skip,
    wait::eventually,
};
use tokio::{process::Command, time::sleep};

use crate::site::Site;

const COMPONENT: &str = "mendix-operator";
const SELECTOR: &str = "app.kubernetes.io/name=mendix-operator";
/// Longest wait for anything that comes by itself.
const COMES: Duration = Duration::from_secs(240);
/// What the gates give: the shortest that a release may say.
const GATE: Duration = Duration::from_secs(10);
/// Longer than a gate that counts the time would last.
const LONGER: Duration = Duration::from_secs(14);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_waits_for_a_node_under_pressure_and_goes_on_when_that_is_over() -> Result<()> {
    if let Some(obstacle) = Node::obstacle() {
        skip(&obstacle.to_string());
        return Ok(());
    }
    let site = Site::take().await?;
    let result = under_pressure(&site).await;
    let over = site.node.press(false).await;
    site.launcher.explained(result)?;
    Ok(over?)
}

async fn under_pressure(site: &Site) -> Result<()> {
    let agent = site.agent().await?;
    site.node.press(true).await?;
    site.push("2026.11.2", ReleaseClass::Critical, 1).await?;
    site.says("2026.11.2", "node.kubernetes.io/disk-pressure").await?;
    sleep(LONGER).await;
    site.is("2026.11.2", "Gating").await?;
    site.node.press(false).await?;
    site.committed("2026.11.2").await?;
    // The kubelet may have put pods out when it was started under pressure.
    for namespace in [COMPONENT, "mendix-monitoring"] {
        let pods: Api<Pod> = Api::namespaced(site.client.clone(), namespace);
        eventually(COMES, "pods run again", async || {
            let pods = pods.list(&ListParams::default()).await.ok()?.items;
            pods.iter().any(is_ready).then_some(())
        })
        .await?;
    }
    agent.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_waits_for_a_node_that_is_drained_and_no_budget_is_broken() -> Result<()> {
    if let Some(obstacle) = Node::obstacle() {
        skip(&obstacle.to_string());
        return Ok(());
    }
    let site = Site::take().await?;
    let result = drained(&site).await;
    let uncordoned = site.kubectl(&["uncordon", NODE_NAME]).await;
    site.launcher.explained(result)?;
    uncordoned.map(drop)
}

async fn drained(site: &Site) -> Result<()> {
    let agent = site.agent().await?;
    site.push("2026.11.3", ReleaseClass::Critical, 2).await?;
    site.committed("2026.11.3").await?;

    // Somebody drains by force: the budget is short, and what can wait is not begun.
    let by_force = ["drain", NODE_NAME, "--pod-selector", SELECTOR, "--disable-eviction"];
    let done = site.kubectl(&by_force).await?;
    ensure!(done.status.success(), "drained by force: {done:?}");
    site.push("2026.11.4", ReleaseClass::Weekly, 2).await?;
    site.says("2026.11.4", "0 of 1 pods that it needs are healthy").await?;
    site.is("2026.11.4", "Scheduled").await?;
    site.uncordon().await?;
    site.committed("2026.11.4").await?;

    // Drained as it should be: one pod goes, the other one stays since the budget says so.
    let drain = ["drain", NODE_NAME, "--pod-selector", SELECTOR, "--timeout", "4s"];
    let done = site.kubectl(&drain).await?;
    let told = String::from_utf8_lossy(&done.stderr);
    ensure!(!done.status.success() && told.contains("disruption budget"), "drained: {done:?}");
    let kept = site.ready().await?;
    ensure!(kept.len() == 1, "ready after the drain: {kept:?}");
    // What is critical begins all the same. It finds no node, also under another process.
    site.push("2026.11.5", ReleaseClass::Critical, 2).await?;
    site.says("2026.11.5", "node(s) were unschedulable").await?;
    agent.kill().await?;
    let agent = site.agent().await?;
    sleep(LONGER).await;
    site.is("2026.11.5", "Gating").await?;
    site.says("2026.11.5", "node(s) were unschedulable").await?;
    ensure!(site.ready().await? == kept, "the budget's pod went");
    site.uncordon().await?;
    site.committed("2026.11.5").await?;
    agent.kill().await
}

impl Site {
    /// Publishes and pushes a release of the operator with so many replicas, whose pods are new.
    async fn push(&self, id: &str, class: ReleaseClass, replicas: u32) -> Result<()> {
        let change = |file: &str, text: String| match file {
            "operator.yaml" => {
                text.replace("replicas: 1", &format!("replicas: {replicas}"))
                    .replace("operator 2.21.0 started", &format!("operator of {id} started"))
                    + BUDGET
            }
            _ => text,
        };
        let dir = self.component(id, COMPONENT, &["access.yaml", "operator.yaml"], &change)?;
        // The scenarios come in any order.
        let component =
            ComponentSpec { goes_back: true, ..ComponentSpec::new(COMPONENT, "1.0.1", dir) };
        let draft = manifests::draft(&ReleaseSpec {
            gates: Gates { timeout_seconds: u32::try_from(GATE.as_secs())?, soak_seconds: 0 },
            components: vec![component],
            ..ReleaseSpec::new(id, class)
        })?;
        repository::publish(self.store(), draft, None, repository::Expiry::default()).await?;
        self.store().push_release(id, Some(&self.uid))?;
        Ok(())
    }

    async fn status(&self, id: &str) -> Option<PatchBundleStatus> {
        let bundles = self.api::<PatchBundle>().list(&ListParams::default()).await.ok()?.items;
        bundles.into_iter().find(|bundle| bundle.spec.release_id == id)?.status
    }

    /// Waits until the run says this.
    async fn says(&self, id: &str, text: &str) -> Result<()> {
        eventually(COMES, format!("release {id} says {text}"), async || {
            let Body::ReleaseRun(run) = self.plane.agent(&self.uid)?.report(Section::ReleaseRun)?
            else {
                return None;
            };
            (run.release_id == id && run.message.contains(text)).then_some(())
        })
        .await?;
        Ok(())
    }

    /// The record is there, in this state.
    async fn is(&self, id: &str, state: &str) -> Result<()> {
        let status = self.status(id).await.context("its record is gone")?;
        ensure!(status.state == state, "{}: {:?}", status.state, status.message);
        Ok(())
    }

    /// Waits for the end, which is the right one, without a way back before it.
    async fn committed(&self, id: &str) -> Result<()> {
        let status = eventually(COMES, format!("release {id} ends"), async || {
            self.status(id).await.filter(|status| status.finished_at.is_some())
        })
        .await?;
        ensure!(status.state == "Committed", "{}: {:?}", status.state, status.message);
        let states = || status.history.iter().map(|entry| entry.state.as_str());
        ensure!(!states().any(|state| state == "RollingBack"), "{:?}", status.history);
        ensure!(states().filter(|state| *state == "Applying").count() == 1, "{:?}", status.history);
        Ok(())
    }

    /// The operator's pods that are ready.
    async fn ready(&self) -> Result<Vec<String>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), COMPONENT);
        let pods = pods.list(&ListParams::default().labels(SELECTOR)).await?;
        Ok(pods.iter().filter(|pod| is_ready(pod)).map(ResourceExt::name_any).collect())
    }

    async fn uncordon(&self) -> Result<()> {
        let done = self.kubectl(&["uncordon", NODE_NAME]).await?;
        ensure!(done.status.success(), "{done:?}");
        Ok(())
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.node.kubectl());
        command.env("KUBECONFIG", self.node.kubeconfig_path()).args(arguments).kill_on_drop(true);
        command.output().await.context("run kubectl")
    }
}

/// At least one of the operator's pods is to be there whoever drains.
const BUDGET: &str = "
---
apiVersion: policy/v1beta1
kind: PodDisruptionBudget
metadata: {name: mendix-operator, namespace: mendix-operator}
spec:
  minAvailable: 1
  selector: {matchLabels: {app.kubernetes.io/name: mendix-operator}}
";

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready =
        |it: &k8s_openapi::api::core::v1::PodCondition| it.type_ == "Ready" && it.status == "True";
    pod.metadata.deletion_timestamp.is_none() && conditions.into_iter().flatten().any(ready)
}
