//! Releases that bring the agent's own definitions and rights (ADR 0015), with exactly the rights of
//! `packaging/manifests/20-rbac.yaml` and an API server of their own: these objects are one to a cluster.

mod changed;

use std::collections::BTreeMap;

use kube::{ResourceExt, api::DynamicObject};
use mendix_agent::{crd::patch_bundle::PatchBundle, patch::drift::Drift};
use mendix_agent_core::bundle::{
    foundation::FOUNDATION_COMPONENT,
    index::ReleaseIndex,
    object::{Object, ObjectId},
};
use mendix_test_kit::apiserver::{ApiServer, ApiServerOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::world::{Parts, World, comparable, message, state, until};
use crate::manifests;

const OWN: &str = "mendix-agent";
/// The namespace, and the names, of a component that nobody thought of when the agent was installed.
const NEW: &str = "mendix-gateway";
const RBAC: &str = "rbac.authorization.k8s.io";

/// The objects of the foundation, by `Kind namespace/name`.
type Foundation = BTreeMap<String, Value>;

struct Site {
    world: World,
    _server: ApiServer,
}

impl Site {
    async fn new() -> Self {
        let server = ApiServer::start(ApiServerOptions::default()).await.unwrap();
        Self { world: World::installed(&server).await, _server: server }
    }

    /// Takes a release of the foundation, and of other components, to its end.
    async fn release(
        &self,
        sequence: u64,
        foundation: &Foundation,
        change: impl FnOnce(&mut ReleaseIndex),
    ) -> PatchBundle {
        let objects: Vec<Value> = foundation.values().cloned().collect();
        let mut entry = self.world.entry(FOUNDATION_COMPONENT, 0, OWN, sequence, &objects);
        entry.scope.namespaces =
            [OWN, "mendix-operator", "mendix-monitoring", NEW].map(str::to_owned).into();
        let index = self.world.publish_with(sequence, &[], |index| {
            index.components = vec![entry];
            change(index);
        });
        self.world.take(index).await
    }

    async fn live(&self, body: &Value) -> Option<Value> {
        let path = path(&id(body));
        match self.world.client.request(http::Request::get(&path).body(vec![]).unwrap()).await {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// What is in the cluster of these objects.
    async fn standing(&self, foundation: &Foundation) -> BTreeMap<String, Option<Value>> {
        let mut all = BTreeMap::new();
        for (name, body) in foundation {
            all.insert(name.clone(), self.live(body).await);
        }
        all
    }

    /// Whether the agent may do it, by the API server's own word.
    async fn may(&self, what: (&str, &str, &str), of: (&str, &str)) -> bool {
        manifests::may(&self.world.client, (OWN, OWN), what, of).await
    }

    /// The authoriser learns of roles by watches.
    async fn until_may(&self, may: bool, what: (&str, &str, &str), of: (&str, &str)) {
        until(&format!("{what:?} of {of:?} is {may}"), async || self.may(what, of).await == may)
            .await;
    }
}

fn id(body: &Value) -> ObjectId {
    Object::from_body(body).unwrap().id
}

/// Where the API server has it.
fn path(id: &ObjectId) -> String {
    let plural = format!("{}s", id.kind.to_lowercase());
    let root = if id.group.is_empty() { "api" } else { "apis" };
    let namespace = id.namespace.as_ref().map(|it| format!("/namespaces/{it}")).unwrap_or_default();
    format!("/{root}/{}{namespace}/{plural}/{}", id.api_version(), id.name)
}

/// What the agent is installed with, as far as a release may bring it.
fn installed() -> Foundation {
    let files = ["00-crds.yaml", "20-rbac.yaml"];
    let objects = files.iter().flat_map(|file| manifests::read(file));
    let named = |object: DynamicObject| {
        let kind = object.types.as_ref().unwrap().kind.clone();
        let name =
            format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any());
        (name, serde_json::to_value(object).unwrap())
    };
    objects.map(named).filter(|(name, _)| !name.starts_with("ServiceAccount ")).collect()
}

const ROLE: &str = "ClusterRole /mendix-agent";
const TICKETS: &str = "CustomResourceDefinition /supporttickets.agent.mendix.com";

fn add_rules(foundation: &mut Foundation, rules: &[Value]) {
    let role = foundation.get_mut(ROLE).unwrap()["rules"].as_array_mut().unwrap();
    role.extend_from_slice(rules);
}

/// The names that a new component needs in the agent's rights.
fn with_new_names() -> Foundation {
    let mut foundation = installed();
    add_rules(
        &mut foundation,
        &[
            json!({"apiGroups": [""], "resources": ["namespaces"], "resourceNames": [NEW],
                "verbs": ["get", "create", "patch"]}),
            json!({"apiGroups": [RBAC], "resources": ["clusterroles"], "resourceNames": [NEW],
                "verbs": ["get", "create", "patch", "delete", "escalate", "bind"]}),
        ],
    );
    foundation
}

fn cluster_role() -> Value {
    json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": {"name": NEW},
        "rules": [{"apiGroups": [""], "resources": ["services"], "verbs": ["list"]}]})
}

