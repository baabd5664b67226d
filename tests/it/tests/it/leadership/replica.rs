//! What the replicas share, and one of them.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::ClusterRoleBinding};
use kube::{Api, Client, api::PostParams};
use mendix_agent::{
    cluster::Cluster,
    config::{Config, Layer, LogConfig, LogFormat, Route},
    logging::Level,
    run,
};
use mendix_control_plane::{
    ControlPlane, Options, Running, init, pki::ServerNames, repository::Expiry,
};
use mendix_test_kit::{apiserver::ApiServer, port, proxy::FaultProxy};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::suspend::{Sleep, stopped};
use crate::manifests;

/// Environment of a replica: the folder with what it needs to know.
const FOLDER: &str = "MENDIX_IT_REPLICA";

/// One cluster and its control plane.
pub(super) struct Town {
    pub(super) admin: Client,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) plane: Running,
    server: &'static ApiServer,
    dir: TempDir,
}

impl Town {
    pub(super) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(super) async fn with(options: Options) -> Self {
        let server = ApiServer::shared().await.unwrap();
        let admin = server.client().await.unwrap();
        manifests::apply(&admin, &["10-namespaces.yaml", "00-crds.yaml"]).await;
        let namespace = server.namespace("leadership").await.unwrap();
        // What an agent may do is tested elsewhere.
        let everything: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": { "name": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                         "name": "cluster-admin" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group",
                           "name": format!("system:serviceaccounts:{namespace}") }],
        }))
        .unwrap();
        Api::all(admin.clone()).create(&PostParams::default(), &everything).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let names = ServerNames { dns: vec![], ips: vec![[127, 0, 0, 1].into()] };
        let store = init(&dir.path().join("plane"), &names, Expiry::default()).await.unwrap();
        let plane = ControlPlane::start(store, options).await.unwrap();
        let uid = Cluster::connect(admin.clone(), namespace.clone()).await.unwrap().uid;
        let token = plane.store().register_cluster(&uid, "stable").unwrap();
        fs::write(dir.path().join("token"), token.0).unwrap();
        Self { admin, namespace, uid, plane, server, dir }
    }

    /// The end of what the replicas logged.
    pub(super) fn logs(&self) -> String {
        let mut all = String::new();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "log") {
                let text = fs::read_to_string(&path).unwrap();
                let lines: Vec<&str> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(40)..].join("\n");
                all.push_str(&format!("{}:\n{last}\n", path.display()));
            }
        }
        all
    }

    /// How many requests of a replica changed something in the agent's namespace, its Lease aside.
    pub(super) fn writes_by(&self, name: &str) -> usize {
        let user = format!("system:serviceaccount:{}:{name}", self.namespace);
        let events = self.server.audit_log().unwrap().events().unwrap();
        let writes = events.iter().filter(|event| {
            let verb = event["verb"].as_str().unwrap_or_default();
            event["objectRef"]["namespace"] == self.namespace.as_str()
                && event["objectRef"]["resource"] != "leases"
                && event["user"]["username"] == user.as_str()
                && matches!(verb, "create" | "update" | "patch" | "delete")
        });
        writes.count()
    }
}

/// A process. It dies with this.
pub(super) struct Replica {
    /// Between it and the API server.
    pub(super) proxy: FaultProxy,
    folder: PathBuf,
    listen: SocketAddr,
    child: Child,
    sleep: Option<Sleep>,
    /// Since when it stands still.
    still: Option<Instant>,
}

