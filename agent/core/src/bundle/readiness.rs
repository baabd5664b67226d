//! Readiness: is a live object what was wanted of it, and is a failure new?
//!
//! Kinds are judged as kstatus (the library behind `kubectl` and Flux) does, with the holes that were
//! measured in it closed: a running Job is not ready, a failed Pod has failed, a StatefulSet with
//! `OnDelete` waits for its pods, a LoadBalancer waits for its address, `ReplicaFailure` counts, and
//! APIServices, autoscalers, Ingresses and webhooks are judged at all.
//!
//! [`judge`] looks at one object at one moment. [`compare`] sets that against the object's health
//! before the run, since a component that was sick already must still get its critical patch.

mod pods;
mod workload;

use serde_json::Value;

pub use pods::{Telling, telling_pod};

use super::object::ObjectId;

/// Health of one live object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It is what was wanted.
    Ready,
    /// It is on its way, or waits for something.
    Progressing {
        /// What it waits for.
        reason: String,
    },
    /// Its controller says that it won't get there.
    Failed {
        /// What the controller says.
        reason: String,
    },
    /// It says nothing that could be judged.
    Unknown {
        /// What is missing.
        reason: String,
    },
}

impl Readiness {
    fn progressing(reason: impl Into<String>) -> Self {
        Self::Progressing { reason: reason.into() }
    }

    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into() }
    }

    /// Why it is not ready; empty when it is.
    pub fn reason(&self) -> &str {
        match self {
            Self::Ready => "",
            Self::Progressing { reason } | Self::Failed { reason } | Self::Unknown { reason } => {
                reason
            }
        }
    }
}

/// Whether the gate still waits for objects that are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The gate's timeout has not passed.
    Left,
    /// It has.
    Exhausted,
}

/// What one object means for the gate of its component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing stands against it.
    Passed,
    /// Look again later.
    Waiting {
        /// What it waits for.
        reason: String,
    },
    /// It was ready, or not there, before the run, and does not get ready now: go back.
    NewFailure {
        /// Why it is not ready.
        reason: String,
    },
    /// It is not ready, and was not before the run either: no reason to go back, to be reported.
    SickBefore {
        /// Why it is not ready.
        reason: String,
    },
    /// It says nothing that could be judged: no reason to go back, to be reported.
    Unjudged {
        /// What is missing.
        reason: String,
    },
}

/// Judges an object against its health before the run; `before` is none when it did not exist.
pub fn compare(before: Option<&Readiness>, now: &Readiness, patience: Patience) -> Verdict {
    let sick_before =
        matches!(before, Some(Readiness::Progressing { .. } | Readiness::Failed { .. }));
    let reason = now.reason().to_owned();
    match now {
        Readiness::Ready => Verdict::Passed,
        Readiness::Unknown { .. } if patience == Patience::Left => Verdict::Waiting { reason },
        Readiness::Unknown { .. } => Verdict::Unjudged { reason },
        Readiness::Progressing { .. } if patience == Patience::Left => Verdict::Waiting { reason },
        // A controller may say "failed" about what ran before for some time still: what was sick
        // gets the whole timeout to recover.
        Readiness::Failed { .. } if sick_before && patience == Patience::Left => {
            Verdict::Waiting { reason }
        }
        Readiness::Progressing { .. } | Readiness::Failed { .. } if sick_before => {
            Verdict::SickBefore { reason }
        }
        Readiness::Progressing { .. } | Readiness::Failed { .. } => Verdict::NewFailure { reason },
    }
}

/// Whether objects of this kind have a health that can change; others are ready when they are there.
pub fn is_judged(id: &ObjectId) -> bool {
    !super::kind::is_built_in_group(&id.group)
        || matches!(
            (id.group.as_str(), id.kind.as_str()),
            ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
                | ("batch", "Job")
                | (
                    "",
                    "ReplicationController"
                        | "Pod"
                        | "Service"
                        | "PersistentVolumeClaim"
                        | "PersistentVolume"
                        | "Namespace"
                )
                | ("apiextensions.k8s.io", "CustomResourceDefinition")
                | ("apiregistration.k8s.io", "APIService")
                | ("autoscaling", "HorizontalPodAutoscaler")
                | ("networking.k8s.io", "Ingress")
                | (
                    "admissionregistration.k8s.io",
                    "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration"
                )
                | ("policy", "PodDisruptionBudget")
        )
}

