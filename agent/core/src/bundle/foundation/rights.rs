//! The agent's roles: what none of them may ever hold, and whether a new one covers the one before.
//!
//! The first is defence in depth behind the release root: whoever signed it, a release can't give the
//! agent what it has no use for and an attacker would want first. It does not make `escalate` harmless.

use serde::Deserialize;
use serde_json::Value;

use super::Finding;

/// Findings of one role that are told; one tells as much as a hundred.
const MAX_FINDINGS: usize = 16;
/// Single rights of one rule, and of a present role that are compared. The agent's have some hundreds.
const MAX_RIGHTS: usize = 100_000;

/// Verbs that change nothing.
const READ: [&str; 3] = ["get", "list", "watch"];
/// Verbs that make the agent somebody else, or let it vouch for somebody.
const NEVER_VERBS: [&str; 3] = ["impersonate", "approve", "sign"];
/// Resources that lead into pods, nodes and services past everything that is recorded, or that make
/// credentials. `group/resource`, the core group being empty.
const NEVER_RESOURCES: [&str; 9] = [
    "/pods/exec",
    "/pods/attach",
    "/pods/portforward",
    "/pods/proxy",
    "/pods/ephemeralcontainers",
    "/services/proxy",
    "/nodes/proxy",
    "/serviceaccounts/token",
    "certificates.k8s.io/certificatesigningrequests/approval",
];
/// Roles of Kubernetes that hold everything, or every Secret of a namespace.
const NEVER_ROLES: [&str; 4] = ["cluster-admin", "admin", "edit", "view"];
/// A ClusterRole with such a label adds its rules to those of other roles.
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";
const RBAC: &str = "rbac.authorization.k8s.io";

/// The roles, by where they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The agent's, in its own namespace.
    Own,
    /// The guard's, there.
    Guard,
    /// The agent's, in each managed namespace.
    Managed,
    /// The agent's, in the whole cluster.
    Cluster,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
}

/// The rules of a role; a field that is not known is refused rather than overlooked.
fn rules(role: &Value) -> Result<Vec<Rule>, Finding> {
    match role.get("rules") {
        None | Some(Value::Null) => Ok(vec![]),
        Some(rules) => serde_path_to_error::deserialize(rules)
            .map_err(|error| (format!("rules{}", error.path()), error.inner().to_string())),
    }
}

/// What the role may never hold.
pub(super) fn findings(role: Role, body: &Value) -> Vec<Finding> {
    let mut found = vec![];
    if body.get("aggregationRule").is_some() {
        found.push(("aggregationRule".to_owned(), "lets others add rules".to_owned()));
    }
    let labels = body.pointer("/metadata/labels").and_then(Value::as_object);
    for label in labels.into_iter().flat_map(|labels| labels.keys()) {
        if label.starts_with(AGGREGATE_TO) {
            let found_there = "gives the agent's rights to others".to_owned();
            found.push((format!("metadata.labels[{label}]"), found_there));
        }
    }
    match rules(body) {
        Ok(rules) => {
            for (n, rule) in rules.iter().enumerate() {
                let of_rule = rule.findings(role).into_iter();
                found.extend(of_rule.map(|(tail, what)| (format!("rules[{n}].{tail}"), what)));
            }
        }
        Err(finding) => found.push(finding),
    }
    found.truncate(MAX_FINDINGS);
    found
}

impl Rule {
    fn findings(&self, role: Role) -> Vec<Finding> {
        if self.count() > MAX_RIGHTS {
            return vec![("verbs".to_owned(), format!("makes more than {MAX_RIGHTS} rights"))];
        }
        let mut found = vec![];
        let lists = [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("verbs", &self.verbs),
            ("nonResourceURLs", &self.non_resource_urls),
        ];
        for (field, list) in lists {
            if let Some(wild) = list.iter().find(|item| item.contains('*')) {
                found.push((field.to_owned(), format!("{wild:?} is a wildcard")));
            }
        }
        let mut say = |field: &str, what: String| found.push((field.to_owned(), what));
        for verb in self.verbs.iter().filter(|verb| NEVER_VERBS.contains(&verb.as_str())) {
            say("verbs", format!("{verb} is nothing the agent does"));
        }
        let writes = || self.verbs.iter().find(|verb| !READ.contains(&verb.as_str()));
        let unnamed = self.resource_names.is_empty();
        if let Some(verb) = writes().filter(|_| role == Role::Cluster && unnamed)
            && !self.resources.is_empty()
        {
            say("resourceNames", format!("{verb}: what is written in the whole cluster is named"));
        }
        for group in &self.api_groups {
            for resource in &self.resources {
                let full = format!("{group}/{resource}");
                if NEVER_RESOURCES.contains(&full.as_str()) {
                    say("resources", format!("{resource} is nothing the agent uses"));
                }
                match (full.as_str(), role) {
                    ("/secrets", Role::Guard) => {
                        say("resources", "the guard reads no Secret".into());
                    }
                    ("/secrets", Role::Managed | Role::Cluster) if unnamed => {
                        say("resourceNames", "Secrets outside its namespace are named".into());
                    }
                    // The customer gives it, namespace by namespace.
                    ("/pods/log", Role::Cluster) => {
                        say("resources", "logs are read in managed namespaces alone".into());
                    }
                    ("agent.mendix.com/logsharingpolicies", _) => {
                        if let Some(verb) = writes() {
                            say("verbs", format!("{verb}: the customer alone writes this policy"));
                        }
                    }
                    _ => {}
                }
                if group == RBAC && writes().is_some() {
                    // In a managed namespace the components' own roles are among what is applied.
                    let of_components = role == Role::Managed
                        && matches!(resource.as_str(), "roles" | "rolebindings");
                    if unnamed && !of_components && role != Role::Cluster {
                        say("resourceNames", format!("{resource} are written by name only"));
                    }
                    let held = |name: &&String| {
                        NEVER_ROLES.contains(&name.as_str()) || name.starts_with("system:")
                    };
                    if let Some(name) = self.resource_names.iter().find(held) {
                        say("resourceNames", format!("{name} is a role of Kubernetes itself"));
                    }
                }
            }
        }
        let power = self.verbs.iter().find(|verb| ["escalate", "bind"].contains(&verb.as_str()));
        if let Some(verb) = power
            && self.api_groups.iter().any(|group| group != RBAC)
        {
            say("apiGroups", format!("{verb} is for {RBAC} alone"));
        }
        found
    }

