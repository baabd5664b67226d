//! Managed objects that somebody else changed or deleted.

use std::sync::Arc;

use jiff::SignedDuration;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mendix_agent::{
    channel::section_of, crd::managed_component::ManagedComponent, occasion, patch::drift::Drift,
};
use mendix_agent_core::bundle::drift::Fight;
use mendix_agent_proto::v1::{Section, report::Body};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::{COMPONENT, LONG, Parts, World, image_ref, state, until};

struct Guarded {
    world: World,
    drift: Arc<Drift>,
    watch: JoinHandle<()>,
    before: std::collections::BTreeMap<String, Value>,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Guarded {
    /// A committed release that is watched.
    async fn new() -> Self {
        let world = World::new().await;
        let parts = Parts(&world);
        let index = world.publish_with(
            1,
            &[parts.config("settings", json!({"a": "1"})), parts.deployment("good", Some(2))],
            |_| {},
        );
        assert_eq!(state(&world.take(index).await), "Committed");
        let before = world.contents().await;
        let drift = Arc::new(Drift::new(&world.driver()));
        let watched = Arc::clone(&drift);
        let watch = tokio::spawn(async move {
            watched.run(&CancellationToken::new()).await.unwrap();
        });
        let guarded = Self { world, drift, watch, before };
        until("health is known", async || {
            let status = guarded.world.component().await.unwrap().status.unwrap();
            status.health.as_deref() == Some("Ready")
        })
        .await;
        guarded
    }

    async fn corrections(&self) -> u64 {
        self.world.component().await.unwrap().status.unwrap().drift_corrected
    }

    async fn until_corrected(&self, times: u64) {
        until("drift is corrected", async || self.corrections().await >= times).await;
    }
}

#[tokio::test]
async fn a_sidecar_an_image_a_variable_and_host_network_are_put_back_and_reported() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    world
        .meddle("Deployment", "operator", json!({"spec": {"template": {"spec": {
            "hostNetwork": true,
            "containers": [
                {"name": "operator", "image": "evil:latest", "env": [{"name": "EXTRA", "value": "1"}]},
                {"name": "spy", "image": "spy:latest"}]}}}}))
        .await;
    guarded.until_corrected(1).await;
    assert_eq!(world.contents().await, guarded.before);
    let drift = world.component().await.unwrap().status.unwrap().last_drift.unwrap();
    assert_eq!(drift.claimed_by, "kubectl-edit");
    for field in [
        "spec.template.spec.containers[name=operator].image",
        "spec.template.spec.containers[name=operator].env[name=EXTRA]",
        "spec.template.spec.containers[name=spy]",
        "spec.template.spec.hostNetwork",
    ] {
        assert!(drift.fields.iter().any(|found| found == field), "{field} in {:?}", drift.fields);
    }
    let took = drift.corrected_at.unwrap().duration_since(drift.found_at.unwrap());
    assert!(took < SignedDuration::try_from(LONG).unwrap(), "not with the next full check: {took}");

    let reported = world.reports.subscribe();
    until("the report names it", async || match reported.borrow().get(&Section::Components) {
        Some(body @ Body::Components(report)) => {
            assert_eq!(section_of(body), Section::Components);
            report.components.iter().any(|c| c.name == COMPONENT && c.drift_corrected == 1)
        }
        _ => false,
    })
    .await;
    let event = world.told(occasion::DRIFT_CORRECTED).await;
    assert!(event.note.unwrap().contains("kubectl-edit"));
}

