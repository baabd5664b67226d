use super::*;
use crate::bundle::admission::tests::object;

const OWN: &str = "mendix-agent";
const RBAC_V1: &str = "rbac.authorization.k8s.io/v1";

fn part_of(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Option<Part> {
    part(&Object::from_body(&object(api_version, kind, namespace, name)).unwrap().id, OWN)
}

#[test]
fn the_foundation_is_these_objects_and_no_other() {
    let crd = "apiextensions.k8s.io/v1";
    let new = Some("mendix-ingress");
    for (api_version, kind, namespace, name, expected) in [
        (crd, "CustomResourceDefinition", None, "things.agent.mendix.com", Some(Part::Definition)),
        (crd, "CustomResourceDefinition", None, "things.example.com", None),
        (crd, "CustomResourceDefinition", None, "thingsagent.mendix.com", None),
        (
            "apiextensions.k8s.io/v1beta1",
            "CustomResourceDefinition",
            None,
            "things.agent.mendix.com",
            None,
        ),
        (RBAC_V1, "Role", Some(OWN), OWN, Some(Part::Role(Role::Own))),
        (RBAC_V1, "Role", Some(OWN), "mendix-agent-guard", Some(Part::Role(Role::Guard))),
        (RBAC_V1, "Role", Some(OWN), "mendix-agent-other", None),
        (RBAC_V1, "Role", new, OWN, None),
        (RBAC_V1, "ClusterRole", None, OWN, Some(Part::Role(Role::Cluster))),
        (
            RBAC_V1,
            "ClusterRole",
            None,
            "mendix-agent-managed-namespace",
            Some(Part::Role(Role::Managed)),
        ),
        (RBAC_V1, "ClusterRole", None, "mendix-operator", None),
        (RBAC_V1, "ClusterRole", None, "cluster-admin", None),
        (RBAC_V1, "ClusterRoleBinding", None, OWN, Some(Part::Binding("ClusterRole", OWN))),
        (RBAC_V1, "ClusterRoleBinding", None, "mendix-agent-guard", None),
        (RBAC_V1, "RoleBinding", Some(OWN), OWN, Some(Part::Binding("Role", OWN))),
        (
            RBAC_V1,
            "RoleBinding",
            Some(OWN),
            "mendix-agent-guard",
            Some(Part::Binding("Role", "mendix-agent-guard")),
        ),
        (RBAC_V1, "RoleBinding", new, OWN, Some(Part::ManagedBinding)),
        (RBAC_V1, "RoleBinding", new, "mendix-agent-guard", None),
        // The customer's own, and Kubernetes'.
        (RBAC_V1, "RoleBinding", Some("mendix"), OWN, None),
        (RBAC_V1, "RoleBinding", Some("kube-system"), OWN, None),
        (RBAC_V1, "RoleBinding", Some("default"), OWN, None),
        ("v1", "Namespace", None, "mendix-ingress", Some(Part::Namespace)),
        ("v1", "Namespace", None, "mendix", None),
        ("v1", "Namespace", None, OWN, None),
        ("v1", "ServiceAccount", Some(OWN), OWN, None),
        ("v1", "Secret", Some(OWN), "mendix-agent-tuf", None),
        ("apps/v1", "Deployment", Some(OWN), OWN, None),
    ] {
        let found = part_of(api_version, kind, namespace, name);
        assert_eq!(found, expected, "{kind} {namespace:?}/{name}");
    }
}

#[test]
fn a_binding_says_one_thing() {
    let body = |name: &str, account: &str, namespace: &str| {
        let mut body = object(RBAC_V1, "RoleBinding", Some("mendix-ingress"), OWN);
        body["roleRef"] = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": name});
        body["subjects"] =
            json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]);
        body
    };
    let fields = |body: Value| -> Vec<String> {
        let object = Object::from_body(&body).unwrap();
        findings(Part::ManagedBinding, &object, OWN).into_iter().map(|(field, _)| field).collect()
    };
    assert!(fields(body(MANAGED, AGENT, OWN)).is_empty());
    assert_eq!(fields(body("cluster-admin", AGENT, OWN)), ["roleRef"]);
    assert_eq!(fields(body(MANAGED, "default", OWN)), ["subjects"]);
    assert_eq!(fields(body(MANAGED, AGENT, "mendix-ingress")), ["subjects"]);
    assert_eq!(fields(body(MANAGED, "mendix-agent-guard", OWN)), ["subjects"]);
    let mut two = body(MANAGED, AGENT, OWN);
    two["subjects"]
        .as_array_mut()
        .unwrap()
        .push(json!({"kind": "Group", "name": "system:masters"}));
    assert_eq!(fields(two), ["subjects"]);
}

#[test]
fn an_account_of_the_agent_is_known_in_every_spelling() {
    for (subject, is_agents) in [
        (json!({"kind": "ServiceAccount", "name": "any", "namespace": OWN}), true),
        (json!({"kind": "User", "name": "system:serviceaccount:mendix-agent:mendix-agent"}), true),
        (json!({"kind": "Group", "name": "system:serviceaccounts:mendix-agent"}), true),
        (json!({"kind": "Group", "name": "system:serviceaccounts"}), true),
        (json!({"kind": "Group", "name": "system:authenticated"}), true),
        (
            json!({"kind": "ServiceAccount", "name": "mendix-agent", "namespace": "mendix-operator"}),
            false,
        ),
        (json!({"kind": "User", "name": "system:serviceaccount:mendix-agents:x"}), false),
        (json!({"kind": "Group", "name": "auditors"}), false),
    ] {
        let mut body = object(RBAC_V1, "ClusterRoleBinding", None, "mendix-operator");
        body["subjects"] = json!([{"kind": "User", "name": "somebody"}, subject]);
        let found = bound_elsewhere(&Object::from_body(&body).unwrap(), OWN);
        let fields: Vec<String> = found.into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields == ["subjects[1]"], is_agents, "{body}: {fields:?}");
    }
    let mut other = object("v1", "ConfigMap", Some("mendix"), "a");
    other["subjects"] = json!([{"kind": "ServiceAccount", "namespace": OWN}]);
    assert_eq!(bound_elsewhere(&Object::from_body(&other).unwrap(), OWN), []);
}

#[test]
fn a_role_of_the_agent_is_bound_to_nobody_else() {
    for (role, is_agents) in
        [(OWN, true), (MANAGED, true), ("mendix-agents", false), ("view", false)]
    {
        let mut body = object(RBAC_V1, "RoleBinding", Some("mendix-operator"), "operator");
        body["roleRef"] = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": role});
        body["subjects"] =
            json!([{"kind": "ServiceAccount", "name": "operator", "namespace": "mendix-operator"}]);
        let found = bound_elsewhere(&Object::from_body(&body).unwrap(), OWN);
        let fields: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["roleRef.name"][..usize::from(is_agents)], "{role}");
    }
}
