use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::bundle::{canonical, object::IdFields};

/// `{apiVersion, kind, metadata: {generation: 2}}` with spec and status.
fn live(api_version: &str, kind: &str, spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "x", "generation": 2},
        "spec": spec,
        "status": status,
    })
}

/// `base` with the keys of `change`.
fn with(base: &Value, change: Value) -> Value {
    let mut base = base.clone();
    for (key, value) in change.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

#[track_caller]
fn ready(live: &Value) {
    assert_eq!(judge(live), Readiness::Ready);
}

#[track_caller]
fn progressing(live: &Value, why: &str) {
    match judge(live) {
        Readiness::Progressing { reason } => assert!(reason.contains(why), "{reason:?}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failed(live: &Value, why: &str) {
    match judge(live) {
        Readiness::Failed { reason } => assert!(reason.contains(why), "{reason:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_deployment_is_ready_when_only_new_pods_are_left_and_available() {
    let status = json!({
        "observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
        "availableReplicas": 3,
        "conditions": [condition("Available", "True", "", "")],
    });
    let deployment =
        |change| live("apps/v1", "Deployment", json!({"replicas": 3}), with(&status, change));
    ready(&deployment(json!({})));
    progressing(&deployment(json!({"observedGeneration": 1})), "generation 1 of 2");
    progressing(&deployment(json!({"observedGeneration": null})), "generation 0 of 2");
    progressing(&deployment(json!({"updatedReplicas": 2})), "2 of 3 pods are updated");
    let surge = json!({"replicas": 4, "readyReplicas": 4, "availableReplicas": 4});
    progressing(&deployment(surge), "1 old pods are left");
    progressing(&deployment(json!({"availableReplicas": 2})), "2 of 3 updated pods are available");
    let not_ready = json!({"readyReplicas": 2, "availableReplicas": 2});
    progressing(&deployment(not_ready), "2 of 3 updated pods are ready");
    // A pod too many on the way to fewer replicas is nobody's failure.
    let more = json!({
        "replicas": 4, "updatedReplicas": 4, "readyReplicas": 3, "availableReplicas": 3,
    });
    ready(&deployment(more));
    let paused =
        live("apps/v1", "Deployment", json!({"replicas": 3, "paused": true}), status.clone());
    progressing(&paused, "paused");
    // One replica is the default, none is a choice.
    progressing(
        &live("apps/v1", "Deployment", json!({}), json!({"observedGeneration": 2})),
        "0 of 1",
    );
    let none =
        live("apps/v1", "Deployment", json!({"replicas": 0}), json!({"observedGeneration": 2}));
    ready(&none);
}

#[test]
fn an_updated_pod_that_is_not_ready_is_named_before_the_old_ones_it_keeps_alive() {
    let rollout = |wanted: i64, updated: i64, old: i64, available: i64| {
        let status = json!({
            "observedGeneration": 2, "replicas": updated + old, "updatedReplicas": updated,
            "readyReplicas": available, "availableReplicas": available,
        });
        live("apps/v1", "Deployment", json!({"replicas": wanted}), status)
    };
    progressing(&rollout(1, 1, 1, 1), "0 of 1 updated pods are ready");
    // The old one is sick, too.
    progressing(&rollout(1, 1, 1, 0), "0 of 1 updated pods are ready");
    progressing(&rollout(3, 1, 3, 3), "0 of 1 updated pods are ready");
    progressing(&rollout(3, 2, 2, 3), "1 of 2 updated pods are ready");
    progressing(&rollout(3, 2, 2, 4), "2 of 3 pods are updated");
    progressing(&rollout(3, 3, 1, 4), "1 old pods are left");
    let set = json!({
        "observedGeneration": 2, "desiredNumberScheduled": 3, "currentNumberScheduled": 3,
        "updatedNumberScheduled": 1, "numberAvailable": 2, "numberReady": 2,
    });
    progressing(&live("apps/v1", "DaemonSet", json!({}), set), "2 of 3 pods are ready");
}

#[test]
fn a_deployment_that_cannot_make_pods_has_failed() {
    let deployment = |condition| {
        let status = json!({
            "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
            "conditions": [condition],
        });
        live("apps/v1", "Deployment", json!({"replicas": 1}), status)
    };
    failed(
        &deployment(condition("Progressing", "False", "ProgressDeadlineExceeded", "timed out")),
        "ProgressDeadlineExceeded",
    );
    failed(
        &deployment(condition("ReplicaFailure", "True", "FailedCreate", "forbidden")),
        "FailedCreate",
    );
    let quota = condition("ReplicaFailure", "True", "FailedCreate", "exceeded quota: pods=10");
    progressing(&deployment(quota), "exceeded quota");
    ready(&deployment(condition("ReplicaFailure", "False", "", "")));
}

#[test]
fn a_stateful_set_waits_for_its_new_revision() {
    let status = json!({
        "observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3,
        "currentRevision": "b", "updateRevision": "b",
    });
    let set = |spec: Value, change| {
        live("apps/v1", "StatefulSet", with(&json!({"replicas": 3}), spec), with(&status, change))
    };
    ready(&set(json!({}), json!({})));
    progressing(&set(json!({}), json!({"observedGeneration": 1})), "generation");
    progressing(&set(json!({}), json!({"replicas": 2})), "2 of 3 pods exist");
    progressing(&set(json!({}), json!({"replicas": 4})), "1 pods too many");
    progressing(&set(json!({}), json!({"readyReplicas": 1})), "1 of 3 pods are ready");
    progressing(&set(json!({}), json!({"availableReplicas": 1})), "1 of 3 pods are available");
    let rolling = json!({"updatedReplicas": 1, "currentRevision": "a"});
    progressing(&set(json!({}), rolling), "1 of 3 pods are updated");
    progressing(&set(json!({}), json!({"currentRevision": "a"})), "not completed");
    let partition = json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}});
    ready(&set(partition.clone(), json!({"updatedReplicas": 1, "currentRevision": "a"})));
    progressing(&set(partition, json!({"updatedReplicas": 0, "currentRevision": "a"})), "0 of 1");
}

#[test]
fn a_stateful_set_on_delete_is_not_ready_while_old_pods_run() {
    let set = |updated, current| {
        let status = json!({
            "observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": updated,
            "currentRevision": current, "updateRevision": "b",
        });
        let spec = json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}});
        live("apps/v1", "StatefulSet", spec, status)
    };
    progressing(&set(1, "a"), "OnDelete");
    ready(&set(2, "a"));
    ready(&set(2, "b"));
}

