//! The installation, from the agent's first start to its first committed release, on a real API server
//! and against the reference control plane. The release itself is played: what becomes of one is tested
//! in `patch`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mendix_agent::{
    agent_status,
    cluster::Cluster,
    config::Config,
    crd::agent_status::{AgentStatus, Initialization},
    initialization::{self, RERUN},
    occasion::{self, Occasion},
    requests::RequestOutcomes,
};
use mendix_agent_core::initialization::ATTEMPT;
use mendix_agent_proto::v1::{self, Section, report::Body};
use mendix_control_plane::store::{RequestKind, TicketOrigin};
use mendix_test_kit::wait::eventually;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    channel::{Agent, PATIENCE, Plane, cluster},
    events::told,
    manifests,
};

/// An agent whose patch path is played.
struct Installed {
    agent: Agent,
    cluster: Cluster,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Installed {
    /// Ends it, its session included: the next one is no clone of it, and nothing of it writes after it.
    async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.tasks.join_all()).await.unwrap();
        self.agent.stop().await;
    }

    fn start(config: &Config, cluster: &Cluster) -> Self {
        let agent = Agent::start(config, cluster);
        let (cancel, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let handles = agent.handles.clone();
        let (of, reports) = (config.clone(), handles.reports.clone());
        let (to, link, token) = (cluster.clone(), handles.link.clone(), cancel.clone());
        tasks.spawn(async move { agent_status::run(to, of, link, reports, token).await.unwrap() });
        let outcomes =
            RequestOutcomes::new(handles.desired.requests.clone(), handles.reports.clone());
        tasks.spawn(outcomes.clone().run(cancel.clone()));
        let (to, token) = (cluster.clone(), cancel.clone());
        tasks
            .spawn(async move { initialization::run(to, handles, outcomes, token).await.unwrap() });
        Self { agent, cluster: cluster.clone(), cancel, tasks }
    }

    fn release(&self, state: &str, committed: &str) {
        let run = v1::ReleaseRunReport {
            release_id: "r1".into(),
            state: state.into(),
            message: if state == "RolledBack" {
                "operator never became ready".into()
            } else {
                String::new()
            },
            committed_release: committed.into(),
            ..Default::default()
        };
        self.agent.handles.reports.publish(Body::ReleaseRun(run));
    }

    async fn until(&self, what: &str, is: impl Fn(&Initialization) -> bool) -> Initialization {
        let api: Api<AgentStatus> = self.cluster.own();
        eventually(PATIENCE, what, async || {
            api.get_opt("agent").await.unwrap()?.status?.initialization.filter(|it| is(it))
        })
        .await
        .unwrap()
    }

    async fn event(&self, occasion: Occasion) -> Event {
        told(&self.cluster.client, &self.cluster.namespace, occasion).await
    }
}

async fn installed(plane: &Plane) -> (Cluster, Config) {
    let cluster = cluster().await;
    manifests::apply(&cluster.client, &["00-crds.yaml"]).await;
    plane.register(&cluster.uid);
    let config = plane.config(&cluster.namespace);
    (cluster, config)
}

#[tokio::test]
async fn an_installation_is_followed_to_its_first_release() {
    let plane = Plane::called(vec![]).await;
    let (cluster, config) = installed(&plane).await;
    let installed = Installed::start(&config, &cluster);
    let waiting = installed.until("a connection", |it| it.phase == "FirstRelease").await;
    assert_eq!((waiting.attempt, waiting.state.as_str()), (1, "Running"));
    installed.release("Applying", "");
    installed.until("a release", |it| it.message.as_deref() == Some("release r1 Applying")).await;
    installed.release("Committed", "r1");
    let done = installed.until("the end", |it| it.state == "Initialized").await;
    assert!(done.ended_at.is_some() && done.failing_check.is_none());
    installed.event(occasion::INITIALIZING).await;
    installed.event(occasion::INITIALIZED).await;
    let heard = eventually(PATIENCE, "the report", async || {
        match plane.running.agent(&cluster.uid)?.report(Section::Initialization)? {
            Body::Initialization(report) => (report.state == "Initialized").then_some(report),
            _ => None,
        }
    });
    assert!(!heard.await.unwrap().wants_ticket);
}

