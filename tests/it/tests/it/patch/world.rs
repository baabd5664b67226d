//! A cluster of its own for each test, as far as the patch path can tell: an agent's namespace and a
//! component's namespace on the shared API server, a release repository in memory, and a stand-in for
//! the Deployment controller that reports pods ready, or failed for images called `bad`, for ever on
//! their way for images called `hanging`, or ready and not, again and again, for those called `flapping`.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::{
    api::{apps::v1::Deployment, batch::v1::Job, core::v1::Pod, events::v1::Event},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, wait, watcher},
};
use mendix_agent::{
    audit::Audit,
    channel::Reports,
    cluster::Cluster,
    crd::{managed_component::ManagedComponent, patch_bundle::PatchBundle},
    occasion::Occasion,
    patch::{
        driver::{Driver, Identity},
        report::Reporter,
        supply::{Supply, SupplyError},
        take,
    },
    upgrade::Own,
};
use mendix_agent_core::bundle::{
    Authentic,
    admission::{HighWater, Marks},
    blob,
    index::{ComponentEntry, Gates, ReleaseClass, ReleaseIndex, Scope},
    object::Object,
};
use mendix_test_kit::apiserver::ApiServer;
use serde_json::{Value, json};
use tokio::{
    sync::{OnceCell, watch},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{events::told, manifests};

pub(super) const LONG: Duration = Duration::from_secs(240);
pub(super) const COMPONENT: &str = "operator";

/// Installs the agent's CRDs once.
static DEFINITIONS: OnceCell<()> = OnceCell::const_new();

pub(super) struct World {
    pub(super) client: Client,
    pub(super) cluster: Cluster,
    /// Namespace of the component.
    pub(super) target: String,
    pub(super) supply: Shelf,
    pub(super) reports: Reports,
    controller: AbortHandle,
}

impl Drop for World {
    fn drop(&mut self) {
        self.controller.abort();
    }
}

/// A driver with this access to the cluster, of a process that reports there and knows this of its own
/// upgrade.
pub(super) fn driver(cluster: Cluster, reports: &Reports, own: Option<Own>) -> Driver {
    let audit = Audit::new(&cluster, watch::channel(None).0);
    let reporter = Reporter::new(cluster.clone(), reports.clone(), audit);
    let identity = Identity { agent_version: "1.0.0".into(), ring: Arc::new(String::new), own };
    Driver::new(cluster, reporter, identity)
}

/// A release repository in memory.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    targets: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    accepted: Arc<Mutex<Option<HighWater>>>,
}

impl Shelf {
    /// Takes over what the control plane published, by its folder of targets; gives the index `wanted`.
    pub(super) fn stock(&self, targets: &Path, wanted: &str) -> Authentic {
        let mut shelf = self.targets.lock().unwrap();
        for file in std::fs::read_dir(targets).unwrap() {
            let path = file.unwrap().path();
            // `<sha256>.<target>`
            let name = path.file_name().unwrap().to_str().unwrap();
            let (_, target) = name.split_once('.').unwrap();
            shelf.insert(target.to_owned(), std::fs::read(&path).unwrap());
        }
        vouched(wanted, shelf[wanted].clone())
    }

    /// Writes everything into a folder, for a process of its own.
    pub(super) fn write(&self, folder: &Path) {
        for (name, bytes) in &*self.targets.lock().unwrap() {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        self.write_mark(folder);
    }

    /// What another process wrote, and the index `wanted`.
    pub(super) fn read(folder: &Path, wanted: &str) -> (Self, Authentic) {
        let shelf = Self::default();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            shelf.targets.lock().unwrap().insert(name, std::fs::read(&path).unwrap());
        }
        shelf.read_mark(folder);
        let index = shelf.targets.lock().unwrap()[wanted].clone();
        (shelf, vouched(wanted, index))
    }

    /// Writes the high-water mark.
    pub(super) fn write_mark(&self, folder: &Path) {
        if let Some(mark) = *self.accepted.lock().unwrap() {
            let text = format!("{} {}", mark.sequence, hex::encode(mark.index_sha256));
            std::fs::write(folder.join(MARK), text).unwrap();
        }
    }

