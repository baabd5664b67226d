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
    let old = (live.count("/status/replicas") - updated).max(0);
    let available = live.count("/status/availableReplicas");
    let ready = live.count("/status/readyReplicas").max(available);
    // The counts are over old and updated pods alike. An old pod that is not ready goes before one
    // that is, so those that are left count as ready.
    let due = updated.min(wanted);
    let of_updated = |count: i64| (count - old).clamp(0, due);
    // What keeps a rollout from going on comes first: an updated pod that doesn't get ready is why
    // others are not updated yet and why old ones are left.
    for (count, what) in [(of_updated(ready), "ready"), (of_updated(available), "available")] {
        if count < due {
            return Readiness::progressing(format!("{count} of {due} updated pods are {what}"));
        }
    }
    if updated < wanted {
        return Readiness::progressing(format!("{updated} of {wanted} pods are updated"));
    }
    if old > 0 {
        return Readiness::progressing(format!("{old} old pods are left"));
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
        // Before "updated": a pod that doesn't get ready is why the others are not updated yet.
        ("/status/numberReady", "ready"),
        ("/status/numberAvailable", "available"),
        ("/status/updatedNumberScheduled", "updated"),
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
    if live.text("/status/phase") == "Succeeded" {
        return Readiness::Ready;
    }
    let mut trouble = None;
    for (list, role) in
        [("/status/initContainerStatuses", Role::Init), ("/status/containerStatuses", Role::Main)]
    {
        for container in live.list(list) {
            let container = Live(container);
            let Some(says) = container_trouble(container, role) else { continue };
            let says = match role {
                Role::Init => format!("init container {} {says}", container.text("/name")),
                Role::Main => format!("container {} {says}", container.text("/name")),
            };
            if HOPELESS.contains(&container.text("/state/waiting/reason")) {
                return Readiness::failed(says);
            }
            trouble.get_or_insert(says);
        }
    }
    if live.text("/status/phase") == "Failed" {
        let says = [live.text("/status/reason"), live.text("/status/message")].join(" ");
        let says = match (says.trim(), trouble) {
            ("", Some(trouble)) => trouble,
            (says, _) => says.to_owned(),
        };
        return Readiness::failed(format!("it has failed: {says}").trim_end_matches([' ', ':']));
    }
    match live.condition("Ready") {
        Some(ready) if ready.is("True") => Readiness::Ready,
        ready => {
            let unscheduled =
                live.condition("PodScheduled").filter(|scheduled| scheduled.is("False"));
            let says = trouble
                .or_else(|| unscheduled.map(|scheduled| scheduled.says()))
                .or_else(|| ready.map(|ready| ready.says()))
                .unwrap_or_else(|| "it has not started yet".into());
            Readiness::progressing(says)
        }
    }
}

/// What a container of a pod is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It prepares the pod, or starts before the others and stays.
    Init,
    /// It does the pod's work.
    Main,
}

/// What keeps a container from being ready, or done, to be said after its name; none when nothing
/// does, or when its kubelet has not told yet.
fn container_trouble(container: Live<'_>, role: Role) -> Option<String> {
    let state = |name: &str| container.0.get("state").and_then(|state| state.get(name));
    let waits = container.text("/state/waiting/reason");
    if !waits.is_empty() {
        let last = container.0.pointer("/lastState/terminated");
        let last = last.map(|ended| format!(" ({})", how_it_ended(Live(ended))));
        return Some(format!("waits: {waits}{}", last.unwrap_or_default()));
    }
    if let Some(ended) = state("terminated").map(Live).filter(|ended| ended.count("/exitCode") != 0)
    {
        return Some(how_it_ended(ended));
    }
    if state("running").is_none() || container.0.get("ready") != Some(&Value::Bool(false)) {
        return None;
    }
    // A running container is ready as soon as its probes succeed.
    Some(match (role, container.0.get("started")) {
        (Role::Init, _) => "is not done".into(),
        (Role::Main, Some(Value::Bool(false))) => "runs; its startup probe fails".into(),
        (Role::Main, _) => "runs; its readiness probe fails".into(),
    })
}

/// `ended with OOMKilled, exit code 137`. The message is left out: it is text of the program that ran.
fn how_it_ended(terminated: Live<'_>) -> String {
    let (reason, code) = (terminated.text("/reason"), terminated.count("/exitCode"));
    format!("ended with {reason}, exit code {code}")
}
