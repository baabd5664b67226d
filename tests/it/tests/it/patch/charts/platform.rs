//! Stands in for everything that reports on objects or completes them: the workload controllers, which
//! say that pods are ready, or that those of images called `bad` are not; the cloud, which gives
//! addresses; the CA injector and the issuers of certificates.

use base64::{Engine, prelude::BASE64_STANDARD};
use kube::Client;
use mendix_agent_core::bundle::{
    object::{IdFields, ObjectId},
    version::Version,
};
use mendix_test_kit::{pki::Ca, wait::POLL};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

/// Kind, group and version, plural: everything that the charts make.
pub(super) const KINDS: [(&str, &str, &str); 28] = [
    ("ServiceAccount", "v1", "serviceaccounts"),
    ("ConfigMap", "v1", "configmaps"),
    ("Secret", "v1", "secrets"),
    ("Service", "v1", "services"),
    ("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
    ("Deployment", "apps/v1", "deployments"),
    ("StatefulSet", "apps/v1", "statefulsets"),
    ("DaemonSet", "apps/v1", "daemonsets"),
    ("Job", "batch/v1", "jobs"),
    ("CronJob", "batch/v1", "cronjobs"),
    ("HorizontalPodAutoscaler", "autoscaling/v1", "horizontalpodautoscalers"),
    ("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
    ("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
    ("Ingress", "networking.k8s.io/v1", "ingresses"),
    ("IngressClass", "networking.k8s.io/v1", "ingressclasses"),
    ("Role", "rbac.authorization.k8s.io/v1", "roles"),
    ("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings"),
    ("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles"),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions"),
    (
        "ValidatingWebhookConfiguration",
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
    ),
    (
        "MutatingWebhookConfiguration",
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
    ),
    ("ServiceMonitor", "monitoring.coreos.com/v1", "servicemonitors"),
    ("PodMonitor", "monitoring.coreos.com/v1", "podmonitors"),
    ("PrometheusRule", "monitoring.coreos.com/v1", "prometheusrules"),
    ("Issuer", "cert-manager.io/v1", "issuers"),
    ("Certificate", "cert-manager.io/v1", "certificates"),
    ("CertificateRequest", "cert-manager.io/v1", "certificaterequests"),
];

/// Group and version under which this server serves a kind of [`KINDS`].
pub(super) fn served<'a>(
    kind: &str,
    group_version: &'a str,
    server: &Version,
) -> (&'a str, &'a str) {
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    let old = *server < "1.21".parse().unwrap() && (kind == "CronJob" || group == "policy");
    (group, if old { "v1beta1" } else { version })
}

/// Any object of a kind.
pub(super) fn sample(group: &str, version: &str, kind: &str) -> ObjectId {
    ObjectId::from(IdFields {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        namespace: None,
        name: "any".into(),
    })
}

pub(super) struct Platform(AbortHandle);

impl Drop for Platform {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Platform {
    pub(super) fn start(client: Client) -> Self {
        let ca = BASE64_STANDARD.encode(Ca::new("injected").unwrap().cert_pem());
        Self(
            tokio::spawn(async move {
                loop {
                    for (path, complete) in REPORTS {
                        work(&client, path, |object| complete(object, &ca)).await;
                    }
                    tokio::time::sleep(POLL).await;
                }
            })
            .abort_handle(),
        )
    }
}

/// What is missing of an object: below `/status`, unless it says otherwise.
type Complete = fn(&Value, &str) -> Option<(&'static str, Value)>;

const REPORTS: [(&str, Complete); 13] = [
    ("apis/apps/v1/deployments", deployment),
    ("apis/apps/v1/statefulsets", stateful_set),
    ("apis/apps/v1/daemonsets", daemon_set),
    ("apis/batch/v1/jobs", job),
    ("apis/autoscaling/v1/horizontalpodautoscalers", autoscaler),
    // One of the two is served.
    ("apis/policy/v1beta1/poddisruptionbudgets", budget),
    ("apis/policy/v1/poddisruptionbudgets", budget),
    ("apis/networking.k8s.io/v1/ingresses", address),
    ("api/v1/services", load_balancer),
    ("apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", ca_bundle),
    ("apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", ca_bundle),
    ("apis/cert-manager.io/v1/issuers", issued),
    ("apis/cert-manager.io/v1/certificates", issued),
];

async fn work(
    client: &Client,
    path: &str,
    complete: impl Fn(&Value) -> Option<(&'static str, Value)>,
) {
    let get = http::Request::get(format!("/{path}")).body(vec![]).unwrap();
    // Kinds that are not served yet, and objects that are gone meanwhile, are looked at again.
    let Ok(list) = client.request::<Value>(get).await else { return };
    for object in list["items"].as_array().into_iter().flatten() {
        let Some((subresource, patch)) = complete(object) else { continue };
        let (group_version, plural) = path.rsplit_once('/').unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let place = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => format!("{group_version}/namespaces/{namespace}/{plural}/{name}"),
            None => format!("{group_version}/{plural}/{name}"),
        };
        let request = http::Request::patch(format!("/{place}{subresource}?fieldManager=platform"))
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string().into_bytes())
            .unwrap();
        if let Err(error) = client.request::<Value>(request).await {
            eprintln!("the platform can't complete {place}: {error}");
        }
    }
}

fn status(status: Value) -> Option<(&'static str, Value)> {
    Some(("/status", json!({ "status": status })))
}

fn is_seen(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

fn deployment(object: &Value, _: &str) -> Option<(&'static str, Value)> {
    if is_seen(object) {
        return None;
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let bad = object["spec"]["template"].to_string().contains("/bad@");
    let available = if bad { 0 } else { wanted };
    let progressing = match bad {
        true => {
            json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"})
        }
        false => {
            json!({"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": ""})
        }
    };
    status(json!({"observedGeneration": object["metadata"]["generation"], "replicas": wanted,
        "updatedReplicas": wanted, "readyReplicas": available, "availableReplicas": available,
        "conditions": [progressing]}))
}

fn stateful_set(object: &Value, _: &str) -> Option<(&'static str, Value)> {
    let wanted = object["spec"]["replicas"].clone();
    (!is_seen(object)).then_some(())?;
    status(json!({"observedGeneration": object["metadata"]["generation"], "replicas": wanted,
        "readyReplicas": wanted, "currentReplicas": wanted, "updatedReplicas": wanted,
        "currentRevision": "1", "updateRevision": "1"}))
}

fn daemon_set(object: &Value, _: &str) -> Option<(&'static str, Value)> {
    (!is_seen(object)).then_some(())?;
    status(
        json!({"observedGeneration": object["metadata"]["generation"], "desiredNumberScheduled": 3,
        "currentNumberScheduled": 3, "numberReady": 3, "updatedNumberScheduled": 3, "numberAvailable": 3,
        "numberMisscheduled": 0}),
    )
}

fn job(object: &Value, _: &str) -> Option<(&'static str, Value)> {
    object["status"]["conditions"].is_null().then_some(())?;
    status(json!({"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}))
}

fn autoscaler(object: &Value, _: &str) -> Option<(&'static str, Value)> {
    (object["status"]["desiredReplicas"] != 2).then_some(())?;
    status(json!({"currentReplicas": 2, "desiredReplicas": 2}))
}

fn budget(object: &Value, _: &str) -> Option<(&'static str, Value)> {
    (!is_seen(object)).then_some(())?;
    status(json!({"observedGeneration": object["metadata"]["generation"], "disruptionsAllowed": 1,
        "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}))
}

fn address(object: &Value, _: &str) -> Option<(&'static str, Value)> {
    object["status"]["loadBalancer"]["ingress"].is_null().then_some(())?;
    status(json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.4"}]}}))
}

fn load_balancer(object: &Value, ca: &str) -> Option<(&'static str, Value)> {
    if object["spec"]["type"] == "LoadBalancer" { address(object, ca) } else { None }
}

fn ca_bundle(object: &Value, ca: &str) -> Option<(&'static str, Value)> {
    let mut webhooks = object["webhooks"].as_array()?.clone();
    let mut absent = webhooks.iter_mut().filter(|webhook| {
        webhook["clientConfig"]["service"].is_object()
            && webhook["clientConfig"]["caBundle"].is_null()
    });
    absent.next().map(|webhook| webhook["clientConfig"]["caBundle"] = json!(ca))?;
    absent.for_each(|webhook| webhook["clientConfig"]["caBundle"] = json!(ca));
    Some(("", json!({ "webhooks": webhooks })))
}

fn issued(object: &Value, _: &str) -> Option<(&'static str, Value)> {
    let generation = &object["metadata"]["generation"];
    (object["status"]["conditions"][0]["observedGeneration"] != *generation).then_some(())?;
    status(json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Issued",
        "observedGeneration": generation}]}))
}