    /// Reads the high-water mark.
    pub(super) fn read_mark(&self, folder: &Path) {
        let Ok(text) = std::fs::read_to_string(folder.join(MARK)) else { return };
        let (sequence, digest) = text.split_once(' ').unwrap();
        let mut index_sha256 = [0; 32];
        hex::decode_to_slice(digest, &mut index_sha256).unwrap();
        let mark = HighWater { sequence: sequence.parse().unwrap(), index_sha256 };
        *self.accepted.lock().unwrap() = Some(mark);
    }
}

/// File of the high-water mark in a written shelf.
const MARK: &str = "high-water";

#[async_trait]
impl Supply for Shelf {
    async fn fetch(&self, target: &str) -> Result<Authentic, SupplyError> {
        let bytes = self.targets.lock().unwrap().get(target).cloned();
        bytes.map(|bytes| vouched(target, bytes)).ok_or_else(|| SupplyError {
            is_transient: false,
            message: format!("no target {target}"),
        })
    }

    async fn marks(&self) -> Result<Marks, SupplyError> {
        Ok(Marks { high_water: *self.accepted.lock().unwrap(), floor: 0 })
    }

    async fn accept(&self, release: HighWater) -> Result<(), SupplyError> {
        *self.accepted.lock().unwrap() = Some(release);
        Ok(())
    }
}

fn vouched(target: &str, bytes: Vec<u8>) -> Authentic {
    let digest = mendix_agent::patch::contents::sha256_hex(&bytes);
    let mut sha256 = [0; 32];
    hex::decode_to_slice(digest, &mut sha256).unwrap();
    #[expect(clippy::disallowed_methods, reason = "this test plays the release root")]
    Authentic::vouched_by_release_root(target.to_owned(), sha256, bytes)
}

impl World {
    pub(super) async fn new() -> Self {
        let server = ApiServer::shared().await.unwrap();
        let client = server.client().await.unwrap();
        DEFINITIONS.get_or_init(|| install_definitions(client.clone())).await;
        let agent = server.namespace("agent").await.unwrap();
        let target = server.namespace("target").await.unwrap();
        let controller = tokio::spawn(play_controller(client.clone(), target.clone()));
        Self {
            cluster: Cluster::connect(client.clone(), agent).await.unwrap(),
            client,
            target,
            supply: Shelf::default(),
            reports: Reports::default(),
            controller: controller.abort_handle(),
        }
    }

    /// On a server of its own, with the agent's own rights as they are installed; the component's namespace
    /// is that of the Operator.
    pub(super) async fn installed(server: &ApiServer) -> Self {
        let client = server.client().await.unwrap();
        let files = ["10-namespaces.yaml", "00-crds.yaml", "20-rbac.yaml"];
        manifests::apply(&client, &files).await;
        let agent = server.client_for("mendix-agent", "mendix-agent").await.unwrap();
        let target = "mendix-operator".to_owned();
        let controller = tokio::spawn(play_controller(client.clone(), target.clone()));
        Self {
            cluster: Cluster::connect(agent, "mendix-agent".into()).await.unwrap(),
            client,
            target,
            supply: Shelf::default(),
            reports: Reports::default(),
            controller: controller.abort_handle(),
        }
    }

    /// A driver as a freshly started process has it.
    pub(super) fn driver(&self) -> Driver {
        self.driver_on(self.cluster.clone())
    }

    /// A driver with a client of its own.
    pub(super) fn driver_on(&self, cluster: Cluster) -> Driver {
        self.driver_of(cluster, None)
    }

    /// A driver of a process that knows this of its own upgrade.
    pub(super) fn driver_of(&self, cluster: Cluster, own: Option<Own>) -> Driver {
        driver(cluster, &self.reports, own)
    }

    /// Puts a release into the repository.
    pub(super) fn publish(&self, sequence: u64, objects: &[Value]) -> Authentic {
        self.publish_with(sequence, objects, |_| {})
    }

