//! Releases that upgrade the agent itself, against a real API server: the former version, the one on
//! trial and the guard as three parties, each with a client of its own. No pod runs here; what pods
//! would be is what the test starts. Pods run in `tests/e2e/tests/scenarios/upgrade.rs`.

mod faults;
mod flapping;
mod program;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use mendix_agent::{
    channel::Link,
    cluster::Cluster,
    crd::{
        managed_component::ManagedComponent, patch_bundle::PatchBundle, upgrade_trial::UpgradeTrial,
    },
    occasion,
    patch::{drift::Drift, driver::Driver, resume, take},
    upgrade::{self, Own, guard::Shown},
};
use mendix_agent_core::bundle::{Authentic, index::Gates};
use mendix_agent_proto::v1::report::Body;
use mendix_test_kit::wait::eventually;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
};
use tokio_util::sync::CancellationToken;

use super::world::{Parts, World, image_ref, message, state};

/// Longer than the longest of the trials below.
const PATIENCE: Duration = Duration::from_secs(300);
const AGENT: &str = "mendix-agent";
const GUARD: &str = "mendix-agent-guard";

/// A cluster with an installed agent.
struct Site {
    world: World,
    guard: Option<AbortHandle>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop_guard();
    }
}

/// A process that drives releases.
struct Process {
    driver: Driver,
    link: watch::Sender<Link>,
    cancel: CancellationToken,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn connected() -> Link {
    Link::Connected {
        session_id: "s".into(),
        since: Timestamp::now() - jiff::SignedDuration::from_hours(1),
        clock_skew_millis: 0,
        identity_conflict: None,
        lacks: vec![],
    }
}

fn disconnected() -> Link {
    Link::Disconnected { since: Timestamp::now(), last_failure: "tcp: timed out".into() }
}

impl Site {
    async fn new() -> Self {
        let world = World::new().await;
        let site = Self { world, guard: None };
        // As Helm would: with what differs per cluster, and that no release speaks of.
        let labels = json!({"app.kubernetes.io/name": AGENT});
        site.install(
            AGENT,
            json!({"replicas": 2, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "serviceAccountName": AGENT,
                    "nodeSelector": {"pool": "system"},
                    "containers": [{"name": "agent", "image": image_ref("agent-1"), "args": ["run"],
                        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}]}]}}}),
        )
        .await;
        let labels = json!({"app.kubernetes.io/name": GUARD});
        site.install(
            GUARD,
            json!({"replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "containers": [{"name": "guard", "image": image_ref("agent-1")}]}}}),
        )
        .await;
        let available =
            json!({"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}});
        let guard = site.deployments();
        guard.patch_status(GUARD, &PatchParams::default(), &Patch::Merge(available)).await.unwrap();
        site
    }

    async fn install(&self, name: &str, spec: Value) {
        let deployment = json!({"metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec});
        let params = PostParams { field_manager: Some("helm".into()), ..Default::default() };
        let deployment = serde_json::from_value(deployment).unwrap();
        self.deployments().create(&params, &deployment).await.unwrap();
    }

    /// Starts a guard; gives what it shows of itself.
    fn start_guard(&mut self) -> watch::Receiver<Shown> {
        let (client, namespace) = (self.world.client.clone(), self.world.cluster.namespace.clone());
        let (shown, seen) = watch::channel(Shown::default());
        let guard = upgrade::guard::run(client, namespace, shown, CancellationToken::new());
        self.guard = Some(tokio::spawn(guard).abort_handle());
        seen
    }

    fn stop_guard(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.abort();
        }
    }

    /// What a process knows of itself that was installed and has its state.
    fn own(&self, link: Link) -> Own {
        Own {
            trial: String::new(),
            link: watch::channel(link).1,
            stable_for: Duration::from_secs(600),
            has_trust: Arc::new(AtomicBool::new(true)),
            tasks: Default::default(),
        }
    }

    fn process(&self, trial: &str, link: Link) -> Process {
        self.process_on(self.world.cluster.clone(), trial, link)
    }

    fn process_on(&self, cluster: Cluster, trial: &str, link: Link) -> Process {
        let (sender, receiver) = watch::channel(link.clone());
        let own = Own { trial: trial.into(), link: receiver, ..self.own(link) };
        let driver = self.world.driver_of(cluster, Some(own));
        Process { driver, link: sender, cancel: CancellationToken::new() }
    }

    /// A release with a component and, after it, the agent with this image.
    fn release(&self, sequence: u64, image: &str, lasts: u32) -> Authentic {
        let body = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": AGENT, "namespace": self.world.cluster.namespace},
            "spec": {"template": {"spec": {"containers": [
                {"name": "agent", "image": image_ref(image)}]}}}});
        let settings = Parts(&self.world).config("settings", json!({"release": image}));
        let namespace = self.world.cluster.namespace.clone();
        self.world.publish_with(sequence, &[settings], |index| {
            let mut agent = self.world.entry(AGENT, 9, &namespace, sequence, &[body]);
            agent.gates = Gates { timeout_seconds: lasts, soak_seconds: 1 };
            index.components.push(agent);
        })
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.world.client.clone(), &self.world.cluster.namespace)
    }

    async fn deployment(&self, name: &str) -> Value {
        serde_json::to_value(self.deployments().get(name).await.unwrap()).unwrap()
    }

    async fn image(&self, name: &str) -> String {
        let deployment = self.deployment(name).await;
        let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
        image.as_str().unwrap().to_owned()
    }

    async fn trial(&self) -> Option<UpgradeTrial> {
        let api: Api<UpgradeTrial> = self.world.cluster.own();
        let mut trials = api.list(&ListParams::default()).await.unwrap().items;
        trials.sort_by_key(|trial| trial.metadata.creation_timestamp.clone());
        trials.pop()
    }

    /// Waits until the newest trial is in this phase.
    async fn trial_is(&self, phase: &str) -> UpgradeTrial {
        eventually(PATIENCE, format!("the trial is {phase}"), async || {
            let trial = self.trial().await?;
            (trial.phase()?.name() == phase).then_some(trial)
        })
        .await
        .unwrap()
    }

    /// Waits until the Deployment asks for pods of the newest trial.
    async fn rolled_out(&self) -> UpgradeTrial {
        eventually(PATIENCE, "the new version is rolled out", async || {
            let trial = self.trial().await?;
            let deployment = self.deployment(AGENT).await;
            (upgrade::trial_of(&deployment) == Some(&trial.name_any())).then_some(trial)
        })
        .await
        .unwrap()
    }

    async fn bundle(&self) -> PatchBundle {
        let api: Api<PatchBundle> = self.world.cluster.own();
        let mut all = api.list(&ListParams::default()).await.unwrap().items;
        all.sort_by_key(|bundle| bundle.spec.sequence);
        all.pop().unwrap()
    }

    /// Waits until the report says that the run waits for this.
    async fn waits_for(&self, what: &str) {
        let mut reports = self.world.reports.subscribe();
        let said = reports.wait_for(|sections| {
            sections.values().any(|body| match body {
                Body::ReleaseRun(run) => run.message.contains(what),
                _ => false,
            })
        });
        let said = tokio::time::timeout(PATIENCE, said).await;
        said.unwrap_or_else(|_| panic!("it never waits for {what}")).unwrap();
    }

    async fn settings(&self) -> Option<Value> {
        let settings = self.world.get("ConfigMap", "settings").await?;
        Some(settings["data"]["release"].clone())
    }
}

