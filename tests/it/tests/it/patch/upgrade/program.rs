//! The guard as a process of its own, under its own service account's rights: this test program once
//! more, told by its environment to be a guard.

use std::{
    env,
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use kube::{ResourceExt, api::DynamicObject};
use mendix_agent::{
    config::{GuardConfig, Layer, LogConfig, LogFormat},
    logging::Level,
    run,
};
use mendix_test_kit::{apiserver::ApiServer, port, wait::eventually};
use serde_json::json;
use tempfile::TempDir;

use super::{GUARD, PATIENCE, Site};
use crate::{leadership::page, manifests};

/// Environment of a guard: its namespace, and where it listens.
const ROLE: &str = "MENDIX_IT_GUARD";

/// Not a test: what [`Program::guard`] starts. Without its environment it does nothing.
#[test]
fn a_guard_in_a_process_of_its_own() {
    let Ok(role) = env::var(ROLE) else { return };
    let (namespace, listen) = role.split_once(' ').unwrap();
    let config = GuardConfig {
        namespace: namespace.into(),
        listen: listen.parse().unwrap(),
        log: LogConfig { filter: "info".into(), format: LogFormat::Text },
    };
    let level = Level::start(&config.log, Layer::default(), None);
    let exit = tokio::runtime::Runtime::new().unwrap().block_on(run::guard(config, level));
    assert!(exit.is_ok(), "{exit:?}");
}

/// A running guard. It dies with this.
pub(super) struct Program {
    child: Child,
    listen: SocketAddr,
    folder: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

impl Program {
    /// A guard for this site, with the account, the role and the binding of the manifests.
    pub(super) async fn guard(site: &Site) -> Self {
        let namespace = &site.world.cluster.namespace;
        let objects = manifests::read("20-rbac.yaml").into_iter();
        let own = objects.filter(|object| object.name_any() == GUARD);
        let moved = own.map(|object| moved(object, namespace)).collect();
        manifests::apply_objects(&site.world.client, moved).await;
        let server = ApiServer::shared().await.unwrap();
        let kubeconfig = server.kubeconfig_for(namespace, GUARD).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("guard.log")).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], port::free().unwrap()));
        // Ends also when the test is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "patch::upgrade::program::a_guard_in_a_process_of_its_own"])
            .arg("--nocapture")
            .env(ROLE, format!("{namespace} {listen}"))
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, listen, folder }
    }

    /// Waits until its page of metrics has this one, named without what all begin with.
    pub(super) async fn shows(&self, metric: &str) {
        let line = format!("mendix_agent_guard_{metric}");
        eventually(PATIENCE, format!("the guard shows {line}"), async || {
            let page = page(self.listen, "/metrics").await?;
            page.lines().any(|found| found == line).then_some(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", self.log()));
    }

    fn log(&self) -> String {
        fs::read_to_string(PathBuf::from(self.folder.path()).join("guard.log")).unwrap_or_default()
    }
}

/// An object of the manifests, for another namespace than the agent's.
fn moved(mut object: DynamicObject, namespace: &str) -> DynamicObject {
    object.metadata.namespace = Some(namespace.to_owned());
    if let Some(subjects) = object.data.get_mut("subjects").and_then(|all| all.as_array_mut()) {
        for subject in subjects {
            subject["namespace"] = json!(namespace);
        }
    }
    object
}
