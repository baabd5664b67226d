mod foundation;
mod objects;
mod record;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::bundle::{
    canonical,
    index::{BlobRef, FieldException, Gates, ReleaseClass, SCHEMA, Scope, VersionRange},
    object::IdFields,
};

const IMAGE: &str = "registry.local/operator@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A release with its blobs, before verification.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) index: ReleaseIndex,
    pub(crate) objects: Vec<Vec<Object>>,
    pub(crate) sha256: [u8; 32],
}

impl Draft {
    pub(crate) fn new(sequence: u64) -> Self {
        let index = ReleaseIndex {
            schema: SCHEMA,
            release_id: format!("r{sequence}"),
            sequence,
            class: ReleaseClass::Weekly,
            not_before: None,
            apply_by: None,
            audience: vec![],
            agent_versions: VersionRange::default(),
            kubernetes_versions: VersionRange::default(),
            from: vec![],
            blocked_from: vec![],
            components: vec![],
            deletes: vec![],
            narrows: vec![],
        };
        Self { index, objects: vec![], sha256: [1; 32] }
    }

    /// A component that may own what it has, in namespace `mendix`.
    pub(crate) fn component(mut self, name: &str, phase: u32, bodies: Vec<Value>) -> Self {
        let objects: Vec<_> = bodies.iter().map(|body| Object::from_body(body).unwrap()).collect();
        let kinds: BTreeSet<_> = objects.iter().map(|object| object.id.group_kind()).collect();
        let mut images = BTreeSet::new();
        for object in &objects {
            collect_images(&object.body.value(), &mut images);
        }
        let sha256 = hex::encode(digest(self.objects.len()));
        self.index.components.push(ComponentEntry {
            name: name.into(),
            version: "1".into(),
            phase,
            blob: BlobRef { target: BlobRef::target_name(&sha256), sha256, size: 1000 },
            images: images.into_iter().collect(),
            scope: Scope {
                namespaces: vec!["mendix".into(), "mendix-agent".into()],
                kinds: kinds.into_iter().collect(),
            },
            gates: Gates::default(),
            adopt: false,
            goes_back: false,
            exceptions: vec![],
        });
        self.objects.push(objects);
        self
    }

    fn change(mut self, change: impl FnOnce(&mut ReleaseIndex)) -> Self {
        change(&mut self.index);
        self
    }

    pub(crate) fn admit(self, facts: &ClusterFacts) -> Result<Admitted, Vec<Refusal>> {
        let blobs = self.objects.into_iter().enumerate();
        let blobs = blobs.map(|(n, objects)| Verified::new(objects, digest(n))).collect();
        admit(Verified::new(self.index, self.sha256), blobs, facts)
    }
}

fn digest(n: usize) -> [u8; 32] {
    [u8::try_from(n).unwrap(); 32]
}

fn collect_images(value: &Value, images: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(image)) = map.get("image") {
                images.insert(image.clone());
            }
            map.values().for_each(|value| collect_images(value, images));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_images(value, images)),
        _ => {}
    }
}

pub(crate) fn facts() -> ClusterFacts {
    ClusterFacts {
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.34.2".into(),
        agent_namespace: "mendix-agent".into(),
        ring: "early".into(),
        agent_is_deployment: true,
        ..ClusterFacts::default()
    }
}

/// The least that upgrades the agent.
fn own_deployment() -> Value {
    let mut body = object("apps/v1", "Deployment", Some("mendix-agent"), "mendix-agent");
    let image = format!("registry.example/agent@sha256:{}", "ab".repeat(32));
    body["spec"] =
        json!({"template": {"spec": {"containers": [{"name": "agent", "image": image}]}}});
    body
}

