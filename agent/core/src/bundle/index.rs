//! The release index: the TUF target that says what a release is.
//!
//! Canonical JSON, no templates. Parsed strictly (unknown fields, duplicate keys and trailing bytes
//! are refused) by [`verify`], from bytes that the release root vouches for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::object::ObjectId;

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
    /// To be applied by; past it the spread is ignored and OVERDUE reported.
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

/// Inclusive bounds on a dotted version, compared as numbers (1.9 < 1.10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRange {
    /// Lowest version; absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// Highest version; absent: no bound. `1.34` includes every `1.34.x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
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
    /// Fields that others may own without it being drift.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<FieldException>,
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
