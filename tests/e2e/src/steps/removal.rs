//! The end: the agent is uninstalled. What it managed goes on running, and nothing of its own is left.

use std::{cell::RefCell, collections::BTreeSet};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, api::ListParams};
use mendix_agent::crd::managed_component::ManagedComponent;
use mendix_test_kit::{
    inventory::{inventory, made_by_controllers},
    node::NODE_NAME,
    wait::eventually,
};

use super::{RELEASE, REMOVED};
use crate::{chart, install::NAMESPACE, stage::Stage};

/// Where the managed components live; their namespaces outlive the agent.
const KEPT: [&str; 2] = ["mendix-operator", "mendix-monitoring"];

/// What was installed by the chart is deleted; then the objects of the cluster, by kind and name, are
/// those of before, and those of the components.
///
/// # Errors
/// When something is left over, or a component is gone; each object is named.
pub async fn uninstalled(stage: &Stage) -> Result<()> {
    if stage.is_kept() {
        stage.ui.line("skipped: --keep leaves the agent installed");
        return Ok(());
    }
    let components = components(stage).await?;
    let Some(deleted) = stage.uninstall_agent().await? else {
        stage.ui.line("skipped: it was not installed by the chart");
        return Ok(());
    };
    let deleted: BTreeSet<String> = chart::entries(&deleted)?.into_iter().collect();
    let last = RefCell::new(BTreeSet::new());
    let gone = eventually(REMOVED, "nothing of the agent is left", async || {
        let now = inventory(&stage.client).await?;
        let missing = components.difference(&now).map(|entry| format!("{entry} is gone"));
        let left: BTreeSet<String> = now
            .iter()
            .filter(|entry| deleted.contains(*entry) || stage.is_new(entry))
            .filter(|entry| deleted.contains(*entry) || !stays(entry, &components))
            .cloned()
            .chain(missing)
            .collect();
        let done = left.is_empty();
        last.replace(left);
        done.then_some(())
    });
    if gone.await.is_err() {
        bail!("left behind, or a component's and gone: {:?}", last.take());
    }
    stage.ui.line(format!("{} objects deleted; left are those of the components", deleted.len()));
    let api: Api<Deployment> = Api::namespaced(stage.client.clone(), KEPT[0]);
    eventually(RELEASE, "the operator runs on", async || {
        let status = api.get(KEPT[0]).await.ok()?.status?;
        (status.ready_replicas == Some(1)).then_some(())
    })
    .await?;
    stage.look(&["get", "pods", "-A"]).await
}

/// The objects that the components own.
async fn components(stage: &Stage) -> Result<BTreeSet<String>> {
    let api: Api<ManagedComponent> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let all = api.list(&ListParams::default()).await.context("list ManagedComponents")?.items;
    let owned = all.into_iter().filter_map(|component| component.status);
    let entries = owned.flat_map(|status| status.inventory).map(|object| {
        format!("{} {}/{}", object.kind, object.namespace.unwrap_or_default(), object.name)
    });
    Ok(entries.collect())
}

/// Whether a new object is a component's, comes with one, or is the cluster's own.
fn stays(entry: &str, components: &BTreeSet<String>) -> bool {
    let Some((kind, place)) = entry.split_once(' ') else { return false };
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    // The API server makes one for each group of a definition.
    let group = || {
        let groups =
            components.iter().filter_map(|it| it.strip_prefix("CustomResourceDefinition /"));
        groups.filter_map(|name| name.split_once('.')).any(|(_, group)| name.ends_with(group))
    };
    components.contains(entry)
        || KEPT.contains(&namespace)
        || (kind == "Namespace" && KEPT.contains(&name))
        || (kind == "APIService" && group())
        // The controllers, each with an account of its own, and the kubelet.
        || namespace.starts_with("kube-")
        || name == NODE_NAME
        || made_by_controllers(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_components_stays_and_what_is_the_agents_does_not() {
        let components = BTreeSet::from([
            "CustomResourceDefinition /things.example.com".to_owned(),
            "ClusterRole /mendix-certificates".to_owned(),
        ]);
        for entry in [
            "CustomResourceDefinition /things.example.com",
            "APIService /v1.example.com",
            "ClusterRole /mendix-certificates",
            "Namespace /mendix-operator",
            "Pod mendix-monitoring/one",
            "ServiceAccount kube-system/job-controller",
        ] {
            assert!(stays(entry, &components), "{entry}");
        }
        for entry in [
            "CustomResourceDefinition /agentstatuses.agent.mendix.com",
            "APIService /v1alpha1.agent.mendix.com",
            "ClusterRole /mendix-agent",
            "Namespace /mendix-agent",
            "Secret mendix-agent/mendix-agent-identity",
            "LogSharingPolicy mendix-agent/default",
        ] {
            assert!(!stays(entry, &components), "{entry}");
        }
    }
}
