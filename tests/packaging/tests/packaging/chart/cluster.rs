//! The chart on a real API server: installed, upgraded, uninstalled by a real Helm.

use std::{cell::RefCell, collections::BTreeSet, path::Path, time::Duration};

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
    discovery,
};
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    helm::Helm,
    inventory::{inventory, made_by_controllers, unsettled},
    wait::eventually,
};
use serde_json::{Value, json};

use super::{chart, everything, helm, minimal, template};

const DEADLINE: Duration = Duration::from_secs(240);
const NAMESPACE: &str = "mendix-agent";
/// Where the managed components live: they, and what keeps the customer's apps running, stay.
const KEPT: [&str; 2] = ["mendix-operator", "mendix-monitoring"];

async fn server() -> Option<(Helm, ApiServer)> {
    let helm = helm()?;
    if std::env::var_os("KUBEBUILDER_ASSETS").is_some() {
        mendix_test_kit::skip("KUBEBUILDER_ASSETS brings no kube-controller-manager");
        return None;
    }
    let options = ApiServerOptions {
        controllers: true,
        // As behind a load balancer, as in AKS: a new definition is served five seconds after it was made, so that
        // the other servers know it too. Who does not wait for it fails.
        extra_flags: vec!["--apiserver-count=2".into()],
        ..ApiServerOptions::default()
    };
    Some((helm, ApiServer::start(options).await.unwrap()))
}

async fn make_namespace(client: &Client) {
    let body =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    Api::<Namespace>::all(client.clone())
        .patch(NAMESPACE, &PatchParams::apply("test"), &Patch::Apply(body))
        .await
        .unwrap();
}

