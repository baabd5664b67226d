//! Admission: may this cluster apply this release? Decided before anything is touched, from the
//! verified release and plain facts about the cluster.
//!
//! All refusals come at once, so that a release is repaired in one go. What only the API server can
//! answer (schemas, webhooks, quota) is asked afterwards by a dry run; admission never relies on it.

mod agent;
mod foundation;
mod image;
mod object;
mod record;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Verified,
    index::{ComponentEntry, ReleaseIndex},
    kind,
    limits::Limits,
    object::{IdFields, Inventory, Object, ObjectId},
    schema::{self, Served},
    version::Version,
};
use crate::ordered;
pub use agent::own_deployment;
pub use record::recorded_bytes;
pub use refusal::{Reason, Refusal};

/// Component that updates the agent itself. It comes last, and consists of the agent's own Deployment
/// alone.
pub const AGENT_COMPONENT: &str = "mendix-agent";
/// Name of the agent's own Deployment, in the agent's namespace.
pub const AGENT_DEPLOYMENT: &str = "mendix-agent";
/// The agent's container in it.
pub const AGENT_CONTAINER: &str = "agent";
/// Namespaces of Kubernetes itself; no component owns anything there.
pub const DENIED_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What admission has to know of the cluster. The caller fills it; nothing here is taken from the
/// control plane.
#[derive(Clone, Debug, Default)]
pub struct ClusterFacts {
    /// Version of the running agent.
    pub agent_version: String,
    /// Kubernetes version as the server says it, such as `v1.34.2`.
    pub kubernetes_version: String,
    /// The agent's own namespace.
    pub agent_namespace: String,
    /// Release ring that was set at enrolment; empty: none, and only releases for all rings fit.
    pub ring: String,
    /// What is held against going back.
    pub marks: Marks,
    /// Sequence of the last committed release.
    pub committed_sequence: Option<u64>,
    /// Digests of indexes that were rolled back here; refused until a higher sequence comes.
    pub quarantined: BTreeSet<[u8; 32]>,
    /// What each component owns.
    pub inventory: Inventory,
    /// Scope of custom kinds by `group/Kind`, as discovery tells; a kind that is in neither here nor
    /// in a CRD of the release is left to the dry run.
    pub custom_kinds: BTreeMap<String, KindScope>,
    /// Version of each component that is committed here.
    pub versions: BTreeMap<String, String>,
    /// Bytes of release state that stay in Secrets while this release is applied.
    pub state_bytes: u64,
    /// Whether the run has begun to change objects. Then the agent's version is no longer asked for: it
    /// may be the one that the release brought.
    pub has_begun: bool,
    /// The objects of component [`super::foundation::FOUNDATION_COMPONENT`] as they are now, which it may
    /// not narrow. Empty once the run has begun, and where there is no cluster.
    pub foundation: BTreeMap<ObjectId, Value>,
    /// Whether the agent runs as a Deployment here and so can be upgraded by a release.
    pub agent_is_deployment: bool,
}

/// What is held against a release that is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The highest release that was ever accepted here; none if none was.
    pub high_water: Option<HighWater>,
    /// The lowest sequence that any cluster accepts ([`super::floor`]); 0 where it is not asked for,
    /// since what is resumed was accepted before.
    pub floor: u64,
}

/// The highest release that was ever accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighWater {
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its index.
    pub index_sha256: [u8; 32],
}

/// Where objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindScope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// A release that this cluster may apply. Only [`admit`] makes one; only
/// [`super::plan::Plan::new`] takes it.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub(super) index: ReleaseIndex,
    pub(super) index_sha256: [u8; 32],
    pub(super) objects: BTreeMap<String, Vec<Object>>,
}

impl Admitted {
    /// The admitted release.
    pub fn release(&self) -> &ReleaseIndex {
        &self.index
    }

    /// SHA-256 of the signed index.
    pub fn index_sha256(&self) -> &[u8; 32] {
        &self.index_sha256
    }

    /// What the high-water mark becomes when this release is started.
    pub fn high_water(&self) -> HighWater {
        HighWater { sequence: self.index.sequence, index_sha256: self.index_sha256 }
    }
}