    fn allows(&self, right: &Right<'_>) -> bool {
        let has = |list: &[String], item: &str| list.iter().any(|it| it == "*" || it == item);
        if !has(&self.verbs, right.verb) {
            return false;
        }
        match right.what {
            What::Url(url) => has(&self.non_resource_urls, url),
            What::Objects { group, resource, name } => {
                let subresource = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
                let any_of_it = subresource.is_some_and(|any| self.resources.contains(&any));
                let named = match (self.resource_names.as_slice(), name) {
                    ([], _) => true,
                    (names, Some(name)) => names.iter().any(|it| it == name),
                    (_, None) => false,
                };
                has(&self.api_groups, group)
                    && (has(&self.resources, resource) || any_of_it)
                    && named
            }
        }
    }

    /// How many single rights the rule is.
    fn count(&self) -> usize {
        let objects = self.api_groups.len().saturating_mul(self.resources.len());
        let objects = objects.saturating_mul(self.resource_names.len().max(1));
        objects.saturating_add(self.non_resource_urls.len()).saturating_mul(self.verbs.len())
    }

    fn rights(&self) -> impl Iterator<Item = Right<'_>> {
        let names: Vec<Option<&str>> = match self.resource_names.as_slice() {
            [] => vec![None],
            names => names.iter().map(|name| Some(name.as_str())).collect(),
        };
        let urls = self.non_resource_urls.iter().map(|url| What::Url(url));
        let objects = self.api_groups.iter().flat_map(move |group| {
            let names = names.clone();
            self.resources.iter().flat_map(move |resource| {
                let names = names.clone().into_iter();
                names.map(move |name| What::Objects { group, resource, name })
            })
        });
        urls.chain(objects).flat_map(|what| self.verbs.iter().map(move |verb| Right { verb, what }))
    }
}

/// One verb on one thing. A `*` in it stands for itself: only a `*` covers it.
struct Right<'a> {
    verb: &'a str,
    what: What<'a>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Url(&'a str),
    Objects { group: &'a str, resource: &'a str, name: Option<&'a str> },
}

impl std::fmt::Display for Right<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.verb)?;
        match self.what {
            What::Url(url) => f.write_str(url),
            What::Objects { group, resource, name } => {
                f.write_str(resource)?;
                if !group.is_empty() {
                    write!(f, ".{group}")?;
                }
                name.map_or(Ok(()), |name| write!(f, " {name}"))
            }
        }
    }
}

/// Every right of `live` that `new` doesn't hold.
pub(super) fn narrowing(live: &Value, new: &Value) -> Vec<Finding> {
    let field = || "rules".to_owned();
    let (live, new) = match (rules(live), rules(new)) {
        (Ok(live), Ok(new)) => (live, new),
        (Err((place, why)), _) => {
            return vec![(
                field(),
                format!("can't be compared: {place} of the present one: {why}"),
            )];
        }
        // Told by `findings`.
        (_, Err(_)) => return vec![],
    };
    if live.iter().map(Rule::count).fold(0, usize::saturating_add) > MAX_RIGHTS {
        let found =
            format!("the present one holds more than {MAX_RIGHTS} rights, too many to compare");
        return vec![(field(), found)];
    }
    let rights = live.iter().flat_map(Rule::rights);
    let gone = rights.filter(|right| !new.iter().any(|rule| rule.allows(right)));
    gone.take(MAX_FINDINGS).map(|right| (field(), format!("takes away: {right}"))).collect()
}

#[cfg(test)]
mod tests;