/// `helm VERB mendix-agent [CHART]` with the values.
fn run(helm: &Helm, server: &ApiServer, verb: &str, chart: Option<(&Path, &Value)>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = vec![verb.to_owned(), "mendix-agent".into()];
    arguments.extend(["--namespace".into(), NAMESPACE.into()]);
    if let Some((chart, values)) = chart {
        let file = folder.path().join("values.json");
        std::fs::write(&file, values.to_string()).unwrap();
        arguments.insert(2, chart.to_str().unwrap().into());
        arguments.extend(["--values".into(), file.to_str().unwrap().into()]);
    }
    helm.run(Some(server.kubeconfig_path()), arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// What is said of a first installation, under this name, that can't be.
fn refused(helm: &Helm, server: &ApiServer, name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.json");
    std::fs::write(&file, minimal().to_string()).unwrap();
    let (chart, values) = (chart(), file.to_str().unwrap());
    let chart = chart.to_str().unwrap();
    let arguments = ["install", name, chart, "--namespace", NAMESPACE, "--values", values];
    helm.run(Some(server.kubeconfig_path()), arguments).unwrap_err().to_string()
}

fn policies(client: &Client) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("agent.mendix.com", "v1alpha1", "LogSharingPolicy");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "logsharingpolicies");
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

async fn mode(client: &Client) -> Value {
    policies(client).get("default").await.unwrap().data["spec"]["mode"].clone()
}

/// The chart as an earlier release could have been: PatchBundles show one column less.
fn earlier_chart(folder: &Path) -> std::path::PathBuf {
    let to = folder.join("mendix-agent");
    for entry in ["", "crds", "files", "templates"] {
        std::fs::create_dir_all(to.join(entry)).unwrap();
        for file in std::fs::read_dir(chart().join(entry)).unwrap() {
            let file = file.unwrap();
            if std::fs::metadata(file.path()).unwrap().is_file() {
                std::fs::copy(file.path(), to.join(entry).join(file.file_name())).unwrap();
            }
        }
    }
    let crds = to.join("files/00-crds.yaml");
    let text = std::fs::read_to_string(&crds).unwrap();
    let mut all = crate::files::objects(&text);
    let columns = all[0]["spec"]["versions"][0]["additionalPrinterColumns"].as_array_mut().unwrap();
    columns.pop().unwrap();
    let texts: Vec<_> = all.iter().map(|crd| serde_saphyr::to_string(crd).unwrap()).collect();
    std::fs::write(&crds, texts.join("---\n")).unwrap();
    to
}

async fn columns(client: &Client) -> usize {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crds.get("agentstatuses.agent.mendix.com").await.unwrap();
    crd.spec.versions[0].additional_printer_columns.as_ref().unwrap().len()
}

#[tokio::test]
async fn helm_installs_upgrades_and_removes_the_agent_and_leaves_the_customers_word_alone() {
    let Some((helm, server)) = server().await else { return };
    let client = server.client().await.unwrap();
    let before = eventually(DEADLINE, "the controllers have made what they make", async || {
        let now = inventory(&client).await?;
        unsettled(&now).is_none().then_some(now)
    })
    .await
    .unwrap();
    make_namespace(&client).await;

    // An earlier release, installed with the least that must be given.
    let folder = tempfile::tempdir().unwrap();
    let earlier = earlier_chart(folder.path());
    let notes = run(&helm, &server, "install", Some((&earlier, &minimal())));
    assert!(notes.contains("It dials https://10.20.0.4:8443; nothing dials in."), "{notes}");
    assert!(notes.contains("pod-security.kubernetes.io/enforce=restricted"), "{notes}");
    assert!(notes.contains("Outgoing connections are not limited"), "{notes}");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    assert_eq!(deployments.get(NAMESPACE).await.unwrap().spec.replicas, Some(2));
    assert_eq!(mode(&client).await, "WithConsent");
    let old_columns = columns(&client).await;

    // The customer forbids log sharing. An upgrade, with every value given and another mode among
    // them, brings new definitions and does not touch that word.
    let word = json!({ "spec": { "mode": "Deny" } });
    policies(&client).patch("default", &PatchParams::default(), &Patch::Merge(word)).await.unwrap();
    monitoring_definitions(&client).await;
    let mut values = everything();
    values["namespace"]["create"] = json!(false);
    values["logSharingPolicy"]["mode"] = json!("WithConsent");
    values["preflight"]["onInstall"] = json!(false);
    values["uninstall"]["keepReceipts"] = json!(false);
    // A release has moved agent and guard: the image is its own from then on.
    let moved = |name: &str| format!("localhost/{name}@sha256:{}", "5".repeat(64));
    for (name, container) in [(NAMESPACE, "agent"), ("mendix-agent-guard", "guard")] {
        let template = json!({
            "metadata": { "annotations": { "agent.mendix.com/trial": "r1-t1" } },
            "spec": { "containers": [{ "name": container, "image": moved(name) }] },
        });
        let patch = json!({ "spec": { "template": template } });
        deployments.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }
    run(&helm, &server, "upgrade", Some((&chart(), &values)));
    for name in [NAMESPACE, "mendix-agent-guard"] {
        let pods = deployments.get(name).await.unwrap().spec.template.spec.unwrap();
        assert_eq!(pods.containers[0].image, Some(moved(name)), "{name}");
    }
    assert_eq!(columns(&client).await, old_columns + 1);
    assert_eq!(mode(&client).await, "Deny");
    assert_eq!(deployments.get(NAMESPACE).await.unwrap().spec.replicas, Some(3));
    every_object_is_taken(&helm, &client).await;
    // Deleting the policy means Deny: an upgrade does not bring it back.
    policies(&client).delete("default", &Default::default()).await.unwrap();
    run(&helm, &server, "upgrade", Some((&chart(), &values)));
    assert!(policies(&client).get_opt("default").await.unwrap().is_none());

    // Nothing is left but the namespaces of the components, with what each namespace has.
    run(&helm, &server, "uninstall", None);
    Api::<Namespace>::all(client.clone()).delete(NAMESPACE, &Default::default()).await.unwrap();
    remove_monitoring_definitions(&client).await;
    let kept: BTreeSet<String> = KEPT.iter().map(|name| format!("Namespace /{name}")).collect();
    let last = RefCell::new(BTreeSet::new());
    let restored = eventually(DEADLINE, "the cluster is as it was", async || {
        let now = inventory(&client).await?;
        let gone: Vec<_> = before.difference(&now).collect();
        assert!(gone.is_empty(), "removed although it is not the agent's: {gone:?}");
        let new: BTreeSet<String> =
            now.difference(&before).filter(|entry| !made_by_controllers(entry)).cloned().collect();
        let done = new == kept;
        last.replace(new);
        done.then_some(())
    });
    let restored = restored.await;
    assert!(restored.is_ok(), "left are {:?} instead of {kept:?}", last.take());
}

#[tokio::test]
async fn receipts_outlive_the_release_when_they_are_to_be_kept() {
    let Some((helm, server)) = server().await else { return };
    let client = server.client().await.unwrap();
    make_namespace(&client).await;
    // Definitions that kubectl brought stay theirs who brought them.
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let text = std::fs::read_to_string(chart().join("files/00-crds.yaml")).unwrap();
    let policies_of = "logsharingpolicies.agent.mendix.com";
    let plain = crate::files::objects(&text)
        .into_iter()
        .find(|crd| crd["metadata"]["name"] == policies_of)
        .unwrap();
    crds.patch(policies_of, &PatchParams::apply("kubectl"), &Patch::Apply(plain)).await.unwrap();
    let words = refused(&helm, &server, "mendix-agent");
    assert!(words.contains("no release of Helm's brought them"), "{words}");
    crds.delete(policies_of, &Default::default()).await.unwrap();
    eventually(DEADLINE, "the definition is gone", async || {
        crds.get_opt(policies_of).await.unwrap().is_none().then_some(())
    })
    .await
    .unwrap();
    // Another name is refused, and is in nobody's way afterwards.
    let words = refused(&helm, &server, "another");
    assert!(words.contains("belong to Helm's release mendix-agent: call this one"), "{words}");
    let mut values = minimal();
    values["uninstall"] = json!({ "keepReceipts": true });
    run(&helm, &server, "install", Some((&chart(), &values)));
    let word = json!({ "spec": { "suspend": true } });
    policies(&client).patch("default", &PatchParams::default(), &Patch::Merge(word)).await.unwrap();
    let gvk = GroupVersionKind::gvk("agent.mendix.com", "v1alpha1", "LogSnapshot");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "logsnapshots");
    let receipts: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let receipt = receipt();
    receipts.patch("kept", &PatchParams::apply("test"), &Patch::Apply(&receipt)).await.unwrap();

    run(&helm, &server, "uninstall", None);
    assert_eq!(receipts.get("kept").await.unwrap().data["spec"], receipt["spec"]);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    assert!(deployments.get_opt(NAMESPACE).await.unwrap().is_none());

    // Installed again, it finds the customer's word and leaves it.
    run(&helm, &server, "install", Some((&chart(), &values)));
    let found = policies(&client).get("default").await.unwrap();
    assert_eq!(found.data["spec"]["suspend"], true);
    assert_eq!(receipts.get("kept").await.unwrap().data["spec"], receipt["spec"]);
}