    pub(super) fn publish_with(
        &self,
        sequence: u64,
        objects: &[Value],
        change: impl FnOnce(&mut ReleaseIndex),
    ) -> Authentic {
        let mut index = ReleaseIndex {
            schema: 1,
            release_id: format!("r{sequence}"),
            sequence,
            class: ReleaseClass::Critical,
            not_before: None,
            apply_by: None,
            audience: vec![],
            agent_versions: Default::default(),
            kubernetes_versions: Default::default(),
            from: vec![],
            blocked_from: vec![],
            components: vec![self.entry(COMPONENT, 1, &self.target, sequence, objects)],
            deletes: vec![],
            narrows: vec![],
        };
        change(&mut index);
        let target = ReleaseIndex::target_name(&index.release_id);
        let mut targets = self.supply.targets.lock().unwrap();
        targets.insert(target.clone(), index.canonical_bytes());
        vouched(&target, index.canonical_bytes())
    }

    /// A component of a release, its objects put into the repository.
    pub(super) fn entry(
        &self,
        name: &str,
        phase: u32,
        namespace: &str,
        sequence: u64,
        objects: &[Value],
    ) -> ComponentEntry {
        let objects: Vec<Object> =
            objects.iter().map(|body| Object::from_body(body).unwrap()).collect();
        let blob = blob::encode(&objects).unwrap();
        let mut kinds: Vec<String> = objects.iter().map(|object| object.id.group_kind()).collect();
        kinds.sort();
        kinds.dedup();
        let mut images: Vec<String> =
            objects.iter().flat_map(|o| images(&o.body.value())).collect();
        images.sort();
        images.dedup();
        let mut targets = self.supply.targets.lock().unwrap();
        targets.insert(blob.reference.target.clone(), blob.bytes);
        ComponentEntry {
            name: name.into(),
            version: format!("1.{sequence}"),
            phase,
            blob: blob.reference,
            images,
            scope: Scope { namespaces: vec![namespace.into()], kinds },
            gates: Gates { timeout_seconds: 180, soak_seconds: 0 },
            adopt: false,
            goes_back: false,
            exceptions: vec![],
        }
    }

    /// Carries a release to its end.
    pub(super) async fn take(&self, index: Authentic) -> PatchBundle {
        let token = CancellationToken::new();
        let driver = self.driver();
        let work = take(&driver, index, &self.supply, &token, &token);
        match tokio::time::timeout(LONG, work).await {
            Ok(ended) => ended.expect("the run is driven"),
            Err(_) => panic!("the run does not end: {:?}", self.reports.subscribe().borrow()),
        }
    }

