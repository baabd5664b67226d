//! Which pods belong to the components of a consent.
//!
//! From the inventory that the patch path keeps: by namespace, through controlling owner references,
//! by UID (workload → ReplicaSet → pod), and by the labels that the owner selects. Each alone could be
//! copied onto a pod by whoever may create one; a pod that has all three is one that the workload's
//! controller counts as its own. Nothing from the wire takes part, and no pattern.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference, Time},
};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use mendix_agent_core::{archive::Run, consent::grant::DataClass};

use super::{Closed, Collector, apps};
use crate::{
    cluster::{ApiError, call},
    crd::managed_component::OwnedObject,
    errors::describe,
    pods::{Pod, ReplicaSet},
};

/// Streams in one snapshot; more are declared, the unhealthy ones come first.
pub(super) const MAX_STREAMS: usize = 500;
/// Pods in the status; more are declared, the unhealthy ones come first.
const MAX_PODS: usize = 1000;
/// Pods whose events are told from others'.
const MAX_UIDS: usize = 20_000;
/// Pods or ReplicaSets in one page of a list.
pub(super) const PAGE: u32 = 250;
/// Workloads that control pods without a ReplicaSet in between, as the inventory names them.
const CONTROLLERS: [&str; 3] = ["StatefulSet", "DaemonSet", "Job"];

/// One run of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::logs) struct Target {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) run: Run,
    pub(super) started_at: Option<Timestamp>,
    rank: Rank,
}

/// What is read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Unhealthy,
    Healthy,
    /// The agent's own pods, whose logs grow while they are read.
    Own,
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
    /// Namespaces of the components.
    pub(super) namespaces: BTreeSet<String>,
    /// UIDs of workloads, ReplicaSets and pods: whose events count.
    pub(super) uids: HashSet<String>,
    /// Pods in one line each, for the status, unhealthy ones first.
    pub(super) pods: Vec<(bool, serde_json::Value)>,
    streams: usize,
    all_pods: usize,
}

impl Found {
    /// Takes a pod that belongs to a consent's components or apps.
    pub(super) fn take(&mut self, namespace: &str, pod: &Pod, logs: bool, own: bool) {
        if let Some(uid) = pod.uid()
            && self.uids.len() < MAX_UIDS
        {
            self.uids.insert(uid);
        }
        let mut targets = targets(namespace, pod);
        let unhealthy = targets.iter().any(|target| target.rank == Rank::Unhealthy);
        self.all_pods += 1;
        self.pods.push((!unhealthy, summary(namespace, pod)));
        if self.pods.len() >= 2 * MAX_PODS {
            self.cut_pods();
        }
        if !logs {
            return;
        }
        if own {
            targets.iter_mut().for_each(|target| target.rank = Rank::Own);
        }
        self.streams += targets.len();
        self.targets.append(&mut targets);
        if self.targets.len() >= 2 * MAX_STREAMS {
            self.cut_targets();
        }
    }

    fn cut_pods(&mut self) {
        self.pods.sort_by_key(|(healthy, _)| *healthy);
        self.pods.truncate(MAX_PODS);
    }

    fn cut_targets(&mut self) {
        self.targets.sort_by_cached_key(|target| (target.rank, target.label()));
        self.targets.truncate(MAX_STREAMS);
    }
}

/// Finds them. What can't be listed is declared as a gap.
pub(super) async fn find(collector: &Collector) -> Result<Found, Closed> {
    let mut found = Found::default();
    let wanted = collector.scope.components();
    let mut inventory = vec![];
    for component in &collector.components {
        if wanted.contains(&component.spec.component) {
            inventory.extend(component.status.iter().flat_map(|status| &status.inventory));
        }
    }
    found.uids.extend(inventory.iter().filter_map(|object| object.uid.clone()));
    found.namespaces.extend(inventory.iter().filter_map(|object| object.namespace.clone()));
    for namespace in found.namespaces.clone() {
        let in_it = |object: &&&OwnedObject| object.namespace.as_ref() == Some(&namespace);
        let inventory: Vec<_> = inventory.iter().filter(in_it).copied().collect();
        if let Err(error) = in_namespace(collector, &namespace, &inventory, &mut found).await {
            collector.gap(&namespace, "NotListed", &describe(&error)).await?;
        }
    }
    if collector.scope.allows(DataClass::RuntimeLogs) {
        apps::find(collector, &mut found).await?;
    }
    found.cut_targets();
    found.cut_pods();
    if found.streams > MAX_STREAMS {
        let detail = format!("{} logs; the first {MAX_STREAMS} are in", found.streams);
        collector.gap("logs", "TooManyStreams", &detail).await?;
    }
    if found.all_pods > MAX_PODS {
        let detail = format!("{} pods; the first {MAX_PODS} are in", found.all_pods);
        collector.gap("status", "TooManyPods", &detail).await?;
    }
    Ok(found)
}

