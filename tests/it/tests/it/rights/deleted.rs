//! Somebody deletes the agent's own roles and bindings, which it can't put back (ADR 0015): it says
//! what it lacks and what to do, goes on as far as it may, and recovers by itself when the manifests are
//! applied again. The agent is a process of its own, under its own service account's rights.

use std::{fs, net::SocketAddr, process::Child, time::Duration};

use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client};
use mendix_agent::{
    cluster::Cluster,
    crd::agent_status::{AgentStatus, AgentStatusStatus},
    occasion,
};
use mendix_agent_proto::v1::{Section, report::Body};
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    port,
    wait::eventually,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    channel::Plane,
    leadership::{page, spawn_agent},
    manifests,
};

const NAMESPACE: &str = "mendix-agent";
const MANIFEST: &str = "20-rbac.yaml";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PERMISSIONS: &str = "permissions";
const GONE: &str = "the agent's rights in its namespace are gone";
/// Longest wait for what the agent notices once a minute, and looks into a minute later.
const PATIENCE: Duration = Duration::from_secs(400);

/// A cluster with an agent that runs in a process.
struct Site {
    admin: Client,
    plane: Plane,
    uid: String,
    agent: Child,
    listen: SocketAddr,
    folder: TempDir,
    _server: ApiServer,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ended = self.agent.kill().and_then(|()| self.agent.wait());
    }
}

impl Site {
    async fn new() -> Self {
        let server = ApiServer::start(ApiServerOptions::default()).await.unwrap();
        let admin = server.client().await.unwrap();
        manifests::apply(&admin, &["10-namespaces.yaml", "00-crds.yaml", MANIFEST]).await;
        let plane = Plane::called(vec![]).await;
        let uid = Cluster::connect(admin.clone(), NAMESPACE.into()).await.unwrap().uid;
        plane.register(&uid);
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("agent");
        fs::create_dir(&own).unwrap();
        let kubeconfig = server.kubeconfig_for(NAMESPACE, "mendix-agent").await.unwrap();
        fs::copy(kubeconfig, own.join("kubeconfig")).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], port::free().unwrap()));
        let config = plane.config(NAMESPACE);
        let lines = [
            config.endpoint.to_string(),
            config.trust_dir.display().to_string(),
            config.bootstrap_token_file.display().to_string(),
            NAMESPACE.to_owned(),
            listen.to_string(),
        ];
        fs::write(own.join("site"), lines.join("\n")).unwrap();
        let agent = spawn_agent(&own);
        Self { admin, plane, uid, agent, listen, folder, _server: server }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("agent.log")).unwrap()
    }

    /// Waits for what `look` finds.
    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let found = eventually(PATIENCE, what, || look()).await;
        found.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Waits until the agent's status is such.
    async fn status(
        &self,
        what: &str,
        such: impl Fn(&AgentStatusStatus) -> bool,
    ) -> AgentStatusStatus {
        let statuses: Api<AgentStatus> = Api::namespaced(self.admin.clone(), NAMESPACE);
        let look = async || statuses.get("agent").await.ok()?.status.filter(|status| such(status));
        self.until(what, look).await
    }

    /// Somebody deletes it.
    async fn delete(&self, path: &str) {
        let request = http::Request::delete(format!("{RBAC}/{path}")).body(vec![]).unwrap();
        self.admin.request::<Value>(request).await.unwrap();
    }

    /// Waits until the process says of itself whether it is ready, and this.
    async fn says(&self, ready: bool, words: &str) -> String {
        let code = if ready { "HTTP/1.1 200" } else { "HTTP/1.1 503" };
        let look = async || page(self.listen, "/readyz").await;
        let says = async || look().await.filter(|it| it.starts_with(code) && it.contains(words));
        self.until(&format!("{code} with {words:?}"), says).await
    }

    /// Waits until status, Event and report name rights that are missing, and what to do; the agent leads
    /// and is connected.
    async fn says_what_it_lacks(&self, epoch: Option<u64>, round: u32) {
        let what = format!("rights are missing, round {round}");
        let lacking = self.status(&what, |status| of_rights(status).is_some()).await;
        let finding = of_rights(&lacking).unwrap();
        assert!(finding.contains(" are missing: "), "{finding}");
        assert!(finding.contains(MANIFEST), "what to do: {finding}");
        assert_eq!((lacking.preflight.as_deref(), lacking.epoch), (Some("Failed"), epoch));
        assert_eq!(lacking.link, "Connected");
        let events: Api<Event> = Api::namespaced(self.admin.clone(), NAMESPACE);
        let what_to_do = |event: &Event| {
            event.reason.as_deref() == Some(occasion::PREFLIGHT_FAILED.reason)
                && event.note.as_deref().is_some_and(|note| note.contains(MANIFEST))
        };
        let told = async || {
            events.list(&Default::default()).await.ok()?.items.into_iter().find(what_to_do)
        };
        self.until("an Event tells what to do", told).await;
        let reported = async || {
            let agent = self.plane.running.agent(&self.uid)?;
            let Body::Preflight(report) = agent.report(Section::Preflight)? else { return None };
            let mut checks = report.checks.into_iter();
            checks.find(|check| check.name == PERMISSIONS && check.detail.contains(" missing: "))
        };
        let reported = self.until("the control plane is told", reported).await;
        assert!(reported.remedy.contains(MANIFEST), "{reported:?}");
    }

    fn is_the_same_process(&mut self) -> bool {
        self.agent.try_wait().unwrap().is_none()
    }
}

/// What the status says of rights; nothing when all are there.
fn of_rights(status: &AgentStatusStatus) -> Option<&String> {
    let mut findings = status.preflight_findings.iter();
    findings.find(|finding| finding.starts_with(&format!("{PERMISSIONS}: ")))
}

fn is_well(status: &AgentStatusStatus) -> bool {
    status.link == "Connected" && status.preflight.is_some() && of_rights(status).is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_somebody_deletes_are_named_and_their_return_is_all_it_takes() {
    let mut site = Site::new().await;
    let begun = site.status("connected, with all rights", is_well).await;

    // Those for the whole cluster: it leads and is connected as before, and says it everywhere. Twice: the
    // first time it may be looking at everything anyway, as it does when it has just been connected.
    for round in 1..=2 {
        site.delete("clusterrolebindings/mendix-agent").await;
        site.delete("clusterroles/mendix-agent").await;
        site.says_what_it_lacks(begun.epoch, round).await;
        manifests::apply(&site.admin, &[MANIFEST]).await;
        let back = site.status(&format!("rights are back, round {round}"), is_well).await;
        assert_eq!(back.epoch, begun.epoch, "it has led all the time");
    }

    // Those in its own namespace: nobody can lead without the Lease, and nothing can be written down.
    site.delete("namespaces/mendix-agent/rolebindings/mendix-agent").await;
    site.delete("namespaces/mendix-agent/roles/mendix-agent").await;
    let said = site.says(false, GONE).await;
    assert!(said.contains(MANIFEST), "what to do: {said}");
    assert!(site.log().contains(GONE), "{}", site.log());
    assert!(site.is_the_same_process(), "it waits for them");

    manifests::apply(&site.admin, &[MANIFEST]).await;
    site.says(true, "leader of epoch").await;
    let again = |status: &AgentStatusStatus| is_well(status) && status.epoch > begun.epoch;
    site.status("it leads again, connected, with all rights", again).await;
    assert!(site.is_the_same_process());
}
