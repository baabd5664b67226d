//! What the agent stands on: its definitions, its rights, and where they are bound. A release brings them
//! in a component of their own (ADR 0015), and this says what may be in it, whoever signed it.
//!
//! [`super::admission`] asks three things here: which objects these are ([`part`]), what each of them may
//! never hold ([`findings`]), and what of the present one a new one would take away ([`narrowing`]).

mod definition;
mod rights;

use serde_json::{Value, json};

use super::object::{Object, ObjectId};
pub use rights::Role;

/// API group of the agent's own custom resources: the customer's policy and the agent's records.
pub const AGENT_GROUP: &str = "agent.mendix.com";
/// Component that brings them. It comes first in its release.
pub const FOUNDATION_COMPONENT: &str = "mendix-agent-foundation";
/// The agent's service account, and what its roles and bindings are called.
const AGENT: &str = "mendix-agent";
/// The same of the guard.
const GUARD: &str = "mendix-agent-guard";
/// ClusterRole that is bound once in each managed namespace.
const MANAGED: &str = "mendix-agent-managed-namespace";
/// Namespaces that may be managed begin so. Those of the customer, first of all `mendix` with the apps,
/// don't: the right to read logs there is the customer's to give.
const MANAGED_PREFIX: &str = "mendix-";

const RBAC: &str = "rbac.authorization.k8s.io";

/// Dotted path of a field, and what was found there.
pub type Finding = (String, String);

/// What an object is of the foundation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A definition of the agent's own group.
    Definition,
    /// A role of the agent or the guard.
    Role(Role),
    /// Their binding in the agent's namespace or in the cluster: kind and name of the role.
    Binding(&'static str, &'static str),
    /// The binding of [`Role::Managed`] in a managed namespace.
    ManagedBinding,
    /// A managed namespace; only together with its binding.
    Namespace,
}

/// What the object is of the foundation of an agent in namespace `own`; none if it has no place there.
pub fn part(id: &ObjectId, own: &str) -> Option<Part> {
    if id.version != "v1" {
        return None;
    }
    let namespace = id.namespace.as_deref();
    let here = namespace == Some(own);
    match (id.group.as_str(), id.kind.as_str(), id.name.as_str()) {
        _ if is_own_definition(id) && namespace.is_none() => Some(Part::Definition),
        (RBAC, "Role", AGENT) if here => Some(Part::Role(Role::Own)),
        (RBAC, "Role", GUARD) if here => Some(Part::Role(Role::Guard)),
        (RBAC, "ClusterRole", AGENT) if namespace.is_none() => Some(Part::Role(Role::Cluster)),
        (RBAC, "ClusterRole", MANAGED) if namespace.is_none() => Some(Part::Role(Role::Managed)),
        (RBAC, "RoleBinding", AGENT) if here => Some(Part::Binding("Role", AGENT)),
        (RBAC, "RoleBinding", GUARD) if here => Some(Part::Binding("Role", GUARD)),
        (RBAC, "RoleBinding", AGENT) if namespace.is_some_and(|name| may_manage(name, own)) => {
            Some(Part::ManagedBinding)
        }
        (RBAC, "ClusterRoleBinding", AGENT) if namespace.is_none() => {
            Some(Part::Binding("ClusterRole", AGENT))
        }
        ("", "Namespace", name) if may_manage(name, own) => Some(Part::Namespace),
        _ => None,
    }
}

/// Whether components may be given the namespace.
fn may_manage(namespace: &str, own: &str) -> bool {
    namespace.starts_with(MANAGED_PREFIX) && namespace != own
}

/// Whether no component but the foundation may own the object: the agent's definitions, and roles and
/// bindings by the agent's names wherever they are.
pub fn is_reserved(id: &ObjectId) -> bool {
    is_own_definition(id) || is_own_rbac(id)
}

/// A role or a binding by one of the agent's names.
pub fn is_own_rbac(id: &ObjectId) -> bool {
    id.group == RBAC && is_own_name(&id.name)
}

fn is_own_name(name: &str) -> bool {
    name.strip_prefix(AGENT).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// A definition of the agent's own group, by its name.
pub fn is_own_definition(id: &ObjectId) -> bool {
    id.group == "apiextensions.k8s.io"
        && id.kind == "CustomResourceDefinition"
        && id.name.strip_suffix(AGENT_GROUP).is_some_and(|plural| plural.ends_with('.'))
}

/// What the object may not hold as this part of the foundation of an agent in namespace `own`.
pub fn findings(part: Part, object: &Object, own: &str) -> Vec<Finding> {
    let body = object.body.value();
    match part {
        Part::Definition => definition::findings(&body),
        Part::Role(role) => rights::findings(role, &body),
        Part::Binding(kind, name) => binding(&body, kind, name, name, own),
        Part::ManagedBinding => binding(&body, "ClusterRole", MANAGED, AGENT, own),
        Part::Namespace => vec![],
    }
}

/// What of `live` the object takes away. Bindings say the same always, and a namespace holds no rights.
pub fn narrowing(part: Part, live: &Value, object: &Object) -> Vec<Finding> {
    match part {
        Part::Definition => definition::narrowing(live, &object.body.value()),
        Part::Role(_) => rights::narrowing(live, &object.body.value()),
        Part::Binding(..) | Part::ManagedBinding | Part::Namespace => vec![],
    }
}

/// A binding says one thing: this role to this account of the agent's namespace.
fn binding(body: &Value, kind: &str, role: &str, account: &str, own: &str) -> Vec<Finding> {
    let wanted = [
        ("roleRef", json!({"apiGroup": RBAC, "kind": kind, "name": role})),
        ("subjects", json!([{"kind": "ServiceAccount", "name": account, "namespace": own}])),
    ];
    let others = wanted.into_iter().filter(|(field, wanted)| body.get(field) != Some(wanted));
    others.map(|(field, wanted)| (field.to_owned(), format!("is not {wanted}"))).collect()
}

/// What a binding of another component has of the agent's: one of its roles, which would make somebody
/// else as powerful, or one of its accounts, whose rights are the foundation's alone.
pub fn bound_elsewhere(object: &Object, own: &str) -> Vec<Finding> {
    let id = &object.id;
    if id.group != RBAC || !matches!(id.kind.as_str(), "RoleBinding" | "ClusterRoleBinding") {
        return vec![];
    }
    let body = object.body.value();
    let role = body.pointer("/roleRef/name").and_then(Value::as_str);
    let role = role.filter(|role| is_own_name(role));
    let mut found: Vec<Finding> = role
        .map(|role| ("roleRef.name".to_owned(), format!("{role} is a role of the agent's own")))
        .into_iter()
        .collect();
    let subjects = body.get("subjects").and_then(Value::as_array);
    let subjects = subjects.into_iter().flatten().enumerate();
    let text = |subject: &Value, key: &str| {
        subject.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    found.extend(subjects.filter_map(|(n, subject)| {
        let name = text(subject, "name");
        let all = ["system:serviceaccounts", "system:authenticated"];
        let is_agents = match text(subject, "kind").as_str() {
            "ServiceAccount" => text(subject, "namespace") == own,
            "User" => name.starts_with(&format!("system:serviceaccount:{own}:")),
            _ => name == format!("system:serviceaccounts:{own}") || all.contains(&name.as_str()),
        };
        let found = || format!("{name:?} is, or holds, an account of {own}");
        is_agents.then(|| (format!("subjects[{n}]"), found()))
    }));
    found
}

#[cfg(test)]
mod tests;