#[tokio::test]
async fn a_failed_installation_is_run_again_by_a_person_or_by_a_request() {
    let plane = Plane::called(vec![]).await;
    let (cluster, config) = installed(&plane).await;
    let installed = Installed::start(&config, &cluster);
    installed.agent.connected().await;
    installed.release("RolledBack", "");
    let failed = installed.until("the failure", |it| it.state == "Failed").await;
    assert_eq!(failed.failing_check.as_deref(), Some("release"));
    let note = installed.event(occasion::INITIALIZATION_FAILED).await.note.unwrap();
    assert!(note.contains("operator never became ready"), "{note}");

    let store = plane.running.store();
    store.place_request(&cluster.uid, RequestKind::RerunInitialization).unwrap();
    let second = installed.until("a second attempt", |it| it.attempt == 2).await;
    assert_eq!((second.state.as_str(), second.ended_at), ("Running", None));
    // One that comes too early is refused, and said to be.
    store.place_request(&cluster.uid, RequestKind::RerunInitialization).unwrap();
    let done = eventually(PATIENCE, "two outcomes", async || {
        let done = store.cluster(&cluster.uid).unwrap().done;
        (done.len() == 2).then_some(done)
    })
    .await
    .unwrap();
    assert_eq!((done[0].outcome.as_str(), done[0].reason.as_str()), ("Succeeded", ""));
    assert_eq!((done[1].outcome.as_str(), done[1].reason.as_str()), ("Refused", "StillRunning"));
    assert!(store.tickets().unwrap().is_empty());
    installed.stop().await;

    // Later that attempt has failed, too, while the agent was away. A person has it run again.
    let began = Timestamp::now() - SignedDuration::try_from(ATTEMPT).unwrap();
    keep(&cluster, &Initialization { started_at: began, ..second }).await;
    let installed = Installed::start(&config, &cluster);
    installed.until("the second failure", |it| it.state == "Failed").await;
    let api: Api<AgentStatus> = cluster.own();
    let wish = json!({ "metadata": { "annotations": { RERUN: "once more" } } });
    api.patch("agent", &PatchParams::default(), &Patch::Merge(wish)).await.unwrap();
    let third = installed.until("a third attempt", |it| it.attempt == 3).await;
    assert_eq!(third.rerun.as_deref(), Some("once more"));
}

#[tokio::test]
async fn a_rerun_that_fails_opens_one_automatic_ticket_without_consent() {
    let plane = Plane::called(vec![]).await;
    let (cluster, config) = installed(&plane).await;
    let installed = Installed::start(&config, &cluster);
    let first = installed.until("a connection", |it| it.phase == "FirstRelease").await;
    installed.stop().await;
    let began = Timestamp::now() - SignedDuration::try_from(ATTEMPT).unwrap();
    keep(&cluster, &Initialization { attempt: 2, started_at: began, ..first }).await;

    let installed = Installed::start(&config, &cluster);
    let store = plane.running.store();
    let opened = eventually(PATIENCE, "a ticket", async || store.tickets().unwrap().pop());
    let ticket = opened.await.unwrap();
    assert_eq!((ticket.origin, ticket.grant.is_none()), (TicketOrigin::Automatic, true));
    assert_eq!(ticket.title, "Initialization failed again: attempt 2 at FirstRelease");
    // The agent says it again in another session, and there is one ticket.
    installed.stop().await;
    let again = Installed::start(&config, &cluster);
    again.agent.connected().await;
    let heard = || plane.running.agent(&cluster.uid)?.report(Section::Initialization);
    let failed = |body| matches!(body, Body::Initialization(report) if report.wants_ticket);
    eventually(PATIENCE, "the report", async || heard().filter(|b| failed(b.clone())))
        .await
        .unwrap();
    assert_eq!(store.tickets().unwrap().len(), 1);
}

/// As an earlier process of the agent left it.
async fn keep(cluster: &Cluster, kept: &Initialization) {
    let api: Api<AgentStatus> = cluster.own();
    let body = json!({ "status": { "initialization": kept } });
    api.patch_status("agent", &PatchParams::default(), &Patch::Merge(body)).await.unwrap();
}
