//! What the agent may do in the cluster, as data: preflight asks the API server for each of these
//! rights, and a test holds the table against `packaging/manifests/20-rbac.yaml`, both ways.

use std::fmt;

/// Where a right holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In the agent's own namespace.
    Own,
    /// In each of [`MANAGED_NAMESPACES`].
    Managed,
    /// In the whole cluster, or on cluster-scoped objects.
    Cluster,
}

/// Some verbs on some resources of one group.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Where.
    pub scope: Scope,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resources, with subresources as `pods/log`.
    pub resources: &'static [&'static str],
    /// Objects by name; empty for all.
    pub names: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// Namespaces whose objects releases may own.
pub const MANAGED_NAMESPACES: &[&str] = &["mendix-operator", "mendix-monitoring"];

const READ: &[&str] = &["get", "list", "watch"];
const OWN: &[&str] = &["get", "list", "watch", "create", "patch", "update", "delete"];
const MANAGE: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
const RBAC: &[&str] = &["get", "list", "watch", "create", "patch", "delete", "escalate", "bind"];

/// Every right the agent needs.
pub const REQUIRED: &[Access] = &[
    // Identity, trust state, bundles and pre-images; its custom resources; events about them.
    Access {
        scope: Scope::Own,
        group: "",
        resources: &["secrets"],
        names: &[],
        verbs: &["get", "list", "create", "patch", "update", "delete"],
    },
    Access {
        scope: Scope::Own,
        group: "agent.mendix.com",
        resources: &[
            "agentstatuses",
            "patchbundles",
            "managedcomponents",
            "upgradetrials",
            "supporttickets",
            "logsnapshots",
        ],
        names: &[],
        verbs: OWN,
    },
    Access {
        scope: Scope::Own,
        group: "agent.mendix.com",
        resources: &[
            "agentstatuses/status",
            "patchbundles/status",
            "managedcomponents/status",
            "upgradetrials/status",
            "supporttickets/status",
            "logsnapshots/status",
        ],
        names: &[],
        verbs: &["get", "patch", "update"],
    },
    Access {
        scope: Scope::Own,
        group: "agent.mendix.com",
        resources: &["logsharingpolicies"],
        names: &[],
        verbs: READ,
    },
    Access {
        scope: Scope::Own,
        group: "events.k8s.io",
        resources: &["events"],
        names: &[],
        verbs: &["create", "patch"],
    },
    // Who of the replicas leads; a name can't limit create.
    Access {
        scope: Scope::Own,
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &[],
        verbs: &["create"],
    },
    Access {
        scope: Scope::Own,
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &["mendix-agent"],
        verbs: &["get", "update"],
    },
    // Its own upgrade, on trial, and the guard's image after it.
    Access {
        scope: Scope::Own,
        group: "apps",
        resources: &["deployments"],
        names: &["mendix-agent", "mendix-agent-guard"],
        verbs: &["get", "list", "watch", "patch"],
    },
    // The audit log.
    Access {
        scope: Scope::Own,
        group: "",
        resources: &["configmaps"],
        names: &[],
        verbs: &["get", "list", "watch", "create", "update", "delete"],
    },
    // Its own rights and the guard's, which a release may widen.
    Access {
        scope: Scope::Own,
        group: "rbac.authorization.k8s.io",
        resources: &["roles", "rolebindings"],
        names: &["mendix-agent", "mendix-agent-guard"],
        verbs: &["get", "list", "watch", "create", "patch", "escalate", "bind"],
    },
    // What components own, and what a consented snapshot reads.
    Access {
        scope: Scope::Managed,
        group: "",
        resources: &["configmaps", "services", "serviceaccounts", "persistentvolumeclaims"],
        names: &[],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Managed,
        group: "apps",
        resources: &["deployments", "statefulsets", "daemonsets"],
        names: &[],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Managed,
        group: "batch",
        resources: &["jobs", "cronjobs"],
        names: &[],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Managed,
        group: "policy",
        resources: &["poddisruptionbudgets"],
        names: &[],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Managed,
        group: "networking.k8s.io",
        resources: &["networkpolicies", "ingresses"],
        names: &[],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Managed,
        group: "autoscaling",
        resources: &["horizontalpodautoscalers"],
        names: &[],
        verbs: MANAGE,
    },
    // A component's own configuration; no other Secret, not even its name.
    Access {
        scope: Scope::Managed,
        group: "",
        resources: &["secrets"],
        names: &["mendix-operator", "mendix-monitoring"],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Managed,
        group: "rbac.authorization.k8s.io",
        resources: &["roles", "rolebindings"],
        names: &[],
        verbs: RBAC,
    },
    Access {
        scope: Scope::Managed,
        group: "privatecloud.mendix.com",
        resources: &["operatorconfigurations"],
        names: &[],
        verbs: MANAGE,
    },
    // What a snapshot says of the Operator.
    Access {
        scope: Scope::Managed,
        group: "privatecloud.mendix.com",
        resources: &[
            "operatorversions",
            "builds",
            "endpoints",
            "runtimes",
            "storageinstances",
            "storageplans",
        ],
        names: &[],
        verbs: &["list"],
    },
    // Objects of the definitions that the monitoring and certificate components bring.
    Access {
        scope: Scope::Managed,
        group: "monitoring.coreos.com",
        resources: &["servicemonitors", "podmonitors", "prometheusrules"],
        names: &[],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Managed,
        group: "cert-manager.io",
        resources: &["issuers", "certificates"],
        names: &[],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Managed,
        group: "apps",
        resources: &["replicasets"],
        names: &[],
        verbs: &["get", "list"],
    },
    Access {
        scope: Scope::Managed,
        group: "",
        resources: &["pods", "events"],
        names: &[],
        verbs: &["get", "list"],
    },
    Access {
        scope: Scope::Managed,
        group: "",
        resources: &["pods/log"],
        names: &[],
        verbs: &["get"],
    },
    // Cluster-scoped objects: named ones for writing, lists for watching.
    Access {
        scope: Scope::Cluster,
        group: "",
        resources: &["namespaces"],
        names: &["kube-system"],
        verbs: &["get"],
    },
    Access {
        scope: Scope::Cluster,
        group: "",
        resources: &["namespaces"],
        names: MANAGED_NAMESPACES,
        verbs: &["get", "create", "patch", "delete"],
    },
    Access {
        scope: Scope::Cluster,
        group: "",
        resources: &["namespaces", "nodes"],
        names: &[],
        verbs: &["list", "watch"],
    },
    Access {
        scope: Scope::Cluster,
        group: "apiextensions.k8s.io",
        resources: &["customresourcedefinitions"],
        names: &[],
        verbs: READ,
    },
    Access {
        scope: Scope::Cluster,
        group: "apiextensions.k8s.io",
        resources: &["customresourcedefinitions"],
        names: &[
            "mendixapps.privatecloud.mendix.com",
            "builds.privatecloud.mendix.com",
            "endpoints.privatecloud.mendix.com",
            "runtimes.privatecloud.mendix.com",
            "storageinstances.privatecloud.mendix.com",
            "storageplans.privatecloud.mendix.com",
            "operatorconfigurations.privatecloud.mendix.com",
            "operatorversions.privatecloud.mendix.com",
            "servicemonitors.monitoring.coreos.com",
            "podmonitors.monitoring.coreos.com",
            "prometheusrules.monitoring.coreos.com",
            "issuers.cert-manager.io",
            "certificates.cert-manager.io",
            "certificaterequests.cert-manager.io",
        ],
        verbs: &["create", "patch", "delete"],
    },
    // The agent's own definitions, which a release may widen.
    Access {
        scope: Scope::Cluster,
        group: "apiextensions.k8s.io",
        resources: &["customresourcedefinitions"],
        names: &[
            "agentstatuses.agent.mendix.com",
            "logsharingpolicies.agent.mendix.com",
            "logsnapshots.agent.mendix.com",
            "managedcomponents.agent.mendix.com",
            "patchbundles.agent.mendix.com",
            "supporttickets.agent.mendix.com",
            "upgradetrials.agent.mendix.com",
        ],
        verbs: &["create", "patch"],
    },
    // The customer's apps, to be counted.
    Access {
        scope: Scope::Cluster,
        group: "privatecloud.mendix.com",
        resources: &["mendixapps"],
        names: &[],
        verbs: &["list"],
    },
    Access {
        scope: Scope::Cluster,
        group: "rbac.authorization.k8s.io",
        resources: &["clusterroles", "clusterrolebindings"],
        names: &[],
        verbs: &["list", "watch"],
    },
    Access {
        scope: Scope::Cluster,
        group: "rbac.authorization.k8s.io",
        resources: &["clusterroles", "clusterrolebindings"],
        names: &[
            "mendix-operator",
            "mendix-monitoring",
            "mendix-monitoring-state",
            "mendix-ingress",
            "mendix-certificates",
            "mendix-certificates-cainjector",
            "mendix-certificates-webhook",
        ],
        verbs: &["get", "create", "patch", "delete", "escalate", "bind"],
    },
    // Its own rights, which a release may widen, also into a new managed namespace.
    Access {
        scope: Scope::Cluster,
        group: "rbac.authorization.k8s.io",
        resources: &["clusterroles", "clusterrolebindings"],
        names: &["mendix-agent", "mendix-agent-managed-namespace"],
        verbs: &["get", "create", "patch", "escalate", "bind"],
    },
    Access {
        scope: Scope::Cluster,
        group: "rbac.authorization.k8s.io",
        resources: &["rolebindings"],
        names: &["mendix-agent"],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Cluster,
        group: "networking.k8s.io",
        resources: &["ingressclasses"],
        names: &["mendix-ingress"],
        verbs: MANAGE,
    },
    Access {
        scope: Scope::Cluster,
        group: "admissionregistration.k8s.io",
        resources: &["validatingwebhookconfigurations", "mutatingwebhookconfigurations"],
        names: &["mendix-operator", "mendix-ingress", "mendix-certificates"],
        verbs: MANAGE,
    },
];

/// One verb on one resource in one place: what the API server is asked about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Namespace; `None` for the whole cluster.
    pub namespace: Option<String>,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, with its subresource as `pods/log`.
    pub resource: &'static str,
    /// Object; `None` for all.
    pub name: Option<&'static str>,
    /// Verb.
    pub verb: &'static str,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(name) = self.name {
            write!(f, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

/// [`REQUIRED`], one right at a time, for an agent in namespace `own`.
pub fn rights(own: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for access in REQUIRED {
        let namespaces: Vec<Option<String>> = match access.scope {
            Scope::Own => vec![Some(own.to_owned())],
            Scope::Managed => MANAGED_NAMESPACES.iter().map(|it| Some((*it).into())).collect(),
            Scope::Cluster => vec![None],
        };
        let names: Vec<Option<&str>> = match access.names {
            [] => vec![None],
            names => names.iter().copied().map(Some).collect(),
        };
        for namespace in &namespaces {
            for resource in access.resources {
                for name in &names {
                    rights.extend(access.verbs.iter().map(|verb| Right {
                        namespace: namespace.clone(),
                        group: access.group,
                        resource,
                        name: *name,
                        verb,
                    }));
                }
            }
        }
    }
    rights
}

#[cfg(test)]
mod tests;
