//! The install manifests, as files and on an API server.

use std::{path::Path, time::Duration};

use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    apimachinery::pkg::version::Info,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    discovery,
};
use mendix_test_kit::{apiserver::ApiServer, wait::eventually};
use serde_json::Value;

/// Longest wait for the API server to know what it was just told.
const KNOWN: Duration = Duration::from_secs(120);

/// All objects of one file in `packaging/manifests`.
pub(crate) fn read(file: &str) -> Vec<DynamicObject> {
    read_in("manifests", file)
}

/// All objects of one file in `packaging/optional`.
pub(crate) fn read_optional(file: &str) -> Vec<DynamicObject> {
    read_in("optional", file)
}

fn read_in(folder: &str, file: &str) -> Vec<DynamicObject> {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let text = std::fs::read_to_string(packaging.join(folder).join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

/// Applies files as an administrator would.
pub(crate) async fn apply(client: &Client, files: &[&str]) {
    apply_objects(client, files.iter().flat_map(|file| read(file)).collect()).await;
}

/// Applies objects as an administrator would. When this ends, what they define is served and what they
/// grant holds.
pub(crate) async fn apply_objects(client: &Client, objects: Vec<DynamicObject>) {
    let version = client.apiserver_version().await.unwrap();
    for mut object in objects.clone() {
        let types = object.types.as_mut().unwrap();
        if types.api_version == "policy/v1" && before_policy_v1(&version) {
            types.api_version = "policy/v1beta1".into();
        }
        let gvk = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
        let (resource, capabilities) =
            eventually(KNOWN, format!("{} is served", gvk.kind), async || {
                discovery::pinned_kind(client, &gvk).await.ok()
            })
            .await
            .unwrap();
        let api: Api<DynamicObject> = match capabilities.scope {
            discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
            discovery::Scope::Namespaced => {
                Api::namespaced_with(client.clone(), &object.namespace().unwrap(), &resource)
            }
        };
        let params = PatchParams::apply("install").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| panic!("{} {}: {error}", gvk.kind, object.name_any()));
    }
    let kind = |object: &DynamicObject| object.types.as_ref().unwrap().kind.clone();
    for definition in objects.iter().filter(|it| kind(it) == "CustomResourceDefinition") {
        let spec = &definition.data["spec"];
        let [group, version, kind] =
            [&spec["group"], &spec["versions"][0]["name"], &spec["names"]["kind"]]
                .map(|text| text.as_str().unwrap());
        let gvk = GroupVersionKind::gvk(group, version, kind);
        eventually(KNOWN, format!("{kind} is served"), async || {
            discovery::pinned_kind(client, &gvk).await.ok()
        })
        .await
        .unwrap();
    }
    for binding in objects.iter().filter(|object| kind(object).ends_with("RoleBinding")) {
        let reference = &binding.data["roleRef"];
        let role = objects.iter().find(|object| {
            reference["kind"] == kind(object).as_str()
                && reference["name"] == object.name_any().as_str()
                && (reference["kind"] == "ClusterRole" || object.namespace() == binding.namespace())
        });
        // A role that was there before is known.
        let Some(role) = role else { continue };
        let account = &binding.data["subjects"][0];
        if account["kind"] != "ServiceAccount" {
            continue;
        }
        let [namespace, name] = ["namespace", "name"].map(|field| account[field].as_str().unwrap());
        let place = binding.namespace().unwrap_or_default();
        until_granted(client, (namespace, name), &place, &role.data["rules"]).await;
    }
}

/// Waits until the last of these rules holds for a service account, in a namespace or, if that has no
/// name, everywhere: the API server's authoriser learns of roles and bindings by watches.
pub(crate) async fn until_granted(
    client: &Client,
    account: (&str, &str),
    namespace: &str,
    rules: &Value,
) {
    let rule = rules.as_array().unwrap().last().unwrap();
    let first = |field: &str| rule[field][0].as_str().unwrap_or_default().to_owned();
    let asked = [first("verbs"), first("apiGroups"), first("resources"), first("resourceNames")];
    let [verb, group, resource, name] = asked.each_ref().map(String::as_str);
    let (user, what) =
        (format!("{}/{}", account.0, account.1), format!("{verb} {group}/{resource}"));
    eventually(KNOWN, format!("{user} may {what} in {namespace:?}"), async || {
        may(client, account, (verb, group, resource), (namespace, name)).await.then_some(())
    })
    .await
    .unwrap();
}

/// What an access review asks about: verb, group and resource; namespace and name, which may be empty.
pub(crate) fn access(
    (verb, group, resource): (&str, &str, &str),
    (namespace, name): (&str, &str),
) -> ResourceAttributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ResourceAttributes {
        verb: some(verb),
        group: some(group),
        resource: some(resource),
        subresource: some(subresource),
        namespace: some(namespace),
        name: some(name),
        ..Default::default()
    }
}

/// Whether a service account may do this, as the API server's authoriser knows it now.
pub(crate) async fn may(
    client: &Client,
    account: (&str, &str),
    what: (&str, &str, &str),
    of: (&str, &str),
) -> bool {
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{}:{}", account.0, account.1)),
        resource_attributes: Some(access(what, of)),
        ..Default::default()
    };
    let review = SubjectAccessReview { spec, ..Default::default() };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

