//! From folders of manifests to a release that is ready to be signed.
//!
//! The publisher rehearses what every agent will do: index and blobs are verified from the very bytes
//! that would be signed, and admitted by the agent's own admission against a cluster that fits. What
//! an agent would refuse is refused here, all of it at once.

pub mod diff;
mod rendered;
mod spec;

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use mendix_agent_core::bundle::{
    Authentic,
    admission::{self, ClusterFacts},
    blob,
    foundation::FOUNDATION_COMPONENT,
    index::{self, ComponentEntry, ReleaseIndex, SCHEMA, Scope, VersionRange},
    limits::Limits,
    name,
    object::Object,
};
use serde_json::Value;
use thiserror::Error;

use crate::{
    crypto,
    repository::{Draft, DraftComponent},
};

pub use self::{
    rendered::Notes,
    spec::{ComponentSpec, ReleaseSpec},
};

/// Largest manifest file.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Problems that are listed; the rest is counted.
const MAX_LISTED: usize = 100;
/// Namespace of the agent itself, in which no other component may own anything.
const AGENT_NAMESPACE: &str = "mendix-agent";

/// Everything that is wrong with a release.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the release has a problem:")?,
            count => write!(f, "the release has {count} problems:")?,
        }
        for problem in self.0.iter().take(MAX_LISTED) {
            write!(f, "\n  - {problem}")?;
        }
        match self.0.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Reads, encodes and rehearses a release. Its sequence is given by [`crate::repository::publish`].
///
/// # Errors
/// All problems at once, each with component, file or object, and field.
pub fn draft(spec: &ReleaseSpec) -> Result<Draft, Problems> {
    let mut problems = Vec::new();
    let mut entries = Vec::new();
    let mut components = Vec::new();
    for (position, component) in spec.components.iter().enumerate() {
        let (objects, notes) = read(component, &mut problems);
        let encoded = match blob::encode(&objects) {
            Ok(encoded) => encoded,
            Err(error) => {
                problems.push(format!("{}: {}", component.name, chain(&error)));
                continue;
            }
        };
        entries.push(ComponentEntry {
            name: component.name.clone(),
            version: component.version.clone(),
            phase: component.phase.unwrap_or(u32::try_from(position + 1).unwrap_or(u32::MAX)),
            blob: encoded.reference,
            images: images(&objects),
            scope: scope(&objects),
            gates: component.gates.clone().unwrap_or_else(|| spec.gates.clone()),
            adopt: component.adopt,
            goes_back: component.goes_back,
            exceptions: component.exceptions.clone(),
        });
        components.push(DraftComponent { objects, blob: encoded.bytes, notes });
    }
    let index = ReleaseIndex {
        schema: SCHEMA,
        release_id: spec.release_id.clone(),
        sequence: 1,
        class: spec.class,
        not_before: spec.not_before,
        apply_by: spec.apply_by,
        audience: spec.audience.clone(),
        agent_versions: spec.agent_versions.clone(),
        kubernetes_versions: spec.kubernetes_versions.clone(),
        from: spec.from.clone(),
        blocked_from: spec.blocked_from.clone(),
        components: entries,
        deletes: spec.deletes.clone(),
        narrows: spec.narrows.clone(),
    };
    let draft = Draft { index, components };
    problems.extend(rehearse(&draft, &[]));
    if problems.is_empty() { Ok(draft) } else { Err(Problems(problems)) }
}

/// What an agent that fits would say to the release; `standing` are its definitions and rights, as an earlier
/// release left them.
pub(crate) fn rehearse(draft: &Draft, standing: &[Object]) -> Vec<String> {
    let target = ReleaseIndex::target_name(&draft.index.release_id);
    let verified = match index::verify(vouched_by_publisher(target, &draft.index.canonical_bytes()))
    {
        Ok(verified) => verified,
        Err(error) => return vec![chain(&error)],
    };
    let mut blobs = Vec::new();
    let mut problems = Vec::new();
    for (entry, component) in verified.components.iter().zip(&draft.components) {
        let authentic = vouched_by_publisher(entry.blob.target.clone(), &component.blob);
        match blob::verify(entry, authentic) {
            Ok(objects) => blobs.push(objects),
            Err(error) => problems.push(format!("{}: {}", entry.name, chain(&error))),
        }
    }
    let standing_now = |object: &Object| (object.id.clone(), object.body.value());
    let owned = standing.iter().map(|object| object.id.clone()).collect();
    let facts = ClusterFacts {
        foundation: standing.iter().map(standing_now).collect(),
        inventory: [(FOUNDATION_COMPONENT.to_owned(), owned)].into(),
        ..fitting(&draft.index)
    };
    if let Err(refusals) = admission::admit(verified, blobs, &facts) {
        problems.extend(refusals.iter().map(ToString::to_string));
    }
    problems
}

