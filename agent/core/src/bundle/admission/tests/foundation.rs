//! What a release is refused for that would touch the agent's definitions and rights.

use super::*;
use crate::bundle::foundation::FOUNDATION_COMPONENT;

const RBAC: &str = "rbac.authorization.k8s.io/v1";
const OWN: &str = "mendix-agent";
const NEW: &str = "mendix-ingress";

fn rule(resource: &str, names: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": ["apps"], "resources": [resource], "resourceNames": names, "verbs": verbs})
}

fn role(rules: Value) -> Value {
    with(object(RBAC, "ClusterRole", None, OWN), "/rules", rules)
}

fn binding(namespace: &str, role: &str, account: &str) -> Value {
    let mut body = object(RBAC, "RoleBinding", Some(namespace), OWN);
    body["roleRef"] =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
    body["subjects"] = json!([{"kind": "ServiceAccount", "name": account, "namespace": OWN}]);
    body
}

fn definition(fields: Value) -> Value {
    let mut body = object(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        None,
        "things.agent.mendix.com",
    );
    body["spec"] = json!({"group": "agent.mendix.com", "scope": "Namespaced",
        "names": {"kind": "Thing", "plural": "things"}, "versions": [{"name": "v1alpha1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}}}]});
    body
}

/// A release of the foundation before an ordinary component.
fn foundation(bodies: Vec<Value>) -> Draft {
    Draft::new(5)
        .component(FOUNDATION_COMPONENT, 0, bodies)
        .component("mendix-operator", 1, vec![config_map("a")])
        .change(|index| index.components[0].scope.namespaces.push(NEW.into()))
}

fn everything() -> Vec<Value> {
    vec![
        definition(json!({"a": {"type": "string"}})),
        role(json!([rule("deployments", &["a"], &["get", "patch"])])),
        object("v1", "Namespace", None, NEW),
        binding(NEW, "mendix-agent-managed-namespace", OWN),
    ]
}

fn id(body: &Value) -> ObjectId {
    Object::from_body(body).unwrap().id
}

/// A cluster in which these are the objects of the foundation, installed or released.
fn standing(live: &[Value], owned: bool) -> ClusterFacts {
    let inventory = [(FOUNDATION_COMPONENT.to_owned(), live.iter().map(id).collect())];
    ClusterFacts {
        foundation: live.iter().map(|body| (id(body), body.clone())).collect(),
        inventory: if owned { inventory.into() } else { Inventory::new() },
        ..facts()
    }
}

#[test]
fn definitions_rights_and_a_new_namespace_come_first() {
    let admitted = foundation(everything()).admit(&facts()).unwrap();
    let plan = crate::bundle::plan::Plan::new(admitted, &Inventory::new());
    assert_eq!(plan.components()[0].entry().name, FOUNDATION_COMPONENT);
    let late = foundation(everything()).change(|index| index.components[0].phase = 1);
    assert_eq!(refusals(late, &facts()), only(Reason::FoundationNotFirst, "phase"));
    // A new agent on trial may come with it: what only grows serves the former one, too.
    let draft = foundation(everything()).component("mendix-agent", 9, vec![own_deployment()]);
    draft.admit(&facts()).unwrap();
}

#[test]
fn nothing_else_is_in_it() {
    for (body, reasons) in [
        (object("v1", "ServiceAccount", Some(OWN), OWN), &[Reason::FoundationObject][..]),
        (object("v1", "Secret", Some(OWN), "tuf"), &[Reason::AgentState, Reason::FoundationObject]),
        (object(RBAC, "ClusterRole", None, "mendix-operator"), &[Reason::FoundationObject]),
        (object(RBAC, "Role", Some("mendix"), OWN), &[Reason::FoundationObject]),
        (binding("mendix", "mendix-agent-managed-namespace", OWN), &[Reason::FoundationObject]),
        (foreign_definition(), &[Reason::FoundationObject]),
        // A namespace without its binding.
        (object("v1", "Namespace", None, NEW), &[Reason::FoundationObject]),
        (own_deployment_without_image(), &[Reason::FoundationObject]),
    ] {
        let found: Vec<Reason> = refusals(foundation(vec![body.clone()]), &facts())
            .into_iter()
            .map(|(r, _)| r)
            .collect();
        assert_eq!(found, reasons, "{body}");
    }
    let exception = |index: &mut ReleaseIndex| {
        let object = id(&everything()[1]);
        index.components[0].exceptions = vec![FieldException { object, path: "rules".into() }];
    };
    let draft = foundation(everything()).change(exception);
    assert_eq!(refusals(draft, &facts()), only(Reason::FoundationObject, "exceptions"));
}

fn foreign_definition() -> Value {
    object("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, "things.example.com")
}

fn own_deployment_without_image() -> Value {
    object("apps/v1", "Deployment", Some(OWN), OWN)
}

#[test]
fn what_the_agent_may_never_hold_is_refused_with_its_field() {
    let forbidden = |body: Value, field: &str| {
        let draft = foundation(vec![body]);
        assert_eq!(refusals(draft, &facts()), only(Reason::RightForbidden, field));
    };
    forbidden(role(json!([rule("*", &["a"], &["get"])])), "rules[0].resources");
    let exec = json!([{"apiGroups": [""], "resources": ["pods/exec"], "resourceNames": ["a"], "verbs": ["create"]}]);
    forbidden(role(exec), "rules[0].resources");
    forbidden(binding(NEW, "cluster-admin", OWN), "roleRef");
    forbidden(binding(NEW, "mendix-agent-managed-namespace", "default"), "subjects");
    let mut foreign = definition(json!({}));
    foreign["spec"]["group"] = json!("example.com");
    forbidden(foreign, "spec.group");
}

#[test]
fn nothing_of_it_is_in_another_component() {
    let elsewhere = Reason::FoundationElsewhere;
    for (body, reason, field) in [
        (role(json!([])), elsewhere, "metadata.name"),
        (
            object(RBAC, "ClusterRole", None, "mendix-agent-managed-namespace"),
            elsewhere,
            "metadata.name",
        ),
        (object(RBAC, "ClusterRole", None, "mendix-agent-more"), elsewhere, "metadata.name"),
        (object(RBAC, "RoleBinding", Some("mendix"), OWN), elsewhere, "metadata.name"),
        (definition(json!({})), Reason::AgentState, "spec.group"),
    ] {
        assert_eq!(refusals(one(vec![body]), &facts()), only(reason, field));
    }
    // Nor does another component give the agent's accounts anything by a binding of another name.
    let mut binding = binding("mendix", "cluster-admin", OWN);
    binding["metadata"]["name"] = json!("operator");
    assert_eq!(refusals(one(vec![binding]), &facts()), only(Reason::RightForbidden, "subjects[0]"));
    one(vec![object(RBAC, "ClusterRole", None, "mendix-agents")]).admit(&facts()).unwrap();
}

#[test]
fn what_is_there_only_grows_unless_the_signed_index_says_otherwise() {
    let live = everything();
    let narrowed = |at: usize| -> Vec<Value> {
        let mut bodies = everything();
        match at {
            0 => bodies[0] = definition(json!({})),
            _ => bodies[1] = role(json!([rule("deployments", &["a"], &["get"])])),
        }
        bodies
    };
    let wider = vec![
        definition(json!({"a": {"type": "string"}, "b": {"type": "string"}})),
        role(json!([rule("deployments", &["a", "b"], &["get", "patch"])])),
        live[2].clone(),
        live[3].clone(),
    ];
    for owned in [false, true] {
        let facts = standing(&live, owned);
        foundation(wider.clone()).admit(&facts).unwrap();
        let field = "spec.versions[v1alpha1].schema.properties.a";
        assert_eq!(refusals(foundation(narrowed(0)), &facts), only(Reason::Narrowed, field));
        assert_eq!(refusals(foundation(narrowed(1)), &facts), only(Reason::Narrowed, "rules"));
        for at in [0, 1] {
            let named = |at: usize| {
                let object = id(&everything()[at]);
                foundation(narrowed(at)).change(|index| index.narrows = vec![object])
            };
            named(at).admit(&facts).unwrap();
            let with_agent = named(at).component("mendix-agent", 9, vec![own_deployment()]);
            assert_eq!(refusals(with_agent, &facts), only(Reason::NarrowsOnTrial, "narrows"));
            // Named is one object, and not all.
            let other = id(&everything()[1 - at]);
            let other = foundation(narrowed(at)).change(|index| index.narrows = vec![other]);
            assert_eq!(refusals(other, &facts)[0].0, Reason::Narrowed);
        }
    }
    // A run that has begun is not judged by what it has changed itself.
    foundation(narrowed(0)).admit(&facts()).unwrap();
}

#[test]
fn what_is_owned_stays_in_it() {
    let facts = standing(&everything(), true);
    let without = |at: usize| {
        let mut bodies = everything();
        let gone = id(&bodies.remove(at));
        (foundation(bodies), gone)
    };
    for at in [0, 1] {
        let (draft, gone) = without(at);
        assert_eq!(
            refusals(draft.clone(), &facts),
            only(Reason::FoundationObject, "metadata.name")
        );
        // Pruned, it would take the agent along; also when it is named.
        let draft = draft.change(|index| index.narrows = vec![gone]);
        assert!(
            refusals(draft, &facts).contains(&(Reason::FoundationObject, "metadata.name".into()))
        );
    }
    // A namespace is given up by a signed word, and stays.
    let given_up = || foundation(everything()[..2].to_vec());
    assert_eq!(refusals(given_up(), &facts), only(Reason::Narrowed, "metadata.name"));
    let binding = id(&everything()[3]);
    given_up().change(|index| index.narrows = vec![binding]).admit(&facts).unwrap();
}

#[test]
fn narrows_and_deletes_name_what_they_may() {
    let strange = id(&config_map("a"));
    let draft = foundation(everything()).change(|index| index.narrows = vec![strange.clone()]);
    assert_eq!(refusals(draft, &facts()), only(Reason::NarrowUnused, "narrows[0]"));
    let alone =
        one(vec![config_map("b")]).change(|index| index.narrows = vec![id(&everything()[0])]);
    assert_eq!(refusals(alone, &facts()), only(Reason::NarrowUnused, "narrows[0]"));
    let gone =
        one(vec![config_map("b")]).change(|index| index.deletes = vec![id(&everything()[0])]);
    assert_eq!(refusals(gone, &facts()), only(Reason::AgentState, "deletes[0]"));
}