/// Decides whether this cluster may apply the release. `blobs` are matched to components by the
/// digest that the index gives.
///
/// The release at the high-water mark itself is admitted again: that is how an interrupted run is
/// resumed.
///
/// # Errors
/// Every refusal, in the order: release, then component by component as the index has them.
pub fn admit(
    index: Verified<ReleaseIndex>,
    blobs: Vec<Verified<Vec<Object>>>,
    facts: &ClusterFacts,
) -> Result<Admitted, Vec<Refusal>> {
    let mut refusals = release(&index, index.sha256(), facts);
    let blobs = blobs.into_iter();
    let mut by_digest =
        ordered::map(blobs.map(|blob| (hex::encode(blob.sha256()), blob.into_inner())));
    let mut objects = BTreeMap::new();
    for (at, entry) in index.components.iter().enumerate() {
        match by_digest.remove(&entry.blob.sha256) {
            Some(of_component) => {
                let mut later = index.components.iter().skip(at + 1);
                if later.any(|other| other.blob.sha256 == entry.blob.sha256) {
                    by_digest.insert(entry.blob.sha256.clone(), of_component.clone());
                }
                objects.insert(entry.name.clone(), of_component);
            }
            None => refusals.push(Refusal::component(
                entry,
                Reason::BlobMissing,
                "blob.sha256",
                format!("no blob with digest {} is here", entry.blob.sha256),
            )),
        }
    }
    let scopes = object::Scopes::new(facts, objects.values().flatten());
    for entry in &index.components {
        let Some(of_component) = objects.get(&entry.name) else { continue };
        let mut images = image::Images::new(entry);
        for object in of_component {
            let body = object.body.value();
            object::check(entry, &object.id, &body, facts, &scopes, &mut refusals);
            images.look(&object.id, &body);
        }
        if entry.name == AGENT_COMPONENT {
            agent::check(entry, of_component, facts, &mut refusals);
        }
        refusals.extend(images.refusals());
        exceptions(entry, of_component, &mut refusals);
        record::check(entry, of_component, &index.deletes, facts, &mut refusals);
        going_back(entry, facts, &mut refusals);
    }
    foundation::check(&index, &objects, facts, &mut refusals);
    definitions(&index, &objects, &mut refusals);
    ownership(&index, &objects, facts, &mut refusals);
    autoscalers(&index, &objects, &mut refusals);
    deletes(&index, &objects, facts, &mut refusals);
    if refusals.is_empty() {
        Ok(Admitted { index: ReleaseIndex::clone(&index), index_sha256: *index.sha256(), objects })
    } else {
        Err(refusals)
    }
}

fn release(index: &ReleaseIndex, sha256: &[u8; 32], facts: &ClusterFacts) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |reason, field: &str, found: String| {
        refusals.push(Refusal::release(reason, field, found));
    };
    let sequence = index.sequence;
    let Marks { high_water, floor } = facts.marks;
    if sequence < floor {
        refuse(
            Reason::BelowFloor,
            "sequence",
            format!("{sequence} is below {floor}, the lowest that release engineering allows"),
        );
    }
    match high_water {
        Some(high) if sequence < high.sequence => refuse(
            Reason::SequenceTooLow,
            "sequence",
            format!("{sequence} is below {}, which was accepted here", high.sequence),
        ),
        Some(high) if sequence == high.sequence && *sha256 != high.index_sha256 => refuse(
            Reason::SequenceReused,
            "sequence",
            format!("{sequence} was accepted here with digest {}", hex::encode(high.index_sha256)),
        ),
        _ => {}
    }
    if facts.quarantined.contains(sha256) {
        refuse(
            Reason::Quarantined,
            "release_id",
            format!("{} was rolled back here", index.release_id),
        );
    }
    for (reason, field, range, version) in [
        (Reason::AgentVersion, "agent_versions", &index.agent_versions, &facts.agent_version),
        (
            Reason::KubernetesVersion,
            "kubernetes_versions",
            &index.kubernetes_versions,
            &facts.kubernetes_version,
        ),
    ] {
        match range.contains(version) {
            _ if facts.has_begun && reason == Reason::AgentVersion => {}
            Ok(true) => {}
            Ok(false) => refuse(reason, field, format!("{version} is not in {range}")),
            Err(error) => refuse(reason, field, error.to_string()),
        }
    }
    // A release that is committed already was reachable once; sending it again is no new step.
    if let Some(committed) = facts.committed_sequence.filter(|committed| *committed != sequence) {
        if !index.from.is_empty() && !index.from.contains(&committed) {
            refuse(Reason::NotReachable, "from", format!("{committed} runs here and is not in it"));
        }
        if index.blocked_from.contains(&committed) {
            refuse(Reason::BlockedFrom, "blocked_from", format!("{committed} runs here"));
        }
    } else if facts.committed_sequence.is_none() && !index.from.is_empty() {
        refuse(Reason::NotReachable, "from", "no release runs here yet".into());
    }
    if !index.audience.is_empty() && !index.audience.contains(&facts.ring) {
        let rings = index.audience.join(", ");
        refuse(Reason::Audience, "audience", format!("ring {:?} is not in {rings}", facts.ring));
    }
    // A pre-image of an object is about as large as the object that replaces it.
    let blobs: u64 = index.components.iter().map(|entry| entry.blob.size).sum();
    let state = facts.state_bytes.saturating_add(blobs.saturating_mul(2));
    let budget = Limits::BUILT_IN.state;
    if state > budget {
        let found = format!(
            "{} bytes are kept and twice {blobs} would come; the budget is {budget}",
            facts.state_bytes
        );
        refuse(Reason::StateBudget, "components", found);
    }
    if let Some(agent) = index.components.iter().find(|entry| entry.name == AGENT_COMPONENT) {
        if !facts.agent_is_deployment {
            refusals.push(Refusal::component(
                agent,
                Reason::AgentElsewhere,
                "name",
                "this agent does not run as a Deployment",
            ));
        }
        let others = index.components.iter().filter(|entry| entry.name != AGENT_COMPONENT);
        if let Some(last) =
            others.filter(|entry| entry.phase >= agent.phase).max_by_key(|e| e.phase)
        {
            refusals.push(Refusal::component(
                agent,
                Reason::AgentNotLast,
                "phase",
                format!("{} is not above {} of {}", agent.phase, last.phase, last.name),
            ));
        }
    }
    refusals
}