/// Judges one object as the API server returned it.
pub fn judge(live: &Value) -> Readiness {
    let object = Live(live);
    if live.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null()) {
        return Readiness::progressing("is being deleted");
    }
    let api_version = object.text("/apiVersion");
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, object.text("/kind")) {
        ("apps", "Deployment") => workload::deployment(object),
        ("apps", "StatefulSet") => workload::stateful_set(object),
        ("apps", "DaemonSet") => workload::daemon_set(object),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => workload::replica_set(object),
        ("batch", "Job") => workload::job(object),
        ("", "Pod") => workload::pod(object),
        ("", "Service") => service(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "PersistentVolume") => volume(object),
        ("", "Namespace") => namespace(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        ("apiregistration.k8s.io", "APIService") => api_service(object),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler(object),
        ("networking.k8s.io", "Ingress") => ingress(object),
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => webhooks(object),
        ("policy", "PodDisruptionBudget") => object.observed().unwrap_or(Readiness::Ready),
        // What has no status is ready when it is there.
        (group, _) if super::kind::is_built_in_group(group) => Readiness::Ready,
        _ => custom(object),
    }
}

/// A live object, with readers that take what is missing for empty.
#[derive(Clone, Copy)]
struct Live<'a>(&'a Value);

impl<'a> Live<'a> {
    fn text(self, pointer: &str) -> &'a str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A count or a generation; nonsense below zero counts as zero, so that sums stay in range.
    fn number(self, pointer: &str) -> Option<i64> {
        self.0.pointer(pointer).and_then(Value::as_i64).map(|number| number.max(0))
    }

    fn count(self, pointer: &str) -> i64 {
        self.number(pointer).unwrap_or(0)
    }

    fn list(self, pointer: &str) -> &'a [Value] {
        self.0.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn condition(self, kind: &str) -> Option<Condition<'a>> {
        self.list("/status/conditions")
            .iter()
            .find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
            .map(Condition)
    }

    /// Why the status is not about the current spec; none when it is.
    fn observed(self) -> Option<Readiness> {
        let generation = self.number("/metadata/generation")?;
        match self.number("/status/observedGeneration") {
            Some(observed) if observed >= generation => None,
            observed => Some(Readiness::progressing(format!(
                "its controller has seen generation {} of {generation}",
                observed.unwrap_or(0)
            ))),
        }
    }
}

#[derive(Clone, Copy)]
struct Condition<'a>(&'a Value);

impl Condition<'_> {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn is(&self, status: &str) -> bool {
        self.text("status") == status
    }

    /// `Type=Status (Reason): message`, as far as it is there.
    fn says(&self) -> String {
        let mut text = format!("{}={}", self.text("type"), self.text("status"));
        if !self.text("reason").is_empty() {
            text.push_str(&format!(" ({})", self.text("reason")));
        }
        if !self.text("message").is_empty() {
            text.push_str(": ");
            // Controllers put whole stack traces there.
            text.extend(self.text("message").chars().take(256));
        }
        text
    }
}

fn service(live: Live<'_>) -> Readiness {
    if live.text("/spec/type") != "LoadBalancer" {
        return Readiness::Ready;
    }
    if has_address(live) {
        Readiness::Ready
    } else {
        Readiness::progressing("the load balancer has no address yet")
    }
}

fn ingress(live: Live<'_>) -> Readiness {
    if has_address(live) {
        Readiness::Ready
    } else {
        Readiness::progressing("no ingress controller has given it an address yet")
    }
}

fn has_address(live: Live<'_>) -> bool {
    live.list("/status/loadBalancer/ingress").iter().any(|entry| {
        ["ip", "hostname"]
            .iter()
            .any(|key| entry.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty()))
    })
}

/// A claim whose class binds with the first consumer stays Pending until a pod uses it, which may be
/// never: kstatus never calls it current. Such a claim has no provisioner at work on it. If a pod
/// does wait for it, that pod is what isn't ready.
fn claim(live: Live<'_>) -> Readiness {
    const PROVISIONING: [&str; 3] = [
        "volume.kubernetes.io/storage-provisioner",
        "volume.beta.kubernetes.io/storage-provisioner",
        "volume.kubernetes.io/selected-node",
    ];
    match live.text("/status/phase") {
        "Bound" => Readiness::Ready,
        "Lost" => Readiness::failed("its volume is lost"),
        "Pending" => {
            let annotations = live.0.pointer("/metadata/annotations");
            let at_work = annotations.is_some_and(|annotations| {
                PROVISIONING.iter().any(|key| annotations.get(key).is_some())
            });
            let named = !live.text("/spec/volumeName").is_empty();
            if at_work || named {
                Readiness::progressing("its volume is not bound yet")
            } else {
                Readiness::Ready
            }
        }
        _ => Readiness::progressing("its controller has not seen it yet"),
    }
}

fn volume(live: Live<'_>) -> Readiness {
    match live.text("/status/phase") {
        "Available" | "Bound" | "Released" => Readiness::Ready,
        "Failed" => {
            Readiness::failed(format!("reclaiming failed: {}", live.text("/status/message")))
        }
        _ => Readiness::progressing("it is not available yet"),
    }
}