/// policy/v1 came with 1.21; what the manifests say of it was the same before.
fn before_policy_v1(version: &Info) -> bool {
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap();
    version.major == "1" && minor < 21
}

#[test]
fn the_crd_file_says_what_the_types_say() {
    let mut expected = String::from(
        "# Printed by `mendix-agent crds`; a test keeps it equal to the types in agent/src/crd.\n",
    );
    for crd in mendix_agent::crd::all() {
        expected.push_str("---\n");
        expected.push_str(&serde_saphyr::to_string(&crd).unwrap());
    }
    written("packaging/manifests/00-crds.yaml", &expected);
}

/// Helm makes what lies in `crds/` first and waits for it; only then can a hook of the installation
/// make an object of that kind. The marks let the release take it over, to upgrade and to remove it.
#[test]
fn the_crd_file_that_helm_waits_for_says_what_the_type_says_and_whose_it_is() {
    let mut all = mendix_agent::crd::all();
    let at = all.iter().position(|crd| crd.spec.names.kind == "LogSharingPolicy").unwrap();
    let mut crd = all.remove(at);
    let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    crd.metadata.labels = Some([("app.kubernetes.io/managed-by", "Helm")].map(pair).into());
    let marks = [
        ("meta.helm.sh/release-name", "mendix-agent"),
        ("meta.helm.sh/release-namespace", "mendix-agent"),
    ];
    crd.metadata.annotations = Some(marks.map(pair).into());
    let expected = format!(
        "# Made first and waited for by `helm install`, since the customer's policy follows as a hook; from\n\
         # then on templates/crds.yaml upgrades and removes it (docs/adr/0009). A test keeps it equal to the type.\n\
         {}",
        serde_saphyr::to_string(&crd).unwrap()
    );
    written("packaging/helm/mendix-agent/crds/logsharingpolicies.yaml", &expected);
}

/// Holds a file against what it should be, or writes that with `UPDATE_MANIFESTS`.
fn written(path: &str, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("UPDATE_MANIFESTS").is_some() {
        std::fs::write(&file, expected).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == expected,
        "{path} is not what the types say; run the tests with UPDATE_MANIFESTS=1 and review the \
         difference"
    );
}

#[tokio::test]
async fn the_api_server_takes_every_manifest() {
    let server = ApiServer::shared().await.unwrap();
    let client = server.client().await.unwrap();
    apply(
        &client,
        &[
            "10-namespaces.yaml",
            "00-crds.yaml",
            "20-rbac.yaml",
            "30-policy.yaml",
            "40-agent.yaml",
            "41-guard.yaml",
            "50-network.yaml",
        ],
    )
    .await;
}

/// The API server that is tested is older than the kind, so what it would do is read off the file.
#[test]
fn the_admission_policy_keeps_the_agents_namespace_from_writing_the_customers_policy() {
    use k8s_openapi::api::admissionregistration::v1::{
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    };
    let objects = read("31-admission.yaml");
    let [policy, binding] = &objects[..] else { panic!("{} objects", objects.len()) };
    let name = policy.name_any();
    // Through the types and back: nothing in the file is a field that the API does not have.
    let strict = |object: &DynamicObject, typed: serde_json::Value| {
        assert_eq!(serde_json::to_value(object).unwrap(), typed);
    };
    let value = serde_json::to_value(policy).unwrap();
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(value).unwrap();
    strict(&objects[0], serde_json::to_value(&policy).unwrap());
    let value = serde_json::to_value(binding).unwrap();
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(value).unwrap();
    strict(&objects[1], serde_json::to_value(&binding).unwrap());

    let spec = policy.spec.unwrap();
    assert_eq!(spec.failure_policy.as_deref(), Some("Fail"), "what can't be judged is refused");
    let rules = spec.match_constraints.unwrap().resource_rules.unwrap();
    let [rule] = &rules[..] else { panic!("one rule") };
    assert_eq!(rule.api_groups.as_deref(), Some(&["agent.mendix.com".to_owned()][..]));
    let mut operations = rule.operations.clone().unwrap();
    operations.sort();
    assert_eq!(operations, ["CREATE", "DELETE", "UPDATE"]);
    assert!(rule.resources.as_ref().unwrap().contains(&"logsharingpolicies".to_owned()));
    assert_eq!(rule.resource_names, None);
    let conditions = spec.match_conditions.unwrap();
    let [condition] = &conditions[..] else { panic!("one condition") };
    // The group that Kubernetes gives every service account of the namespace in 20-rbac.yaml.
    let accounts: Vec<_> = read("20-rbac.yaml")
        .into_iter()
        .filter(|object| object.types.as_ref().unwrap().kind == "ServiceAccount")
        .map(|account| account.namespace().unwrap())
        .collect();
    for namespace in accounts {
        let group = format!("\"system:serviceaccounts:{namespace}\" in request.userInfo.groups");
        assert_eq!(condition.expression, group);
    }
    let validations = spec.validations.unwrap();
    let [validation] = &validations[..] else { panic!("one validation") };
    assert_eq!(validation.expression, "false");
    let spec = binding.spec;
    assert_eq!(spec.policy_name, name);
    assert!(spec.validation_actions.contains(&"Deny".to_owned()));
    assert_eq!(spec.match_resources, None, "nothing narrows it");
}