/// A component goes to an older version only if the signed index says so: a mistake in publishing is no
/// permission. Versions that are no numbers can't be compared and are not judged.
fn going_back(entry: &ComponentEntry, facts: &ClusterFacts, refusals: &mut Vec<Refusal>) {
    let Some(now) = facts.versions.get(&entry.name).filter(|_| !entry.goes_back) else { return };
    if let (Ok(offered), Ok(committed)) = (entry.version.parse::<Version>(), now.parse())
        && offered < committed
    {
        let found = format!("{} is older than {now}, which runs here", entry.version);
        refusals.push(Refusal::component(entry, Reason::OlderVersion, "version", found));
    }
}

fn exceptions(entry: &ComponentEntry, objects: &[Object], refusals: &mut Vec<Refusal>) {
    for (n, exception) in entry.exceptions.iter().enumerate() {
        if !objects.iter().any(|object| object.id == exception.object) {
            let field = format!("exceptions[{n}].object");
            let found = format!("{} is not an object of the component", exception.object);
            refusals.push(Refusal::component(entry, Reason::ExceptionUnused, &field, found));
        }
    }
}

/// Objects whose definition comes with the release fit it: the server can't be asked about them yet.
fn definitions(
    index: &ReleaseIndex,
    objects: &BTreeMap<String, Vec<Object>>,
    refusals: &mut Vec<Refusal>,
) {
    let all = objects.values().flatten();
    let definitions = all
        .filter(|object| object.id.group_kind() == "apiextensions.k8s.io/CustomResourceDefinition")
        .filter_map(|object| {
            let body = object.body.value();
            let text = |pointer| Some(body.pointer(pointer)?.as_str()?.to_owned());
            Some(((text("/spec/group")?, text("/spec/names/kind")?), object))
        });
    let definitions = ordered::map(definitions);
    if definitions.is_empty() {
        return;
    }
    // Parsed one at a time: definitions are large, and the objects of a kind mostly follow each other.
    let mut parsed: Option<(&ObjectId, Value)> = None;
    for entry in &index.components {
        for object in objects.get(&entry.name).into_iter().flatten() {
            let Object { id, body } = object;
            let Some(definition) = definitions.get(&(id.group.clone(), id.kind.clone())) else {
                continue;
            };
            let parsed = match parsed.take() {
                Some(same) if *same.0 == definition.id => parsed.insert(same),
                _ => parsed.insert((&definition.id, definition.body.value())),
            };
            let mut refuse = |reason, field: &str, found: String| {
                refusals.push(Refusal::object(entry, id, reason, field, found));
            };
            match schema::served(&parsed.1, &id.version) {
                Served::As(schema) => {
                    for (field, found) in schema::findings(schema, &body.value()) {
                        refuse(Reason::DefinitionMismatch, &field, found);
                    }
                }
                Served::Unjudged => {}
                Served::No => {
                    let found = format!("{} does not serve {}", definition.id, id.version);
                    refuse(Reason::VersionNotServed, "apiVersion", found);
                }
            }
        }
    }
}