fn binding(role: &str, namespace: &str) -> Value {
    json!({"apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": OWN, "namespace": NEW},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": OWN, "namespace": namespace}]})
}

/// `spec.words` of SupportTicket, which no version has.
fn with_a_new_field(foundation: &mut Foundation) {
    let definition = foundation.get_mut(TICKETS).unwrap();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    definition.pointer_mut(spec).unwrap()["words"] = json!({"type": "string"});
}

#[tokio::test]
async fn a_release_brings_rights_and_the_next_one_a_component_that_needs_them() {
    let site = Site::new().await;
    let world = &site.world;
    let gateway = |sequence: u64| {
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": NEW}, "data": {"a": "1"}});
        world.entry(NEW, 1, NEW, sequence, &[cluster_role(), config])
    };

    // Without the rights it is refused, and told what to do.
    let alone = world.publish_with(1, &[], |index| {
        let role = [cluster_role()];
        index.components = vec![world.entry(NEW, 1, NEW, 1, &role)];
    });
    let bundle = world.take(alone).await;
    assert_eq!(state(&bundle), "Refused", "{}", message(&bundle));
    let said = message(&bundle);
    assert!(
        said.starts_with("RightsMissing: mendix-gateway: ") && said.contains(FOUNDATION_COMPONENT),
        "{said}"
    );
    assert_eq!(site.live(&cluster_role()).await, None);
    assert!(!site.may(("patch", RBAC, "clusterroles"), ("", NEW)).await);

    let rights = with_new_names();
    let bundle = site.release(2, &rights, |_| {}).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    site.until_may(true, ("escalate", RBAC, "clusterroles"), ("", NEW)).await;

    // The namespace, the agent's binding in it, and what needs both, in one release.
    let mut bound = rights.clone();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NEW}});
    bound.insert("namespace".into(), namespace);
    bound.insert("binding".into(), binding("mendix-agent-managed-namespace", OWN));
    let bundle = site.release(3, &bound, |index| index.components.push(gateway(3))).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    assert!(site.live(&cluster_role()).await.is_some());
    assert!(site.may(("patch", "apps", "deployments"), (NEW, "")).await);
    for (what, of) in [
        (("create", "", "pods/exec"), (NEW, "")),
        (("get", "", "secrets"), (NEW, "database")),
        (("patch", RBAC, "clusterroles"), ("", "cluster-admin")),
        (("bind", RBAC, "clusterroles"), ("", "cluster-admin")),
        (("patch", "agent.mendix.com", "logsharingpolicies"), (OWN, "default")),
        (("patch", "apps", "deployments"), ("mendix", "")),
    ] {
        assert!(!site.may(what, of).await, "the agent may {what:?} {of:?}");
    }

    // More rights by hand are drift, as everything else by hand.
    let released = comparable(&site.live(&rights[ROLE]).await.unwrap());
    let mut by_hand = rights[ROLE].clone();
    let everything = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    by_hand["rules"].as_array_mut().unwrap().push(everything);
    let by_hand = vec![serde_json::from_value(by_hand).unwrap()];
    manifests::apply_objects(&world.client, by_hand).await;
    assert_ne!(comparable(&site.live(&rights[ROLE]).await.unwrap()), released);
    let recovery = Drift::new(&world.driver()).recover(&CancellationToken::new()).await.unwrap();
    assert_eq!((recovery.corrected, recovery.failures), (1, vec![]));
    assert_eq!(comparable(&site.live(&rights[ROLE]).await.unwrap()), released);
    site.until_may(false, ("create", "", "pods/exec"), (NEW, "")).await;
}

