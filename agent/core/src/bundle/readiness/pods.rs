//! Which pod tells why a workload is not ready. The workload itself only counts.

use serde_json::Value;

use super::{Live, Readiness, workload};

/// What a scheduler says of nodes that would take the pod if they were well: they have a taint that
/// Kubernetes itself gives, for pressure or for being out of reach, or are cordoned, as for a drain.
const NODES_STATE: [&str; 3] =
    ["{node.kubernetes.io/", "{node.cloudprovider.kubernetes.io/", "node(s) were unschedulable"];

/// A pod that tells why its workload is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// `pod web-5d9-x2x: container web waits: ImagePullBackOff`.
    pub says: String,
    /// The state of the nodes keeps it from all of them: no other template would fare better.
    pub held_by_nodes: bool,
}

/// The newest pod of a workload that is not ready and not on its way out, and why. The newest one is
/// of the template that is being rolled out. `pods` may hold others; those of a Deployment belong to
/// a ReplicaSet that is named after it.
pub fn telling_pod(workload: &Value, pods: &[Value]) -> Option<Telling> {
    let unready = pods.iter().map(Live).filter_map(|pod| {
        if pod.0.pointer("/metadata/deletionTimestamp").is_some() || !belongs(Live(workload), pod) {
            return None;
        }
        let health = workload::pod(pod);
        let failed = matches!(health, Readiness::Failed { .. });
        let says = format!("pod {}: {}", pod.text("/metadata/name"), health.reason());
        let telling = Telling { says, held_by_nodes: is_held_by_nodes(pod) };
        // Times of the API are in UTC and of one form: they sort as text.
        let made_at = pod.text("/metadata/creationTimestamp");
        (health != Readiness::Ready).then_some((made_at, failed, telling))
    });
    unready.max_by_key(|(made_at, failed, _)| (*made_at, *failed)).map(|(_, _, telling)| telling)
}

/// Where what it asks for is short as well, another node may be needed, or less: that is for the gate's
/// time to decide once the nodes are well.
fn is_held_by_nodes(pod: Live<'_>) -> bool {
    pod.condition("PodScheduled").is_some_and(|scheduled| {
        scheduled.is("False")
            && scheduled.text("reason") == "Unschedulable"
            && NODES_STATE.iter().any(|state| scheduled.text("message").contains(state))
    })
}

fn belongs(workload: Live<'_>, pod: Live<'_>) -> bool {
    let owners = pod.list("/metadata/ownerReferences").iter().map(Live);
    let mut controllers =
        owners.filter(|owner| owner.0.get("controller") == Some(&Value::Bool(true)));
    let Some(controller) = controllers.next() else { return false };
    match workload.text("/kind") {
        "Deployment" => {
            let of_set = controller.text("/name").rsplit_once('-').map(|(name, _)| name);
            controller.text("/kind") == "ReplicaSet"
                && of_set == Some(workload.text("/metadata/name"))
        }
        _ => controller.text("/uid") == workload.text("/metadata/uid"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, owner: (&str, &str), at: &str, state: Value) -> Value {
        json!({
            "metadata": {
                "name": name, "creationTimestamp": format!("2026-11-22T{at}Z"),
                "ownerReferences": [
                    {"kind": owner.0, "name": owner.1, "uid": owner.1, "controller": true}],
            },
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "web", "ready": false, "state": state}]},
        })
    }

    fn waits(reason: &str) -> Value {
        json!({"waiting": {"reason": reason}})
    }

    #[test]
    fn the_newest_pod_of_a_deployment_that_is_not_ready_tells() {
        let deployment = json!({"kind": "Deployment", "metadata": {"name": "web", "uid": "1"}});
        let (old, new) = (("ReplicaSet", "web-1"), ("ReplicaSet", "web-2"));
        let mut ready = pod("ready", new, "12:00:00", Value::Null);
        ready["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        let mut going = pod("going", new, "12:00:00", waits("Going"));
        going["metadata"]["deletionTimestamp"] = json!("2026-11-22T12:00:00Z");
        let mut orphan = pod("orphan", new, "12:00:00", waits("Orphan"));
        orphan["metadata"]["ownerReferences"][0]["controller"] = json!(false);
        let pods = [
            pod("old", old, "10:00:00", waits("CrashLoopBackOff")),
            pod("new", new, "11:00:00", waits("ImagePullBackOff")),
            pod("other", ("ReplicaSet", "web-admin-2"), "12:00:00", waits("Other")),
            pod("job", ("Job", "web-2"), "12:00:00", waits("Job")),
            ready,
            going,
            orphan,
        ];
        let says = telling_pod(&deployment, &pods).unwrap().says;
        assert_eq!(says, "pod new: container web waits: ImagePullBackOff");
        assert_eq!(telling_pod(&deployment, &pods[2..]), None);
    }

    #[test]
    fn of_pods_made_at_once_one_that_failed_tells() {
        let set = json!({"kind": "StatefulSet", "metadata": {"name": "db", "uid": "7"}});
        let owner = ("StatefulSet", "7");
        let pods = [
            pod("crashing", owner, "10:00:00", waits("CrashLoopBackOff")),
            pod("starting", owner, "10:00:00", waits("ContainerCreating")),
            pod("foreign", ("StatefulSet", "8"), "11:00:00", waits("CrashLoopBackOff")),
        ];
        let says = telling_pod(&set, &pods).unwrap().says;
        assert_eq!(says, "pod crashing: container web waits: CrashLoopBackOff");
    }

    /// In the words of schedulers of 1.20 and of 1.30.
    #[test]
    fn a_pod_that_finds_no_node_tells_nodes_that_are_not_well_from_what_it_asks_for() {
        let deployment = json!({"kind": "Deployment", "metadata": {"name": "web", "uid": "1"}});
        let held = |message: &str| {
            let mut pod = pod("new", ("ReplicaSet", "web-2"), "11:00:00", Value::Null);
            pod["status"] = json!({"phase": "Pending", "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": message}]});
            let telling = telling_pod(&deployment, &[pod]).unwrap();
            assert!(telling.says.ends_with(message), "{telling:?}");
            telling.held_by_nodes
        };
        for nodes in [
            "0/1 nodes are available: 1 node(s) had taint {node.kubernetes.io/disk-pressure: }, that the pod didn't tolerate.",
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.",
            "0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/unreachable: }. preemption: 0/2 nodes",
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.cloudprovider.kubernetes.io/shutdown: }.",
        ] {
            assert!(held(nodes), "{nodes}");
        }
        for template in [
            "0/3 nodes are available: 3 Insufficient memory.",
            "0/1 nodes are available: 1 node(s) had taint {CriticalAddonsOnly: true}, that the pod didn't tolerate.",
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ] {
            assert!(!held(template), "{template}");
        }
    }
}
