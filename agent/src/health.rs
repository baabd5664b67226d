//! Health of the cluster and of the agent itself, reported up once a minute when it changed.

use std::{convert::Infallible, time::Duration};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use mendix_agent_proto::v1::{self, report::Body};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
use tokio_util::sync::CancellationToken;

use crate::{
    channel::Reports,
    cluster::{CALL_DEADLINE, Cluster},
};

/// How often health is looked at.
const INTERVAL: Duration = Duration::from_secs(60);
/// Nodes that are reported one by one; a cluster has more rarely, and the report stays small.
const MAX_NODES: u32 = 200;
/// AKS's label for the version of a node's image.
const NODE_IMAGE: &str = "kubernetes.azure.com/node-image-version";
/// Steps in which the agent's own memory and CPU time are told: a report is sent only when it
/// differs from the last one, and exact figures would always differ.
const RSS_STEP_BYTES: u64 = 1024 * 1024;
/// See [`RSS_STEP_BYTES`].
const CPU_STEP_MILLIS: u64 = 10_000;

/// Reports health until shutdown.
///
/// # Errors
/// Never: what can't be read is said in the report.
pub async fn run(
    cluster: Cluster,
    reports: Reports,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let nodes = nodes(&cluster).await;
        let components = components(&reports);
        let (rss, cpu) = own_footprint();
        reports.publish(Body::Health(summarize(nodes, &components, rss, cpu)));
    }
}

async fn nodes(cluster: &Cluster) -> Result<Vec<v1::NodeHealth>, String> {
    let api: Api<Node> = Api::all(cluster.client.clone());
    let list =
        tokio::time::timeout(CALL_DEADLINE, api.list(&ListParams::default().limit(MAX_NODES)))
            .await
            .map_err(|_| "listing nodes timed out".to_owned())?
            .map_err(|error| format!("listing nodes: {error}"))?;
    Ok(list.items.iter().map(node).collect())
}

fn node(node: &Node) -> v1::NodeHealth {
    let status = node.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let image = node.metadata.labels.as_ref().and_then(|labels| labels.get(NODE_IMAGE));
    v1::NodeHealth {
        name: node.metadata.name.clone().unwrap_or_default(),
        kubelet_version: status
            .and_then(|s| s.node_info.as_ref())
            .map(|info| info.kubelet_version.clone())
            .unwrap_or_default(),
        node_image: image.cloned().unwrap_or_default(),
        ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        pressures: conditions
            .iter()
            .filter(|c| c.type_.ends_with("Pressure") && c.status == "True")
            .map(|c| c.type_.clone())
            .collect(),
    }
}

/// The managed components as they were last reported.
pub fn components(reports: &Reports) -> Vec<v1::ComponentState> {
    match reports.subscribe().borrow().get(&v1::Section::Components) {
        Some(Body::Components(report)) => report.components.clone(),
        _ => Vec::new(),
    }
}

/// The worst of the components: Degraded over Progressing over Unknown over Healthy; Unknown when
/// there are none.
pub fn overall(components: &[v1::ComponentState]) -> &'static str {
    let any = |health: &str| components.iter().any(|c| c.health == health);
    if any("Degraded") {
        "Degraded"
    } else if any("Progressing") {
        "Progressing"
    } else if components.is_empty() || components.iter().any(|c| c.health != "Ready") {
        "Unknown"
    } else {
        "Healthy"
    }
}

fn summarize(
    nodes: Result<Vec<v1::NodeHealth>, String>,
    components: &[v1::ComponentState],
    rss: u64,
    cpu: u64,
) -> v1::HealthReport {
    let mut reasons: Vec<String> = components
        .iter()
        .filter(|c| c.health != "Ready")
        .map(|c| format!("component {} is {}: {}", c.name, c.health, c.message))
        .collect();
    let nodes = nodes.unwrap_or_else(|error| {
        reasons.push(error);
        Vec::new()
    });
    let mut state = overall(components);
    for node in &nodes {
        if !node.ready {
            reasons.push(format!("node {} is not ready", node.name));
            state = "Degraded";
        }
        for pressure in &node.pressures {
            reasons.push(format!("node {} has {pressure}", node.name));
        }
    }
    v1::HealthReport {
        state: state.to_owned(),
        reasons,
        agent_rss_bytes: rss / RSS_STEP_BYTES * RSS_STEP_BYTES,
        agent_cpu_millis: cpu / CPU_STEP_MILLIS * CPU_STEP_MILLIS,
        nodes,
    }
}

/// Resident memory in bytes and CPU time in milliseconds of this process; zero where the host does
/// not tell.
fn own_footprint() -> (u64, u64) {
    let Ok(pid) = sysinfo::get_current_pid() else { return (0, 0) };
    let Ok(mut system) = System::new() else { return (0, 0) };
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[pid]),
        true,
        ProcessRefreshKind::nothing().with_memory().with_cpu(),
    );
    system.process(pid).map_or((0, 0), |own| (own.memory(), own.accumulated_cpu_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str, health: &str) -> v1::ComponentState {
        v1::ComponentState { name: name.into(), health: health.into(), ..Default::default() }
    }

    #[test]
    fn one_degraded_component_degrades_the_whole_and_is_named() {
        let components = [component("a", "Ready"), component("b", "Degraded")];
        let report = summarize(Ok(vec![]), &components, 0, 0);
        assert_eq!(report.state, "Degraded");
        assert!(report.reasons[0].contains("component b"), "{:?}", report.reasons);
    }

    #[test]
    fn a_node_that_is_not_ready_degrades_and_a_pressure_is_said() {
        let nodes = vec![v1::NodeHealth {
            name: "n1".into(),
            pressures: vec!["DiskPressure".into()],
            ..Default::default()
        }];
        let report = summarize(Ok(nodes), &[component("a", "Ready")], 0, 0);
        assert_eq!(report.state, "Degraded");
        assert_eq!(report.reasons, ["node n1 is not ready", "node n1 has DiskPressure"]);
    }

    #[test]
    fn nodes_that_cannot_be_listed_are_a_reason_not_a_silence() {
        let report = summarize(Err("listing nodes: forbidden".into()), &[], 0, 0);
        assert_eq!((report.state.as_str(), report.reasons.len()), ("Unknown", 1));
    }

    #[test]
    fn the_own_footprint_is_read_from_the_host() {
        assert!(own_footprint().0 > 0);
    }
}