#[tokio::test]
async fn a_wider_definition_is_served_and_a_release_that_fails_takes_it_back_with_the_rights() {
    let site = Site::new().await;
    let world = &site.world;
    let mut wider = with_new_names();
    with_a_new_field(&mut wider);
    let bad = |sequence: u64| {
        let deployment = Parts(world).deployment("bad", Some(1));
        let objects = [deployment];
        world.entry("operator", 1, &world.target, sequence, &objects)
    };
    let compared = |standing: BTreeMap<String, Option<Value>>| -> BTreeMap<String, Value> {
        standing.into_iter().map(|(name, live)| (name, comparable(&live.unwrap()))).collect()
    };

    // From what was installed, by others than a release, and back to it: who owns what, too.
    let before = site.standing(&wider).await;
    let bundle = site.release(1, &wider, |index| index.components.push(bad(1))).await;
    assert_eq!(state(&bundle), "RolledBack", "{}", message(&bundle));
    let after = site.standing(&wider).await;
    assert_eq!(compared(after.clone()), compared(before.clone()));
    let managers = |standing: &BTreeMap<String, Option<Value>>, name: &str| -> Vec<String> {
        let fields = &standing[name].as_ref().unwrap()["metadata"]["managedFields"];
        let fields = fields.as_array().unwrap().iter();
        fields.map(|entry| entry["manager"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(managers(&after, ROLE), managers(&before, ROLE));
    site.until_may(false, ("patch", RBAC, "clusterroles"), ("", NEW)).await;

    let bundle = site.release(2, &wider, |_| {}).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    // The server knows the field: an object keeps it.
    let ticket = json!({"apiVersion": "agent.mendix.com/v1alpha1", "kind": "SupportTicket",
        "metadata": {"name": "t1", "namespace": OWN}, "spec": {"ticketId": "t1", "words": "more"}});
    let path = "/apis/agent.mendix.com/v1alpha1/namespaces/mendix-agent/supporttickets";
    until("the new field is served", async || {
        // As long as an old handler answers, the field is dropped.
        let dry = http::Request::post(format!("{path}?dryRun=All"))
            .header("content-type", "application/json")
            .body(ticket.to_string().into_bytes())
            .unwrap();
        // While handlers change it may answer that it doesn't know the kind.
        let made = world.client.request::<Value>(dry).await;
        made.is_ok_and(|made| made["spec"]["words"] == "more")
    })
    .await;

    // And from one release back to the one before.
    let committed = compared(site.standing(&wider).await);
    let mut widest = wider.clone();
    add_rules(&mut widest, &[json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]})]);
    let bundle = site.release(3, &widest, |index| index.components.push(bad(3))).await;
    assert_eq!(state(&bundle), "RolledBack", "{}", message(&bundle));
    assert_eq!(compared(site.standing(&wider).await), committed);
}

/// A release that must not be taken: what is wrong with it, and how it is told.
type Wrong = (&'static str, fn(&mut Foundation), &'static str);