pub(crate) fn object(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Value {
    let mut metadata = json!({"name": name});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
}

fn config_map(name: &str) -> Value {
    object("v1", "ConfigMap", Some("mendix"), name)
}

fn deployment(image: &str) -> Value {
    let mut body = object("apps/v1", "Deployment", Some("mendix"), "operator");
    body["spec"] =
        json!({"template": {"spec": {"containers": [{"name": "main", "image": image}]}}});
    body
}

/// `object` with `value` at a place.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

/// Reason and field of each refusal.
fn refusals(draft: Draft, facts: &ClusterFacts) -> Vec<(Reason, String)> {
    let refusals = draft.admit(facts).err().unwrap_or_default();
    refusals.into_iter().map(|r| (r.reason, r.field.unwrap_or_default())).collect()
}

fn only(reason: Reason, field: &str) -> Vec<(Reason, String)> {
    vec![(reason, field.to_owned())]
}

/// A release of one component with these objects.
fn one(bodies: Vec<Value>) -> Draft {
    Draft::new(5).component("mendix-operator", 1, bodies)
}

#[test]
fn an_ordinary_release_is_admitted() {
    let bodies = vec![
        object("v1", "Namespace", None, "mendix"),
        config_map("config"),
        deployment(IMAGE),
        object("rbac.authorization.k8s.io/v1", "ClusterRole", None, "operator"),
    ];
    let admitted = one(bodies).admit(&facts()).unwrap();
    assert_eq!(admitted.release().sequence, 5);
    assert_eq!(admitted.high_water(), HighWater { sequence: 5, index_sha256: [1; 32] });
}

#[test]
fn a_replayed_older_release_is_refused() {
    let mark = |sequence, digest| ClusterFacts {
        marks: Marks {
            high_water: Some(HighWater { sequence, index_sha256: [digest; 32] }),
            floor: 0,
        },
        ..facts()
    };
    let draft = one(vec![config_map("a")]);
    assert_eq!(refusals(draft.clone(), &mark(6, 1)), only(Reason::SequenceTooLow, "sequence"));
    assert_eq!(refusals(draft.clone(), &mark(5, 2)), only(Reason::SequenceReused, "sequence"));
    draft.clone().admit(&mark(5, 1)).expect("the release at the mark is a run to be resumed");
    draft.admit(&mark(4, 2)).unwrap();
}

#[test]
fn a_release_below_the_signed_floor_is_refused_whatever_is_remembered() {
    let floor = |floor| ClusterFacts { marks: Marks { high_water: None, floor }, ..facts() };
    let draft = one(vec![config_map("a")]);
    assert_eq!(refusals(draft.clone(), &floor(6)), only(Reason::BelowFloor, "sequence"));
    draft.admit(&floor(5)).unwrap();
}

#[test]
fn an_older_version_of_a_component_needs_the_signed_word_of_the_index() {
    let facts = |version: &str| ClusterFacts {
        versions: BTreeMap::from([("mendix-operator".into(), version.into())]),
        ..facts()
    };
    let offered = |version: &str, goes_back| {
        one(vec![config_map("a")]).change(|index| {
            index.components[0].version = version.into();
            index.components[0].goes_back = goes_back;
        })
    };
    assert_eq!(
        refusals(offered("2.9.0", false), &facts("2.10.0")),
        only(Reason::OlderVersion, "version")
    );
    for (version, goes_back, now) in [
        ("2.9.0", true, "2.10.0"),
        ("2.10.0", false, "2.10.0"),
        ("2.10.1", false, "2.10.0"),
        // What is no number can't be compared.
        ("nightly", false, "2.10.0"),
    ] {
        offered(version, goes_back).admit(&facts(now)).unwrap();
    }
}

#[test]
fn a_release_that_was_rolled_back_here_stays_refused() {
    let facts = ClusterFacts {
        marks: Marks {
            high_water: Some(HighWater { sequence: 5, index_sha256: [1; 32] }),
            floor: 0,
        },
        quarantined: BTreeSet::from([[1; 32]]),
        ..facts()
    };
    let draft = one(vec![config_map("a")]);
    assert_eq!(refusals(draft.clone(), &facts), only(Reason::Quarantined, "release_id"));
    Draft { sha256: [2; 32], ..draft.change(|index| index.sequence = 6) }.admit(&facts).unwrap();
}

#[test]
fn versions_are_compared_as_numbers_and_without_platform_marks() {
    let needs = |agent: &str, kubernetes: &str| {
        one(vec![config_map("a")]).change(|index| {
            index.agent_versions.min = Some(agent.into());
            index.kubernetes_versions.max = Some(kubernetes.into());
        })
    };
    let facts = ClusterFacts {
        agent_version: "1.10.0".into(),
        kubernetes_version: "v1.34.2-aks".into(),
        ..facts()
    };
    needs("1.9", "1.34").admit(&facts).unwrap();
    assert_eq!(
        refusals(needs("1.11", "1.34"), &facts),
        only(Reason::AgentVersion, "agent_versions")
    );
    assert_eq!(
        refusals(needs("1.9", "1.33"), &facts),
        only(Reason::KubernetesVersion, "kubernetes_versions")
    );
    let odd = ClusterFacts { kubernetes_version: "unknown".into(), ..facts };
    assert_eq!(
        refusals(needs("1.9", "1.33"), &odd),
        only(Reason::KubernetesVersion, "kubernetes_versions")
    );
}

#[test]
fn a_release_is_reached_only_from_where_it_says() {
    let from = one(vec![config_map("a")]).change(|index| index.from = vec![3, 4]);
    let blocked = one(vec![config_map("a")]).change(|index| index.blocked_from = vec![3]);
    let at = |committed_sequence| ClusterFacts { committed_sequence, ..facts() };
    from.clone().admit(&at(Some(4))).unwrap();
    assert_eq!(refusals(from.clone(), &at(Some(2))), only(Reason::NotReachable, "from"));
    assert_eq!(refusals(from.clone(), &at(None)), only(Reason::NotReachable, "from"));
    from.admit(&at(Some(5))).expect("sent again after it was committed");
    assert_eq!(refusals(blocked.clone(), &at(Some(3))), only(Reason::BlockedFrom, "blocked_from"));
    blocked.clone().admit(&at(Some(2))).unwrap();
    blocked.admit(&at(None)).unwrap();
}

#[test]
fn a_release_for_other_rings_is_refused() {
    let draft =
        |ring: &str| one(vec![config_map("a")]).change(|index| index.audience = vec![ring.into()]);
    draft("early").admit(&facts()).unwrap();
    assert_eq!(refusals(draft("late"), &facts()), only(Reason::Audience, "audience"));
    let none = ClusterFacts { ring: String::new(), ..facts() };
    assert_eq!(refusals(draft("early"), &none), only(Reason::Audience, "audience"));
}

#[test]
fn release_state_stays_in_its_budget() {
    let draft = one(vec![config_map("a")]).change(|index| index.components[0].blob.size = 1 << 20);
    let with = |state_bytes| ClusterFacts { state_bytes, ..facts() };
    draft.clone().admit(&with(62 << 20)).unwrap();
    assert_eq!(
        refusals(draft.clone(), &with((62 << 20) + 1)),
        only(Reason::StateBudget, "components")
    );
    assert_eq!(refusals(draft, &with(u64::MAX)), only(Reason::StateBudget, "components"));
}

#[test]
fn a_run_that_has_begun_goes_on_under_the_agent_that_it_brought() {
    let draft =
        one(vec![config_map("a")]).change(|index| index.agent_versions.max = Some("0.1.9".into()));
    let newer = ClusterFacts { agent_version: "0.2.0".into(), ..facts() };
    assert_eq!(refusals(draft.clone(), &newer), only(Reason::AgentVersion, "agent_versions"));
    draft.admit(&ClusterFacts { has_begun: true, ..newer }).unwrap();
}

#[test]
fn a_missing_blob_is_named() {
    let mut draft = one(vec![config_map("a")]);
    draft.objects.clear();
    assert_eq!(refusals(draft, &facts()), only(Reason::BlobMissing, "blob.sha256"));
}

#[test]
fn the_agent_comes_last() {
    let draft =
        |phase| one(vec![config_map("a")]).component("mendix-agent", phase, vec![own_deployment()]);
    draft(2).admit(&facts()).unwrap();
    assert_eq!(refusals(draft(1), &facts()), only(Reason::AgentNotLast, "phase"));
}

#[test]
fn an_object_has_one_owner() {
    let draft = one(vec![config_map("a")]).component("other", 1, vec![config_map("a")]);
    let refused = draft.admit(&facts()).unwrap_err();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].reason, Reason::OwnedTwice);
    assert_eq!(refused[0].component.as_deref(), Some("other"));
    assert!(refused[0].found.contains("mendix-operator"));

    let owned = Object::from_body(&config_map("a")).unwrap().id;
    let facts =
        ClusterFacts { inventory: BTreeMap::from([("other".into(), vec![owned])]), ..facts() };
    let draft = one(vec![config_map("a")]);
    assert_eq!(refusals(draft.clone(), &facts), only(Reason::OwnedByOther, "metadata.name"));
    // Released together, the object may move.
    draft.component("other", 1, vec![config_map("b")]).admit(&facts).unwrap();
}