#[tokio::test]
async fn a_key_is_stripped_a_foreign_label_stays_and_deleted_objects_come_back() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    world
        .meddle(
            "ConfigMap",
            "settings",
            json!({
            "metadata": {"labels": {"team": "blue"}}, "data": {"a": "2", "extra": "x"}}),
        )
        .await;
    guarded.until_corrected(1).await;
    let settings = world.get("ConfigMap", "settings").await.unwrap();
    assert_eq!(settings["data"], json!({"a": "1"}));
    assert_eq!(settings["metadata"]["labels"], json!({"team": "blue"}));

    for (n, (path, kind, name)) in [
        ("api/v1/namespaces/NS/configmaps/settings", "ConfigMap", "settings"),
        ("apis/apps/v1/namespaces/NS/deployments/operator", "Deployment", "operator"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{}", path.replace("NS", &world.target));
        let request = http::Request::delete(path).body(vec![]).unwrap();
        world.client.request::<Value>(request).await.unwrap();
        guarded.until_corrected(2 + n as u64).await;
        assert!(world.get(kind, name).await.is_some());
    }
    // A label alone is no drift: nothing is written for it.
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    world.meddle("ConfigMap", "settings", json!({"metadata": {"labels": {"x": "y"}}})).await;
    let labelled = version(&world.get("ConfigMap", "settings").await.unwrap());
    world.meddle("Deployment", "operator", json!({"spec": {"replicas": 7}})).await;
    guarded.until_corrected(4).await;
    assert_eq!(version(&world.get("ConfigMap", "settings").await.unwrap()), labelled);
    let deployment = world.get("Deployment", "operator").await.unwrap();
    assert_eq!(deployment["spec"]["replicas"], 2);
}

#[tokio::test]
async fn a_writer_that_keeps_coming_back_is_slowed_down_and_reported() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    for round in 1..=3 {
        world
            .meddle("ConfigMap", "settings", json!({"data": {"a": round.to_string() + "x"}}))
            .await;
        guarded.until_corrected(round).await;
    }
    let corrected_at = async || {
        let status = world.component().await.unwrap().status.unwrap();
        status.last_drift.unwrap().corrected_at.unwrap()
    };
    let third = corrected_at().await;
    world.meddle("ConfigMap", "settings", json!({"data": {"a": "last"}})).await;
    until("the fight is reported", async || {
        let status = world.component().await.unwrap().status.unwrap();
        status.message.is_some_and(|message| message.contains("3 times"))
    })
    .await;
    guarded.until_corrected(4).await;
    world.told(occasion::DRIFT_FIGHT).await;
    let waited = corrected_at().await.duration_since(third);
    assert!(waited >= Fight::FIRST_WAIT, "the next correction waits: {waited}");
}

#[tokio::test]
async fn what_a_request_to_recover_finds_is_put_back() {
    let guarded = Guarded::new().await;
    guarded.watch.abort();
    until("the watch has ended", async || guarded.watch.is_finished()).await;
    let world = &guarded.world;
    world
        .meddle(
            "Deployment",
            "operator",
            json!({"spec": {"template": {"spec": {
            "containers": [{"name": "operator", "image": image_ref("other")}]}}}}),
        )
        .await;
    let recovery = guarded.drift.recover(&CancellationToken::new()).await.unwrap();
    assert_eq!((recovery.objects, recovery.corrected), (2, 1));
    assert_eq!(recovery.failures, Vec::<String>::new());
    assert_eq!(world.contents().await, guarded.before);
}

#[tokio::test]
async fn objects_of_a_run_that_is_not_over_are_left_to_it() {
    let guarded = Guarded::new().await;
    // A correction that is in flight keeps the driver from beginning a run. The run of this test is
    // written to its record past the driver, so that the watch has to end before it and start after it.
    guarded.watch.abort();
    until("the watch has ended", async || guarded.watch.is_finished()).await;
    let world = &guarded.world;
    let components: Api<ManagedComponent> = world.cluster.own();
    let announced = json!({"status": {"run": {"bundle": "r2", "version": "1.2", "objects": 2}}});
    components
        .patch_status(COMPONENT, &PatchParams::default(), &Patch::Merge(&announced))
        .await
        .unwrap();
    world.meddle("ConfigMap", "settings", json!({"data": {"a": "of the run"}})).await;
    let stop = CancellationToken::new();
    let watch = async { guarded.drift.run(&stop).await.unwrap() };
    let recover = async {
        let recovery = guarded.drift.recover(&stop).await.unwrap();
        stop.cancel();
        recovery
    };
    let ((), recovery) = tokio::join!(watch, recover);
    assert_eq!((recovery.corrected, recovery.failures.len()), (0, 2), "{:?}", recovery.failures);
    let settings = world.get("ConfigMap", "settings").await.unwrap();
    assert_eq!(settings["data"]["a"], "of the run");
}
