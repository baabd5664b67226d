//! What a snapshot is made of, once its pods are known: the runs of their containers to read, the worst
//! first, and each pod in one line.
//!
//! [`super::pods`] and [`super::apps`] say which pods; here nothing is asked of the API server.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use mendix_agent_core::{archive::Run, ordered};

use crate::pods::Pod;

/// Streams in one snapshot; more are declared, the unhealthy ones come first.
pub(super) const MAX_STREAMS: usize = 500;
/// Pods in the status; more are declared, the unhealthy ones come first.
pub(super) const MAX_PODS: usize = 1000;
/// Pods whose events are told from others'.
const MAX_UIDS: usize = 20_000;

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

/// How many there were, of what there is too much of.
pub(super) struct Over {
    /// Over [`MAX_STREAMS`].
    pub(super) streams: Option<usize>,
    /// Over [`MAX_PODS`].
    pub(super) pods: Option<usize>,
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

    /// All pods were taken: keeps what comes first of more than a snapshot holds, and tells how many
    /// there were where that was cut.
    pub(super) fn finish(&mut self) -> Over {
        self.cut_targets();
        self.cut_pods();
        Over {
            streams: (self.streams > MAX_STREAMS).then_some(self.streams),
            pods: (self.all_pods > MAX_PODS).then_some(self.all_pods),
        }
    }

    fn cut_pods(&mut self) {
        ordered::sort_by(&mut self.pods, |a, b| a.0.cmp(&b.0));
        self.pods.truncate(MAX_PODS);
    }

    fn cut_targets(&mut self) {
        ordered::sort_by(&mut self.targets, |a, b| {
            a.rank.cmp(&b.rank).then_with(|| a.label().cmp(&b.label()))
        });
        self.targets.truncate(MAX_STREAMS);
    }
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
    let labels: BTreeMap<&str, Option<&str>> = ordered::map([
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
}
