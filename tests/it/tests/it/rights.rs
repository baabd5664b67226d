//! What the agent's service account must not do, tried for real against an API server with the
//! rules of `packaging/manifests/20-rbac.yaml`.

mod deleted;

use k8s_openapi::api::{
    authorization::v1::{SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::{ConfigMap, Namespace, Secret},
    rbac::v1::ClusterRole,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use mendix_test_kit::apiserver::ApiServer;
use serde_json::json;

use crate::manifests;

/// An administrator's client and one with the agent's rights.
async fn clients() -> (Client, Client) {
    let server = ApiServer::shared().await.unwrap();
    let admin = server.client().await.unwrap();
    manifests::apply(&admin, &["10-namespaces.yaml", "00-crds.yaml", "20-rbac.yaml"]).await;
    let agent = server.client_for("mendix-agent", "mendix-agent").await.unwrap();
    (admin, agent)
}

fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> u16 {
    match result.expect_err("this must be refused") {
        kube::Error::Api(status) => status.code,
        other => panic!("not an answer of the API server: {other}"),
    }
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
}

#[tokio::test]
async fn the_agent_cannot_read_a_secret_outside_its_namespace() {
    let (admin, agent) = clients().await;
    for namespace in ["mendix-operator", "default"] {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": { "name": "database" }, "stringData": { "password": "not for the agent" },
        }))
        .unwrap();
        let params = PatchParams::apply("test").force();
        let all: Api<Secret> = Api::namespaced(admin.clone(), namespace);
        all.patch("database", &params, &Patch::Apply(&typed("v1", "Secret", &secret)))
            .await
            .unwrap();
        let tried: Api<Secret> = Api::namespaced(agent.clone(), namespace);
        assert_eq!(code(tried.get("database").await), 403);
        assert_eq!(code(tried.list(&Default::default()).await), 403);
    }
    assert_eq!(code(Api::<Secret>::all(agent).list(&Default::default()).await), 403);
}

#[tokio::test]
async fn the_agent_cannot_touch_a_namespace_that_only_holds_apps() {
    let (admin, agent) = clients().await;
    let apps: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": "mendix" } })).unwrap();
    let params = PatchParams::apply("test").force();
    Api::<Namespace>::all(admin)
        .patch("mendix", &params, &Patch::Apply(&typed("v1", "Namespace", &apps)))
        .await
        .unwrap();
    let tried: Api<ConfigMap> = Api::namespaced(agent.clone(), "mendix");
    assert_eq!(code(tried.create(&PostParams::default(), &config_map("x")).await), 403);
    assert_eq!(
        code(Api::<Namespace>::all(agent.clone()).delete("mendix", &Default::default()).await),
        403
    );
    let managed: Api<ConfigMap> = Api::namespaced(agent, "mendix-operator");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    managed.create(&dry, &config_map("x")).await.expect("a managed namespace is what it may write");
}

#[tokio::test]
async fn of_cluster_roles_the_agent_changes_those_that_are_named_and_makes_no_other() {
    let (_, agent) = clients().await;
    let roles: Api<ClusterRole> = Api::all(agent);
    let everything: ClusterRole = serde_json::from_value(json!({
        "metadata": { "name": "everything" },
        "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }],
    }))
    .unwrap();
    assert_eq!(code(roles.create(&PostParams::default(), &everything).await), 403);
    let body = |name: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": name }, "rules": [],
        })
    };
    let params = PatchParams { dry_run: true, ..PatchParams::apply("test").force() };
    for name in ["cluster-admin", "view", "mendix-agent-more"] {
        assert_eq!(code(roles.patch(name, &params, &Patch::Apply(&body(name))).await), 403);
    }
    // Its own ones a release may widen: what such a one may hold is decided before (ADR 0015).
    for name in ["mendix-agent", "mendix-agent-managed-namespace"] {
        roles.patch(name, &params, &Patch::Apply(&body(name))).await.expect("its own");
        assert_eq!(code(roles.delete(name, &Default::default()).await), 403);
    }
}