impl Process {
    fn take(&self, site: &Site, index: Authentic) -> JoinHandle<Option<PatchBundle>> {
        let (driver, supply) = (self.driver.clone(), site.world.supply.clone());
        let cancel = self.cancel.clone();
        tokio::spawn(async move {
            let given_up = CancellationToken::new();
            take(&driver, index, &supply, &given_up, &cancel).await.ok()
        })
    }

    /// Goes on with what the last process left.
    fn resume(&self) -> JoinHandle<()> {
        let (driver, cancel) = (self.driver.clone(), self.cancel.clone());
        tokio::spawn(async move {
            let _stopped = resume(&driver, &cancel).await;
        })
    }
}

async fn ended<T>(work: JoinHandle<T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it ends").unwrap()
}

/// Everything of a Deployment that a rollback has to bring back, with who owns what.
fn comparable(deployment: &Value) -> Value {
    let managed = deployment["metadata"]["managedFields"].as_array().unwrap().iter();
    // The guard's mark stays, and its owner.
    let managed: Vec<_> = managed.filter(|entry| entry["manager"] != GUARD).cloned().collect();
    json!({"spec": deployment["spec"], "labels": deployment["metadata"]["labels"], "owners": managed})
}

#[tokio::test]
async fn a_new_agent_that_proves_itself_commits_and_takes_the_guard_along() {
    let mut site = Site::new().await;
    site.start_guard();
    let old = site.process("", connected());
    let work = old.take(&site, site.release(1, "agent-2", 600));
    let trial = site.rolled_out().await;
    assert_eq!(trial.phase().unwrap().name(), "Trial", "the guard watches before pods change");
    // The pod of the former version is told to go.
    drop(old);
    assert!(ended(work).await.is_none());
    let new = site.process(&trial.name_any(), disconnected());
    let work = new.resume();
    site.waits_for("a session with the control plane").await;
    assert_eq!(site.trial_is("Trial").await.name_any(), trial.name_any(), "not without a session");
    new.link.send_replace(connected());
    ended(work).await;
    site.trial_is("Committed").await;
    for occasion in [occasion::TRIAL_PROPOSED, occasion::TRIAL_BEGUN, occasion::TRIAL_COMMITTED] {
        site.world.told(occasion).await;
    }
    assert_eq!(state(&site.bundle().await), "Committed");
    assert_eq!(site.image(AGENT).await, image_ref("agent-2"));
    assert_eq!(site.image(GUARD).await, image_ref("agent-2"));
    // What the installation said beside the release is there still, and the pods know their trial.
    let deployment = site.deployment(AGENT).await;
    let pods = &deployment["spec"]["template"]["spec"];
    assert_eq!(pods["nodeSelector"]["pool"], "system");
    let env: Vec<_> =
        pods["containers"][0]["env"].as_array().unwrap().iter().map(|e| &e["name"]).collect();
    assert!(env.contains(&&json!("HTTPS_PROXY")) && env.contains(&&json!("MENDIX_AGENT_TRIAL")));

    // From now on the image is the release's: what somebody else sets is put back, once, and the
    // installation's own fields are left alone.
    let drift = Drift::new(&new.driver);
    let cancel = CancellationToken::new();
    let clean = drift.recover(&cancel).await.unwrap();
    assert_eq!((clean.objects, clean.corrected, &clean.failures[..]), (2, 0, &[][..]));
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "agent", "image": image_ref("agent-9"), "env": [{"name": "EXTRA", "value": "1"}]}]}}}});
    let params = PatchParams { field_manager: Some("kubectl-edit".into()), ..Default::default() };
    site.deployments().patch(AGENT, &params, &Patch::Strategic(patch)).await.unwrap();
    assert_eq!(drift.recover(&cancel).await.unwrap().corrected, 1);
    assert_eq!(site.image(AGENT).await, image_ref("agent-2"));
    let after = site.deployment(AGENT).await;
    assert_eq!(upgrade::trial_of(&after), Some(&*trial.name_any()));
    assert!(after["spec"].to_string().contains("EXTRA"));
}

