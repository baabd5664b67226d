//! Which pods belong to the components of a consent.
//!
//! From the inventory that the patch path keeps, through owner references, by UID: workload →
//! ReplicaSet → pod. Never by label, name pattern or anything from the wire, which others could
//! choose.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{ContainerState, ContainerStatus, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};
use kube::{Api, ResourceExt, api::ListParams};
use mendix_agent_core::archive::Run;

use super::{Closed, Collector};
use crate::logs::objects::{RecordError, call};

/// Streams in one snapshot; more are declared, the unhealthy ones come first.
const MAX_STREAMS: usize = 500;
/// Pods or ReplicaSets in one page of a list.
const PAGE: u32 = 250;

/// One run of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::logs) struct Target {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) run: Run,
    pub(super) started_at: Option<Timestamp>,
    unhealthy: bool,
}

impl Target {
    /// `namespace/pod/container/run`; not redacted.
    pub(super) fn label(&self) -> String {
        format!("{}/{}/{}/{}", self.namespace, self.pod, self.container, self.run.name())
    }
}

/// What belongs to the components.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Streams to read, unhealthy ones first.
    pub(super) targets: Vec<Target>,
    /// Namespaces they are in.
    pub(super) namespaces: BTreeSet<String>,
    /// UIDs of workloads, ReplicaSets and pods: whose events count.
    pub(super) uids: BTreeSet<String>,
    /// Pods in one line each, for the status.
    pub(super) pods: Vec<serde_json::Value>,
}

/// Finds them. What can't be listed is declared as a gap.
pub(super) async fn find(collector: &Collector) -> Result<Found, Closed> {
    let mut found = Found::default();
    let wanted = collector.consent.components();
    for component in &collector.components {
        if wanted.contains(&component.spec.component) {
            let inventory = component.status.iter().flat_map(|status| &status.inventory);
            for object in inventory {
                found.uids.extend(object.uid.clone());
                found.namespaces.extend(object.namespace.clone());
            }
        }
    }
    for namespace in found.namespaces.clone() {
        if let Err(error) = in_namespace(collector, &namespace, &mut found).await {
            let detail = crate::errors::describe(&error);
            collector.gap(&namespace, "NotListed", &detail).await?;
        }
    }
    found.targets.sort_by_key(|target| (!target.unhealthy, target.label()));
    if found.targets.len() > MAX_STREAMS {
        let detail = format!("{} streams; the first {MAX_STREAMS} are in", found.targets.len());
        found.targets.truncate(MAX_STREAMS);
        collector.gap("logs", "TooManyStreams", &detail).await?;
    }
    Ok(found)
}

