//! The agent's identity over its whole life, against the reference control plane: attestation with
//! tokens of a real API server, rotation of the channel CA, absence, a copied identity.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Secret, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};
use mendix_agent::{
    channel::{self, Handles, Link, identity::Standing},
    cluster::Cluster,
    config::{Config, LogConfig, LogFormat, Route},
};
use mendix_control_plane::{
    ControlPlane, Options, Running, Store,
    attestation::TokenIssuer,
    init,
    pki::{ServerNames, rotation},
    repository::Expiry,
};
use mendix_test_kit::{apiserver::ApiServer, proxy::FaultProxy, wait::eventually};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::manifests;

const PATIENCE: Duration = Duration::from_secs(240);

/// A control plane that can be restarted behind an address that stays, and a cluster.
struct Scene {
    plane: Option<Running>,
    options: Options,
    proxy: FaultProxy,
    cluster: Cluster,
    admin: Client,
    dir: TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let server = ApiServer::shared().await.unwrap();
        let admin = server.client().await.unwrap();
        let namespace = server.namespace("identity").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let names = ServerNames { dns: vec![], ips: vec![[127, 0, 0, 1].into()] };
        let store = init(&dir.path().join("state"), &names, Expiry::default()).await.unwrap();
        let options = Options { drain: Duration::from_millis(50), ..options };
        let plane = ControlPlane::start(store, options.clone()).await.unwrap();
        // The next one listens where this one does, as behind one name.
        let options = Options { listen: plane.address(), ..options };
        let proxy = FaultProxy::start(plane.address()).await.unwrap();
        let cluster = Cluster::connect(admin.clone(), namespace).await.unwrap();
        std::fs::create_dir(dir.path().join("trust")).unwrap();
        let scene = Self { plane: Some(plane), options, proxy, cluster, admin, dir };
        scene.install_trust();
        scene
    }

    fn plane(&self) -> &Running {
        self.plane.as_ref().unwrap()
    }

    fn store(&self) -> &Store {
        self.plane().store()
    }

    /// Puts what the control plane says is to be trusted into the agent's trust folder.
    fn install_trust(&self) {
        let from = self.store().trust_dir().join("channel-ca.pem");
        std::fs::copy(from, self.dir.path().join("trust/channel-ca.pem")).unwrap();
    }

    fn register(&self) {
        let token = self.store().register_cluster(&self.cluster.uid, "stable").unwrap();
        std::fs::write(self.dir.path().join("token"), token.0).unwrap();
    }

    async fn restart_plane(&mut self) {
        let store = self.store().clone();
        self.plane.take().unwrap().shutdown().await.unwrap();
        self.plane = Some(ControlPlane::start(store, self.options.clone()).await.unwrap());
    }

    fn config(&self, attestation: Option<PathBuf>) -> Config {
        Config {
            endpoint: format!("https://{}", self.proxy.address()).parse().unwrap(),
            allow_public_endpoint: false,
            allow_loopback_endpoint: true,
            route: Route::default(),
            trust_dir: self.dir.path().join("trust"),
            bootstrap_token_file: self.dir.path().join("token"),
            service_account_token_file: attestation,
            identity_dir: None,
            namespace: self.cluster.namespace.clone(),
            listen: ([127, 0, 0, 1], 0).into(),
            upgrade_after: std::time::Duration::from_secs(600),
            log: LogConfig { filter: "info".into(), format: LogFormat::Text },
        }
    }

    fn agent(&self) -> Agent {
        Agent::start(&self.config(None), &self.cluster)
    }
}

struct Agent {
    handles: Handles,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(config: &Config, cluster: &Cluster) -> Self {
        let (handles, worker) = channel::open(config, cluster).unwrap();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let task = tokio::spawn(async move { worker.run(token).await.unwrap_or(()) });
        Self { handles, cancel, task }
    }