/// Every object has one owner: among the components of the release, and against what components
/// outside it own.
fn ownership(
    index: &ReleaseIndex,
    objects: &BTreeMap<String, Vec<Object>>,
    facts: &ClusterFacts,
    refusals: &mut Vec<Refusal>,
) {
    let others = facts
        .inventory
        .iter()
        .filter(|(component, _)| !index.components.iter().any(|entry| entry.name == **component))
        .flat_map(|(component, owned)| owned.iter().map(move |id| (id, component.as_str())));
    let others = ordered::map(others);
    let mut first: BTreeMap<&ObjectId, &str> = BTreeMap::new();
    for entry in &index.components {
        for object in objects.get(&entry.name).into_iter().flatten() {
            if let Some(other) = first.get(&object.id) {
                let found = format!("component {other} names it too");
                refusals.push(Refusal::object(
                    entry,
                    &object.id,
                    Reason::OwnedTwice,
                    "metadata.name",
                    found,
                ));
            }
            if let Some(other) = others.get(&object.id) {
                let found = format!("component {other}, which is not in this release, owns it");
                refusals.push(Refusal::object(
                    entry,
                    &object.id,
                    Reason::OwnedByOther,
                    "metadata.name",
                    found,
                ));
            }
            first.insert(&object.id, &entry.name);
        }
    }
}

/// A release that sets `replicas` where an autoscaler does would fight it at every apply.
fn autoscalers(
    index: &ReleaseIndex,
    objects: &BTreeMap<String, Vec<Object>>,
    refusals: &mut Vec<Refusal>,
) {
    let mut scaled = BTreeSet::new();
    for object in objects.values().flatten() {
        if object.id.group_kind() != "autoscaling/HorizontalPodAutoscaler" {
            continue;
        }
        let body = object.body.value();
        let target = |field: &str| {
            body.pointer("/spec/scaleTargetRef")
                .and_then(|target| target.get(field))
                .and_then(|value| value.as_str())
                .unwrap_or_default()
        };
        let group = target("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
        scaled.insert((
            group.to_owned(),
            target("kind").to_owned(),
            object.id.namespace.clone(),
            target("name").to_owned(),
        ));
    }
    if scaled.is_empty() {
        return;
    }
    for entry in &index.components {
        for object in objects.get(&entry.name).into_iter().flatten() {
            let IdFields { group, kind, namespace, name, .. } = &*object.id;
            let key = (group.clone(), kind.clone(), namespace.clone(), name.clone());
            if scaled.contains(&key)
                && let Some(replicas) = object.body.value().pointer("/spec/replicas")
            {
                refusals.push(Refusal::object(
                    entry,
                    &object.id,
                    Reason::ReplicasUnderAutoscaler,
                    "spec.replicas",
                    format!("is {replicas}, and an autoscaler of this release targets the object"),
                ));
            }
        }
    }
}

fn deletes(
    index: &ReleaseIndex,
    objects: &BTreeMap<String, Vec<Object>>,
    facts: &ClusterFacts,
    refusals: &mut Vec<Refusal>,
) {
    for (n, id) in index.deletes.iter().enumerate() {
        let field = format!("deletes[{n}]");
        let mut refuse = |reason, found: String| {
            let object = Some(id.clone());
            refusals.push(Refusal { object, ..Refusal::release(reason, &field, found) });
        };
        if !kind::holds_data(id) {
            refuse(Reason::DeleteNotAllowed, format!("{} is pruned without it", id.group_kind()));
        }
        let namespace = if id.kind == "Namespace" { Some(&id.name) } else { id.namespace.as_ref() };
        if let Some(namespace) = namespace
            && (DENIED_NAMESPACES.contains(&namespace.as_str())
                || *namespace == facts.agent_namespace)
        {
            refuse(Reason::NamespaceDenied, format!("nothing in {namespace} is deleted"));
        }
        if kind::is_namespaced(id).is_some_and(|namespaced| namespaced != id.namespace.is_some()) {
            refuse(Reason::NamespaceMissing, "names no object: its namespace is wrong".into());
        }
        if objects.values().flatten().any(|object| object.id == *id) {
            refuse(Reason::DeleteContradicts, "is an object of this release".into());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
