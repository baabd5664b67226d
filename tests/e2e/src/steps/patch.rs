//! Job 2: a good release, a bad one, and a change by hand.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, PodSpec},
};
use kube::Api;
use mendix_agent::crd::{managed_component::ManagedComponent, patch_bundle::PatchBundle};
use mendix_test_kit::wait::eventually;

use super::{DRIFT, RELEASE};
use crate::{binaries::workspace, install::NAMESPACE, stage::Stage};

/// The component that is patched, its namespace and its Deployment.
const OPERATOR: &str = "mendix-operator";
/// Gates that fit a demo: production soaks longer.
const GATES: [&str; 4] = ["--soak-seconds", "3", "--timeout-seconds", "60"];

/// Release 1: two components are published, pushed, verified, applied, healthy, committed.
///
/// # Errors
/// When it is not committed.
pub async fn good_release(stage: &Stage) -> Result<()> {
    let operator = manifests(stage, "good", OPERATOR)?;
    let monitoring = manifests(stage, "good", "mendix-monitoring")?;
    let components = [
        "--component".into(),
        format!("{OPERATOR}@2.21.0={}", operator.display()),
        "--component".into(),
        format!("mendix-monitoring@1.4.0={}", monitoring.display()),
    ];
    let state = release(stage, "2026.11.1", "quarterly", &components).await?;
    ensure!(state == "Committed", "release 2026.11.1 ended as {state}");
    stage.look(&["-n", NAMESPACE, "get", "patchbundles,managedcomponents"]).await?;
    stage.look(&["get", "pods", "-n", OPERATOR]).await
}

/// Release 2 never gets ready: it is rolled back by itself, exactly, and quarantined.
///
/// # Errors
/// When it is not rolled back, or something is not as it was before.
pub async fn bad_release(stage: &Stage) -> Result<()> {
    let before = Operator::read(stage).await?;
    // The good one with some changes, in a folder of its own: the good one's stays good.
    let operator = stage.folder.join("releases/bad").join(OPERATOR);
    overlay(stage, "good", OPERATOR, &operator)?;
    overlay(stage, "bad", OPERATOR, &operator)?;
    let components = ["--component".into(), format!("{OPERATOR}@2.22.0={}", operator.display())];
    let state = release(stage, "2026.11.2", "weekly", &components).await?;
    ensure!(state == "RolledBack", "release 2026.11.2 ended as {state}");
    let after = Operator::read(stage).await?;
    ensure!(before == after, "not as before the release:\n{before:#?}\n{after:#?}");
    stage.ui.line("ConfigMap and Deployment are as before, the new ConfigMap is gone");
    ready(stage).await?;
    stage.look(&["-n", NAMESPACE, "get", "patchbundles"]).await
}

/// Somebody adds a sidecar to a managed Deployment and changes its image.
///
/// # Errors
/// When it is not put back, or not attributed.
pub async fn drift(stage: &Stage) -> Result<()> {
    let before = Operator::read(stage).await?;
    let image = &stage.workload_image;
    let other = image.split('@').next().unwrap_or(image);
    let patch = format!(
        r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"operator","image":"{other}:other"}},{{"name":"sidecar","image":"{image}","command":["sleep","3600"]}}]}}}}}}}}"#
    );
    let edit = [
        "-n",
        OPERATOR,
        "patch",
        "deployment",
        OPERATOR,
        "--field-manager",
        "a-curious-admin",
        "-p",
    ];
    stage.kubectl(&[&edit[..], &[patch.as_str()]].concat()).await?;
    let edited = Instant::now();
    eventually(DRIFT, "the Deployment is as the release wants it", async || {
        let now = Operator::read(stage).await.ok()?;
        (now == before).then_some(())
    })
    .await?;
    let took = edited.elapsed();
    let api: Api<ManagedComponent> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let drift = eventually(DRIFT, "ManagedComponent names who did it", async || {
        let drift = api.get(OPERATOR).await.ok()?.status?.last_drift?;
        drift.claimed_by.contains("a-curious-admin").then_some(drift)
    })
    .await?;
    stage.ui.line(format!("put back after {:.1} s", took.as_secs_f32()));
    stage.ui.line(format!(
        "{} changed by {}: {}",
        drift.object,
        drift.claimed_by,
        drift.fields.join(", ")
    ));
    stage.look(&["-n", NAMESPACE, "get", "managedcomponents"]).await
}

