//! The release index: the TUF target that says what a release is.
//!
//! Canonical JSON, no templates. Parsed strictly (unknown fields, duplicate keys, trailing bytes and
//! any form but the canonical one are refused) by [`verify`], from bytes that the release root
//! vouches for. What the index may say is checked here; whether this cluster may act on it is
//! [`super::admission`]'s decision.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Authentic, Verified,
    canonical::{self, JsonError},
    limits::Limits,
    name,
    object::ObjectId,
    version::Version,
};

pub use super::version::VersionRange;

/// The only schema this build reads and writes.
pub const SCHEMA: u32 = 1;

/// A release: some components, each with one blob of objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseIndex {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// Name of the release, `[a-z0-9.-]{1,63}`, such as `2026.11.3`.
    pub release_id: String,
    /// Strictly increasing over all releases; a cluster never goes back by itself.
    pub sequence: u64,
    /// How urgent it is.
    pub class: ReleaseClass,
    /// Not to be started before; absent: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// To be applied by; past it the spread over clusters is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_by: Option<Timestamp>,
    /// Rings this release is for; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// Agent versions that may apply it.
    #[serde(default)]
    pub agent_versions: VersionRange,
    /// Kubernetes versions it may be applied to.
    #[serde(default)]
    pub kubernetes_versions: VersionRange,
    /// Sequences from which it may be reached; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<u64>,
    /// Sequences from which it must not be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_from: Vec<u64>,
    /// The components it sets; others stay as they are.
    pub components: Vec<ComponentEntry>,
    /// PVCs, PVs, CRDs and Namespaces that this release may delete; nothing else of these kinds is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deletes: Vec<ObjectId>,
    /// The agent's definitions and roles that this release may narrow, and bindings that leave it; every
    /// other one may only grow ([`super::foundation`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub narrows: Vec<ObjectId>,
}

/// Class of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseClass {
    /// The regular upgrade of a quarter.
    Quarterly,
    /// Security fixes of vendor components.
    Weekly,
    /// Starts at once, after a run in flight has ended.
    Critical,
}

impl ReleaseClass {
    /// As the index writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quarterly => "quarterly",
            Self::Weekly => "weekly",
            Self::Critical => "critical",
        }
    }
}

/// One component of a release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentEntry {
    /// DNS label, such as `mendix-operator`.
    pub name: String,
    /// Version that people know it by.
    pub version: String,
    /// Components of a lower phase are applied and gated first.
    pub phase: u32,
    /// Its objects.
    pub blob: BlobRef,
    /// Every image its pods use, `registry/name@sha256:<hex>`.
    pub images: Vec<String>,
    /// What it may own.
    pub scope: Scope,
    /// When it counts as healthy.
    #[serde(default)]
    pub gates: Gates,
    /// Whether objects that exist and have no owner may be taken over.
    #[serde(default)]
    pub adopt: bool,
    /// Whether it may take the place of a newer version of itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub goes_back: bool,
    /// Fields that others may own without it being drift.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<FieldException>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A TUF target that holds one component's objects: gzip of newline-delimited canonical JSON, one
/// object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// Target name, `<sha256>.ndjson.gz`; target names hold no slash (tough would put the digest prefix
    /// of a consistent snapshot before the folder).
    pub target: String,
    /// SHA-256 of the compressed bytes, hex.
    pub sha256: String,
    /// Length of the compressed bytes.
    pub size: u64,
}

/// What a component may own. An object outside is refused before anything is touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Namespaces of its namespaced objects.
    pub namespaces: Vec<String>,
    /// Kinds as `group/Kind` (`Kind` in the core group).
    pub kinds: Vec<String>,
}

/// When a component counts as healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// Longest wait for it to become ready, seconds (10 to 3600).
    pub timeout_seconds: u32,
    /// How long it must stay ready, seconds (0 to 3600).
    pub soak_seconds: u32,
}

impl Default for Gates {
    fn default() -> Self {
        Self { timeout_seconds: 600, soak_seconds: 30 }
    }
}

/// A field of one object that somebody else may own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldException {
    /// The object.
    pub object: ObjectId,
    /// Dotted path, such as `spec.replicas`.
    pub path: String,
}