/// Server-side dry run of all that the chart can render, also of what the release leaves out.
async fn every_object_is_taken(helm: &Helm, client: &Client) {
    let text = template(helm, &everything(), &["--kube-version", "1.20.2"]).unwrap();
    let params = PatchParams { dry_run: true, ..PatchParams::apply("test").force() };
    let mut taken = 0;
    for object in crate::files::objects(&text) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let gvk = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
        let (resource, capabilities) = discovery::pinned_kind(client, &gvk).await.unwrap();
        let api: Api<DynamicObject> = match capabilities.scope {
            discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
            discovery::Scope::Namespaced => {
                Api::namespaced_with(client.clone(), &object.namespace().unwrap(), &resource)
            }
        };
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| panic!("{} {}: {error}", gvk.kind, object.name_any()));
        taken += 1;
    }
    assert!(taken > 25, "only {taken} objects were rendered");
}

/// A receipt as the agent would leave it.
fn receipt() -> Value {
    let instant = "2026-01-01T00:00:00Z";
    json!({
        "apiVersion": "agent.mendix.com/v1alpha1",
        "kind": "LogSnapshot",
        "metadata": { "name": "kept" },
        "spec": {
            "ticketId": "T-1", "requestId": "r-1", "grantId": "g-1", "grantSha256": "00",
            "consentedBy": "a person", "components": ["mendix-operator"], "dataClasses": [],
            "windowFrom": instant, "windowTo": instant, "redactionPolicy": 1,
            "recipientPublicKey": "AA==",
        },
    })
}

const MONITORING: [(&str, &str); 3] = [
    ("PodMonitor", "podmonitors"),
    ("ServiceMonitor", "servicemonitors"),
    ("PrometheusRule", "prometheusrules"),
];

/// The kinds of the Prometheus Operator, as far as an API server must know them.
async fn monitoring_definitions(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (kind, plural) in MONITORING {
        let name = format!("{plural}.monitoring.coreos.com");
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": name },
            "spec": {
                "group": "monitoring.coreos.com",
                "names": { "kind": kind, "plural": plural },
                "scope": "Namespaced",
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    } },
                }],
            },
        });
        crds.patch(&name, &PatchParams::apply("test"), &Patch::Apply(definition)).await.unwrap();
    }
    let gvk = GroupVersionKind::gvk("monitoring.coreos.com", "v1", "ServiceMonitor");
    eventually(DEADLINE, "the API server serves ServiceMonitor", async || {
        kube::discovery::pinned_kind(client, &gvk).await.ok()
    })
    .await
    .unwrap();
}

async fn remove_monitoring_definitions(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (_, plural) in MONITORING {
        let name = format!("{plural}.monitoring.coreos.com");
        crds.delete(&name, &Default::default()).await.unwrap();
    }
}
