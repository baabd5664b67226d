//! A cluster with one managed component, a control plane, and the agent's channel and log path
//! between them: everything real but the kubelet.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Namespace, Node, Pod, ServiceAccount},
    rbac::v1::{ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use mendix_agent::{
    audit::Audit,
    channel,
    cluster::Cluster,
    config::{Config, LogConfig, LogFormat, Route},
    crd::{
        log_sharing_policy::LogSharingPolicy, log_snapshot::LogSnapshot,
        managed_component::ManagedComponent, support_ticket::SupportTicket,
    },
    logs,
    metrics::{Metrics, Work},
    patch::{portal_keys, trust::Keeper},
    requests::RequestOutcomes,
    supervise::Tasks,
};
use mendix_control_plane::{
    ControlPlane, Options, Running,
    pki::ServerNames,
    portal::{GrantTerms, NewTicket, open_ticket},
    repository::Expiry,
    store::{
        ClusterRecord, DoneRequest, RequestKind, RequestRecord, TicketOrigin, TicketRecord,
        TicketSeverity,
    },
};
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    proxy::FaultProxy,
    wait::eventually,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::{OnceCell, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{kubelet::Kubelet, secrecy};
use crate::manifests;

/// Longest wait for anything here; what takes it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// The managed component.
pub(crate) const COMPONENT: &str = "noisy";
/// The agent's service account, in its namespace.
const ACCOUNT: &str = "mendix-agent";

pub(crate) struct World {
    pub(crate) admin: Client,
    pub(crate) server: &'static ApiServer,
    pub(crate) agent_namespace: String,
    pub(crate) namespace: String,
    pub(crate) kubelet: Kubelet,
    pub(crate) plane: Running,
    pub(crate) uid: String,
    pub(crate) dir: TempDir,
    pub(crate) proxy: Arc<FaultProxy>,
    replica_set: ReplicaSet,
    agent: Option<Agent>,
    /// The running agent's, or the last one's.
    pub(crate) audit: Option<Audit>,
    /// What `/metrics` is made of.
    metrics: Option<Metrics>,
}

struct Agent {
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

async fn put<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

async fn put_status<K>(api: &Api<K>, name: &str, status: Value) -> K
where
    K: Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status(name, &PatchParams::default(), &patch).await.unwrap()
}

impl World {
    /// Without the agent: see [`World::start_agent`].
    pub(crate) async fn new() -> Self {
        Box::pin(Self::with(Options::default())).await
    }

    /// The same with a control plane of these options.
    pub(crate) async fn with(options: Options) -> Self {
        // With RUST_LOG the agent's and the control plane's log show in a failed test's output.
        secrecy::collect_log();
        let server = api_server().await;
        let admin = server.client().await.unwrap();
        manifests::apply(&admin, &["00-crds.yaml"]).await;
        let agent_namespace = server.namespace("logs-agent").await.unwrap();
        let namespace = server.namespace("logs-component").await.unwrap();
        let kubelet = Kubelet::start().await;
        rights(&admin, &agent_namespace, &namespace).await;

        let node = format!("node-{namespace}");
        let nodes: Api<Node> = Api::all(admin.clone());
        put(&nodes, json!({ "metadata": { "name": node } })).await;
        put_status(
            &nodes,
            &node,
            json!({
                "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
                "daemonEndpoints": { "kubeletEndpoint": { "Port": kubelet.port } },
            }),
        )
        .await;

        let template = json!({
            "metadata": { "labels": { "app": COMPONENT } },
            "spec": { "containers": [{ "name": "main", "image": "x" }] },
        });
        let selector = json!({ "matchLabels": { "app": COMPONENT } });
        let deployments: Api<Deployment> = Api::namespaced(admin.clone(), &namespace);
        let deployment = put(
            &deployments,
            json!({ "metadata": { "name": COMPONENT },
                    "spec": { "selector": selector, "template": template } }),
        )
        .await;
        let replica_sets: Api<ReplicaSet> = Api::namespaced(admin.clone(), &namespace);
        let replica_set = put(
            &replica_sets,
            json!({ "metadata": { "name": "noisy-1",
                        "ownerReferences": [deployment.controller_owner_ref(&()).unwrap()] },
                    "spec": { "selector": selector, "template": template } }),
        )
        .await;
        let components: Api<ManagedComponent> = Api::namespaced(admin.clone(), &agent_namespace);
        put(
            &components,
            json!({ "metadata": { "name": COMPONENT }, "spec": { "component": COMPONENT } }),
        )
        .await;
        put_status(
            &components,
            COMPONENT,
            json!({
                "version": "1.0", "releaseId": "r1", "sequence": 1, "indexSha256": "00",
                "blobSha256": "00", "health": "Ready", "objects": 1, "driftCorrected": 0,
                "inventory": [{
                    "group": "apps", "version": "v1", "kind": "Deployment",
                    "namespace": namespace, "name": COMPONENT, "uid": deployment.uid().unwrap(),
                    "hash": "00",
                }],
            }),
        )
        .await;

        let dir = tempfile::tempdir().unwrap();
        let names = ServerNames { dns: vec![], ips: vec![[127, 0, 0, 1].into()] };
        let store =
            mendix_control_plane::init(&dir.path().join("plane"), &names, Expiry::default())
                .await
                .unwrap();
        let plane = ControlPlane::start(store, options).await.unwrap();
        let proxy = Arc::new(FaultProxy::start(plane.address()).await.unwrap());
        let uid = Cluster::connect(admin.clone(), agent_namespace.clone()).await.unwrap().uid;
        let token = plane.store().register_cluster(&uid, "stable").unwrap();
        std::fs::write(dir.path().join("token"), token.0).unwrap();
        let world = Self {
            admin,
            server,
            agent_namespace,
            namespace,
            kubelet,
            plane,
            uid,
            dir,
            proxy,
            replica_set,
            agent: None,
            audit: None,
            metrics: None,
        };
        world.set_policy(json!({ "mode": "WithConsent" })).await;
        world
    }

    /// Starts the channel and the log path with the agent's own rights.
    pub(crate) async fn start_agent(&mut self) {
        let client = self.server.client_for(&self.agent_namespace, ACCOUNT).await.unwrap();
        let cluster = Cluster::connect(client, self.agent_namespace.clone()).await.unwrap();
        let config = Config {
            endpoint: format!("https://{}", self.proxy.address()).parse().unwrap(),
            allow_public_endpoint: false,
            allow_loopback_endpoint: true,
            route: Route::default(),
            trust_dir: self.plane.store().trust_dir(),
            bootstrap_token_file: self.dir.path().join("token"),
            service_account_token_file: None,
            identity_dir: None,
            namespace: self.agent_namespace.clone(),
            listen: ([127, 0, 0, 1], 0).into(),
            upgrade_after: std::time::Duration::from_secs(600),
            log: LogConfig { filter: "info".into(), format: LogFormat::Text },
        };
        let (handles, worker) = channel::open(&config, &cluster).unwrap();
        let audit = Audit::new(&cluster, handles.checkpoints.clone());
        let (found, keys) = watch::channel(None);
        let portal = logs::Portal { trust_dir: config.trust_dir.clone(), found: keys };
        let outcomes =
            RequestOutcomes::new(handles.desired.requests.clone(), handles.reports.clone());
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let token = shutdown.clone();
        tasks.spawn(async move { worker.run(token).await.unwrap() });
        tasks.spawn(outcomes.clone().run(shutdown.clone()));
        let token = shutdown.clone();
        let (recorded, of_audit) = (audit.clone(), handles.clone());
        let until = shutdown.clone();
        tasks.spawn(async move {
            mendix_agent::audit::run(recorded, of_audit, until).await.unwrap();
        });
        // What the patch path does beside its releases.
        let (dialled, until, own) = (handles.clone(), shutdown.clone(), cluster.clone());
        tasks.spawn(async move {
            let trust = Keeper::new(own.clone(), config.trust_dir.clone());
            tokio::select! {
                () = until.cancelled() => {}
                () = portal_keys::follow(&own, &dialled, &trust, &found) => {}
            }
        });
        self.audit = Some(audit.clone());
        let work = Work {
            epoch: 1,
            link: handles.link.clone(),
            reports: handles.reports.clone(),
            audit: audit.clone(),
            tasks: Tasks::default(),
        };
        let (_, work) = watch::channel(Some(work));
        self.metrics = Some(Metrics::new(work, Tasks::default(), "0.0.0"));
        tasks.spawn(async move {
            logs::run(cluster, handles, portal, outcomes, audit, token).await.unwrap();
        });
        self.agent = Some(Agent { shutdown, tasks });
    }

    /// What a scraper gets from the agent, as it leads.
    pub(crate) fn metrics_page(&self) -> String {
        self.metrics.as_ref().unwrap().encode().unwrap()
    }

    /// Ends the agent as a SIGTERM does.
    pub(crate) async fn stop_agent(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.shutdown.cancel();
        tokio::time::timeout(PATIENCE, agent.tasks.join_all()).await.unwrap();
    }

    /// Ends the agent as a SIGKILL does.
    pub(crate) async fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.tasks.shutdown().await;
    }

    pub(crate) async fn set_policy(&self, spec: Value) {
        let api: Api<LogSharingPolicy> = Api::namespaced(self.admin.clone(), &self.agent_namespace);
        let policy = json!({
            "apiVersion": "agent.mendix.com/v1alpha1", "kind": "LogSharingPolicy",
            "metadata": { "name": "default" }, "spec": spec,
        });
        let params = PatchParams::apply("customer").force();
        api.patch("default", &params, &Patch::Apply(policy)).await.unwrap();
    }

    /// A running pod. `ours`: owned by the component; otherwise it only wears its label.
    pub(crate) async fn pod(&self, name: &str, ours: bool, container_status: Value) -> Pod {
        let api: Api<Pod> = Api::namespaced(self.admin.clone(), &self.namespace);
        let owners =
            if ours { vec![self.replica_set.controller_owner_ref(&()).unwrap()] } else { vec![] };
        put(
            &api,
            json!({
                "metadata": { "name": name, "labels": { "app": COMPONENT },
                              "ownerReferences": owners },
                "spec": { "nodeName": format!("node-{}", self.namespace),
                          "containers": [{ "name": "main", "image": "x" }] },
            }),
        )
        .await;
        let mut status = json!({
            "name": "main", "ready": true, "restartCount": 0, "image": "x", "imageID": "",
            "state": { "running": { "startedAt": wire(minutes_ago(10)) } },
        });
        for (key, value) in container_status.as_object().unwrap() {
            status[key] = value.clone();
        }
        put_status(&api, name, json!({ "phase": "Running", "containerStatuses": [status] })).await
    }

    /// A MendixApp with one pod, in the namespace that apps run in.
    pub(crate) async fn app(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        put(&namespaces, json!({ "metadata": { "name": "mendix" } })).await;
        manifests::apply_objects(&self.admin, vec![app_definition()]).await;
        let kind = GroupVersionKind::gvk("privatecloud.mendix.com", "v1alpha1", "MendixApp");
        let apps: Api<DynamicObject> =
            Api::namespaced_with(self.admin.clone(), "mendix", &ApiResource::from_gvk(&kind));
        let app = json!({
            "apiVersion": "privatecloud.mendix.com/v1alpha1", "kind": "MendixApp",
            "metadata": { "name": name }, "spec": { "runtimeVersion": "10.10.4" },
        });
        let app: DynamicObject = serde_json::from_value(app).unwrap();
        eventually(PATIENCE, "MendixApps are served", async || {
            apps.create(&PostParams::default(), &app).await.ok()
        })
        .await
        .unwrap();
        let pod = format!("{name}-master-5f6d-x");
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), "mendix");
        put(
            &pods,
            json!({
                "metadata": { "name": pod, "labels": { "privatecloud.mendix.com/app": name },
                    "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet",
                        "name": format!("{name}-master-5f6d"), "uid": "app-set",
                        "controller": true }] },
                "spec": { "nodeName": format!("node-{}", self.namespace),
                          "containers": [{ "name": "mendix", "image": "x" }] },
            }),
        )
        .await;
        let container = json!({
            "name": "mendix", "ready": true, "restartCount": 0, "image": "x", "imageID": "",
            "state": { "running": { "startedAt": wire(minutes_ago(30)) } },
        });
        put_status(&pods, &pod, json!({ "phase": "Running", "containerStatuses": [container] }))
            .await;
    }

    /// What a customer installs to allow runtime logs, for this world's agent.
    pub(crate) async fn allow_runtime_logs(&self) {
        let mut objects = manifests::read_optional("runtime-logs.yaml");
        for object in &mut objects {
            if let Some(subjects) = object.data.get_mut("subjects") {
                subjects[0]["namespace"] = self.agent_namespace.clone().into();
            }
        }
        manifests::apply_objects(&self.admin, objects).await;
    }

    pub(crate) fn open_ticket(&self, grant: Option<GrantTerms>) -> TicketRecord {
        self.open_ticket_with_request(grant).0
    }

    pub(crate) fn open_ticket_with_request(
        &self,
        grant: Option<GrantTerms>,
    ) -> (TicketRecord, Option<RequestRecord>) {
        let new = NewTicket {
            ticket_id: None,
            cluster_uid: self.uid.clone(),
            title: "It is slow".into(),
            severity: TicketSeverity::High,
            origin: TicketOrigin::Customer,
            grant,
        };
        open_ticket(self.plane.store(), new).unwrap()
    }

    pub(crate) fn request(&self, ticket: &TicketRecord) -> RequestRecord {
        let kind =
            RequestKind::Snapshot { ticket_id: ticket.ticket_id.clone(), components: vec![] };
        self.plane.store().place_request(&self.uid, kind).unwrap()
    }

    /// Changes what the control plane holds of the cluster behind the portal's back, as one could that
    /// is in other hands. The agent hears of it at once.
    pub(crate) fn rewrite(&self, change: impl FnOnce(&mut ClusterRecord)) {
        let dir = self.plane.store().dir();
        {
            let lock = std::fs::File::open(dir.join("lock")).unwrap();
            lock.lock().unwrap();
            let path = dir.join("clusters").join(format!("{}.json", self.uid));
            let mut cluster: ClusterRecord =
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            change(&mut cluster);
            replace(&path, &serde_json::to_vec(&cluster).unwrap());
            // What the server polls.
            let change: u64 =
                serde_json::from_slice(&std::fs::read(dir.join("change")).unwrap()).unwrap();
            replace(&dir.join("change"), (change + 1).to_string().as_bytes());
        }
    }

    /// [`World::rewrite`] of one ticket.
    pub(crate) fn smuggle(&self, ticket_id: &str, change: impl FnOnce(&mut TicketRecord)) {
        self.rewrite(|cluster| {
            cluster.tickets.revision += 1;
            let mut tickets = cluster.tickets.value.iter_mut();
            change(tickets.find(|ticket| ticket.ticket_id == ticket_id).unwrap());
        });
    }

    /// The outcome that the agent reported for a request.
    pub(crate) async fn outcome(&self, request: &RequestRecord) -> DoneRequest {
        eventually(PATIENCE, format!("request {} has an outcome", request.request_id), async || {
            let cluster = self.plane.store().cluster(&self.uid).unwrap();
            cluster.done.into_iter().find(|done| done.request.request_id == request.request_id)
        })
        .await
        .unwrap()
    }

    pub(crate) async fn snapshot(&self, name: &str) -> LogSnapshot {
        let api: Api<LogSnapshot> = Api::namespaced(self.admin.clone(), &self.agent_namespace);
        api.get(name).await.unwrap()
    }

    pub(crate) async fn snapshots(&self) -> Vec<LogSnapshot> {
        let api: Api<LogSnapshot> = Api::namespaced(self.admin.clone(), &self.agent_namespace);
        api.list(&Default::default()).await.unwrap().items
    }

    /// The mirror of a ticket, once it says so.
    pub(crate) async fn ticket_object(
        &self,
        ticket: &TicketRecord,
        consent: &str,
    ) -> SupportTicket {
        let api: Api<SupportTicket> = Api::namespaced(self.admin.clone(), &self.agent_namespace);
        let name = ticket.ticket_id.to_ascii_lowercase();
        eventually(PATIENCE, format!("{name} is {consent}"), async || {
            let object = api.get_opt(&name).await.unwrap()?;
            (object.status.as_ref()?.consent == consent).then_some(object)
        })
        .await
        .unwrap()
    }

    /// How often the API server was asked for a log of the component's namespace.
    pub(crate) fn log_reads(&self) -> usize {
        let audit = self.server.audit_log().unwrap();
        audit.requests_for(&self.namespace, "pods", "log").unwrap().len()
    }
}

