//! The channel end to end: the agent's own code, the reference control plane, a real API server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Node, Secret, ServiceAccount};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use mendix_agent::{
    channel::{self, Handles, Link, identity::Standing},
    cluster::Cluster,
    config::{Config, LogConfig, LogFormat, Route},
    preflight::{self, Verdict},
};
use mendix_agent_proto::v1::{self, Section};
use mendix_control_plane::{
    ControlPlane, Options, Running, init, pki::ServerNames, repository::Expiry, store::RequestKind,
};
use mendix_test_kit::{apiserver::ApiServer, wait::eventually};
use serde_json::{from_value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::manifests;

pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Plane {
    pub(crate) running: Running,
    dir: TempDir,
}

impl Plane {
    async fn start() -> Self {
        Self::called(vec![]).await
    }

    /// With names besides its address.
    pub(crate) async fn called(dns: Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = ServerNames { dns, ips: vec![[127, 0, 0, 1].into()] };
        let store = init(&dir.path().join("state"), &names, Expiry::default()).await.unwrap();
        let options = Options { drain: Duration::from_millis(50), ..Options::default() };
        Self { running: ControlPlane::start(store, options).await.unwrap(), dir }
    }

    pub(crate) fn config(&self, namespace: &str) -> Config {
        Config {
            endpoint: format!("https://{}", self.running.address()).parse().unwrap(),
            allow_public_endpoint: false,
            allow_loopback_endpoint: true,
            route: Route::default(),
            trust_dir: self.running.store().trust_dir(),
            bootstrap_token_file: self.token_file(),
            service_account_token_file: None,
            identity_dir: None,
            namespace: namespace.into(),
            listen: ([127, 0, 0, 1], 0).into(),
            upgrade_after: std::time::Duration::from_secs(600),
            log: LogConfig { filter: "info".into(), format: LogFormat::Text },
        }
    }

    fn token_file(&self) -> std::path::PathBuf {
        self.dir.path().join("token")
    }

    pub(crate) fn register(&self, uid: &str) {
        let token = self.running.store().register_cluster(uid, "early").unwrap();
        write(&self.token_file(), &token.0);
    }

    fn renew_token(&self, uid: &str) {
        write(&self.token_file(), &self.running.store().renew_token(uid).unwrap().0);
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

pub(crate) struct Agent {
    pub(crate) handles: Handles,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Agent {
    pub(crate) fn start(config: &Config, cluster: &Cluster) -> Self {
        let (handles, worker) = channel::open(config, cluster).unwrap();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let task = tokio::spawn(async move { worker.run(token).await.unwrap_or(()) });
        Self { handles, cancel, task }
    }

    pub(crate) async fn link(&self, what: &str, wanted: impl Fn(&Link) -> bool) -> Link {
        let mut link = self.handles.link.clone();
        let found = tokio::time::timeout(PATIENCE, link.wait_for(|link| wanted(link))).await;
        found
            .unwrap_or_else(|_| panic!("not {what}: {:?}", self.handles.link.borrow()))
            .unwrap()
            .clone()
    }

    pub(crate) async fn connected(&self) -> Link {
        self.link("connected", |link| matches!(link, Link::Connected { .. })).await
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

/// A namespace of its own for an agent with an administrator's rights.
pub(crate) async fn cluster() -> Cluster {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let client = ApiServer::shared().await.unwrap().client().await.unwrap();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("channel-{}-{number}", std::process::id());
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    Cluster::connect(client, name).await.unwrap()
}

async fn identity(cluster: &Cluster) -> Secret {
    cluster.own::<Secret>().get("mendix-agent-identity").await.unwrap()
}

#[tokio::test]
async fn an_agent_enrols_connects_gets_its_wishes_and_is_heard() {
    let (plane, cluster) = (Plane::start().await, cluster().await);
    plane.register(&cluster.uid);
    let agent = Agent::start(&plane.config(&cluster.namespace), &cluster);
    agent.connected().await;
    let Standing::Enrolled(credentials) = agent.handles.standing.borrow().clone() else {
        panic!("connected without an identity")
    };
    assert_eq!(credentials.identity().ring(), "early");

    let wish = plane.running.store().place_request(&cluster.uid, RequestKind::Recover).unwrap();
    let mut requests = agent.handles.desired.requests.clone();
    let asked = |section: &Option<channel::Revised<v1::RequestsSection>>| {
        section.as_ref().is_some_and(|it| !it.value.requests.is_empty())
    };
    let got = tokio::time::timeout(PATIENCE, requests.wait_for(asked)).await.unwrap().unwrap();
    assert_eq!(got.as_ref().unwrap().value.requests[0].request_id, wish.request_id);
    drop(got);

    let report = v1::HealthReport { state: "Healthy".into(), ..v1::HealthReport::default() };
    agent.handles.reports.publish(v1::report::Body::Health(report.clone()));
    let heard = eventually(PATIENCE, "the report", async || {
        plane.running.agent(&cluster.uid)?.report(Section::Health)
    });
    assert_eq!(heard.await.unwrap(), v1::report::Body::Health(report));

    // A connection of its own for a transfer, beside the session.
    agent.handles.dialer.connect().await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn a_restarted_agent_keeps_its_identity_and_needs_no_token() {
    let (plane, cluster) = (Plane::start().await, cluster().await);
    plane.register(&cluster.uid);
    let config = plane.config(&cluster.namespace);
    let agent = Agent::start(&config, &cluster);
    agent.connected().await;
    agent.stop().await;
    let before = identity(&cluster).await.data;
    std::fs::remove_file(plane.token_file()).unwrap();
    let agent = Agent::start(&config, &cluster);
    agent.connected().await;
    assert_eq!(identity(&cluster).await.data, before);
    agent.stop().await;
}

#[tokio::test]
async fn a_revoked_agent_says_so_and_comes_back_with_a_new_token() {
    let (plane, cluster) = (Plane::start().await, cluster().await);
    plane.register(&cluster.uid);
    let config = plane.config(&cluster.namespace);
    let agent = Agent::start(&config, &cluster);
    agent.connected().await;
    plane.running.store().revoke_cluster(&cluster.uid).unwrap();
    let link = agent
        .link("refused", |link| match link {
            Link::Disconnected { last_failure, .. } => last_failure.contains("revoked"),
            _ => false,
        })
        .await;
    let Link::Disconnected { last_failure, .. } = link else { unreachable!() };
    assert!(last_failure.starts_with("authentication: "), "{last_failure}");
    agent.stop().await;

    plane.renew_token(&cluster.uid);
    let agent = Agent::start(&config, &cluster);
    agent.connected().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_deleted_cluster_is_deregistered_and_its_identity_stays() {
    let (plane, cluster) = (Plane::start().await, cluster().await);
    plane.register(&cluster.uid);
    let agent = Agent::start(&plane.config(&cluster.namespace), &cluster);
    agent.connected().await;
    plane.running.store().delete_cluster(&cluster.uid).unwrap();
    agent.link("deregistered", |link| matches!(link, Link::Deregistered { .. })).await;
    assert!(identity(&cluster).await.data.unwrap().contains_key("tls.key"));
    agent.stop().await;
}

/// A node with room, as its kubelet would report it.
async fn a_node(admin: &Client) {
    let nodes: Api<Node> = Api::all(admin.clone());
    let node = json!({ "metadata": { "name": "preflight" } });
    nodes.create(&PostParams::default(), &from_value(node).unwrap()).await.unwrap();
    let status = json!({ "status": {
        "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
        "allocatable": { "cpu": "3860m", "memory": "12880484Ki" },
    }});
    let params = PatchParams::default();
    nodes.patch_status("preflight", &params, &Patch::Merge(status)).await.unwrap();
}

#[tokio::test]
async fn preflight_passes_with_exactly_the_rights_of_the_manifests() {
    let server = ApiServer::shared().await.unwrap();
    let admin = server.client().await.unwrap();
    manifests::apply(&admin, &["10-namespaces.yaml", "00-crds.yaml", "20-rbac.yaml"]).await;
    let plane = Plane::start().await;
    let client: Client = server.client_for("mendix-agent", "mendix-agent").await.unwrap();
    let cluster = Cluster::connect(client.clone(), "mendix-agent".into()).await.unwrap();
    plane.register(&cluster.uid);
    let config = plane.config("mendix-agent");

    a_node(&admin).await;
    let before = preflight::run(&config, Ok(client.clone())).await;
    assert_eq!(before.worst(), Verdict::Pass, "{}", before.table());
    let agent = Agent::start(&config, &cluster);
    agent.connected().await;
    let after = preflight::run(&config, Ok(client)).await;
    assert_eq!(after.worst(), Verdict::Pass, "{}", after.table());
    assert!(after.checks.iter().all(|check| check.result == Verdict::Pass), "{}", after.table());
    assert!(after.table().contains("certificate accepted"), "{}", after.table());
    let names: Vec<&str> = after.checks.iter().map(|check| check.name).collect();
    let wanted = "configuration trust DNS private address TCP proxy TLS TLS issuer TLS name and dates \
                  TLS pin TLS ALPN authentication stream round trip clock Kubernetes permissions \
                  nodes CRDs";
    assert_eq!(names.join(" "), wanted);
    agent.stop().await;

    let without = ServiceAccount {
        metadata: ObjectMeta { name: Some("no-rights".into()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(admin, "mendix-agent");
    accounts.create(&PostParams::default(), &without).await.unwrap();
    let nobody = server.client_for("mendix-agent", "no-rights").await.unwrap();
    let refused = preflight::run(&config, Ok(nobody)).await;
    assert_eq!(refused.worst(), Verdict::Fail, "{}", refused.table());
    assert!(
        refused.table().contains("apply packaging/manifests/20-rbac.yaml"),
        "{}",
        refused.table()
    );
    assert!(refused.table().contains(" are missing: "), "{}", refused.table());
}