#[tokio::test]
async fn a_new_agent_that_never_commits_is_put_back_exactly_and_its_release_with_it() {
    let mut site = Site::new().await;
    site.start_guard();
    let before = comparable(&site.deployment(AGENT).await);
    // Its pods never get ready, or hang and look healthy: the former version leads on.
    let old = site.process("", connected());
    let index = site.release(1, "agent-2", 10);
    let bundle = ended(old.take(&site, index.clone())).await.unwrap();
    assert_eq!(state(&bundle), "RolledBack", "{}", message(&bundle));
    let status = bundle.status.clone().unwrap();
    assert_eq!(status.reason.as_deref(), Some("UpgradeReverted"));
    assert!(message(&bundle).contains("it has not committed in time"), "{}", message(&bundle));
    let trial = site.trial_is("Reverted").await.status.unwrap();
    assert_eq!(trial.cause.as_deref(), Some("DeadlinePassed"));
    site.world.told(occasion::TRIAL_REVERTING).await;
    site.world.told(occasion::TRIAL_REVERTED).await;
    assert_eq!(comparable(&site.deployment(AGENT).await), before);
    assert_eq!(site.settings().await, None, "the component before it is as before, too");
    assert_eq!(site.image(GUARD).await, image_ref("agent-1"));
    let component: Api<ManagedComponent> = site.world.cluster.own();
    assert!(component.get_opt(AGENT).await.unwrap().is_none());
    // The same digest is not tried again.
    let again = ended(old.take(&site, index)).await.unwrap();
    assert_eq!(state(&again), "RolledBack");
    assert_eq!(site.image(AGENT).await, image_ref("agent-1"));
}