    async fn link(&self, what: &str, wanted: impl Fn(&Link) -> bool) -> Link {
        let mut link = self.handles.link.clone();
        let found = tokio::time::timeout(PATIENCE, link.wait_for(|link| wanted(link))).await;
        found
            .unwrap_or_else(|_| panic!("not {what}: {:?}", self.handles.link.borrow()))
            .unwrap()
            .clone()
    }

    async fn connected(&self) {
        self.link("connected", |link| matches!(link, Link::Connected { .. })).await;
    }

    async fn standing(&self, what: &str, wanted: impl Fn(&Standing) -> bool) -> Standing {
        let mut standing = self.handles.standing.clone();
        let found = tokio::time::timeout(PATIENCE, standing.wait_for(|it| wanted(it))).await;
        found
            .unwrap_or_else(|_| panic!("not {what}: {:?}", self.handles.standing.borrow()))
            .unwrap()
            .clone()
    }

    async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

/// A token of the agent's account, as the kubelet would project it.
async fn token(admin: &Client, audience: &str) -> String {
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "mendix-agent");
    let answer = accounts
        .create_token_request("mendix-agent", &PostParams::default(), &request)
        .await
        .unwrap();
    answer.status.unwrap().token.unwrap()
}

#[tokio::test]
async fn a_cluster_with_registered_keys_enrols_with_a_token_of_its_own_api_server_only() {
    let scene = Scene::new().await;
    manifests::apply(&scene.admin, &["10-namespaces.yaml", "20-rbac.yaml"]).await;
    let get = |path: &str| http::Request::get(path).body(vec![]).unwrap();
    let jwks = scene.admin.request_text(get("/openid/v1/jwks")).await.unwrap();
    let discovery =
        scene.admin.request_text(get("/.well-known/openid-configuration")).await.unwrap();
    let discovery: serde_json::Value = serde_json::from_str(&discovery).unwrap();
    let issuer = TokenIssuer::new(discovery["issuer"].as_str().unwrap(), jwks.as_bytes()).unwrap();
    scene.register();
    scene.store().register_issuer(&scene.cluster.uid, issuer).unwrap();

    let file = scene.dir.path().join("attestation");
    for (attestation, says) in [
        (None, "needs the agent's ServiceAccount token"),
        (Some("https://kubernetes.default.svc"), "audience"),
    ] {
        if let Some(audience) = attestation {
            std::fs::write(&file, token(&scene.admin, audience).await).unwrap();
        }
        let config = scene.config(attestation.map(|_| file.clone()));
        let agent = Agent::start(&config, &scene.cluster);
        let refused = agent.standing(says, |standing| match standing {
            Standing::NotEnrolled { reason } => reason.contains(says),
            Standing::Enrolled(_) => false,
        });
        refused.await;
        agent.stop().await;
    }
    // The refusals did not use the bootstrap token up.
    std::fs::write(&file, token(&scene.admin, "mendix-control-plane").await).unwrap();
    let agent = Agent::start(&scene.config(Some(file)), &scene.cluster);
    agent.connected().await;
    agent.stop().await;
}