const WRONG: [Wrong; 8] = [
    (
        "a right goes",
        |all| drop(all.get_mut(ROLE).unwrap()["rules"].as_array_mut().unwrap().pop()),
        "Narrowed: ",
    ),
    (
        "a field of a definition goes",
        |all| {
            let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
            let spec = all.get_mut(TICKETS).unwrap().pointer_mut(spec).unwrap();
            spec.as_object_mut().unwrap().remove("ticketId").unwrap();
        },
        "Narrowed: ",
    ),
    (
        "a wildcard",
        |all| {
            add_rules(all, &[json!({"apiGroups": ["apps"], "resources": ["*"], "verbs": ["get"]})])
        },
        "RightForbidden: ",
    ),
    (
        "a way into pods",
        |all| {
            add_rules(
                all,
                &[
                    json!({"apiGroups": [""], "resources": ["pods/exec"], "resourceNames": ["a"], "verbs": ["create"]}),
                ],
            )
        },
        "RightForbidden: ",
    ),
    (
        "somebody else's account",
        |all| drop(all.insert("new".into(), binding("mendix-agent-managed-namespace", "default"))),
        "RightForbidden: ",
    ),
    (
        "somebody else's role",
        |all| drop(all.insert("new".into(), binding("cluster-admin", OWN))),
        "RightForbidden: ",
    ),
    (
        "somebody else's definition",
        |all| {
            let mut foreign = all[TICKETS].clone();
            foreign["metadata"]["name"] = json!("supporttickets.example.com");
            foreign["spec"]["group"] = json!("example.com");
            all.insert("new".into(), foreign);
        },
        "FoundationObject: ",
    ),
    (
        "somebody else's ClusterRole",
        |all| drop(all.insert("new".into(), cluster_role())),
        "FoundationObject: ",
    ),
];

#[tokio::test]
async fn what_takes_away_or_reaches_too_far_is_refused_before_anything_is_touched() {
    let site = Site::new().await;
    let installed = installed();
    // To the resourceVersion, but for definitions: the server goes on to say how they are served.
    let untouched = async || -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for (name, live) in site.standing(&installed).await {
            let live = live.unwrap();
            let generation = live["metadata"]["generation"].clone();
            let known = match live["kind"] == "CustomResourceDefinition" {
                true => json!([generation, comparable(&live)]),
                false => live,
            };
            all.insert(name, known);
        }
        all
    };
    let before = untouched().await;
    for (sequence, (what, change, reason)) in (1..).zip(WRONG) {
        let mut wrong = installed.clone();
        change(&mut wrong);
        let bundle = site.release(sequence, &wrong, |_| {}).await;
        assert_eq!(state(&bundle), "Refused", "{what}: {}", message(&bundle));
        assert!(message(&bundle).starts_with(reason), "{what}: {}", message(&bundle));
        assert_eq!(untouched().await, before, "{what}");
    }

    // Nobody but the foundation touches them, and nobody else gives the agent rights.
    let world = &site.world;
    let mut by_another_name = binding("cluster-admin", OWN);
    by_another_name["metadata"] = json!({"name": "operator", "namespace": world.target});
    for (sequence, body, reason) in [
        (20, installed[ROLE].clone(), "FoundationElsewhere: "),
        (21, by_another_name, "RightForbidden: "),
    ] {
        let bundle = world.take(world.publish(sequence, &[body])).await;
        assert_eq!(state(&bundle), "Refused", "{}", message(&bundle));
        assert!(message(&bundle).starts_with(reason), "{}", message(&bundle));
    }

    // What is meant, and signed, is done.
    let mut narrower = installed.clone();
    let gone = narrower.get_mut(ROLE).unwrap()["rules"].as_array_mut().unwrap().pop().unwrap();
    assert_eq!(gone["apiGroups"][0], "admissionregistration.k8s.io");
    let role = id(&installed[ROLE]);
    let bundle = site.release(22, &narrower, |index| index.narrows = vec![role]).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let webhooks = ("get", "admissionregistration.k8s.io", "validatingwebhookconfigurations");
    site.until_may(false, webhooks, ("", "mendix-operator")).await;
}