#[test]
fn a_daemon_set_is_ready_on_every_node() {
    let status = json!({
        "observedGeneration": 2, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
        "updatedNumberScheduled": 2, "numberAvailable": 2, "numberReady": 2,
    });
    let set = |change| live("apps/v1", "DaemonSet", json!({}), with(&status, change));
    ready(&set(json!({})));
    for (field, what) in [
        ("currentNumberScheduled", "scheduled"),
        ("updatedNumberScheduled", "updated"),
        ("numberAvailable", "available"),
        ("numberReady", "ready"),
    ] {
        progressing(&set(json!({field: 1})), &format!("1 of 2 pods are {what}"));
    }
    progressing(&set(json!({"desiredNumberScheduled": null})), "counted");
}

#[test]
fn a_running_job_is_not_ready() {
    let job = |conditions: Value| {
        live(
            "batch/v1",
            "Job",
            json!({"completions": 1}),
            json!({"active": 1, "conditions": conditions}),
        )
    };
    progressing(&job(json!([])), "0 of 1 runs");
    progressing(&live("batch/v1", "Job", json!({}), Value::Null), "0 of 1 runs");
    ready(&job(json!([condition("Complete", "True", "", "")])));
    failed(&job(json!([condition("Failed", "True", "BackoffLimitExceeded", "")])), "BackoffLimit");
    failed(&job(json!([condition("FailureTarget", "True", "PodFailurePolicy", "")])), "PodFailure");
    progressing(&job(json!([condition("Suspended", "True", "", "")])), "suspended");
}

#[test]
fn pods_are_judged_by_phase_conditions_and_what_their_containers_wait_for() {
    let pod = |status| live("v1", "Pod", json!({}), status);
    let running = |conditions: Value| pod(json!({"phase": "Running", "conditions": conditions}));
    ready(&running(json!([condition("Ready", "True", "", "")])));
    ready(&pod(json!({"phase": "Succeeded"})));
    failed(&pod(json!({"phase": "Failed", "reason": "Evicted"})), "Evicted");
    progressing(
        &running(json!([condition("Ready", "False", "ContainersNotReady", "")])),
        "NotReady",
    );
    progressing(&pod(Value::Null), "not started");
    let unscheduled = json!([condition("PodScheduled", "False", "Unschedulable", "no node")]);
    progressing(&pod(json!({"phase": "Pending", "conditions": unscheduled})), "Unschedulable");
    for list in ["containerStatuses", "initContainerStatuses"] {
        let waits = |reason: &str| {
            let status = json!([{"name": "main", "state": {"waiting": {"reason": reason}}}]);
            pod(json!({"phase": "Running", list: status}))
        };
        failed(&waits("CrashLoopBackOff"), "main");
        failed(&waits("InvalidImageName"), "main");
        progressing(&waits("ImagePullBackOff"), "ImagePullBackOff");
    }
}

