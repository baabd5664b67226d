//! An agent whose pods come and go, and whose Lease wanders: whether that is a reason to put the former
//! version back depends on whether there is a trial, whose pods they are, and since when. The guard is
//! a program here, and has the rights that the manifests give it.

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mendix_agent::{occasion, upgrade};
use mendix_agent_core::upgrade::{MAX_HANDOVERS, MAX_RESTARTS};
use serde_json::json;

use super::{
    super::world::{image_ref, message, state},
    AGENT, Site, connected, ended,
    program::Program,
};

impl Site {
    /// A pod of the agent, of this trial or of none.
    async fn pod(&self, name: &str, trial: &str, ready: bool, restarts: u32) {
        let pods: Api<Pod> =
            Api::namespaced(self.world.client.clone(), &self.world.cluster.namespace);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/name": AGENT},
                "annotations": {upgrade::TRIAL: trial}},
            "spec": {"containers": [{"name": "agent", "image": image_ref("agent")}]}});
        pods.patch(name, &PatchParams::apply("stand-in"), &Patch::Apply(&pod)).await.unwrap();
        let status = json!({"status": {
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            "containerStatuses": [{
                "name": "agent", "ready": ready, "restartCount": restarts, "image": "", "imageID": "",
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// How often the Lease has changed hands.
    async fn handed_over(&self, times: u32) {
        let leases: Api<Lease> =
            Api::namespaced(self.world.client.clone(), &self.world.cluster.namespace);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": AGENT},
            "spec": {"holderIdentity": format!("agent-{}_1", times % 2), "leaseTransitions": times}});
        let params = PatchParams::apply("stand-in").force();
        leases.patch(AGENT, &params, &Patch::Apply(&lease)).await.unwrap();
    }

    /// Two pods that are ready by turns, the Lease going from one to the other, this many times from
    /// `from` on, and each restarted as often as said. Each set of pods needs a name of its own.
    async fn flaps(&self, (pods, trial): (&str, &str), from: u32, times: u32, restarts: u32) {
        for turn in 1..=times {
            self.pod(&format!("{pods}-0"), trial, turn % 2 == 0, restarts).await;
            self.pod(&format!("{pods}-1"), trial, turn % 2 == 1, restarts).await;
            self.handed_over(from + turn).await;
        }
    }

    /// What changes with every write of the agent's Deployment, and with every change of what it asks for.
    async fn writes(&self) -> (String, i64) {
        let metadata = self.deployments().get(AGENT).await.unwrap().metadata;
        (metadata.resource_version.unwrap(), metadata.generation.unwrap())
    }

    async fn times_told(&self, occasion: occasion::Occasion) -> usize {
        let events: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.world.client.clone(), &self.world.cluster.namespace);
        let events = events.list(&Default::default()).await.unwrap().items;
        events.iter().filter(|event| event.reason.as_deref() == Some(occasion.reason)).count()
    }
}

#[tokio::test]
async fn an_agent_that_flaps_is_put_back_once_for_its_trial_and_never_without_one() {
    let site = Site::new().await;
    let guard = Program::guard(&site).await;
    guard.shows("watches 1").await;

    // Without a trial it may flap as it likes.
    let installed = site.writes().await;
    site.flaps(("installed", ""), 0, 3 * MAX_HANDOVERS, 9 * MAX_RESTARTS).await;
    assert_eq!(site.writes().await, installed);

    // What was before the trial, and pods that are not of it, count for nothing; nor do a few turns.
    let old = site.process("", connected());
    let work = old.take(&site, site.release(1, "agent-2", 3600));
    let trial = site.rolled_out().await;
    let (_, rolled_out) = site.writes().await;
    assert_eq!(rolled_out, installed.1 + 1, "only the agent has written");
    let begun = 3 * MAX_HANDOVERS;
    let status = trial.status.unwrap();
    assert_eq!(status.lease_transitions, Some(u64::from(begun)));
    let trial = trial.metadata.name.unwrap();
    site.flaps(("first", &trial), begun, MAX_HANDOVERS, MAX_RESTARTS - 1).await;
    assert_eq!(site.trial_is("Trial").await.metadata.name.as_ref(), Some(&trial));

    // One turn more is one too many. The former version is back, and that was it.
    site.flaps(("first", &trial), begun + MAX_HANDOVERS, 1, MAX_RESTARTS - 1).await;
    let bundle = ended(work).await.unwrap();
    assert_eq!(state(&bundle), "RolledBack", "{}", message(&bundle));
    assert!(message(&bundle).contains("the Lease wanders between its replicas"));
    let reverted = site.trial_is("Reverted").await.status.unwrap();
    assert_eq!(reverted.cause.as_deref(), Some("Flapping"));
    assert_eq!(site.image(AGENT).await, image_ref("agent-1"));
    let back = site.writes().await;
    assert_eq!(back.1, rolled_out + 1, "put back by one write");
    // It goes on: pods of that trial that linger, and those of the former version.
    let begun = 5 * MAX_HANDOVERS;
    site.flaps(("first", &trial), begun, MAX_HANDOVERS, 9 * MAX_RESTARTS).await;
    site.flaps(("former", ""), begun + MAX_HANDOVERS, MAX_HANDOVERS, 9 * MAX_RESTARTS).await;
    assert_eq!(site.writes().await, back);

    // A later version is judged by what happens to itself: it stumbles, and stays.
    let work = old.take(&site, site.release(2, "agent-3", 3600));
    let next = site.rolled_out().await.metadata.name.unwrap();
    assert_ne!(next, trial);
    assert_eq!(site.writes().await.1, back.1 + 1, "nobody has written in between");
    let begun = begun + 2 * MAX_HANDOVERS;
    site.flaps(("second", &next), begun, MAX_HANDOVERS, MAX_RESTARTS - 1).await;
    drop(old);
    assert!(ended(work).await.is_none());
    let new = site.process(&next, connected());
    ended(new.resume()).await;
    assert_eq!(site.trial_is("Committed").await.metadata.name, Some(next));
    assert_eq!(site.image(AGENT).await, image_ref("agent-3"));
    assert_eq!(state(&site.bundle().await), "Committed");
    guard.shows("reverted_trials_total 1").await;
    for occasion in [occasion::TRIAL_REVERTING, occasion::TRIAL_REVERTED] {
        site.world.told(occasion).await;
        assert_eq!(site.times_told(occasion).await, 1, "{}", occasion.reason);
    }
}