/// Why bytes are not a release index.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IndexError {
    /// More bytes than an index may have.
    #[error("the index has {found} bytes; at most {max} are allowed")]
    TooLarge {
        /// Length of the bytes.
        found: usize,
        /// Largest length.
        max: usize,
    },
    /// Not strict JSON.
    #[error("the index is not strict JSON")]
    Json(#[source] JsonError),
    /// JSON, and not an index: an unknown or missing field, or another type.
    #[error("index field {path}: {reason}")]
    Shape {
        /// Dotted path of the field.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An index whose field holds something that is not allowed.
    #[error("index field {path}: {reason}")]
    Field {
        /// Dotted path of the field.
        path: String,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },
    /// Right in content, and not in the canonical form.
    #[error("the index is not canonical JSON from byte {0} on; publish it with `canonical_bytes`")]
    NotCanonical(usize),
    /// The TUF target is called otherwise than the release it holds.
    #[error("the target {target:?} holds release {release_id:?}; it must be called {expected:?}")]
    Target {
        /// Name of the TUF target.
        target: String,
        /// `release_id` of the index.
        release_id: String,
        /// What the target must be called.
        expected: String,
    },
}

impl ReleaseIndex {
    /// The one form in which this index is published and verified.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "plain structs with string keys always serialise")]
        let value = serde_json::to_value(self).expect("the index serialises");
        canonical::bytes(&value)
    }

    /// Name of the TUF target of the release `release_id`.
    pub fn target_name(release_id: &str) -> String {
        format!("release-{release_id}.json")
    }
}

impl BlobRef {
    /// Name of the TUF target of the blob with this digest (hex).
    pub fn target_name(sha256: &str) -> String {
        format!("{sha256}.ndjson.gz")
    }
}

/// Reads an index from bytes that the release root vouches for.
///
/// # Errors
/// The first thing that is wrong, with the path of its field.
pub fn verify(authentic: Authentic) -> Result<Verified<ReleaseIndex>, IndexError> {
    let index = read(authentic.bytes())?;
    let expected = ReleaseIndex::target_name(&index.release_id);
    if authentic.target() != expected {
        return Err(IndexError::Target {
            target: authentic.target().to_owned(),
            release_id: index.release_id,
            expected,
        });
    }
    Ok(Verified::new(index, *authentic.sha256()))
}

/// Reads an index strictly, whoever vouches for it: for the publisher, before anything is signed.
///
/// # Errors
/// As [`verify`], except that no name of a target is compared.
pub fn read(bytes: &[u8]) -> Result<ReleaseIndex, IndexError> {
    let limits = Limits::BUILT_IN;
    if bytes.len() > limits.index {
        return Err(IndexError::TooLarge { found: bytes.len(), max: limits.index });
    }
    let value = canonical::parse(bytes, limits.depth).map_err(IndexError::Json)?;
    let index: ReleaseIndex = serde_path_to_error::deserialize(value).map_err(|error| {
        IndexError::Shape { path: error.path().to_string(), reason: error.inner().to_string() }
    })?;
    check(&index, &limits)?;
    let expected = index.canonical_bytes();
    if expected != bytes {
        let at = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        return Err(IndexError::NotCanonical(at));
    }
    Ok(index)
}

fn check(index: &ReleaseIndex, limits: &Limits) -> Result<(), IndexError> {
    if index.schema != SCHEMA {
        return field(
            "schema",
            format!("{} is not known; this build reads {SCHEMA}", index.schema),
        );
    }
    named("release_id", &index.release_id, name::is_release_id, "[a-z0-9.-], 1 to 63 bytes")?;
    sequence("sequence", index.sequence)?;
    if let (Some(not_before), Some(apply_by)) = (index.not_before, index.apply_by)
        && apply_by <= not_before
    {
        return field("apply_by", format!("{apply_by} is not after not_before, {not_before}"));
    }
    count("audience", index.audience.len(), limits.entries_per_list)?;
    for (n, ring) in index.audience.iter().enumerate() {
        named(&format!("audience[{n}]"), ring, name::is_label, "a ring: a DNS label")?;
    }
    range("agent_versions", &index.agent_versions)?;
    range("kubernetes_versions", &index.kubernetes_versions)?;
    for (path, sequences) in [("from", &index.from), ("blocked_from", &index.blocked_from)] {
        count(path, sequences.len(), limits.entries_per_list)?;
        for (n, earlier) in sequences.iter().enumerate() {
            sequence(&format!("{path}[{n}]"), *earlier)?;
        }
    }
    if index.components.is_empty() {
        return field("components", "is empty: a release sets at least one component".into());
    }
    count("components", index.components.len(), limits.components)?;
    let mut names = BTreeSet::new();
    for (n, entry) in index.components.iter().enumerate() {
        check_component(&format!("components[{n}]"), entry, limits)?;
        if !names.insert(&entry.name) {
            return field(
                &format!("components[{n}].name"),
                format!("{:?} appears twice", entry.name),
            );
        }
    }
    for (path, ids) in [("deletes", &index.deletes), ("narrows", &index.narrows)] {
        count(path, ids.len(), limits.entries_per_list)?;
        for (n, id) in ids.iter().enumerate() {
            object_id(&format!("{path}[{n}]"), id)?;
        }
    }
    Ok(())
}