    pub(super) async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let path = match kind {
            "Deployment" => "apis/apps/v1/namespaces/NS/deployments",
            "ConfigMap" => "api/v1/namespaces/NS/configmaps",
            "Secret" => "api/v1/namespaces/NS/secrets",
            "Job" => "apis/batch/v1/namespaces/NS/jobs",
            "Role" => "apis/rbac.authorization.k8s.io/v1/namespaces/NS/roles",
            "RoleBinding" => "apis/rbac.authorization.k8s.io/v1/namespaces/NS/rolebindings",
            "PersistentVolumeClaim" => "api/v1/namespaces/NS/persistentvolumeclaims",
            other => panic!("kind {other}"),
        };
        let path = format!("/{}/{name}", path.replace("NS", &self.target));
        let request = http::Request::get(path).body(vec![]).unwrap();
        match self.client.request::<Value>(request).await {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{kind} {name}: {error}"),
        }
    }

    /// What a rollback has to bring back: everything of the component's objects but the server's
    /// bookkeeping.
    pub(super) async fn contents(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for (kind, path) in [
            ("Deployment", "apis/apps/v1/namespaces/NS/deployments"),
            ("ConfigMap", "api/v1/namespaces/NS/configmaps"),
            ("Secret", "api/v1/namespaces/NS/secrets"),
            ("Role", "apis/rbac.authorization.k8s.io/v1/namespaces/NS/roles"),
            ("RoleBinding", "apis/rbac.authorization.k8s.io/v1/namespaces/NS/rolebindings"),
            ("PersistentVolumeClaim", "api/v1/namespaces/NS/persistentvolumeclaims"),
        ] {
            let path = format!("/{}", path.replace("NS", &self.target));
            let list: Value =
                self.client.request(http::Request::get(path).body(vec![]).unwrap()).await.unwrap();
            for item in list["items"].as_array().unwrap() {
                let name = item["metadata"]["name"].as_str().unwrap().to_owned();
                all.insert(format!("{kind}/{name}"), comparable(item));
            }
        }
        all
    }

    /// Waits for an Event of this world's agent.
    pub(super) async fn told(&self, occasion: Occasion) -> Event {
        told(&self.client, &self.cluster.namespace, occasion).await
    }

    pub(super) async fn component(&self) -> Option<ManagedComponent> {
        let api: Api<ManagedComponent> = self.cluster.own();
        api.get_opt(COMPONENT).await.unwrap()
    }

    /// A pod of ReplicaSet `operator-1` with one container in this state.
    pub(super) async fn pod(&self, name: &str, container_state: Value) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.target);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "operator"}, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "operator-1", "uid": "1",
                 "controller": true}]},
            "spec": {"containers": [{"name": "operator", "image": image_ref("hanging")}]}});
        let params = PatchParams::apply("stand-in");
        pods.patch(name, &params, &Patch::Apply(&pod)).await.unwrap();
        let status = json!({"status": {"phase": "Pending", "containerStatuses": [{
            "name": "operator", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": container_state}]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// The scheduler finds no node for a pod, or finds one after all.
    pub(super) async fn scheduled(&self, name: &str, no_node: Option<&str>) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.target);
        let condition = match no_node {
            Some(why) => json!({"type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": why}),
            None => json!({"type": "PodScheduled", "status": "True"}),
        };
        let status = json!({"status": {"conditions": [condition], "containerStatuses": []}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// The Job controller says that a Job is done.
    pub(super) async fn finish_job(&self, name: &str) {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &self.target);
        let status = json!({"status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}});
        let done = jobs.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await;
        done.unwrap_or_else(|error| panic!("finish Job {name}: {error}"));
    }

    /// Somebody else changes an object.
    pub(super) async fn meddle(&self, kind: &str, name: &str, patch: Value) {
        let (api_version, plural) = match kind {
            "Deployment" => ("apis/apps/v1", "deployments"),
            "ConfigMap" => ("api/v1", "configmaps"),
            other => panic!("kind {other}"),
        };
        let target = &self.target;
        let path =
            format!("/{api_version}/namespaces/{target}/{plural}/{name}?fieldManager=kubectl-edit");
        let request = http::Request::patch(path)
            .header("content-type", "application/strategic-merge-patch+json")
            .body(serde_json::to_vec(&patch).unwrap())
            .unwrap();
        self.client.request::<Value>(request).await.unwrap();
    }
}

pub(super) fn state(bundle: &PatchBundle) -> &str {
    bundle.status.as_ref().map(|status| status.state.as_str()).unwrap_or_default()
}

pub(super) fn message(bundle: &PatchBundle) -> &str {
    bundle.status.as_ref().and_then(|status| status.message.as_deref()).unwrap_or_default()
}

pub(super) fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove("status");
    let metadata = object["metadata"].as_object_mut().unwrap();
    for key in ["resourceVersion", "generation", "managedFields", "selfLink"] {
        metadata.remove(key);
    }
    object
}

fn images(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("image", Value::String(image)) => vec![image.clone()],
                _ => images(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(images).collect(),
        _ => vec![],
    }
}

async fn install_definitions(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    for crd in mendix_agent::crd::all() {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("install").force(), &Patch::Apply(&crd))
            .await
            .unwrap();
        let established = wait::conditions::is_crd_established();
        let established = wait::await_condition(api.clone(), &name, established);
        tokio::time::timeout(LONG, established).await.unwrap().unwrap();
    }
}

/// Says of every Deployment that its pods are ready, that they will not get there, or nothing more
/// than that they are not there yet.
async fn play_controller(client: Client, namespace: String) {
    let api: Api<Deployment> = Api::namespaced(client, &namespace);
    let mut changes = watcher::watcher(api.clone(), watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    while let Some(change) = changes.next().await {
        let Ok(deployment) = change else { continue };
        let generation = deployment.metadata.generation;
        let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
        if seen == generation {
            continue;
        }
        let value = serde_json::to_value(&deployment).unwrap();
        let runs = |name: &str| {
            images(&value["spec"]["template"]).iter().any(|image| image.contains(name))
        };
        let wanted = deployment.spec.replicas.unwrap_or(1);
        if runs("flapping") {
            flap(&api, &deployment).await;
        }
        let status = if runs("hanging") {
            // The pod of before is kept as long as the updated one is not ready.
            json!({"observedGeneration": generation, "replicas": wanted + 1, "updatedReplicas": 1,
                   "availableReplicas": wanted, "readyReplicas": wanted})
        } else if runs("bad") {
            json!({"observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted,
                   "availableReplicas": 0, "readyReplicas": 0, "conditions": [
                {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
                 "message": "has timed out progressing"}]})
        } else {
            json!({"observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted,
                   "availableReplicas": wanted, "readyReplicas": wanted, "conditions": [
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": ""},
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": ""}]})
        };
        let name = deployment.metadata.name.unwrap_or_default();
        let patch = Patch::Merge(json!({"status": status}));
        let _gone_meanwhile = api.patch_status(&name, &PatchParams::default(), &patch).await;
    }
}

/// Ready for one look of a gate, then not for some, until the Deployment is changed. Not in a beat: one
/// that looks in the same would see it ready each time.
async fn flap(api: &Api<Deployment>, deployment: &Deployment) {
    let name = deployment.name_any();
    let generation = deployment.metadata.generation;
    for (ready, seconds) in [(1, 1), (0, 3), (1, 1), (0, 4), (1, 1), (0, 5)].into_iter().cycle() {
        let status = json!({"status": {"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1,
            "availableReplicas": ready, "readyReplicas": ready, "conditions": [
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": ""},
                {"type": "Available", "status": if ready == 1 { "True" } else { "False" }, "reason": "", "message": ""}]}});
        let told = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await;
        if told.is_ok_and(|now| now.metadata.generation != generation) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Objects of a component as a release names them.
pub(super) struct Parts<'a>(pub(super) &'a World);

impl Parts<'_> {
    fn meta(&self, name: &str) -> Value {
        json!({"name": name, "namespace": self.0.target})
    }

    pub(super) fn config(&self, name: &str, data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": self.meta(name), "data": data})
    }

    pub(super) fn claim(&self, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": self.meta(name), "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
    }

    pub(super) fn role(&self) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": self.meta("operator"),
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]})
    }

    pub(super) fn job(&self, name: &str) -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": self.meta(name), "spec": {"template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "job", "image": image_ref("job")}]}}}})
    }

    pub(super) fn binding(&self, role: &str) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": self.meta("operator"),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": self.0.target}]})
    }

    pub(super) fn deployment(&self, image: &str, replicas: Option<u32>) -> Value {
        let mut deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "operator", "namespace": self.0.target, "labels": {"app": "operator"}},
            "spec": {"selector": {"matchLabels": {"app": "operator"}}, "template": {
                "metadata": {"labels": {"app": "operator"}},
                "spec": {"containers": [{
                    "name": "operator", "image": image_ref(image),
                    "env": [{"name": "MODE", "value": "prod"}],
                    "resources": {"requests": {"cpu": "1000m"}}}]}}}});
        if let Some(replicas) = replicas {
            deployment["spec"]["replicas"] = replicas.into();
        }
        deployment
    }
}

/// An image by digest.
pub(super) fn image_ref(name: &str) -> String {
    format!("registry.example/{name}@sha256:{}", "ab".repeat(32))
}

/// Waits until `look` says yes.
pub(super) async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !look().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(mendix_test_kit::wait::POLL).await;
    }
}