#[test]
fn a_pod_says_what_its_container_is_up_to() {
    let pod = |phase: &str, list: &str, container: Value| {
        let mut status = json!({
            "phase": phase, "conditions": [condition("Ready", "False", "ContainersNotReady", "")],
        });
        status[list] = json!([with(&json!({"name": "main", "ready": false}), container)]);
        live("v1", "Pod", json!({}), status)
    };
    let main = |container| pod("Running", "containerStatuses", container);
    let running = json!({"running": {}});
    progressing(
        &main(json!({"state": running, "started": true})),
        "container main runs; its readiness probe fails",
    );
    progressing(
        &main(json!({"state": running, "started": false})),
        "container main runs; its startup probe fails",
    );
    progressing(
        &pod("Pending", "initContainerStatuses", json!({"state": running, "started": true})),
        "init container main is not done",
    );
    let ended =
        json!({"terminated": {"reason": "OOMKilled", "exitCode": 137, "message": "secret"}});
    progressing(&main(json!({"state": ended})), "main ended with OOMKilled, exit code 137");
    failed(
        &pod("Failed", "containerStatuses", json!({"state": ended})),
        "it has failed: container main ended with OOMKilled, exit code 137",
    );
    let crashing =
        json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended});
    assert_eq!(
        judge(&main(crashing)).reason(),
        "container main waits: CrashLoopBackOff (ended with OOMKilled, exit code 137)",
    );
    // What is well says nothing; the pod's own condition is left.
    let done = json!({"state": {"terminated": {"reason": "Completed", "exitCode": 0}}});
    progressing(&main(done), "ContainersNotReady");
    progressing(&main(json!({"state": running, "ready": true})), "ContainersNotReady");
}

#[test]
fn a_load_balancer_waits_for_its_address() {
    let service = |kind: &str, ingress: Value| {
        live("v1", "Service", json!({"type": kind}), json!({"loadBalancer": {"ingress": ingress}}))
    };
    ready(&service("ClusterIP", Value::Null));
    progressing(&service("LoadBalancer", Value::Null), "no address");
    progressing(&service("LoadBalancer", json!([])), "no address");
    progressing(&service("LoadBalancer", json!([{"ip": ""}])), "no address");
    ready(&service("LoadBalancer", json!([{"ip": "10.0.0.4"}])));
    ready(&service("LoadBalancer", json!([{"hostname": "x.internal"}])));
    let ingress = |addresses: Value| {
        let status = json!({"loadBalancer": {"ingress": addresses}});
        live("networking.k8s.io/v1", "Ingress", json!({}), status)
    };
    progressing(&ingress(json!([])), "ingress controller");
    ready(&ingress(json!([{"ip": "10.0.0.4"}])));
}

#[test]
fn a_claim_that_waits_for_its_first_consumer_holds_nothing_up() {
    let claim =
        |phase: &str| live("v1", "PersistentVolumeClaim", json!({}), json!({"phase": phase}));
    ready(&claim("Bound"));
    failed(&claim("Lost"), "lost");
    ready(&claim("Pending"));
    progressing(&claim(""), "not seen");
    for annotation in
        ["volume.kubernetes.io/storage-provisioner", "volume.kubernetes.io/selected-node"]
    {
        let mut provisioning = claim("Pending");
        provisioning["metadata"]["annotations"] = json!({annotation: "x"});
        progressing(&provisioning, "not bound");
    }
    let named = live(
        "v1",
        "PersistentVolumeClaim",
        json!({"volumeName": "v"}),
        json!({"phase": "Pending"}),
    );
    progressing(&named, "not bound");
}

