//! Real software as input: an ingress controller, a monitoring stack and a certificate controller, as
//! their charts render (`tests/it/charts`), published by the control plane, applied with the agent's own
//! rights, brought to a second version, to a bad third one and back, and compared object by object.
//!
//! The server has no controllers: [`Platform`] stands in for those of Kubernetes, the cloud and the
//! components themselves. All rights are those of `packaging/manifests/20-rbac.yaml`.

mod changes;
mod platform;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use mendix_agent::{
    channel::Reports,
    cluster::Cluster,
    crd::{managed_component::ManagedComponent, patch_bundle::PatchBundle},
    patch::{drift::Drift, take},
};
use mendix_agent_core::bundle::{kind, object::Object, version::Version};
use mendix_control_plane::{
    Store, init,
    manifests::{self, ReleaseSpec},
    pki::ServerNames,
    repository::{self, Expiry},
};
use mendix_test_kit::apiserver::{ApiServer, ApiServerOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::world::{LONG, Shelf, comparable, driver, message, state};
use crate::manifests as installed;
use platform::Platform;

/// Chart, component and the namespace it is rendered into, in the order in which they are applied.
const CHARTS: [(&str, &str); 3] = [
    ("certificates", "mendix-certificates"),
    ("monitoring", "mendix-monitoring"),
    ("ingress", "mendix-ingress"),
];
const NAMESPACES: [&str; 2] = ["mendix-operator", "mendix-monitoring"];

/// The rendered manifests of a release, by chart.
type Rendered = BTreeMap<&'static str, Vec<Value>>;

struct Site {
    admin: Client,
    cluster: Cluster,
    kubernetes: Version,
    reports: Reports,
    store: Store,
    folder: tempfile::TempDir,
    supply: Shelf,
    _platform: Platform,
    _server: ApiServer,
}

impl Site {
    async fn new() -> Self {
        let server = ApiServer::start(ApiServerOptions::default()).await.unwrap();
        let admin = server.client().await.unwrap();
        let files = ["10-namespaces.yaml", "00-crds.yaml", "20-rbac.yaml"];
        installed::apply(&admin, &files).await;
        // Nothing serves the webhooks here. Their charts have this way out for namespaces.
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(admin.clone());
        let unvalidated =
            json!({"metadata": {"labels": {"cert-manager.io/disable-validation": "true"}}});
        for name in NAMESPACES {
            let patch = Patch::Merge(&unvalidated);
            namespaces.patch(name, &PatchParams::default(), &patch).await.unwrap();
        }
        let agent = server.client_for("mendix-agent", "mendix-agent").await.unwrap();
        let cluster = Cluster::connect(agent, "mendix-agent".into()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let names = ServerNames { dns: vec!["localhost".into()], ips: vec![] };
        let store = init(&folder.path().join("plane"), &names, Expiry::default()).await.unwrap();
        Self {
            kubernetes: cluster.server_version.parse().unwrap(),
            reports: Reports::default(),
            supply: Shelf::default(),
            _platform: Platform::start(admin.clone()),
            _server: server,
            admin,
            cluster,
            store,
            folder,
        }
    }

    /// As the charts render for this server: they choose versions of kinds by what is served.
    fn rendered(&self) -> Rendered {
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts");
        let old = self.kubernetes < "1.21".parse().unwrap();
        let read = |chart: &str| -> Vec<Value> {
            let mut files: Vec<PathBuf> = fs::read_dir(charts.join(chart))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            let mut documents = vec![];
            for file in files {
                let text = fs::read_to_string(&file).unwrap();
                let found: Vec<Value> = serde_saphyr::from_multiple(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                documents.extend(found.into_iter().filter(|document| !document.is_null()));
            }
            for document in &mut documents {
                if old
                    && (document["kind"] == "CronJob" || document["kind"] == "PodDisruptionBudget")
                {
                    let group = if document["kind"] == "CronJob" { "batch" } else { "policy" };
                    document["apiVersion"] = json!(format!("{group}/v1beta1"));
                }
            }
            documents
        };
        CHARTS.iter().map(|(chart, _)| (*chart, read(chart))).collect()
    }

    /// Publishes a release by a release file, as `release publish --file` does, and takes it to its end.
    async fn release(&self, id: &str, rendered: &Rendered) -> PatchBundle {
        let folder = self.folder.path().join(id);
        let mut components = String::new();
        for (place, (chart, component)) in CHARTS.iter().enumerate() {
            let manifests = folder.join(chart);
            fs::create_dir_all(&manifests).unwrap();
            let documents: Vec<String> = rendered[chart].iter().map(Value::to_string).collect();
            fs::write(manifests.join("rendered.yaml"), documents.join("\n---\n")).unwrap();
            components.push_str(&format!(
                "- {{name: {component}, version: {id}, manifests: {chart}, phase: {}}}\n",
                place + 1
            ));
        }
        let file = folder.join("release.yaml");
        let text = format!(
            "releaseId: {id}\nclass: critical\ngates: {{timeoutSeconds: 300, soakSeconds: 0}}\ncomponents:\n{components}"
        );
        fs::write(&file, text).unwrap();
        let draft = manifests::draft(&ReleaseSpec::from_file(&file).unwrap())
            .unwrap_or_else(|problems| panic!("{problems}"));
        let release =
            repository::publish(&self.store, draft, None, Expiry::default()).await.unwrap();
        let targets = self.store.repository_dir().join("targets");
        let index = self.supply.stock(&targets, &release.index_target);
        let driver = driver(self.cluster.clone(), &self.reports, None);
        let token = CancellationToken::new();
        let work = take(&driver, index, &self.supply, &token, &token);
        match tokio::time::timeout(3 * LONG, work).await {
            Ok(ended) => ended.expect("the run is driven"),
            Err(_) => panic!("{id} does not end: {:?}", self.reports.subscribe().borrow()),
        }
    }

    /// Every object of the components' kinds, in their namespaces or, if it has none, by their names.
    async fn live(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for (kind, group_version, plural) in platform::KINDS {
            let (group, version) = platform::served(kind, group_version, &self.kubernetes);
            let prefix = if group.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{group}/{version}")
            };
            let sample = platform::sample(group, version, kind);
            // Custom kinds here all have namespaces.
            let namespaced = kind::is_namespaced(&sample).unwrap_or(true);
            let places: Vec<String> = match namespaced {
                true => NAMESPACES
                    .iter()
                    .map(|n| format!("/{prefix}/namespaces/{n}/{plural}"))
                    .collect(),
                false => vec![format!("/{prefix}/{plural}")],
            };
            for path in places {
                let request = http::Request::get(&path).body(vec![]).unwrap();
                let list: Value = match self.admin.request(request).await {
                    Ok(list) => list,
                    // The definition of the kind is not there (yet).
                    Err(kube::Error::Api(status)) if status.code == 404 => continue,
                    Err(error) => panic!("{path}: {error}"),
                };
                for item in list["items"].as_array().unwrap() {
                    let name = item["metadata"]["name"].as_str().unwrap();
                    // The binding of the agent's own rights.
                    if name == "mendix-agent" {
                        continue;
                    }
                    let ours = namespaced
                        || CHARTS.iter().any(|(_, component)| name.starts_with(component))
                        || name.ends_with(".monitoring.coreos.com")
                        || name.ends_with(".cert-manager.io");
                    let place = item["metadata"]["namespace"].as_str().unwrap_or_default();
                    if ours {
                        all.insert(format!("{kind} {place}/{name}"), comparable(item));
                    }
                }
            }
        }
        all
    }

    /// Asserts that exactly the objects of the release are there, each with every field it sets.
    async fn assert_is(&self, id: &str) -> BTreeMap<String, Value> {
        let live = self.live().await;
        let mut wanted = BTreeMap::new();
        for (_, objects) in repository::objects(&self.store, id).await.unwrap().into_values() {
            wanted.extend(objects.into_iter().map(|object: Object| {
                let place = object.id.namespace.clone().unwrap_or_default();
                let name = format!("{} {place}/{}", object.id.kind, object.id.name);
                let mut body = object.body.value();
                // Items of a list don't say what they are.
                for field in ["apiVersion", "kind"] {
                    body.as_object_mut().unwrap().remove(field);
                }
                (name, body)
            }));
        }
        let strays: Vec<&String> = live.keys().filter(|name| !wanted.contains_key(*name)).collect();
        let absent: Vec<&String> = wanted.keys().filter(|name| !live.contains_key(*name)).collect();
        assert!(
            strays.is_empty() && absent.is_empty(),
            "{id}: strays {strays:?}, absent {absent:?}"
        );
        for (name, body) in &wanted {
            if let Some(path) = missing(body, &live[name], String::new()) {
                panic!("after {id}: {name}: {path} is not as released: {}", live[name]);
            }
        }
        live
    }

    async fn inventory(&self) -> BTreeSet<String> {
        let components: Api<ManagedComponent> = self.cluster.own();
        let mut all = BTreeSet::new();
        for component in components.list(&Default::default()).await.unwrap() {
            for owned in component.status.unwrap().inventory {
                let place = owned.namespace.unwrap_or_default();
                all.insert(format!("{} {place}/{}", owned.kind, owned.name));
            }
        }
        all
    }
}

/// The first field that `wanted` sets and `live` has otherwise.
fn missing(wanted: &Value, live: &Value, path: String) -> Option<String> {
    let empty = [Value::Null, json!({}), json!([]), json!(0), json!(false), json!("")];
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match live.get(key) {
                Some(live) => missing(value, live, path),
                // The server leaves out what is empty.
                None if empty.contains(value) => None,
                None => Some(path),
            }
        }),
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            (0..).zip(wanted.iter().zip(live)).find_map(|(n, (wanted, live)): (u32, _)| {
                missing(wanted, live, format!("{path}[{n}]"))
            })
        }
        _ => (wanted != live).then_some(path),
    }
}