#[test]
fn replicas_are_left_to_an_autoscaler() {
    let mut hpa = object("autoscaling/v2", "HorizontalPodAutoscaler", Some("mendix"), "a");
    hpa["spec"] = json!({"scaleTargetRef": {
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "operator",
    }});
    let scaled = with(deployment(IMAGE), "/spec/replicas", json!(2));
    one(vec![hpa.clone(), deployment(IMAGE)]).admit(&facts()).unwrap();
    one(vec![scaled.clone()]).admit(&facts()).unwrap();
    // Also when the autoscaler belongs to another component.
    let draft = one(vec![scaled]).component("other", 1, vec![hpa]);
    assert_eq!(refusals(draft, &facts()), only(Reason::ReplicasUnderAutoscaler, "spec.replicas"));
}

#[test]
fn deletes_name_data_only_and_nothing_that_is_denied() {
    let id = |kind: &str, namespace: Option<&str>, name: &str| {
        ObjectId::from(IdFields {
            group: String::new(),
            version: "v1".into(),
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        })
    };
    let deletes = |id| one(vec![config_map("a")]).change(|index| index.deletes = vec![id]);
    deletes(id("PersistentVolumeClaim", Some("mendix"), "old")).admit(&facts()).unwrap();
    deletes(id("Namespace", None, "old")).admit(&facts()).unwrap();
    for (refused, reason) in [
        (id("ConfigMap", Some("mendix"), "b"), Reason::DeleteNotAllowed),
        (id("Namespace", None, "kube-system"), Reason::NamespaceDenied),
        (id("Namespace", None, "mendix-agent"), Reason::NamespaceDenied),
        (id("PersistentVolumeClaim", Some("kube-system"), "a"), Reason::NamespaceDenied),
        (id("PersistentVolumeClaim", None, "a"), Reason::NamespaceMissing),
    ] {
        assert_eq!(refusals(deletes(refused), &facts()), only(reason, "deletes[0]"));
    }
    let namespace = object("v1", "Namespace", None, "mendix");
    let draft =
        one(vec![namespace]).change(|index| index.deletes = vec![id("Namespace", None, "mendix")]);
    assert_eq!(refusals(draft, &facts()), only(Reason::DeleteContradicts, "deletes[0]"));
}