/// What a release of the operator sets.
#[derive(Debug, PartialEq)]
struct Operator {
    settings: Option<ConfigMap>,
    features: Option<ConfigMap>,
    labels: Option<std::collections::BTreeMap<String, String>>,
    pods: Option<PodSpec>,
}

impl Operator {
    async fn read(stage: &Stage) -> Result<Self> {
        let maps: Api<ConfigMap> = Api::namespaced(stage.client.clone(), OPERATOR);
        let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), OPERATOR);
        let content = |map: ConfigMap| ConfigMap { metadata: Default::default(), ..map };
        let deployment =
            deployments.get(OPERATOR).await.context("get the operator's Deployment")?;
        Ok(Self {
            settings: maps.get_opt(OPERATOR).await?.map(content),
            features: maps.get_opt("mendix-operator-features").await?.map(content),
            labels: deployment.metadata.labels,
            pods: deployment.spec.template.spec,
        })
    }
}

async fn ready(stage: &Stage) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(stage.client.clone(), OPERATOR);
    eventually(RELEASE, "what ran before runs again", async || {
        let status = api.get(OPERATOR).await.ok()?.status?;
        (status.ready_replicas == Some(1) && status.updated_replicas == Some(1)).then_some(())
    })
    .await?;
    Ok(())
}

/// Publishes and pushes a release, and waits for the end of its run.
async fn release(stage: &Stage, id: &str, class: &str, components: &[String]) -> Result<String> {
    let mut publish = vec!["release", "publish", "--id", id, "--class", class];
    publish.extend(components.iter().map(String::as_str));
    publish.extend(GATES);
    stage.operator(&publish).await?;
    stage.operator(&["release", "push", id]).await?;
    let api: Api<PatchBundle> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let progress = stage.ui.progress("waiting for the agent");
    let seen = std::cell::RefCell::new(None);
    let ended = eventually(RELEASE, format!("release {id} ends"), async || {
        let bundles = api.list(&Default::default()).await.ok()?.items;
        let bundle = bundles.into_iter().find(|bundle| bundle.spec.release_id == id)?;
        let status = bundle.status?;
        let now = format!("{id}: {} {}", status.state, status.component.unwrap_or_default());
        if seen.replace(Some(now.clone())).as_ref() != Some(&now) {
            progress.say(&now);
        }
        let end = ["Committed", "RolledBack", "Held", "Refused"].contains(&status.state.as_str());
        end.then(|| (status.state, status.message.unwrap_or_default()))
    })
    .await?;
    progress.done(&format!("{id} {}: {}", ended.0, ended.1));
    Ok(ended.0)
}

/// Copies a component's manifests into the run's folder with the image's name filled in.
fn manifests(stage: &Stage, release: &str, component: &str) -> Result<std::path::PathBuf> {
    let target = stage.folder.join("releases").join(release).join(component);
    overlay(stage, release, component, &target)?;
    Ok(target)
}

fn overlay(stage: &Stage, release: &str, component: &str, target: &Path) -> Result<()> {
    let source = workspace().join("tests/e2e/releases").join(release).join(component);
    std::fs::create_dir_all(target).context("make the release's folder")?;
    for entry in std::fs::read_dir(&source).with_context(|| format!("read {}", source.display()))? {
        let file = entry?;
        let text =
            std::fs::read_to_string(file.path())?.replace("@BUSYBOX@", &stage.workload_image);
        std::fs::write(target.join(file.file_name()), text).context("write a manifest")?;
    }
    Ok(())
}