async fn in_namespace(
    collector: &Collector,
    namespace: &str,
    found: &mut Found,
) -> Result<(), RecordError> {
    let client = &collector.cluster.client;
    let replica_sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = call("list ReplicaSets", replica_sets.list_metadata(&params)).await?;
        for set in &page.items {
            if let (Some(uid), true) = (set.uid(), owned(set.owner_references(), &found.uids)) {
                found.uids.insert(uid);
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break,
        }
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = call("list pods", pods.list(&params)).await?;
        for pod in &page.items {
            let Some(uid) = pod.uid() else { continue };
            if found.uids.contains(&uid) || owned(pod.owner_references(), &found.uids) {
                found.uids.insert(uid);
                found.targets.extend(targets(namespace, pod));
                found.pods.push(summary(namespace, pod));
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

/// Whether the controlling owner is one of `uids`; other owners don't count.
fn owned(owners: &[OwnerReference], uids: &BTreeSet<String>) -> bool {
    owners.iter().any(|owner| owner.controller == Some(true) && uids.contains(&owner.uid))
}

fn targets(namespace: &str, pod: &Pod) -> Vec<Target> {
    let Some(status) = &pod.status else { return vec![] };
    let init = status.init_container_statuses.iter().flatten().map(|c| (c, true));
    let main = status.container_statuses.iter().flatten().map(|c| (c, false));
    let pod_failed = status.phase.as_deref() == Some("Failed");
    let mut targets = vec![];
    for (container, is_init) in init.chain(main) {
        let last = container.last_state.as_ref();
        let state = container.state.as_ref();
        let waiting = state.is_none_or(|s| s.running.is_none() && s.terminated.is_none());
        let failed = |s: &ContainerState| s.terminated.as_ref().is_some_and(|t| t.exit_code != 0);
        let unhealthy = pod_failed
            || container.restart_count > 0
            || (waiting && last.is_some_and(|s| s.terminated.is_some()))
            || state.is_some_and(failed)
            || (!is_init && !container.ready && state.is_some_and(|s| s.running.is_some()));
        let target = |run, started_at| Target {
            namespace: namespace.to_owned(),
            pod: pod.name_any(),
            container: container.name.clone(),
            run,
            started_at,
            unhealthy,
        };
        let before = last.filter(|s| s.terminated.is_some());
        if waiting {
            // The kubelet answers with the run before, whether asked for current or previous.
            targets.extend(before.map(|state| target(Run::Current, started(state))));
        } else {
            targets.push(target(Run::Current, state.and_then(started)));
            targets.extend(before.map(|state| target(Run::Previous, started(state))));
        }
    }
    targets
}

fn started(state: &ContainerState) -> Option<Timestamp> {
    let of = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    match (&state.running, &state.terminated) {
        (Some(running), _) => of(&running.started_at),
        (None, Some(terminated)) => of(&terminated.started_at),
        (None, None) => None,
    }
}

fn summary(namespace: &str, pod: &Pod) -> serde_json::Value {
    let status = pod.status.as_ref();
    let container = |c: &ContainerStatus| {
        let reason = c.state.as_ref().and_then(|state| {
            let waiting = state.waiting.as_ref().and_then(|w| w.reason.clone());
            waiting.or_else(|| state.terminated.as_ref().and_then(|t| t.reason.clone()))
        });
        serde_json::json!({
            "name": c.name, "ready": c.ready, "restarts": c.restart_count,
            "image": c.image, "imageId": c.image_id, "reason": reason,
        })
    };
    let containers: Vec<_> = status
        .into_iter()
        .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses))
        .flatten()
        .map(container)
        .collect();
    let labels: BTreeMap<&str, Option<&str>> = BTreeMap::from([
        ("node", pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())),
        ("phase", status.and_then(|s| s.phase.as_deref())),
        ("reason", status.and_then(|s| s.reason.as_deref())),
        ("message", status.and_then(|s| s.message.as_deref())),
    ]);
    serde_json::json!({
        "kind": "Pod", "namespace": namespace, "name": pod.name_any(),
        "status": labels, "containers": containers,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": status })).unwrap()
    }

    fn runs(pod: &Pod) -> Vec<(String, Run, bool)> {
        targets("ns", pod).into_iter().map(|t| (t.container, t.run, t.unhealthy)).collect()
    }

    fn container(
        name: &str,
        ready: bool,
        restarts: u32,
        states: serde_json::Value,
    ) -> serde_json::Value {
        let mut status = json!({
            "name": name, "ready": ready, "restartCount": restarts, "image": "", "imageID": "",
        });
        for (key, value) in states.as_object().unwrap() {
            status[key] = value.clone();
        }
        status
    }

    #[test]
    fn a_restarted_container_gives_both_runs_and_comes_first() {
        let pod = pod(json!({ "phase": "Running", "containerStatuses": [
            container("c", true, 1, json!({
                "state": { "running": { "startedAt": "2026-11-20T10:00:00Z" } },
                "lastState": { "terminated": { "exitCode": 1, "startedAt": "2026-11-20T09:00:00Z" } },
            })),
        ]}));
        assert_eq!(
            runs(&pod),
            [("c".into(), Run::Current, true), ("c".into(), Run::Previous, true)]
        );
        let started: Vec<_> =
            targets("ns", &pod).iter().map(|t| t.started_at.unwrap().to_string()).collect();
        assert_eq!(started, ["2026-11-20T10:00:00Z", "2026-11-20T09:00:00Z"]);
    }

    #[test]
    fn a_container_that_waits_after_a_crash_gives_its_last_run_once() {
        let pod = pod(json!({ "phase": "Running", "containerStatuses": [
            container("c", false, 4, json!({
                "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": { "exitCode": 1 } },
            })),
        ]}));
        assert_eq!(runs(&pod), [("c".into(), Run::Current, true)]);
    }

    #[test]
    fn a_container_that_never_ran_has_no_log() {
        let pod = pod(json!({ "phase": "Pending", "containerStatuses": [
            container("c", false, 0, json!({ "state": { "waiting": { "reason": "ErrImagePull" } } })),
        ]}));
        assert_eq!(runs(&pod), []);
    }

    #[test]
    fn init_containers_are_read_and_a_finished_one_is_healthy() {
        let pod = pod(json!({ "phase": "Running",
            "initContainerStatuses": [container("init", false, 0, json!({
                "state": { "terminated": { "exitCode": 0 } } }))],
            "containerStatuses": [container("c", true, 0, json!({
                "state": { "running": {} } }))],
        }));
        assert_eq!(
            runs(&pod),
            [("init".into(), Run::Current, false), ("c".into(), Run::Current, false)]
        );
    }

    #[test]
    fn only_the_controlling_owner_counts() {
        let owner = |uid: &str, controller| OwnerReference {
            uid: uid.into(),
            controller,
            ..Default::default()
        };
        let uids = BTreeSet::from(["a".to_owned()]);
        assert!(owned(&[owner("a", Some(true))], &uids));
        assert!(!owned(&[owner("a", None), owner("b", Some(true))], &uids));
        assert!(!owned(&[owner("a", Some(false))], &uids));
        assert!(!owned(&[], &uids));
    }
}