#[test]
fn an_exception_names_an_object_of_its_component() {
    let exception = |name: &str| {
        let object = Object::from_body(&config_map(name)).unwrap().id;
        one(vec![config_map("a")]).change(|index| {
            index.components[0].exceptions = vec![FieldException { object, path: "data".into() }];
        })
    };
    exception("a").admit(&facts()).unwrap();
    assert_eq!(
        refusals(exception("b"), &facts()),
        only(Reason::ExceptionUnused, "exceptions[0].object")
    );
}

#[test]
fn all_refusals_come_at_once_and_say_what_to_do() {
    let body = with(deployment("operator:latest"), "/metadata/finalizers", json!(["x"]));
    let draft =
        one(vec![body, object("v1", "ConfigMap", Some("kube-system"), "a")]).change(|index| {
            index.components[0].images.clear();
            index.audience = vec!["late".into()];
        });
    let refused = draft.admit(&facts()).unwrap_err();
    let reasons: Vec<_> = refused.iter().map(|refusal| refusal.reason).collect();
    assert_eq!(
        reasons,
        [Reason::Audience, Reason::FieldForbidden, Reason::NamespaceDenied, Reason::ImageNotPinned,]
    );
    assert_eq!(
        refused[3].to_string(),
        "ImageNotPinned: mendix-operator: Deployment mendix/operator: \
         spec.template.spec.containers[0].image: \"operator:latest\" is not pinned by digest. \
         Name the image as registry/name@sha256:<digest>, without a tag."
    );
}

proptest! {
    #[test]
    fn admission_never_panics_whatever_an_object_holds(
        places in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "/spec", "/status", "/items", "/metadata/labels", "/metadata/uid", "/spec/replicas",
                    "/spec/scaleTargetRef", "/spec/template", "/spec/containers", "/spec/names",
                    "/spec/group", "/spec/scope", "/spec/volumes", "/webhooks",
                ]),
                canonical::tests::any_json(),
            ),
            0..4,
        ),
        kind in prop::sample::select(vec![
            ("v1", "Pod"), ("v1", "List"), ("v1", "Namespace"), ("apps/v1", "Deployment"),
            ("autoscaling/v2", "HorizontalPodAutoscaler"), ("example.com/v1", "Custom"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ]),
        namespaced in any::<bool>(),
    ) {
        let mut body = object(kind.0, kind.1, namespaced.then_some("mendix"), "x");
        body["spec"] = json!({});
        for (place, value) in places {
            let (parent, key) = place.rsplit_once('/').unwrap();
            if let Some(Value::Object(parent)) = body.pointer_mut(parent) {
                parent.insert(key.into(), value);
            }
        }
        let _ = one(vec![body, config_map("a")]).admit(&facts());
    }
}
