//! Health against a real API server, with the agent's own rights: nodes and the customer's apps.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use mendix_agent::{channel::Reports, cluster::Cluster, health};
use mendix_agent_proto::v1::{self, Section, report::Body};
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    wait::eventually,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::manifests;

const PATIENCE: Duration = Duration::from_secs(120);

/// The first report of a task that begins now; `has_guard`: of an agent that runs as a Deployment.
async fn report(agent: &Client, has_guard: bool) -> v1::HealthReport {
    let cluster = Cluster::connect(agent.clone(), "mendix-agent".into()).await.unwrap();
    let reports = Reports::default();
    let mut told = reports.subscribe();
    let stop = CancellationToken::new();
    let task = tokio::spawn(health::run(cluster, reports, has_guard, stop.clone()));
    let waiting = told.wait_for(|sections| sections.contains_key(&Section::Health));
    let sections = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").unwrap().clone();
    stop.cancel();
    task.await.unwrap().unwrap();
    match sections.get(&Section::Health) {
        Some(Body::Health(report)) => report.clone(),
        other => panic!("no health: {other:?}"),
    }
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let gvk = GroupVersionKind::gvk(group, version, kind);
    ApiResource::from_gvk_with_plural(&gvk, plural)
}

async fn apply(api: &Api<DynamicObject>, object: Value) {
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let params = PatchParams::apply("test").force();
    api.patch(&name, &params, &Patch::Apply(object)).await.unwrap();
}

#[tokio::test]
async fn apps_are_counted_once_their_kind_exists_and_nodes_show_what_aks_says() {
    let server = ApiServer::start(ApiServerOptions::default()).await.unwrap();
    let admin = server.client().await.unwrap();
    manifests::apply(&admin, &["10-namespaces.yaml", "00-crds.yaml", "20-rbac.yaml"]).await;
    let agent = server.client_for("mendix-agent", "mendix-agent").await.unwrap();

    let nodes = Api::all_with(admin.clone(), &resource("", "v1", "Node", "nodes"));
    apply(
        &nodes,
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": "n1", "labels": {
                "kubernetes.azure.com/upgrade-status": "Quarantined",
            }},
            "spec": { "unschedulable": true },
        }),
    )
    .await;
    let without = report(&agent, false).await;
    assert_eq!(without.apps, None, "a cluster without the Operator has no apps");
    assert!(!without.reasons.iter().any(|it| it.contains("apps")), "{:?}", without.reasons);
    let [node] = &without.nodes[..] else { panic!("{:?}", without.nodes) };
    assert_eq!((node.upgrade_status.as_str(), node.cordoned), ("Quarantined", true));

    let definitions = resource(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    );
    let definitions = Api::all_with(admin.clone(), &definitions);
    apply(&definitions, definition()).await;
    let kind = resource("privatecloud.mendix.com", "v1alpha1", "MendixApp", "mendixapps");
    let apps: Api<DynamicObject> = Api::namespaced_with(admin.clone(), "default", &kind);
    eventually(PATIENCE, "MendixApp is served", async || {
        apps.list(&Default::default()).await.ok().map(drop)
    })
    .await
    .unwrap();
    // More than one page of the list.
    for number in 0..103 {
        let runtime = if number < 2 { "10.9.3.1" } else { "10.24.0.73019" };
        apply(
            &apps,
            json!({
                "apiVersion": "privatecloud.mendix.com/v1alpha1", "kind": "MendixApp",
                "metadata": { "name": format!("app-{number}") },
                "spec": { "mendixRuntimeVersion": runtime, "runtime": { "license": "not ours" } },
                "status": { "appState": "Running" },
            }),
        )
        .await;
    }
    let with = report(&agent, false).await;
    let counted = with.apps.expect("apps");
    assert_eq!((counted.total, counted.below_minimum, counted.unknown_runtime), (103, 2, 0));
    assert_eq!(counted.by_state, [v1::AppCount { name: "Running".into(), count: 103 }]);
    assert!(
        with.reasons.iter().any(|it| it.contains("2 of 103 Mendix apps")),
        "{:?}",
        with.reasons
    );
}

#[tokio::test]
async fn a_guard_that_has_no_pod_is_told_before_an_upgrade_waits_for_it() {
    let server = ApiServer::start(ApiServerOptions::default()).await.unwrap();
    let admin = server.client().await.unwrap();
    manifests::apply(&admin, &["10-namespaces.yaml", "00-crds.yaml", "20-rbac.yaml"]).await;
    let agent = server.client_for("mendix-agent", "mendix-agent").await.unwrap();
    let is_named = |report: &v1::HealthReport| {
        report.reasons.iter().any(|reason| reason.contains("the guard is not available"))
    };

    let elsewhere = report(&agent, false).await;
    assert_eq!((elsewhere.guard_available, is_named(&elsewhere)), (None, false));
    let never_installed = report(&agent, true).await;
    assert_eq!((never_installed.guard_available, is_named(&never_installed)), (Some(false), true));

    // No kubelet runs here: the Deployment has the status that its controller would write.
    manifests::apply(&admin, &["41-guard.yaml"]).await;
    assert_eq!(report(&agent, true).await.guard_available, Some(false));
    let guards: Api<Deployment> = Api::namespaced(admin, "mendix-agent");
    let status = json!({"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}});
    guards
        .patch_status("mendix-agent-guard", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    let there = report(&agent, true).await;
    assert_eq!((there.guard_available, is_named(&there)), (Some(true), false));
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "mendixapps.privatecloud.mendix.com" },
        "spec": {
            "group": "privatecloud.mendix.com", "scope": "Namespaced",
            "names": { "kind": "MendixApp", "plural": "mendixapps", "singular": "mendixapp" },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}