fn check_component(path: &str, entry: &ComponentEntry, limits: &Limits) -> Result<(), IndexError> {
    let at = |tail: &str| format!("{path}.{tail}");
    named(&at("name"), &entry.name, name::is_label, "a DNS label")?;
    named(
        &at("version"),
        &entry.version,
        name::is_version_label,
        "[A-Za-z0-9._+-], 1 to 64 bytes",
    )?;
    named(&at("blob.sha256"), &entry.blob.sha256, name::is_sha256, "64 lower-case hex digits")?;
    if entry.blob.target != BlobRef::target_name(&entry.blob.sha256) {
        return field(&at("blob.target"), "is not `<sha256>.ndjson.gz` of blob.sha256".into());
    }
    if entry.blob.size == 0 || entry.blob.size > limits.blob_compressed {
        let reason = format!("{} is not in 1 to {}", entry.blob.size, limits.blob_compressed);
        return field(&at("blob.size"), reason);
    }
    type Check = fn(&str) -> bool;
    let lists: [(&str, &[String], Check, &str); 3] = [
        (
            "images",
            &entry.images,
            name::is_pinned_image,
            "`registry/name@sha256:<hex>` without tag",
        ),
        ("scope.namespaces", &entry.scope.namespaces, name::is_label, "a namespace: a DNS label"),
        ("scope.kinds", &entry.scope.kinds, name::is_group_kind, "`group/Kind`, or `Kind`"),
    ];
    for (tail, list, check, wanted) in lists {
        count(&at(tail), list.len(), limits.entries_per_component)?;
        let mut seen = BTreeSet::new();
        for (n, item) in list.iter().enumerate() {
            named(&at(&format!("{tail}[{n}]")), item, check, wanted)?;
            if !seen.insert(item) {
                return field(&at(&format!("{tail}[{n}]")), format!("{item:?} appears twice"));
            }
        }
    }
    let gates = &entry.gates;
    if !(10..=3600).contains(&gates.timeout_seconds) {
        let reason = format!("{} is not in 10 to 3600", gates.timeout_seconds);
        return field(&at("gates.timeout_seconds"), reason);
    }
    if gates.soak_seconds > 3600 {
        let reason = format!("{} is not in 0 to 3600", gates.soak_seconds);
        return field(&at("gates.soak_seconds"), reason);
    }
    count(&at("exceptions"), entry.exceptions.len(), limits.entries_per_component)?;
    for (n, exception) in entry.exceptions.iter().enumerate() {
        object_id(&at(&format!("exceptions[{n}].object")), &exception.object)?;
        let path = at(&format!("exceptions[{n}].path"));
        named(
            &path,
            &exception.path,
            name::is_field_path,
            "a dotted path such as `spec.replicas`",
        )?;
    }
    Ok(())
}

fn field<T>(path: &str, reason: String) -> Result<T, IndexError> {
    Err(IndexError::Field { path: path.to_owned(), reason })
}

fn named(path: &str, text: &str, check: fn(&str) -> bool, wanted: &str) -> Result<(), IndexError> {
    if check(text) {
        return Ok(());
    }
    // Quoted and cut: a name that was refused is not to reach a terminal as it came.
    let found: String = text.chars().take(64).collect();
    field(path, format!("{found:?} is not {wanted}"))
}

fn count(path: &str, found: usize, max: usize) -> Result<(), IndexError> {
    if found <= max { Ok(()) } else { field(path, format!("has {found} entries; at most {max}")) }
}

/// Zero would be "none", and after `u64::MAX` nothing could follow: one such release, signed by
/// mistake or by a thief, would close the cluster to every later one.
fn sequence(path: &str, sequence: u64) -> Result<(), IndexError> {
    match sequence {
        0 | u64::MAX => field(path, format!("{sequence} is not in 1 to {}", u64::MAX - 1)),
        _ => Ok(()),
    }
}

fn range(path: &str, range: &VersionRange) -> Result<(), IndexError> {
    for (tail, bound) in [("min", &range.min), ("max", &range.max)] {
        if let Some(bound) = bound
            && let Err(error) = bound.parse::<Version>()
        {
            return field(&format!("{path}.{tail}"), error.to_string());
        }
    }
    if let (Some(min), Some(_)) = (&range.min, &range.max)
        && range.contains(min) != Ok(true)
    {
        return field(path, format!("no version lies in {range}"));
    }
    Ok(())
}

fn object_id(path: &str, id: &ObjectId) -> Result<(), IndexError> {
    let at = |tail: &str| format!("{path}.{tail}");
    if !id.group.is_empty() {
        named(&at("group"), &id.group, name::is_subdomain, "an API group")?;
    }
    named(&at("version"), &id.version, name::is_api_version, "an API version such as `v1`")?;
    named(&at("kind"), &id.kind, name::is_kind, "a kind such as `Deployment`")?;
    if let Some(namespace) = &id.namespace {
        named(&at("namespace"), namespace, name::is_label, "a namespace: a DNS label")?;
    }
    named(&at("name"), &id.name, name::is_object_name, "1 to 253 of [A-Za-z0-9._:-]")
}

#[cfg(test)]
mod tests;