#[tokio::test]
async fn a_crash_loop_ends_a_trial_long_before_its_deadline() {
    let mut site = Site::new().await;
    site.start_guard();
    let old = site.process("", disconnected());
    old.link.send_replace(connected());
    let work = old.take(&site, site.release(1, "agent-2", 3600));
    let trial = site.rolled_out().await;
    old.link.send_replace(disconnected());
    let pods: Api<Pod> = Api::namespaced(site.world.client.clone(), &site.world.cluster.namespace);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "new", "labels": {"app.kubernetes.io/name": AGENT},
            "annotations": {upgrade::TRIAL: trial.name_any()}},
        "spec": {"containers": [{"name": "agent", "image": image_ref("agent-2")}]}});
    pods.patch("new", &PatchParams::apply("stand-in"), &Patch::Apply(&pod)).await.unwrap();
    let status = json!({"status": {"containerStatuses": [{
        "name": "agent", "ready": false, "restartCount": 3, "image": "", "imageID": "",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 78, "reason": "Error"}}}]}});
    pods.patch_status("new", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let bundle = ended(work).await.unwrap();
    // Without a session, and it is the version's fault all the same.
    assert_eq!(state(&bundle), "RolledBack");
    assert!(
        message(&bundle).contains("restarted 3 times (Error, exit code 78)"),
        "{}",
        message(&bundle)
    );
    assert_eq!(site.image(AGENT).await, image_ref("agent-1"));
}

#[tokio::test]
async fn a_network_that_fails_both_versions_postpones_the_release_and_bars_nothing() {
    let mut site = Site::new().await;
    site.start_guard();
    let old = site.process("", connected());
    let index = site.release(1, "agent-2", 10);
    let work = old.take(&site, index.clone());
    let trial = site.rolled_out().await;
    drop(old);
    assert!(ended(work).await.is_none());
    // The new one hangs without a session; it may not judge what the guard does about it.
    let new = site.process(&trial.name_any(), disconnected());
    let hanging = new.resume();
    site.trial_is("Reverted").await;
    drop(new);
    ended(hanging).await;
    let back = site.process("", disconnected());
    ended(back.resume()).await;
    let bundle = site.bundle().await;
    assert_eq!(state(&bundle), "Postponed", "{}", message(&bundle));
    assert!(message(&bundle).contains("can't connect either"), "{}", message(&bundle));
    assert_eq!(site.image(AGENT).await, image_ref("agent-1"));
    assert_eq!(site.settings().await, None);

    // Wanted again once there is a session, it is tried again, in a trial of its own.
    back.link.send_replace(connected());
    let work = back.take(&site, index);
    let second = eventually(PATIENCE, "a second trial", async || {
        let next = site.trial().await?;
        let deployment = site.deployment(AGENT).await;
        let rolled = upgrade::trial_of(&deployment) == Some(&next.name_any());
        (next.name_any() != trial.name_any() && rolled).then_some(next)
    })
    .await
    .unwrap();
    drop(back);
    ended(work).await;
    let new = site.process(&second.name_any(), connected());
    ended(new.resume()).await;
    assert_eq!(state(&site.bundle().await), "Committed");
}