/// How a replica stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// Alone: all clocks go on.
    Frozen,
    /// With its machine: the monotonic clock stands still, too.
    Suspended,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Replica {
    pub(super) async fn start(town: &Town, name: &str) -> Self {
        Self::that_pauses(town, name, Pause::Frozen).await
    }

    /// One that [`Replica::pause`] pauses in this way.
    pub(super) async fn that_pauses(town: &Town, name: &str, pause: Pause) -> Self {
        let folder = town.dir.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        let upstream: SocketAddr =
            town.server.url().strip_prefix("https://").unwrap().parse().unwrap();
        let proxy = FaultProxy::start(upstream).await.unwrap();
        let through = format!("https://{}", proxy.address());
        // An account of its own: the audit log tells the replicas apart.
        let accounts: Api<ServiceAccount> = Api::namespaced(town.admin.clone(), &town.namespace);
        let account = json!({ "metadata": { "name": name } });
        let account = serde_json::from_value(account).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let kubeconfig = town.server.kubeconfig_for(&town.namespace, name).await.unwrap();
        let kubeconfig = fs::read_to_string(kubeconfig).unwrap();
        fs::write(folder.join("kubeconfig"), kubeconfig.replace(town.server.url(), &through))
            .unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], port::free().unwrap()));
        let lines = [
            format!("https://{}", town.plane.address()),
            town.plane.store().trust_dir().display().to_string(),
            town.dir.path().join("token").display().to_string(),
            town.namespace.clone(),
            listen.to_string(),
        ];
        fs::write(folder.join("site"), lines.join("\n")).unwrap();
        let sleep = (pause == Pause::Suspended).then(|| Sleep::new(&folder));
        let child = spawn(&folder, sleep.as_ref());
        Self { proxy, folder, listen, child, sleep, still: None }
    }

    /// Another process in the place of one that ended.
    pub(super) fn start_again(&mut self) {
        self.child.wait().unwrap();
        self.child = spawn(&self.folder, self.sleep.as_ref());
    }

    /// With which the identity in the Lease begins.
    pub(super) fn name(&self) -> &str {
        self.folder.file_name().unwrap().to_str().unwrap()
    }

    /// SIGKILL, and waits until the process is gone.
    pub(super) fn kill(&mut self) {
        let _ended_already = self.child.kill();
        self.child.wait().unwrap();
    }

    /// What it and those before it in its place have logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.with_extension("log")).unwrap()
    }

    /// SIGTERM.
    pub(super) fn terminate(&mut self) {
        self.signal("TERM");
    }

    /// Lets it stand still.
    pub(super) fn pause(&mut self) {
        self.signal("STOP");
        self.still = Some(stopped(self.child.id()));
    }

    /// Lets it go on.
    pub(super) fn resume(&mut self) {
        let since = self.still.take().unwrap();
        if let Some(sleep) = &mut self.sleep {
            sleep.add(since.elapsed());
        }
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// A page of its listener; none while it does not answer.
    pub(super) async fn page(&self, path: &str) -> Option<String> {
        page(self.listen, path).await
    }
}

/// A page of a process's listener; none while it does not answer.
pub(crate) async fn page(listen: SocketAddr, path: &str) -> Option<String> {
    let asking = async {
        let mut stream = TcpStream::connect(listen).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.ok().flatten()
}

/// Starts an agent as a process of its own, which is told by its folder: `kubeconfig`, and `site` as
/// [`be_one`] reads it. It logs beside the folder.
pub(crate) fn spawn_agent(folder: &std::path::Path) -> Child {
    spawn(folder, None)
}

fn spawn(folder: &std::path::Path, sleep: Option<&Sleep>) -> Child {
    let log = File::options().create(true).append(true).open(folder.with_extension("log")).unwrap();
    // Ends also when the test is killed.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "leadership::a_replica_in_a_process_of_its_own", "--nocapture"])
        .env(FOLDER, folder)
        .env("HOSTNAME", folder.file_name().unwrap())
        .env("KUBECONFIG", folder.join("kubeconfig"))
        .envs(sleep.iter().flat_map(|sleep| sleep.environment()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Runs the agent until a signal, if this process was started to.
pub(super) fn be_one() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let site = fs::read_to_string(PathBuf::from(folder).join("site")).unwrap();
    let lines: Vec<&str> = site.lines().collect();
    let [endpoint, trust_dir, token, namespace, listen] = lines[..] else { panic!("{lines:?}") };
    let config = Config {
        endpoint: endpoint.parse().unwrap(),
        allow_public_endpoint: false,
        allow_loopback_endpoint: true,
        trust_dir: trust_dir.into(),
        route: Route::default(),
        bootstrap_token_file: token.into(),
        service_account_token_file: None,
        identity_dir: None,
        namespace: namespace.into(),
        listen: listen.parse().unwrap(),
        upgrade_after: std::time::Duration::from_secs(600),
        log: LogConfig { filter: "info,kube_client=off".into(), format: LogFormat::Text },
    };
    let level = Level::start(&config.log, Layer::default(), None);
    let exit = tokio::runtime::Runtime::new().unwrap().block_on(run::run(config, level));
    assert!(exit.is_ok(), "{exit:?}");
}
