//! What the agent knows about kinds: which stage they belong to, whether they live in a namespace,
//! and which of them hold data.

use super::{foundation::is_own_rbac, object::ObjectId};

/// Order inside a component: what others need comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Namespaces and CustomResourceDefinitions; CRDs must be Established before the next stage.
    Definitions,
    /// RBAC, ServiceAccounts, ConfigMaps, Secrets, Services, policies: what workloads need.
    Configuration,
    /// Deployments, StatefulSets, DaemonSets, Jobs, Pods.
    Workloads,
    /// Objects of kinds that a CRD defines.
    CustomResources,
    /// Admission webhooks and APIServices, once what serves them runs.
    Webhooks,
}

/// Groups that the API server itself serves. Every other group comes from a CRD or an aggregated
/// API, also when it ends in `.k8s.io` (such as `snapshot.storage.k8s.io`).
const BUILT_IN_GROUPS: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Kinds of the built-in groups that have no namespace.
const CLUSTER_SCOPED: &[(&str, &str)] = &[
    ("", "ComponentStatus"),
    ("", "Namespace"),
    ("", "Node"),
    ("", "PersistentVolume"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("authentication.k8s.io", "SelfSubjectReview"),
    ("authentication.k8s.io", "TokenReview"),
    ("authorization.k8s.io", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "SelfSubjectRulesReview"),
    ("authorization.k8s.io", "SubjectAccessReview"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
    ("certificates.k8s.io", "ClusterTrustBundle"),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
    ("networking.k8s.io", "IPAddress"),
    ("networking.k8s.io", "IngressClass"),
    ("networking.k8s.io", "ServiceCIDR"),
    ("node.k8s.io", "RuntimeClass"),
    ("policy", "PodSecurityPolicy"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("resource.k8s.io", "DeviceClass"),
    ("resource.k8s.io", "DeviceTaintRule"),
    ("resource.k8s.io", "ResourceSlice"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storage.k8s.io", "VolumeAttributesClass"),
];

/// Kinds whose deletion loses data that nothing brings back.
const HOLDS_DATA: &[(&str, &str)] = &[
    ("", "Namespace"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
];

/// Kinds of which the agent may read single objects by name and not the whole list: their neighbours
/// are none of its business, or could hold secrets.
const READ_BY_NAME: &[(&str, &str)] = &[
    ("", "Secret"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("networking.k8s.io", "IngressClass"),
];

fn group_kind(id: &ObjectId) -> (&str, &str) {
    (&id.group, &id.kind)
}

/// Whether the API server itself serves the group.
pub fn is_built_in_group(group: &str) -> bool {
    BUILT_IN_GROUPS.contains(&group)
}

/// Whether objects of this kind live in a namespace; none for kinds that a CRD defines.
pub fn is_namespaced(id: &ObjectId) -> Option<bool> {
    is_built_in_group(&id.group).then(|| !CLUSTER_SCOPED.contains(&group_kind(id)))
}

/// Whether deleting it loses data: only a signed `deletes` entry may do that.
pub fn holds_data(id: &ObjectId) -> bool {
    HOLDS_DATA.contains(&group_kind(id))
}

/// Whether the agent's rights name the objects of this kind, or this object: each is watched by itself.
pub fn is_read_by_name(id: &ObjectId) -> bool {
    READ_BY_NAME.contains(&group_kind(id)) || id.namespace.is_some() && is_own_rbac(id)
}

/// The stage an object is applied in.
pub fn stage(id: &ObjectId) -> Stage {
    match group_kind(id) {
        ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            Stage::Definitions
        }
        ("", "Pod" | "ReplicationController") | ("batch", "Job" | "CronJob") => Stage::Workloads,
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") => Stage::Workloads,
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        )
        | ("apiregistration.k8s.io", "APIService") => Stage::Webhooks,
        (group, _) if is_built_in_group(group) => Stage::Configuration,
        _ => Stage::CustomResources,
    }
}

/// Order of kinds inside a stage; kinds without a place of their own come last.
pub fn rank(id: &ObjectId) -> u8 {
    match group_kind(id) {
        ("", "Namespace" | "ServiceAccount") => 0,
        ("rbac.authorization.k8s.io", "ClusterRole" | "Role") => 1,
        ("rbac.authorization.k8s.io", "ClusterRoleBinding" | "RoleBinding") => 2,
        ("", "LimitRange" | "ResourceQuota") | ("scheduling.k8s.io", "PriorityClass") => 3,
        ("", "ConfigMap" | "Secret") | ("storage.k8s.io", "StorageClass") => 4,
        ("", "PersistentVolume") => 5,
        ("", "PersistentVolumeClaim") => 6,
        ("", "Service") => 7,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::object::IdFields, *};

    fn id(group: &str, kind: &str) -> ObjectId {
        ObjectId::from(IdFields {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            namespace: None,
            name: "x".into(),
        })
    }

    #[test]
    fn kinds_are_applied_when_what_they_need_is_there() {
        assert_eq!(stage(&id("", "Namespace")), Stage::Definitions);
        assert_eq!(stage(&id("", "ConfigMap")), Stage::Configuration);
        assert_eq!(stage(&id("policy", "PodDisruptionBudget")), Stage::Configuration);
        assert_eq!(stage(&id("batch", "CronJob")), Stage::Workloads);
        assert_eq!(stage(&id("privatecloud.mendix.com", "Build")), Stage::CustomResources);
        assert_eq!(stage(&id("snapshot.storage.k8s.io", "VolumeSnapshot")), Stage::CustomResources);
        assert_eq!(stage(&id("apiregistration.k8s.io", "APIService")), Stage::Webhooks);
    }

    #[test]
    fn a_kind_of_that_name_in_another_group_is_another_kind() {
        assert_eq!(stage(&id("example.com", "Deployment")), Stage::CustomResources);
        assert!(!holds_data(&id("example.com", "Namespace")));
        assert_eq!(is_namespaced(&id("example.com", "Node")), None);
    }

    #[test]
    fn what_the_rights_name_is_watched_by_itself() {
        let role = |namespace: Option<&str>, name: &str| {
            ObjectId::from(IdFields {
                namespace: namespace.map(str::to_owned),
                name: name.into(),
                ..IdFields::clone(&id("rbac.authorization.k8s.io", "Role"))
            })
        };
        assert!(is_read_by_name(&id("", "Secret")));
        assert!(is_read_by_name(&role(Some("mendix-agent"), "mendix-agent")));
        assert!(is_read_by_name(&role(Some("mendix-agent"), "mendix-agent-guard")));
        assert!(!is_read_by_name(&role(Some("mendix-operator"), "operator")));
        // Of the whole cluster they may be listed.
        assert!(!is_read_by_name(&role(None, "mendix-agent")));
    }

    #[test]
    fn scope_is_known_for_built_in_kinds() {
        assert_eq!(is_namespaced(&id("", "Secret")), Some(true));
        assert_eq!(is_namespaced(&id("", "PersistentVolume")), Some(false));
        assert_eq!(is_namespaced(&id("rbac.authorization.k8s.io", "ClusterRole")), Some(false));
    }
}