#[test]
fn a_definition_is_ready_when_it_is_established() {
    let definition = |conditions: Value| {
        let status = json!({"conditions": conditions});
        live("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({}), status)
    };
    let accepted = condition("NamesAccepted", "True", "", "");
    let established = condition("Established", "True", "", "");
    ready(&definition(json!([accepted, established])));
    progressing(&definition(json!([])), "not established");
    progressing(&definition(json!([accepted])), "not established");
    progressing(&definition(json!([established])), "not established");
    let conflict = condition("NamesAccepted", "False", "PluralConflict", "");
    failed(&definition(json!([conflict, established])), "PluralConflict");
    let terminating = condition("Terminating", "True", "", "");
    progressing(&definition(json!([accepted, established, terminating])), "deleted");
}

#[test]
fn what_is_being_deleted_is_not_ready() {
    let mut config_map = live("v1", "ConfigMap", json!({}), Value::Null);
    ready(&config_map);
    config_map["metadata"]["deletionTimestamp"] = json!("2026-11-22T12:00:00Z");
    progressing(&config_map, "deleted");
    progressing(&live("v1", "Namespace", json!({}), json!({"phase": "Terminating"})), "deleted");
    ready(&live("v1", "Namespace", json!({}), json!({"phase": "Active"})));
}

#[test]
fn an_api_service_is_reachable() {
    let service = |conditions: Value| {
        let status = json!({"conditions": conditions});
        live("apiregistration.k8s.io/v1", "APIService", json!({}), status)
    };
    ready(&service(json!([condition("Available", "True", "", "")])));
    progressing(
        &service(json!([condition("Available", "False", "MissingEndpoints", "")])),
        "Missing",
    );
    progressing(&service(json!([])), "tried");
}

#[test]
fn an_autoscaler_has_a_target_and_metrics() {
    let scaler = |version: &str, status| {
        live(&format!("autoscaling/{version}"), "HorizontalPodAutoscaler", json!({}), status)
    };
    let able = condition("AbleToScale", "True", "", "");
    let v2 = |conditions: Value| scaler("v2", json!({"conditions": conditions}));
    ready(&v2(json!([able, condition("ScalingActive", "True", "", "")])));
    ready(&v2(json!([able, condition("ScalingActive", "False", "ScalingDisabled", "")])));
    progressing(
        &v2(json!([able, condition("ScalingActive", "False", "FailedGetMetrics", "")])),
        "Failed",
    );
    progressing(&v2(json!([able])), "metrics");
    progressing(&v2(json!([])), "not scaled");
    failed(&v2(json!([condition("AbleToScale", "False", "FailedGetScale", "")])), "FailedGetScale");
    progressing(&v2(json!([condition("AbleToScale", "False", "FailedUpdateScale", "")])), "Failed");
    ready(&scaler("v1", json!({"desiredReplicas": 2})));
    progressing(&scaler("v1", Value::Null), "not scaled");
}

#[test]
fn a_webhook_needs_a_ca_for_its_service() {
    let configuration = |client: Value| {
        let mut object = live(
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
            Value::Null,
            Value::Null,
        );
        object["webhooks"] = json!([{"name": "check.example.com", "clientConfig": client}]);
        object
    };
    progressing(&configuration(json!({"service": {"name": "s"}})), "check.example.com");
    progressing(&configuration(json!({"service": {"name": "s"}, "caBundle": ""})), "caBundle");
    ready(&configuration(json!({"service": {"name": "s"}, "caBundle": "LS0t"})));
    ready(&configuration(json!({"url": "https://x"})));
}

#[test]
fn custom_resources_are_judged_by_the_conventions_and_never_by_silence() {
    let custom = |status| live("privatecloud.mendix.com/v1alpha1", "Build", json!({}), status);
    let conditions = |conditions: Value| custom(json!({"conditions": conditions}));
    ready(&conditions(json!([condition("Ready", "True", "", "")])));
    ready(&conditions(json!([condition("Available", "True", "", "")])));
    progressing(&conditions(json!([condition("Ready", "False", "Building", "")])), "Building");
    progressing(&conditions(json!([condition("Ready", "Unknown", "", "")])), "Unknown");
    failed(&conditions(json!([condition("Stalled", "True", "NoSpace", "")])), "NoSpace");
    progressing(
        &conditions(json!([
            condition("Reconciling", "True", "", ""),
            condition("Ready", "True", "", "")
        ])),
        "Reconciling",
    );
    let mut old = condition("Ready", "True", "", "");
    old["observedGeneration"] = json!(1);
    progressing(&conditions(json!([old])), "older generation");
    progressing(&custom(json!({"observedGeneration": 1})), "generation 1 of 2");
    ready(&custom(json!({"observedGeneration": 2})));
    for silent in [Value::Null, json!({}), json!({"state": "Running"})] {
        assert!(matches!(judge(&custom(silent)), Readiness::Unknown { .. }));
    }
    // A kind of that name in another group has no meaning here.
    let other = live("example.com/v1", "Deployment", json!({}), Value::Null);
    assert!(matches!(judge(&other), Readiness::Unknown { .. }));
}

#[test]
fn only_a_new_failure_is_a_reason_to_go_back() {
    let on_its_way = Readiness::progressing("x");
    let broken = Readiness::failed("x");
    let silent = Readiness::Unknown { reason: "x".into() };
    let reason = || "x".to_owned();
    let left = |before: Option<&Readiness>, now: &Readiness| compare(before, now, Patience::Left);
    let over =
        |before: Option<&Readiness>, now: &Readiness| compare(before, now, Patience::Exhausted);
    let new = Verdict::NewFailure { reason: reason() };
    let sick = Verdict::SickBefore { reason: reason() };
    let waiting = Verdict::Waiting { reason: reason() };

    for before in [None, Some(&Readiness::Ready), Some(&silent)] {
        assert_eq!(left(before, &broken), new, "a failure needs no timeout");
        assert_eq!(left(before, &on_its_way), waiting);
        assert_eq!(over(before, &on_its_way), new);
    }
    for before in [Some(&on_its_way), Some(&broken)] {
        assert_eq!(left(before, &broken), waiting, "what was sick may recover until the timeout");
        assert_eq!(over(before, &broken), sick);
        assert_eq!(over(before, &on_its_way), sick);
    }
    for before in [None, Some(&Readiness::Ready), Some(&broken)] {
        assert_eq!(over(before, &Readiness::Ready), Verdict::Passed);
        assert_eq!(left(before, &silent), waiting);
        assert_eq!(over(before, &silent), Verdict::Unjudged { reason: reason() });
    }
}

proptest! {
    #[test]
    fn no_object_panics(
        kind in prop::sample::select(vec![
            ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"),
            ("batch/v1", "Job"), ("v1", "Pod"), ("v1", "Service"), ("v1", "PersistentVolumeClaim"),
            ("autoscaling/v2", "HorizontalPodAutoscaler"), ("example.com/v1", "Custom"),
        ]),
        status in canonical::tests::any_json(),
        conditions in prop::collection::vec(canonical::tests::any_json(), 0..3),
        number in any::<i64>(),
    ) {
        judge(&live(kind.0, kind.1, status.clone(), status));
        let numbers = json!({
            "replicas": number, "readyReplicas": number, "updatedReplicas": number,
            "conditions": conditions, "observedGeneration": 2,
            "updateStrategy": {"rollingUpdate": {"partition": number}},
        });
        judge(&live(kind.0, kind.1, numbers.clone(), numbers));
    }
}

/// The list of kinds with a health of their own must name every kind that `judge` looks into.
#[test]
fn a_kind_that_is_not_judged_is_ready_whatever_its_object_says() {
    let group_kinds = [
        ("v1", "ConfigMap"),
        ("v1", "Secret"),
        ("v1", "ServiceAccount"),
        ("v1", "Service"),
        ("v1", "Pod"),
        ("v1", "Namespace"),
        ("v1", "PersistentVolumeClaim"),
        ("v1", "PersistentVolume"),
        ("v1", "ReplicationController"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("batch/v1", "Job"),
        ("batch/v1", "CronJob"),
        ("autoscaling/v1", "HorizontalPodAutoscaler"),
        ("policy/v1", "PodDisruptionBudget"),
        ("networking.k8s.io/v1", "Ingress"),
        ("networking.k8s.io/v1", "IngressClass"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("apiregistration.k8s.io/v1", "APIService"),
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
        ("example.com/v1", "Thing"),
    ];
    for (api_version, kind) in group_kinds {
        // As unwell as an object can look.
        let sick = json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "generation": 2},
            "spec": {"type": "LoadBalancer", "replicas": 3},
            "webhooks": [{"name": "w", "clientConfig": {"service": {"name": "s"}}}],
            "status": {"phase": "Terminating", "observedGeneration": 1, "replicas": 0},
        });
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let id = ObjectId::from(IdFields {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            namespace: None,
            name: "a".into(),
        });
        assert_eq!(judge(&sick) != Readiness::Ready, is_judged(&id), "{kind}");
    }
}
