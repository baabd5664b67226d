//! Kinds that run pods.

use serde_json::Value;

use super::{Live, Readiness};

/// Waiting reasons of a container that no waiting will cure.
const HOPELESS: &[&str] = &["CrashLoopBackOff", "InvalidImageName"];

pub(super) fn deployment(live: Live<'_>) -> Readiness {
    if let Some(unseen) = live.observed() {
        return unseen;
    }
    if live.0.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        return Readiness::progressing("it is paused");
    }
    if let Some(progressing) = live.condition("Progressing")
        && progressing.text("reason") == "ProgressDeadlineExceeded"
    {
        return Readiness::failed(progressing.says());
    }
    if let Some(failure) = replica_failure(live) {
        return failure;
    }
    let wanted = live.number("/spec/replicas").unwrap_or(1);
    let updated = live.count("/status/updatedReplicas");
    let total = live.count("/status/replicas");
    let available = live.count("/status/availableReplicas");
    if updated < wanted {
        return Readiness::progressing(format!("{updated} of {wanted} pods are updated"));
    }
    if total > updated {
        return Readiness::progressing(format!("{} old pods are left", total - updated));
    }
    if available < wanted {
        return Readiness::progressing(format!("{available} of {wanted} pods are available"));
    }
    match live.condition("Available") {
        Some(condition) if !condition.is("True") => Readiness::progressing(condition.says()),
        _ => Readiness::Ready,
    }
}

/// Pods can't be created. A used-up quota is the cluster's state and not the release's fault, so it
/// is waited for.
fn replica_failure(live: Live<'_>) -> Option<Readiness> {
    let failure = live.condition("ReplicaFailure").filter(|failure| failure.is("True"))?;
    Some(if failure.text("message").contains("exceeded quota") {
        Readiness::progressing(failure.says())
    } else {
        Readiness::failed(failure.says())
    })
}

pub(super) fn replica_set(live: Live<'_>) -> Readiness {
    if let Some(unseen) = live.observed() {
        return unseen;
    }
    if let Some(failure) = replica_failure(live) {
        return failure;
    }
    let wanted = live.number("/spec/replicas").unwrap_or(1);
    let total = live.count("/status/replicas");
    let available = live.count("/status/availableReplicas");
    if available < wanted {
        Readiness::progressing(format!("{available} of {wanted} pods are available"))
    } else if total > wanted {
        Readiness::progressing(format!("{} pods too many are left", total - wanted))
    } else {
        Readiness::Ready
    }
}

pub(super) fn stateful_set(live: Live<'_>) -> Readiness {
    if let Some(unseen) = live.observed() {
        return unseen;
    }
    let wanted = live.number("/spec/replicas").unwrap_or(1);
    let total = live.count("/status/replicas");
    let ready = live.count("/status/readyReplicas");
    let updated = live.count("/status/updatedReplicas");
    if total < wanted {
        return Readiness::progressing(format!("{total} of {wanted} pods exist"));
    }
    if total > wanted {
        return Readiness::progressing(format!("{} pods too many are left", total - wanted));
    }
    if ready < wanted {
        return Readiness::progressing(format!("{ready} of {wanted} pods are ready"));
    }
    // Absent on servers before 1.22; `minReadySeconds` makes it differ from ready.
    let available = live.number("/status/availableReplicas").unwrap_or(ready);
    if available < wanted {
        return Readiness::progressing(format!("{available} of {wanted} pods are available"));
    }
    let current = live.text("/status/currentRevision") == live.text("/status/updateRevision");
    if live.text("/spec/updateStrategy/type") == "OnDelete" {
        if current || updated >= wanted {
            return Readiness::Ready;
        }
        let old = wanted - updated;
        return Readiness::progressing(format!(
            "{old} pods are old; OnDelete waits for their deletion"
        ));
    }
    let partition = live.count("/spec/updateStrategy/rollingUpdate/partition").clamp(0, wanted);
    let due = wanted - partition;
    if updated < due && !current {
        return Readiness::progressing(format!("{updated} of {due} pods are updated"));
    }
    if partition == 0 && !current {
        return Readiness::progressing("the update is not completed yet");
    }
    Readiness::Ready
}

pub(super) fn daemon_set(live: Live<'_>) -> Readiness {
    if let Some(unseen) = live.observed() {
        return unseen;
    }
    let Some(wanted) = live.number("/status/desiredNumberScheduled") else {
        return Readiness::progressing("its controller has not counted the nodes yet");
    };
    for (field, what) in [
        ("/status/currentNumberScheduled", "scheduled"),
        ("/status/updatedNumberScheduled", "updated"),
        ("/status/numberAvailable", "available"),
        ("/status/numberReady", "ready"),
    ] {
        let count = live.count(field);
        if count < wanted {
            return Readiness::progressing(format!("{count} of {wanted} pods are {what}"));
        }
    }
    Readiness::Ready
}

pub(super) fn job(live: Live<'_>) -> Readiness {
    for kind in ["Failed", "FailureTarget"] {
        if let Some(failed) = live.condition(kind).filter(|failed| failed.is("True")) {
            return Readiness::failed(failed.says());
        }
    }
    if live.condition("Complete").is_some_and(|complete| complete.is("True")) {
        return Readiness::Ready;
    }
    if live.condition("Suspended").is_some_and(|suspended| suspended.is("True")) {
        return Readiness::progressing("it is suspended");
    }
    let wanted = live.number("/spec/completions").unwrap_or(1);
    let done = live.count("/status/succeeded");
    Readiness::progressing(format!("{done} of {wanted} runs have succeeded"))
}

pub(super) fn pod(live: Live<'_>) -> Readiness {
    match live.text("/status/phase") {
        "Succeeded" => return Readiness::Ready,
        "Failed" => {
            let says = [live.text("/status/reason"), live.text("/status/message")].join(" ");
            return Readiness::failed(format!("it has failed {says}").trim_end());
        }
        _ => {}
    }
    let mut waiting = None;
    for list in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        for container in live.list(list) {
            let text = |pointer: &str| {
                container.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
            };
            let reason = text("/state/waiting/reason");
            let says = format!("container {} waits: {reason}", text("/name"));
            if HOPELESS.contains(&reason) {
                return Readiness::failed(says);
            }
            if !reason.is_empty() {
                waiting.get_or_insert(says);
            }
        }
    }
    match live.condition("Ready") {
        Some(ready) if ready.is("True") => Readiness::Ready,
        ready => {
            let unscheduled =
                live.condition("PodScheduled").filter(|scheduled| scheduled.is("False"));
            let says = waiting
                .or_else(|| unscheduled.map(|scheduled| scheduled.says()))
                .or_else(|| ready.map(|ready| ready.says()))
                .unwrap_or_else(|| "it has not started yet".into());
            Readiness::progressing(says)
        }
    }
}
