//! What the guard sees of a new version: its pods and the Lease.

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;

use super::TRIAL;
use crate::pods::Pod;

/// What there is of the new version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// Most restarts of one container.
    pub(super) restarts: u32,
    /// How the container with the most restarts ended the last time.
    last_end: Option<String>,
    pods: usize,
    ready: usize,
    /// Whether one of its pods holds the Lease.
    leads: bool,
}

impl Sight {
    /// Reads the pods of a trial among all pods of the agent.
    pub(super) fn of(trial: &str, pods: &[Pod], lease: Option<&Lease>) -> Self {
        let holder = lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref());
        let mut sight = Self::default();
        for pod in
            pods.iter().filter(|pod| pod.annotations().get(TRIAL).is_some_and(|t| t == trial))
        {
            sight.pods += 1;
            sight.ready += usize::from(is_ready(pod));
            // The Lease names a process by its pod and what no other process has.
            sight.leads |= holder
                .and_then(|holder| holder.rsplit_once('_'))
                .is_some_and(|(name, _)| name == pod.name_any());
            let status = pod.status.as_ref();
            for container in
                status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten()
            {
                let restarts = u32::try_from(container.restart_count).unwrap_or(0);
                if restarts <= sight.restarts {
                    continue;
                }
                sight.restarts = restarts;
                let end = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
                sight.last_end = end.map(|end| {
                    let reason = end.reason.as_deref().unwrap_or("ended");
                    format!("{reason}, exit code {}", end.exit_code)
                });
            }
        }
        sight
    }

    /// In words, such as `2 pods of it, 1 ready, none leads; a container restarted 3 times (Error,
    /// exit code 2)`.
    pub(super) fn words(&self) -> String {
        let leads = if self.leads { "one of them leads" } else { "none leads" };
        let mut words = format!("{} pods of it, {} ready, {leads}", self.pods, self.ready);
        if self.restarts > 0 {
            words.push_str(&format!("; a container restarted {} times", self.restarts));
            if let Some(end) = &self.last_end {
                words.push_str(&format!(" ({end})"));
            }
        }
        words
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = |c: &&k8s_openapi::api::core::v1::PodCondition| c.type_ == "Ready";
    conditions.into_iter().flatten().find(ready).is_some_and(|c| c.status == "True")
}

/// How often the Lease has changed hands.
pub(super) fn transitions(lease: Option<&Lease>) -> u64 {
    let transitions = lease.and_then(|lease| lease.spec.as_ref()?.lease_transitions);
    transitions.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, trial: &str, ready: &str, restarts: u32) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {TRIAL: trial}},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "agent", "image": "", "imageID": "", "ready": false,
                    "restartCount": restarts,
                    "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn only_pods_of_the_trial_count() {
        let pods = [
            pod("old-1", "earlier", "True", 9),
            pod("new-1", "t1", "True", 0),
            pod("new-2", "t1", "False", 3),
        ];
        let lease: Lease = serde_json::from_value(
            json!({"spec": {"holderIdentity": "new-1_00ff", "leaseTransitions": 7}}),
        )
        .unwrap();
        let sight = Sight::of("t1", &pods, Some(&lease));
        assert_eq!(sight.restarts, 3);
        let words = "2 pods of it, 1 ready, one of them leads; a container restarted 3 times \
                     (Error, exit code 2)";
        assert_eq!(sight.words(), words);
        assert_eq!(transitions(Some(&lease)), 7);
        assert_eq!(transitions(None), 0);
        let other = Sight::of("t2", &pods, Some(&lease));
        assert_eq!(other.words(), "0 pods of it, 0 ready, none leads");
    }
}