/// Replaces a file of the control plane's, which reads it at any time, as a whole.
fn replace(path: &std::path::Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// One API server for all tests here. It does not check the certificate of the kubelet, which is
/// ours and different in each test.
async fn api_server() -> &'static ApiServer {
    static SERVER: OnceCell<ApiServer> = OnceCell::const_new();
    SERVER
        .get_or_init(async || {
            let options = ApiServerOptions {
                audit: true,
                extra_flags: vec!["--kubelet-certificate-authority=".into()],
                ..ApiServerOptions::default()
            };
            ApiServer::start(options).await.unwrap()
        })
        .await
}

/// The roles of `packaging/manifests/20-rbac.yaml`, for this test's namespaces.
async fn rights(admin: &Client, agent_namespace: &str, namespace: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), agent_namespace);
    put(&accounts, json!({ "metadata": { "name": ACCOUNT } })).await;
    let subject =
        json!([{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": agent_namespace }]);
    let objects: Vec<DynamicObject> = manifests::read("20-rbac.yaml");
    let rules = |kind: &str, name: &str| {
        let found = objects.iter().find(|object| {
            object.types.as_ref().unwrap().kind == kind && object.name_any() == name
        });
        found.unwrap().data["rules"].clone()
    };
    for (namespace, rules) in [
        (agent_namespace, rules("Role", "mendix-agent")),
        (namespace, rules("ClusterRole", "mendix-agent-managed-namespace")),
    ] {
        let roles: Api<Role> = Api::namespaced(admin.clone(), namespace);
        put(&roles, json!({ "metadata": { "name": "agent" }, "rules": rules.clone() })).await;
        let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), namespace);
        let role =
            json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "agent" });
        put(
            &bindings,
            json!({ "metadata": { "name": "agent" }, "roleRef": role, "subjects": subject }),
        )
        .await;
        manifests::until_granted(admin, (agent_namespace, ACCOUNT), namespace, &rules).await;
    }
    let name = format!("agent-{agent_namespace}");
    let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(admin.clone());
    let cluster_rules = rules("ClusterRole", "mendix-agent");
    put(&roles, json!({ "metadata": { "name": name }, "rules": cluster_rules.clone() })).await;
    let bindings: Api<ClusterRoleBinding> = Api::all(admin.clone());
    let role =
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name });
    put(&bindings, json!({ "metadata": { "name": name }, "roleRef": role, "subjects": subject }))
        .await;
    manifests::until_granted(admin, (agent_namespace, ACCOUNT), "", &cluster_rules).await;
}

/// The definition of MendixApps, as far as a test needs it.
fn app_definition() -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "mendixapps.privatecloud.mendix.com" },
        "spec": {
            "group": "privatecloud.mendix.com", "scope": "Namespaced",
            "names": { "kind": "MendixApp", "plural": "mendixapps", "singular": "mendixapp" },
            "versions": [{ "name": "v1alpha1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true } } }],
        },
    }))
    .unwrap()
}

pub(crate) fn minutes_ago(minutes: i64) -> Timestamp {
    Timestamp::now() - jiff::SignedDuration::from_mins(minutes)
}

/// Whole seconds, as Kubernetes has them.
fn wire(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap().to_string()
}

/// Lines as the kubelet gives them, one a second from then on.
pub(crate) fn lines(from: Timestamp, texts: &[&str]) -> String {
    let second = jiff::SignedDuration::from_secs(1);
    let mut at = from;
    let mut out = String::new();
    for text in texts {
        out.push_str(&format!("{at} {text}\n"));
        at += second;
    }
    out
}

/// Consent for the component.
pub(crate) fn consent() -> GrantTerms {
    GrantTerms::for_components(vec![COMPONENT.to_owned()])
}