/// Labels that an owner's pods have, by the owner's UID.
type Owners = HashMap<String, BTreeMap<String, String>>;

async fn in_namespace(
    collector: &Collector,
    namespace: &str,
    inventory: &[&OwnedObject],
    found: &mut Found,
) -> Result<(), ApiError> {
    let client = &collector.scope.cluster.client;
    let workloads: HashSet<&str> = inventory.iter().filter_map(|o| o.uid.as_deref()).collect();
    let mut owners = Owners::new();
    for object in inventory.iter().filter(|o| CONTROLLERS.contains(&o.kind.as_str())) {
        owners.extend(controller(collector, namespace, object).await?);
    }
    let replica_sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = call("list ReplicaSets", replica_sets.list(&params)).await?;
        for set in page.items {
            let ours = owner(set.owner_references()).is_some_and(|uid| workloads.contains(uid));
            if let (Some(uid), true) = (set.uid(), ours) {
                found.uids.insert(uid.clone());
                owners.insert(uid, labels(set.spec.selector));
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break,
        }
    }
    let logs = collector.scope.allows(DataClass::ComponentLogs);
    let own = namespace == collector.scope.cluster.namespace;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = call("list pods", pods.list(&params)).await?;
        for pod in &page.items {
            if belongs(pod, &owners) {
                found.take(namespace, pod, logs, own);
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

/// The labels a workload of the inventory selects, if it is still the one that was recorded.
async fn controller(
    collector: &Collector,
    namespace: &str,
    object: &OwnedObject,
) -> Result<Option<(String, BTreeMap<String, String>)>, ApiError> {
    let kind = GroupVersionKind::gvk(
        object.group.as_deref().unwrap_or_default(),
        &object.version,
        &object.kind,
    );
    let client = collector.scope.cluster.client.clone();
    let api: Api<DynamicObject> =
        Api::namespaced_with(client, namespace, &ApiResource::from_gvk(&kind));
    let live = call("get a workload", api.get_opt(&object.name)).await?;
    Ok(live.filter(|live| live.uid() == object.uid).and_then(|live| {
        let selector = live.data.get("spec")?.get("selector")?.clone();
        let selector: LabelSelector = serde_json::from_value(selector).ok()?;
        Some((live.uid()?, labels(selector)))
    }))
}

fn labels(selector: LabelSelector) -> BTreeMap<String, String> {
    selector.match_labels.unwrap_or_default()
}

/// UID of the controlling owner; other owners don't count.
fn owner(owners: &[OwnerReference]) -> Option<&str> {
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// Whether a pod is controlled by one of `owners`, and has the labels that this owner selects.
fn belongs(pod: &Pod, owners: &Owners) -> bool {
    let selected = owner(pod.owner_references()).and_then(|uid| owners.get(uid));
    // An owner that selects by no label selects nothing.
    selected.is_some_and(|selected| {
        !selected.is_empty()
            && selected.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
    })
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
            rank: if unhealthy { Rank::Unhealthy } else { Rank::Healthy },
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
        targets("ns", pod)
            .into_iter()
            .map(|t| (t.container, t.run, t.rank == Rank::Unhealthy))
            .collect()
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
    fn only_the_controlling_owner_counts_and_only_with_the_labels_it_selects() {
        let select = |value: &str| BTreeMap::from([("app".to_owned(), value.to_owned())]);
        let owners =
            Owners::from([("a".to_owned(), select("x")), ("all".to_owned(), BTreeMap::new())]);
        let pod = |uid: &str, controller: Option<bool>, label: &str| {
            serde_json::from_value::<Pod>(json!({ "metadata": {
                "labels": { "app": label, "more": "m" },
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "X", "name": "n", "uid": "b" },
                    { "apiVersion": "v1", "kind": "X", "name": "n", "uid": uid,
                      "controller": controller },
                ],
            }}))
            .unwrap()
        };
        assert!(belongs(&pod("a", Some(true), "x"), &owners));
        assert!(!belongs(&pod("a", None, "x"), &owners));
        assert!(!belongs(&pod("a", Some(false), "x"), &owners));
        assert!(!belongs(&pod("a", Some(true), "y"), &owners), "an owner that it only claims");
        assert!(!belongs(&pod("c", Some(true), "x"), &owners), "a label that it only wears");
        assert!(!belongs(&pod("all", Some(true), "x"), &owners));
        assert!(!belongs(&Pod::default(), &owners));
    }
}
