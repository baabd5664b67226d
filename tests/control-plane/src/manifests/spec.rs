//! What is to be published: by flags for the simple case, or by a release file that can say all of it.
//!
//! ```yaml
//! releaseId: 2026.11.3
//! class: weekly
//! kubernetesVersions: { min: "1.30", max: "1.34" }
//! components:
//! - name: mendix-operator
//!   version: 2.21.0
//!   manifests: operator # relative to this file
//!   namespace: mendix-operator # for rendered objects that name none
//!   exceptions:
//!   - { object: { group: apps, version: v1, kind: Deployment, namespace: mendix-operator, name: mendix-operator }, path: spec.replicas }
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use mendix_agent_core::bundle::{
    index::{FieldException, Gates, ReleaseClass, VersionRange},
    object::ObjectId,
};
use serde::Deserialize;

use super::Problems;

/// Largest release file.
const MAX_FILE: u64 = 1024 * 1024;

/// What is to be published.
#[derive(Clone, Debug)]
pub struct ReleaseSpec {
    /// Name of the release.
    pub release_id: String,
    /// How urgent it is.
    pub class: ReleaseClass,
    /// Not to be started before.
    pub not_before: Option<Timestamp>,
    /// To be applied by.
    pub apply_by: Option<Timestamp>,
    /// Rings it is for; empty: all.
    pub audience: Vec<String>,
    /// Agent versions that may apply it.
    pub agent_versions: VersionRange,
    /// Kubernetes versions it may be applied to.
    pub kubernetes_versions: VersionRange,
    /// Sequences from which it may be reached; empty: any.
    pub from: Vec<u64>,
    /// Sequences from which it must not be reached.
    pub blocked_from: Vec<u64>,
    /// Data-holding objects that it may delete.
    pub deletes: Vec<ObjectId>,
    /// Definitions, roles and bindings of the agent that it may narrow.
    pub narrows: Vec<ObjectId>,
    /// When a component counts as healthy, unless it says so itself.
    pub gates: Gates,
    /// Its components, in the order in which they are applied.
    pub components: Vec<ComponentSpec>,
}

/// One component of a [`ReleaseSpec`].
#[derive(Clone, Debug)]
pub struct ComponentSpec {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Folder with its manifests (`.yaml`, `.yml`, `.json`), subfolders included.
    pub dir: PathBuf,
    /// Namespace of namespaced objects that name none; none: they are refused.
    pub namespace: Option<String>,
    /// Components of one phase are applied together; its place among the components unless given.
    pub phase: Option<u32>,
    /// Whether objects that exist and have no owner may be taken over.
    pub adopt: bool,
    /// Whether it may take the place of a newer version of itself.
    pub goes_back: bool,
    /// When it counts as healthy; [`ReleaseSpec::gates`] unless given.
    pub gates: Option<Gates>,
    /// Fields that others may own without it being drift.
    pub exceptions: Vec<FieldException>,
}

impl ReleaseSpec {
    /// A release for everybody, without dates, restrictions or components.
    pub fn new(release_id: impl Into<String>, class: ReleaseClass) -> Self {
        Self {
            release_id: release_id.into(),
            class,
            not_before: None,
            apply_by: None,
            audience: Vec::new(),
            agent_versions: VersionRange::default(),
            kubernetes_versions: VersionRange::default(),
            from: Vec::new(),
            blocked_from: Vec::new(),
            deletes: Vec::new(),
            narrows: Vec::new(),
            gates: Gates::default(),
            components: Vec::new(),
        }
    }

    /// Reads a release file. Folders in it are relative to the file.
    ///
    /// # Errors
    /// When it can't be read, or holds an unknown or missing field; with line and field.
    pub fn from_file(path: &Path) -> Result<Self, Problems> {
        let problem = |reason: String| Problems(vec![format!("{}: {reason}", path.display())]);
        let size = fs::metadata(path).map_err(|error| problem(error.to_string()))?.len();
        if size > MAX_FILE {
            return Err(problem(format!("has {size} bytes; at most {MAX_FILE} are read")));
        }
        let text = fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        let file: ReleaseFile =
            serde_saphyr::from_str(&text).map_err(|error| problem(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(file.spec(folder))
    }
}

impl ComponentSpec {
    /// A component that takes nothing over and has no exceptions.
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            dir: dir.into(),
            namespace: None,
            phase: None,
            adopt: false,
            goes_back: false,
            gates: None,
            exceptions: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReleaseFile {
    release_id: String,
    class: ReleaseClass,
    not_before: Option<Timestamp>,
    apply_by: Option<Timestamp>,
    #[serde(default)]
    audience: Vec<String>,
    #[serde(default)]
    agent_versions: VersionRange,
    #[serde(default)]
    kubernetes_versions: VersionRange,
    #[serde(default)]
    from: Vec<u64>,
    #[serde(default)]
    blocked_from: Vec<u64>,
    #[serde(default)]
    deletes: Vec<ObjectId>,
    #[serde(default)]
    narrows: Vec<ObjectId>,
    #[serde(default)]
    gates: GatesFile,
    components: Vec<ComponentFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ComponentFile {
    name: String,
    version: Option<String>,
    manifests: PathBuf,
    namespace: Option<String>,
    phase: Option<u32>,
    #[serde(default)]
    adopt: bool,
    #[serde(default)]
    goes_back: bool,
    gates: Option<GatesFile>,
    #[serde(default)]
    exceptions: Vec<FieldException>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GatesFile {
    timeout_seconds: Option<u32>,
    soak_seconds: Option<u32>,
}

impl GatesFile {
    fn or(&self, other: &Gates) -> Gates {
        Gates {
            timeout_seconds: self.timeout_seconds.unwrap_or(other.timeout_seconds),
            soak_seconds: self.soak_seconds.unwrap_or(other.soak_seconds),
        }
    }
}

impl ReleaseFile {
    fn spec(self, folder: &Path) -> ReleaseSpec {
        let gates = self.gates.or(&Gates::default());
        let components = self.components.into_iter().map(|component| ComponentSpec {
            version: component.version.unwrap_or_else(|| self.release_id.clone()),
            dir: folder.join(component.manifests),
            namespace: component.namespace,
            phase: component.phase,
            adopt: component.adopt,
            goes_back: component.goes_back,
            gates: component.gates.map(|own| own.or(&gates)),
            exceptions: component.exceptions,
            name: component.name,
        });
        ReleaseSpec {
            components: components.collect(),
            release_id: self.release_id,
            class: self.class,
            not_before: self.not_before,
            apply_by: self.apply_by,
            audience: self.audience,
            agent_versions: self.agent_versions,
            kubernetes_versions: self.kubernetes_versions,
            from: self.from,
            blocked_from: self.blocked_from,
            deletes: self.deletes,
            narrows: self.narrows,
            gates,
        }
    }
}
