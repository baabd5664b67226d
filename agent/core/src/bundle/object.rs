//! Kubernetes objects as the patch path sees them: an identity and a JSON body, which stays the signed
//! text until somebody looks at this one object.

use std::{collections::BTreeMap, fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use thiserror::Error;

use super::{canonical, limits::Limits, name};

/// What makes an object that object: API group, kind, namespace and name. The version is carried
/// along for addressing and does not take part in equality. Copies share their fields: the same ids stand in
/// the plan, the inventory, the gates and the watches, thousands in each.
#[derive(Clone, Debug)]
pub struct ObjectId(Arc<IdFields>);

/// What an [`ObjectId`] consists of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdFields {
    /// API group, empty for the core group.
    pub group: String,
    /// API version inside the group, such as `v1`.
    pub version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Namespace; none for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl From<IdFields> for ObjectId {
    fn from(fields: IdFields) -> Self {
        Self(Arc::new(fields))
    }
}

impl Deref for ObjectId {
    type Target = IdFields;

    fn deref(&self) -> &IdFields {
        &self.0
    }
}

impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IdFields::deserialize(deserializer).map(Self::from)
    }
}

impl ObjectId {
    /// `group/version`, or `version` in the core group: what `apiVersion` holds.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `group/Kind`, or `Kind` in the core group: how [`super::index::Scope::kinds`] names it.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}/{}", self.group, self.kind)
        }
    }

    fn identity(&self) -> (&str, &str, Option<&str>, &str) {
        (&self.group, &self.kind, self.namespace.as_deref(), &self.name)
    }
}

impl PartialEq for ObjectId {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ObjectId {}

impl PartialOrd for ObjectId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ObjectId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl std::hash::Hash for ObjectId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// `Kind namespace/name`, the form every message, event and report uses.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {}/{}", self.kind, namespace, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// What each component owns in the cluster, by its name, as of the last committed release.
pub type Inventory = BTreeMap<String, Vec<ObjectId>>;

/// One object of a component, as the release wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its identity, read from the body.
    pub id: ObjectId,
    /// The whole object as signed.
    pub body: Body,
}

/// A Kubernetes object as canonical JSON: of a release, the very bytes that were signed. Parsed it takes
/// several times as much memory, and a release has thousands: [`Body::value`] parses one for as long as it
/// is dealt with. Copies share their bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Arc<[u8]>);

impl Body {
    /// The canonical JSON.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The object, parsed anew.
    pub fn value(&self) -> Value {
        #[expect(
            clippy::expect_used,
            reason = "written from a value that nests less deep than the parser goes, and never changed"
        )]
        serde_json::from_slice(&self.0).expect("canonical JSON")
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// Why a JSON value is not an object that a release may hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct ObjectError {
    /// Dotted path of the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Object {
    /// Reads the identity of a Kubernetes object, and keeps it as canonical JSON.
    ///
    /// # Errors
    /// When `apiVersion`, `kind`, `metadata.name` or `metadata.namespace` is missing, not a string or
    /// not a name that a release may use; when the object nests deeper than [`Limits::depth`].
    pub fn from_body(body: &Value) -> Result<Self, ObjectError> {
        let depth = Limits::BUILT_IN.depth;
        if !nests_within(body, depth) {
            let reason = format!("nests deeper than {depth} levels");
            return Err(ObjectError { field: "object", reason });
        }
        Self::from_canonical(body, &canonical::bytes(body))
    }

    /// As [`Object::from_body`], of a value that was read from `json`, its canonical form.
    pub(super) fn from_canonical(body: &Value, json: &[u8]) -> Result<Self, ObjectError> {
        let api_version = text(body, "apiVersion", "/apiVersion")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if !(group.is_empty() && !api_version.contains('/') || name::is_subdomain(group))
            || !name::is_api_version(version)
        {
            return Err(refused("apiVersion", api_version, "`version` or `group/version`"));
        }
        let kind = text(body, "kind", "/kind")?;
        if !name::is_kind(kind) {
            return Err(refused("kind", kind, "a kind such as `Deployment`"));
        }
        let object_name = text(body, "metadata.name", "/metadata/name")?;
        if !name::is_object_name(object_name) {
            return Err(refused("metadata.name", object_name, "1 to 253 of [A-Za-z0-9._:-]"));
        }
        let namespace = match body.pointer("/metadata/namespace") {
            None => None,
            Some(Value::String(namespace)) if name::is_label(namespace) => Some(namespace.clone()),
            Some(other) => {
                return Err(refused("metadata.namespace", &other.to_string(), "a DNS label"));
            }
        };
        let id = ObjectId::from(IdFields {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            namespace,
            name: object_name.to_owned(),
        });
        Ok(Self { id, body: Body(json.into()) })
    }
}