#[tokio::test]
async fn of_its_own_definitions_and_bindings_the_agent_changes_those_that_are_named() {
    let (_, agent) = clients().await;
    let rbac = "rbac.authorization.k8s.io";
    let crds = ("apiextensions.k8s.io", "customresourcedefinitions");
    for (verb, (group, resource), namespace, name, allowed) in [
        ("patch", crds, "", "agentstatuses.agent.mendix.com", true),
        ("delete", crds, "", "agentstatuses.agent.mendix.com", false),
        ("patch", crds, "", "things.agent.mendix.com", false),
        ("patch", (rbac, "roles"), "mendix-agent", "mendix-agent", true),
        ("escalate", (rbac, "roles"), "mendix-agent", "mendix-agent-guard", true),
        ("delete", (rbac, "roles"), "mendix-agent", "mendix-agent", false),
        ("escalate", (rbac, "roles"), "mendix-agent", "other", false),
        ("escalate", (rbac, "roles"), "kube-system", "mendix-agent", false),
        ("bind", (rbac, "clusterroles"), "", "mendix-agent-managed-namespace", true),
        ("bind", (rbac, "clusterroles"), "", "cluster-admin", false),
        ("patch", (rbac, "clusterrolebindings"), "", "mendix-agent", true),
        ("patch", (rbac, "clusterrolebindings"), "", "cluster-admin", false),
        // The binding that makes a namespace a managed one. RBAC can't name namespaces that don't exist
        // yet: which ones they may be is decided by admission.
        ("create", (rbac, "rolebindings"), "mendix-new", "mendix-agent", true),
        ("create", (rbac, "rolebindings"), "mendix-new", "other", false),
        ("create", (rbac, "rolebindings"), "mendix-new", "", false),
        ("create", ("", "serviceaccounts"), "mendix-agent", "mendix-agent", false),
    ] {
        let found = may_named(&agent, verb, group, resource, namespace, name).await;
        assert_eq!(found, allowed, "{verb} {group}/{resource} {name} in {namespace:?}");
    }
}

/// Asks the API server, as the agent, whether it may.
async fn may(agent: &Client, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
    may_named(agent, verb, group, resource, namespace, "").await
}