#[tokio::test]
async fn the_channel_ca_is_rotated_under_a_connected_agent() {
    // Short-lived, so that it renews while the test waits.
    let life = Duration::from_secs(20);
    let mut scene = Scene::with(Options { certificate_lifetime: life, ..Options::default() }).await;
    scene.register();
    let agent = scene.agent();
    agent.connected().await;
    let anchors = |standing: &Standing| match standing {
        Standing::Enrolled(credentials) => credentials.identity().anchors().len(),
        Standing::NotEnrolled { .. } => 0,
    };
    rotation::begin(scene.store()).unwrap();
    assert!(rotation::begin(scene.store()).is_err(), "one at a time");
    scene.restart_plane().await;
    // It learns of the new CA with its next certificate.
    agent.standing("told of both", |standing| anchors(standing) == 2).await;
    rotation::switch(scene.store()).unwrap();
    // Before there is a server that issues with the new one.
    let refused = rotation::finish(scene.store(), false).unwrap_err().to_string();
    let refused = format!("{refused} {:?}", rotation::finish(scene.store(), false));
    assert!(refused.contains(&scene.cluster.uid), "{refused}");
    scene.restart_plane().await;
    // Until it has renewed once more, nothing is dropped.
    eventually(PATIENCE, "every certificate is of the new CA", async || {
        rotation::finish(scene.store(), false).ok()
    })
    .await
    .unwrap();
    scene.restart_plane().await;
    agent.connected().await;
    let back = eventually(PATIENCE, "the session after the rotation", async || {
        scene.plane().agent(&scene.cluster.uid)?.connected_since
    });
    back.await.unwrap();
    // The old CA goes with the next certificate, and from the folder by an administrator's hand.
    scene.install_trust();
    agent.standing("told of the new one alone", |standing| anchors(standing) == 1).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_away_during_the_whole_rotation_comes_back_once_its_trust_file_says_so() {
    let mut scene = Scene::new().await;
    scene.register();
    let agent = scene.agent();
    agent.connected().await;
    agent.stop().await;
    rotation::begin(scene.store()).unwrap();
    rotation::switch(scene.store()).unwrap();
    rotation::finish(scene.store(), true).unwrap();
    scene.restart_plane().await;

    let agent = scene.agent();
    agent
        .link("told that the issuer is unknown", |link| match link {
            Link::WaitingForConnection { last_failure: Some(why) } => why.contains("UnknownIssuer"),
            _ => false,
        })
        .await;
    // The mounted file changes under the running agent.
    scene.install_trust();
    agent.connected().await;
    let known = scene.store().cluster(&scene.cluster.uid).unwrap();
    assert_eq!(known.recoveries, 1, "its certificate was of the old CA");
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_away_past_its_certificates_expiry_comes_back_by_itself() {
    let life = Duration::from_secs(8);
    let scene = Scene::with(Options { certificate_lifetime: life, ..Options::default() }).await;
    scene.register();
    let agent = scene.agent();
    agent.connected().await;
    scene.proxy.refuse(true);
    scene.proxy.cut();
    let expired = |standing: &Standing| match standing {
        Standing::Enrolled(it) => it.identity().not_after() <= Timestamp::now(),
        Standing::NotEnrolled { .. } => true,
    };
    eventually(PATIENCE, "its certificate has expired", async || {
        expired(&agent.handles.standing.borrow()).then_some(())
    })
    .await
    .unwrap();
    scene.proxy.refuse(false);
    eventually(PATIENCE, "it has recovered", async || {
        let known = scene.store().cluster(&scene.cluster.uid).unwrap();
        (known.recoveries >= 1).then_some(())
    })
    .await
    .unwrap();
    agent.connected().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_copied_identity_is_reported_on_both_sides() {
    let scene = Scene::new().await;
    scene.register();
    let agent = scene.agent();
    agent.connected().await;
    // Somebody restores a backup of the agent's Secret elsewhere, and starts an agent with it.
    let mut secret: Secret =
        scene.cluster.own::<Secret>().get("mendix-agent-identity").await.unwrap();
    let elsewhere = ApiServer::shared().await.unwrap().namespace("clone").await.unwrap();
    secret.metadata = kube::api::ObjectMeta {
        name: secret.metadata.name,
        annotations: secret.metadata.annotations,
        ..Default::default()
    };
    let cluster = Cluster::connect(scene.admin.clone(), elsewhere).await.unwrap();
    cluster.own::<Secret>().create(&PostParams::default(), &secret).await.unwrap();
    let clone = Agent::start(&scene.config(None), &cluster);
    for agent in [&clone, &agent] {
        let told = agent.link("told of the other", |link| match link {
            Link::Connected { identity_conflict: Some(said), .. } => said.contains("identity"),
            _ => false,
        });
        told.await;
    }
    let conflict = scene.plane().agent(&scene.cluster.uid).unwrap().conflict.unwrap();
    assert_ne!(conflict.older_boot_id, conflict.newer_boot_id);
    clone.stop().await;
    agent.stop().await;
}