#[tokio::test]
async fn an_agent_that_cannot_read_its_state_does_not_commit() {
    let mut site = Site::new().await;
    site.start_guard();
    let old = site.process("", connected());
    let work = old.take(&site, site.release(1, "agent-2", 30));
    let trial = site.rolled_out().await;
    drop(old);
    ended(work).await;
    let new = site.process(&trial.name_any(), connected());
    let has_trust = Arc::new(AtomicBool::new(false));
    let own = Own { trial: trial.name_any(), has_trust, ..site.own(connected()) };
    let blind = site.world.driver_of(site.world.cluster.clone(), Some(own));
    let cancel = new.cancel.clone();
    let hanging = tokio::spawn(async move {
        let _stopped = resume(&blind, &cancel).await;
    });
    site.trial_is("Reverted").await;
    drop(new);
    ended(hanging).await;
    let back = site.process("", connected());
    ended(back.resume()).await;
    assert_eq!(state(&site.bundle().await), "RolledBack");
}

#[tokio::test]
async fn without_a_guard_nothing_is_rolled_out_and_the_release_is_postponed() {
    let site = Site::new().await;
    let before = comparable(&site.deployment(AGENT).await);
    let old = site.process("", connected());
    let bundle = ended(old.take(&site, site.release(1, "agent-2", 10))).await.unwrap();
    assert_eq!(state(&bundle), "Postponed", "{}", message(&bundle));
    assert_eq!(site.trial_is("Withdrawn").await.spec.image, image_ref("agent-2"));
    site.world.told(occasion::TRIAL_WITHDRAWN).await;
    site.world.told(occasion::POSTPONED).await;
    assert_eq!(comparable(&site.deployment(AGENT).await), before);
    assert_eq!(site.settings().await, None);
}

#[tokio::test]
async fn agent_and_guard_both_dead_the_first_to_come_back_decides() {
    for guard_is_first in [true, false] {
        let mut site = Site::new().await;
        site.start_guard();
        let old = site.process("", connected());
        let work = old.take(&site, site.release(1, "agent-2", 30));
        let trial = site.rolled_out().await;
        drop(old);
        site.stop_guard();
        ended(work).await;
        // Nobody acts on the deadline.
        let deadline = trial.status.as_ref().and_then(|status| status.deadline).unwrap();
        eventually(PATIENCE, "the deadline passes", async || {
            (Timestamp::now() > deadline).then_some(())
        })
        .await
        .unwrap();
        assert_eq!(site.trial_is("Trial").await.name_any(), trial.name_any());
        if guard_is_first {
            site.start_guard();
            site.trial_is("Reverted").await;
            let back = site.process("", connected());
            ended(back.resume()).await;
            assert_eq!(state(&site.bundle().await), "RolledBack");
            assert_eq!(site.image(AGENT).await, image_ref("agent-1"));
        } else {
            let new = site.process(&trial.name_any(), connected());
            ended(new.resume()).await;
            assert_eq!(state(&site.bundle().await), "Committed");
            site.start_guard();
            assert_eq!(site.trial_is("Committed").await.name_any(), trial.name_any());
            assert_eq!(site.image(AGENT).await, image_ref("agent-2"));
        }
    }
}

#[tokio::test]
async fn a_guard_that_is_killed_between_any_two_steps_is_followed_by_one_that_ends_the_trial() {
    let mut site = Site::new().await;
    let before = comparable(&site.deployment(AGENT).await);
    let old = site.process("", connected());
    let work = old.take(&site, site.release(1, "agent-2", 10));
    // A guard that never lives for long.
    let end = tokio::time::Instant::now() + PATIENCE;
    let mut life = Duration::from_millis(200);
    while !work.is_finished() {
        assert!(tokio::time::Instant::now() < end, "it ends");
        site.start_guard();
        tokio::time::sleep(life).await;
        site.stop_guard();
        // A deadline counts only for a guard that has watched for as long as the trial lasts.
        life *= 2;
    }
    assert_eq!(state(&ended(work).await.unwrap()), "RolledBack");
    assert_eq!(comparable(&site.deployment(AGENT).await), before);
}