/// The same of one object.
async fn may_named(
    agent: &Client,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> bool {
    let what = manifests::access((verb, group, resource), (namespace, name));
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(what), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(agent.clone());
    api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

#[tokio::test]
async fn the_agent_has_none_of_the_rights_that_reach_beyond_its_job() {
    let (_, agent) = clients().await;
    for (verb, group, resource, namespace) in [
        ("create", "", "pods/exec", "mendix-operator"),
        ("create", "", "pods/attach", "mendix-operator"),
        ("create", "", "pods/portforward", "mendix-operator"),
        ("create", "", "pods", "mendix-operator"),
        ("get", "", "nodes/proxy", ""),
        ("impersonate", "", "users", ""),
        ("impersonate", "", "serviceaccounts", "mendix-operator"),
        ("create", "", "serviceaccounts/token", "mendix-operator"),
        ("get", "", "pods/log", "mendix"),
        ("get", "", "pods/log", "kube-system"),
        ("get", "", "secrets", "mendix-operator"),
        ("get", "", "secrets", "kube-system"),
        ("create", "", "namespaces", ""),
        ("delete", "", "nodes", ""),
        ("delete", "apiextensions.k8s.io", "customresourcedefinitions", ""),
        ("escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
        ("bind", "rbac.authorization.k8s.io", "clusterroles", ""),
        ("patch", "agent.mendix.com", "logsharingpolicies", "mendix-agent"),
        ("patch", "privatecloud.mendix.com", "mendixapps", "mendix"),
        ("create", "admissionregistration.k8s.io", "validatingwebhookconfigurations", ""),
        ("*", "*", "*", ""),
    ] {
        let allowed = may(&agent, verb, group, resource, namespace).await;
        assert!(!allowed, "the agent may {verb} {group}/{resource} in {namespace:?}");
    }
    for (verb, group, resource, namespace) in [
        ("get", "", "pods/log", "mendix-operator"),
        ("patch", "apps", "deployments", "mendix-operator"),
        ("get", "", "secrets", "mendix-agent"),
        ("watch", "agent.mendix.com", "logsharingpolicies", "mendix-agent"),
    ] {
        let allowed = may(&agent, verb, group, resource, namespace).await;
        assert!(allowed, "the agent may not {verb} {group}/{resource} in {namespace}");
    }
}

#[tokio::test]
async fn of_deployments_in_its_namespace_the_agent_may_change_its_own_and_the_guards() {
    let (_, agent) = clients().await;
    for name in ["mendix-agent", "mendix-agent-guard"] {
        assert!(may_named(&agent, "patch", "apps", "deployments", "mendix-agent", name).await);
        for verb in ["create", "delete"] {
            assert!(!may_named(&agent, verb, "apps", "deployments", "mendix-agent", name).await);
        }
    }
    assert!(!may(&agent, "patch", "apps", "deployments", "mendix-agent").await);
    assert!(!may_named(&agent, "patch", "apps", "deployments", "mendix-agent", "other").await);
}

#[tokio::test]
async fn the_guard_may_put_one_deployment_back_and_nothing_else() {
    let (_, _) = clients().await;
    let server = ApiServer::shared().await.unwrap();
    let guard = server.client_for("mendix-agent", "mendix-agent-guard").await.unwrap();
    let own = "mendix-agent";
    for (verb, group, resource, name) in [
        ("update", "apps", "deployments", "mendix-agent"),
        ("list", "", "pods", ""),
        ("get", "coordination.k8s.io", "leases", "mendix-agent"),
        ("watch", "agent.mendix.com", "upgradetrials", ""),
        ("update", "agent.mendix.com", "upgradetrials/status", ""),
        ("create", "events.k8s.io", "events", ""),
    ] {
        let allowed = may_named(&guard, verb, group, resource, own, name).await;
        assert!(allowed, "the guard may not {verb} {group}/{resource} {name}");
    }
    for (verb, group, resource, namespace, name) in [
        ("update", "apps", "deployments", own, "mendix-agent-guard"),
        ("update", "apps", "deployments", own, ""),
        ("delete", "apps", "deployments", own, "mendix-agent"),
        ("update", "apps", "deployments", "mendix-operator", "mendix-agent"),
        ("get", "", "secrets", own, "mendix-agent-identity"),
        ("list", "", "secrets", own, ""),
        ("get", "", "configmaps", own, "mendix-agent-trust"),
        ("update", "coordination.k8s.io", "leases", own, "mendix-agent"),
        ("create", "agent.mendix.com", "upgradetrials", own, ""),
        ("delete", "agent.mendix.com", "upgradetrials", own, ""),
        ("get", "agent.mendix.com", "patchbundles", own, ""),
        ("create", "", "pods", own, ""),
        ("get", "", "pods/log", own, ""),
        ("create", "", "pods/exec", own, ""),
        ("list", "", "pods", "mendix-operator", ""),
        ("get", "", "namespaces", "", "kube-system"),
        ("list", "", "nodes", "", ""),
    ] {
        let allowed = may_named(&guard, verb, group, resource, namespace, name).await;
        assert!(!allowed, "the guard may {verb} {group}/{resource} {name} in {namespace:?}");
    }
}

fn typed<T: serde::Serialize>(version: &str, kind: &str, object: &T) -> serde_json::Value {
    let mut value = serde_json::to_value(object).unwrap();
    value["apiVersion"] = json!(version);
    value["kind"] = json!(kind);
    value
}