/// Objects without what differs whenever an object is made anew or by another release.
fn contents(objects: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for key in [
                    "uid",
                    "creationTimestamp",
                    "agent.mendix.com/created-by",
                    "controller-uid",
                    "batch.kubernetes.io/controller-uid",
                    // The server counts changes there, as in the generation.
                    "deprecated.daemonset.template.generation",
                ] {
                    map.remove(key);
                }
                map.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut objects = objects.clone();
    objects.values_mut().for_each(strip);
    objects
}

/// Asserts that two states are the same, object by object.
fn assert_same(what: &str, now: &BTreeMap<String, Value>, then: &BTreeMap<String, Value>) {
    let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
    for name in names {
        assert_eq!(now.get(name), then.get(name), "{what}: {name}");
    }
}

#[tokio::test]
async fn three_charts_go_forward_and_back_with_the_agents_own_rights() {
    let site = Site::new().await;
    let first = site.rendered();
    let bundle = site.release("1.0", &first).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let at_first = site.assert_is("1.0").await;
    assert!(at_first.len() > 70, "only {} objects", at_first.len());
    assert_eq!(site.inventory().await, at_first.keys().cloned().collect());

    let second = changes::second(&first);
    let bundle = site.release("2.0", &second).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let at_second = site.assert_is("2.0").await;
    assert_ne!(contents(&at_second), contents(&at_first));
    assert_eq!(site.inventory().await, at_second.keys().cloned().collect());

    // The ingress controller is the last to be applied: everything before it goes back with it.
    let bundle = site.release("3.0", &changes::bad(&second)).await;
    assert_eq!(state(&bundle), "RolledBack", "{}", message(&bundle));
    let said = message(&bundle);
    assert!(said.contains("Deployment mendix-operator/mendix-ingress"), "{said}");
    let back = site.live().await;
    assert_same("rolled back", &contents(&back), &contents(&at_second));
    for (name, object) in &back {
        // A Job can't be changed: it is made anew, all else is the very object of before.
        let same = object["metadata"]["uid"] == at_second[name]["metadata"]["uid"];
        assert!(same || name.starts_with("Job "), "{name} was replaced");
    }

    // The vendor goes back by publishing what was before under a higher sequence: nothing of the second
    // version is left, neither objects nor fields.
    let bundle = site.release("4.0", &first).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let again = site.assert_is("4.0").await;
    assert_same("gone back", &contents(&again), &contents(&at_first));

    // And nothing of it counts as drift.
    let drift = Drift::new(&driver(site.cluster.clone(), &site.reports, None));
    let recovery = drift.recover(&CancellationToken::new()).await.expect("recovered");
    assert_eq!((recovery.corrected, recovery.failures), (0, vec![]));
    assert_eq!(recovery.objects, again.len());
}