/// A cluster that the release is for.
fn fitting(index: &ReleaseIndex) -> ClusterFacts {
    let within = |range: &VersionRange, otherwise: &str| {
        let bound = range.min.as_ref().or(range.max.as_ref());
        bound.map_or_else(|| otherwise.to_owned(), Clone::clone)
    };
    ClusterFacts {
        agent_version: within(&index.agent_versions, env!("CARGO_PKG_VERSION")),
        kubernetes_version: within(&index.kubernetes_versions, "v1.0.0"),
        agent_namespace: AGENT_NAMESPACE.to_owned(),
        ring: index.audience.first().cloned().unwrap_or_default(),
        committed_sequence: index.from.first().copied(),
        agent_is_deployment: true,
        ..ClusterFacts::default()
    }
}

/// The publisher is the release root: it reads bytes that it is about to sign, or has signed.
#[expect(
    clippy::disallowed_methods,
    reason = "read by the side that signs; what comes of it is shown and compared, never applied"
)]
pub(crate) fn vouched_by_publisher(target: String, bytes: &[u8]) -> Authentic {
    Authentic::vouched_by_release_root(target, crypto::sha256(bytes), bytes.to_vec())
}

/// Objects of all manifests of a component, without duplicates.
fn read(component: &ComponentSpec, problems: &mut Vec<String>) -> (Vec<Object>, Notes) {
    let mut notes = Notes::default();
    let mut bodies: Vec<(String, Value)> = Vec::new();
    let files = match manifest_files(&component.dir) {
        Ok(files) => files,
        Err(error) => {
            problems.push(format!("{}: {}: {error}", component.name, component.dir.display()));
            return (Vec::new(), notes);
        }
    };
    if files.is_empty() {
        let dir = component.dir.display();
        problems.push(format!("{}: {dir} holds no .yaml, .yml or .json file", component.name));
    }
    for file in files {
        let place = format!("{}: {}", component.name, file.display());
        let documents = match parse(&file) {
            Ok(documents) => documents,
            Err(reason) => {
                problems.push(format!("{place}: {reason}"));
                continue;
            }
        };
        for (number, document) in documents.into_iter().enumerate() {
            let place = format!("{place}: document {}", number + 1);
            match rendered::objects(document, &mut notes) {
                Ok(found) => bodies.extend(found.into_iter().map(|body| (place.clone(), body))),
                Err(reason) => problems.push(format!("{place}: {reason}")),
            }
        }
    }
    if component.name == FOUNDATION_COMPONENT {
        bodies.retain(|(_, body)| rendered::is_foundation(body, AGENT_NAMESPACE, &mut notes));
    }
    if let Some(namespace) = &component.namespace {
        let namespaced = rendered::namespaced_kinds(bodies.iter().map(|(_, body)| body));
        for (_, body) in &mut bodies {
            rendered::set_namespace(body, namespace, &namespaced, &mut notes);
        }
    }
    (distinct(bodies, problems), notes)
}

fn distinct(bodies: Vec<(String, Value)>, problems: &mut Vec<String>) -> Vec<Object> {
    let mut seen = BTreeSet::new();
    let mut objects = Vec::new();
    for (place, body) in bodies {
        match Object::from_body(&body) {
            Ok(object) if !seen.insert(object.id.clone()) => {
                problems.push(format!("{place}: {} is defined twice", object.id));
            }
            Ok(object) => objects.push(object),
            Err(error) => problems.push(format!("{place}: {error}")),
        }
    }
    objects
}

fn manifest_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            // A link to a folder is not followed: it could lead in a circle.
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| extension == *e))
            {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn parse(file: &Path) -> Result<Vec<Value>, String> {
    let size = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > MAX_FILE {
        return Err(format!("has {size} bytes; at most {MAX_FILE} are read"));
    }
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    // As many objects as one component may hold, in one file; its size bounds what they are made of.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: Limits::BUILT_IN.objects,
            max_nodes: 2_000_000,
            max_events: 8_000_000,
        },
    };
    // JSON is YAML.
    serde_saphyr::from_multiple_with_options(&text, options).map_err(|error| error.to_string())
}

/// Namespaces and kinds of the objects: the narrowest scope that fits.
fn scope(objects: &[Object]) -> Scope {
    let mut namespaces = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for Object { id, .. } in objects {
        kinds.insert(id.group_kind());
        namespaces.extend(id.namespace.clone());
        if id.group.is_empty() && id.kind == "Namespace" {
            namespaces.insert(id.name.clone());
        }
    }
    Scope { namespaces: namespaces.into_iter().collect(), kinds: kinds.into_iter().collect() }
}

/// Pinned images of all containers and image volumes; one that is not pinned is left to admission,
/// which names its object and field.
fn images(objects: &[Object]) -> Vec<String> {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let pointer = match key.as_str() {
                        "containers" | "initContainers" => "/image",
                        "volumes" => "/image/reference",
                        _ => "",
                    };
                    if let (Value::Array(items), false) = (inner, pointer.is_empty()) {
                        let images =
                            items.iter().filter_map(|item| item.pointer(pointer)?.as_str());
                        let pinned = images.filter(|image| name::is_pinned_image(image));
                        found.extend(pinned.map(str::to_owned));
                    }
                    walk(inner, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    for object in objects.iter().filter(|object| object.id.kind != "CustomResourceDefinition") {
        walk(&object.body.value(), &mut found);
    }
    found.into_iter().collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