fn namespace(live: Live<'_>) -> Readiness {
    match live.text("/status/phase") {
        "Terminating" => Readiness::progressing("is being deleted"),
        _ => Readiness::Ready,
    }
}

fn definition(live: Live<'_>) -> Readiness {
    if let Some(names) = live.condition("NamesAccepted")
        && names.is("False")
    {
        return Readiness::failed(names.says());
    }
    let holds = |kind| live.condition(kind).is_some_and(|condition| condition.is("True"));
    if holds("Terminating") {
        Readiness::progressing("is being deleted")
    } else if holds("NamesAccepted") && holds("Established") {
        Readiness::Ready
    } else {
        Readiness::progressing("it is not established yet")
    }
}

fn api_service(live: Live<'_>) -> Readiness {
    match live.condition("Available") {
        Some(available) if available.is("True") => Readiness::Ready,
        Some(available) => Readiness::progressing(available.says()),
        None => Readiness::progressing("nobody has tried to reach it yet"),
    }
}

fn autoscaler(live: Live<'_>) -> Readiness {
    if let Some(unseen) = live.observed_if_reported() {
        return unseen;
    }
    // autoscaling/v1 keeps its conditions in an annotation.
    if live.text("/apiVersion") == "autoscaling/v1" {
        return match live.number("/status/desiredReplicas") {
            Some(_) => Readiness::Ready,
            None => Readiness::progressing("it has not scaled yet"),
        };
    }
    match live.condition("AbleToScale") {
        Some(able) if able.is("False") && able.text("reason") == "FailedGetScale" => {
            return Readiness::failed(able.says());
        }
        Some(able) if !able.is("True") => return Readiness::progressing(able.says()),
        Some(_) => {}
        None => return Readiness::progressing("it has not scaled yet"),
    }
    match live.condition("ScalingActive") {
        Some(active) if active.is("True") || active.text("reason") == "ScalingDisabled" => {
            Readiness::Ready
        }
        Some(active) => Readiness::progressing(active.says()),
        None => Readiness::progressing("it has no metrics yet"),
    }
}

/// Configurations have no status; what can be seen is whether the API server could trust the
/// webhook's service, whose CA is injected after the fact.
fn webhooks(live: Live<'_>) -> Readiness {
    for webhook in live.list("/webhooks") {
        let bundle = webhook.pointer("/clientConfig/caBundle").and_then(Value::as_str);
        if webhook.pointer("/clientConfig/service").is_some()
            && bundle.unwrap_or_default().is_empty()
        {
            let name = webhook.get("name").and_then(Value::as_str).unwrap_or_default();
            return Readiness::progressing(format!("webhook {name} has no caBundle yet"));
        }
    }
    Readiness::Ready
}

/// Objects of kinds that a CRD defines, by what the API conventions ask of their controllers.
fn custom(live: Live<'_>) -> Readiness {
    if let Some(unseen) = live.observed_if_reported() {
        return unseen;
    }
    let generation = live.number("/metadata/generation").unwrap_or(0);
    let stale = live.list("/status/conditions").iter().find(|condition| {
        condition
            .get("observedGeneration")
            .and_then(Value::as_i64)
            .is_some_and(|observed| observed < generation)
    });
    if let Some(stale) = stale {
        let kind = Condition(stale).text("type").to_owned();
        return Readiness::progressing(format!("condition {kind} is about an older generation"));
    }
    for kind in ["Stalled", "Failed", "Degraded"] {
        if let Some(bad) = live.condition(kind).filter(|condition| condition.is("True")) {
            return Readiness::failed(bad.says());
        }
    }
    if let Some(reconciling) =
        live.condition("Reconciling").filter(|condition| condition.is("True"))
    {
        return Readiness::progressing(reconciling.says());
    }
    for kind in ["Ready", "Available", "Succeeded", "Complete"] {
        match live.condition(kind) {
            Some(good) if good.is("True") => return Readiness::Ready,
            Some(good) => return Readiness::progressing(good.says()),
            None => {}
        }
    }
    if live.number("/status/observedGeneration").is_some() {
        // Its controller keeps track of generations and has nothing to complain about.
        return Readiness::Ready;
    }
    Readiness::Unknown {
        reason: "its controller reports neither conditions nor observedGeneration".into(),
    }
}

impl Live<'_> {
    /// As [`Live::observed`], for kinds whose controllers need not report it.
    fn observed_if_reported(self) -> Option<Readiness> {
        self.number("/status/observedGeneration")?;
        self.observed()
    }
}

#[cfg(test)]
mod tests;