#[tokio::test]
async fn a_write_that_was_decided_before_the_guard_reverted_does_not_land_after_it() {
    let mut site = Site::new().await;
    // The agent's Deployment as a slow process read it, before it saw the phase `Trial`.
    let read = site.deployment(AGENT).await;
    let api: Api<UpgradeTrial> = site.world.cluster.own();
    let trial = json!({"apiVersion": "agent.mendix.com/v1alpha1", "kind": "UpgradeTrial",
        "metadata": {"name": "t1"},
        "spec": {"bundle": "b", "releaseId": "r", "version": "2", "image": image_ref("agent-2"),
            "preImage": read["spec"].to_string(), "lastsSeconds": 1, "holdSeconds": 0}});
    let trial: UpgradeTrial = serde_json::from_value(trial).unwrap();
    api.create(&PostParams::default(), &trial).await.unwrap();
    site.start_guard();
    site.trial_is("Reverted").await;
    let mut late = upgrade::dressed(
        &json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": AGENT, "resourceVersion": read["metadata"]["resourceVersion"]},
            "spec": {"template": {"spec": {"containers": [
                {"name": "agent", "image": image_ref("agent-2")}]}}}}),
        "t1",
    );
    let params = PatchParams::apply("mendix-agent").force();
    let landed = site.deployments().patch(AGENT, &params, &Patch::Apply(&late)).await;
    assert!(matches!(landed, Err(kube::Error::Api(status)) if status.code == 409));
    assert_eq!(site.image(AGENT).await, image_ref("agent-1"));
    // The same write with the version of now lands: it was the version that kept it out.
    late["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    site.deployments().patch(AGENT, &params, &Patch::Apply(&late)).await.unwrap();
}

#[tokio::test]
async fn a_release_whose_pods_are_those_that_run_needs_no_trial() {
    let site = Site::new().await;
    let old = site.process("", connected());
    let work = old.take(&site, site.release(1, "agent-1", 120));
    // The stand-in for the Deployment controller does not look here.
    let seen = json!({"status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
        "readyReplicas": 2, "availableReplicas": 2}});
    let params = PatchParams::default();
    site.deployments().patch_status(AGENT, &params, &Patch::Merge(seen)).await.unwrap();
    let bundle = ended(work).await.unwrap();
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    assert!(site.trial().await.is_none());
}

#[tokio::test]
async fn a_trial_waits_for_a_session_that_has_been_stable() {
    let mut site = Site::new().await;
    site.start_guard();
    let fresh = Link::Connected {
        session_id: "s".into(),
        since: Timestamp::now(),
        clock_skew_millis: 0,
        identity_conflict: None,
        lacks: vec![],
    };
    let old = site.process("", fresh);
    let work = old.take(&site, site.release(1, "agent-2", 600));
    site.waits_for("a session that has been stable for 600 s").await;
    assert_eq!(state(&site.bundle().await), "Scheduled");
    assert_eq!(site.settings().await, None, "nothing is touched while it waits");
    old.link.send_replace(connected());
    site.rolled_out().await;
    drop(old);
    ended(work).await;
}

#[tokio::test]
async fn an_agent_that_is_no_deployment_refuses_to_be_upgraded_and_says_so() {
    let site = Site::new().await;
    let bundle = site.world.take(site.release(1, "agent-2", 10)).await;
    assert_eq!(state(&bundle), "Refused");
    let refusals = bundle.status.unwrap().refusals;
    assert!(refusals.len() == 1 && refusals[0].starts_with("AgentElsewhere"), "{refusals:?}");
    assert_eq!(site.settings().await, None);
}