/// Whether a value nests at most `levels` levels, counted as [`canonical::parse`] does.
fn nests_within(value: &Value, levels: usize) -> bool {
    match (value, levels.checked_sub(1)) {
        (Value::Object(map), Some(left)) => map.values().all(|inner| nests_within(inner, left)),
        (Value::Array(items), Some(left)) => items.iter().all(|inner| nests_within(inner, left)),
        (Value::Object(_) | Value::Array(_), None) => false,
        _ => true,
    }
}

fn text<'a>(body: &'a Value, field: &'static str, pointer: &str) -> Result<&'a str, ObjectError> {
    match body.pointer(pointer) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(ObjectError { field, reason: "is not a string".into() }),
        None => Err(ObjectError { field, reason: "is missing".into() }),
    }
}

fn refused(field: &'static str, found: &str, wanted: &str) -> ObjectError {
    // Quoted and cut: what was refused as a name is not to reach a terminal as it came.
    let found: String = found.chars().take(64).collect();
    ObjectError { field, reason: format!("{found:?} is not {wanted}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn identity_is_read_from_the_body() {
        let object = Object::from_body(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "operator", "namespace": "mendix"},
        }))
        .unwrap();
        assert_eq!(object.id.to_string(), "Deployment mendix/operator");
        assert_eq!(object.id.group_kind(), "apps/Deployment");
        assert_eq!(object.id.api_version(), "apps/v1");
    }

    #[test]
    fn an_object_without_a_usable_identity_is_refused_with_the_field() {
        let field = |body: Value| Object::from_body(&body).unwrap_err().field;
        assert_eq!(field(json!([])), "apiVersion");
        assert_eq!(field(json!({"apiVersion": "/v1"})), "apiVersion");
        assert_eq!(field(json!({"apiVersion": "a/b/c"})), "apiVersion");
        assert_eq!(field(json!({"apiVersion": "v1", "kind": 1})), "kind");
        assert_eq!(field(json!({"apiVersion": "v1", "kind": "Pod"})), "metadata.name");
        let pod = |name: &str, namespace: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}});
        assert_eq!(field(pod("../x", json!("a"))), "metadata.name");
        assert_eq!(field(pod("x", json!("a/b"))), "metadata.namespace");
        assert_eq!(field(pod("x", json!(null))), "metadata.namespace");
        assert_eq!(field(pod("x", json!(""))), "metadata.namespace");
    }

    #[test]
    fn a_body_is_kept_as_canonical_json_and_parsed_when_it_is_looked_at() {
        let body = json!({
            "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "b"},
            "data": {"z": "1", "a": "\u{e9}\n"},
        });
        let object = Object::from_body(&body).unwrap();
        assert_eq!(object.body.bytes(), canonical::bytes(&body));
        assert_eq!(object.body.value(), body);
        assert!(Arc::ptr_eq(&object.body.0, &object.clone().body.0), "a copy shares its bytes");
    }

    #[test]
    fn an_object_that_nests_as_deep_as_it_may_can_be_parsed_and_no_deeper_one_is_made() {
        let nested = |levels: usize| {
            let inner = (0..levels).fold(json!("x"), |inner, _| json!([inner]));
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": inner})
        };
        let depth = Limits::BUILT_IN.depth;
        let deepest = nested(depth - 1);
        assert_eq!(Object::from_body(&deepest).unwrap().body.value(), deepest);
        canonical::parse(&canonical::bytes(&deepest), depth).unwrap();
        assert_eq!(Object::from_body(&nested(depth)).unwrap_err().field, "object");
        canonical::parse(&canonical::bytes(&nested(depth)), depth).unwrap_err();
    }

    #[test]
    fn the_version_takes_no_part_in_identity() {
        let id = |version: &str| {
            ObjectId::from(IdFields {
                group: "apps".into(),
                version: version.into(),
                kind: "Deployment".into(),
                namespace: None,
                name: "x".into(),
            })
        };
        assert_eq!(id("v1"), id("v1beta1"));
    }
}
