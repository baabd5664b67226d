//! What others do while a run goes on: write the same objects and records all the time, take the whole
//! namespace away, or let the webhook that has to be asked about each object go down.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mendix_agent::patch::drift::Drift;
use mendix_agent_core::bundle::{index::ReleaseClass, version::Version};
use mendix_test_kit::apiserver::ApiServer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        webhook::Webhook,
        world::{Parts, World, message, state, until},
    },
    ended,
};

const RECORDS: &str = "apis/agent.mendix.com/v1alpha1";

impl World {
    /// Labels every object of these lists again and again; counts the writes.
    async fn storm(self: Arc<Self>, lists: Vec<String>, writes: Arc<AtomicUsize>) {
        loop {
            for list in &lists {
                let get = http::Request::get(format!("/{list}")).body(vec![]).unwrap();
                let Ok(found) = self.client.request::<Value>(get).await else { continue };
                for item in found["items"].as_array().into_iter().flatten() {
                    let name = item["metadata"]["name"].as_str().unwrap();
                    let count = writes.fetch_add(1, Ordering::Relaxed).to_string();
                    let label = json!({"metadata": {"labels": {"storm": count}}});
                    let patch = http::Request::patch(format!("/{list}/{name}"))
                        .header("content-type", "application/merge-patch+json")
                        .body(label.to_string().into_bytes())
                        .unwrap();
                    let _gone_meanwhile = self.client.request::<Value>(patch).await;
                }
            }
        }
    }

    /// Takes a namespace's last finalizer away, as the controller does that is not there.
    async fn finalize(&self, name: &str) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {}});
        let put = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .unwrap();
        self.client.request::<Value>(put).await.unwrap();
    }

    async fn create_namespace(&self, name: &str) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.administer("api/v1/namespaces", body).await;
    }
}

#[tokio::test]
async fn a_storm_of_conflicts_on_records_and_objects_is_outlasted() {
    let world = Arc::new(World::new().await);
    let parts = Parts(&world);
    let objects = |value: &str, image: &str| {
        let mut all: Vec<Value> =
            (0..5).map(|n| parts.config(&format!("settings-{n}"), json!({"a": value}))).collect();
        all.push(parts.deployment(image, Some(1)));
        all
    };
    let bundle = world.take(world.publish(1, &objects("1", "good"))).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));

    let own = &world.cluster.namespace;
    let lists = [
        vec![format!("{RECORDS}/namespaces/{own}/patchbundles")],
        vec![format!("{RECORDS}/namespaces/{own}/managedcomponents")],
        vec![world.within("api/v1", "configmaps"), world.within("apis/apps/v1", "deployments")],
    ];
    let writes = Arc::new(AtomicUsize::new(0));
    let storms: Vec<_> = lists
        .into_iter()
        .map(|lists| tokio::spawn(Arc::clone(&world).storm(lists, Arc::clone(&writes))))
        .collect();
    let good = world.take(world.publish(2, &objects("2", "good"))).await;
    let bad = world.take(world.publish(3, &objects("3", "bad"))).await;
    storms.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(state(&good), "Committed", "{}", message(&good));
    assert_eq!(state(&bad), "RolledBack", "{}", message(&bad));
    for n in 0..5 {
        let live = world.get("ConfigMap", &format!("settings-{n}")).await.unwrap();
        assert_eq!(live["data"]["a"], "2");
    }

    // It was one: writes of the agent's records were refused because of it.
    let log = ApiServer::shared().await.unwrap().audit_log().unwrap();
    let refused = ["patchbundles", "managedcomponents"].iter().flat_map(|resource| {
        let events = log.requests_for(own, resource, "status").unwrap();
        events.into_iter().filter(|event| event["responseStatus"]["code"] == 409)
    });
    let refused = refused.count();
    assert!(refused > 0, "{} writes and no conflict", writes.load(Ordering::Relaxed));
    println!("{} writes of others, {refused} conflicts on records", writes.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_namespace_that_is_stuck_terminating_is_named_and_waited_for() {
    let world = World::new().await;
    let parts = Parts(&world);
    let first = [parts.config("settings", json!({"a": "1"}))];
    assert_eq!(state(&world.take(world.publish(1, &first)).await), "Committed");
    // No controller is there that would empty it, so it stays as it is.
    let namespace = format!("api/v1/namespaces/{}", world.target);
    world.delete(&namespace).await;
    let second = [parts.config("settings", json!({"a": "2"})), parts.config("new", json!({}))];
    let run = world.start(world.publish(2, &second));
    world.until_said("is being terminated").await;
    assert!(!run.is_finished());
    world.finalize(&world.target).await;
    world.create_namespace(&world.target).await;
    let bundle = ended(run).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    assert!(world.get("ConfigMap", "new").await.is_some());
}

#[tokio::test]
async fn a_rollback_into_a_namespace_that_is_stuck_terminating_puts_back_what_is_there() {
    let world = World::new().await;
    let parts = Parts(&world);
    let first = [parts.config("settings", json!({"a": "1"})), parts.deployment("good", Some(1))];
    assert_eq!(state(&world.take(world.publish(1, &first)).await), "Committed");
    let before = world.contents().await;
    let second = [
        parts.config("settings", json!({"a": "2"})),
        parts.config("created", json!({})),
        parts.job("migrate"),
        parts.deployment("bad", Some(1)),
    ];
    let run = world.start(world.publish(2, &second));
    until("the job is there", async || world.get("Job", "migrate").await.is_some()).await;
    world.delete(&format!("api/v1/namespaces/{}", world.target)).await;
    world.finish_job("migrate").await;
    let bundle = ended(run).await;
    assert_eq!(state(&bundle), "RolledBack", "{}", message(&bundle));
    assert_eq!(world.contents().await, before);
    assert!(world.get("Job", "migrate").await.is_none());
}

#[tokio::test]
async fn a_managed_namespace_that_was_deleted_comes_back_with_its_objects() {
    let world = World::new().await;
    let extra = format!("{}-extra", world.target);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": extra}, "data": {"a": "1"}});
    let objects =
        [json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": extra}}), config];
    let index = world.publish_with(1, &objects, |index| {
        index.components[0].scope.namespaces.push(extra.clone());
    });
    let bundle = world.take(index).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));

    let drift = Drift::new(&world.driver());
    let stop = CancellationToken::new();
    let path = format!("api/v1/namespaces/{extra}");
    let watched = drift.run(&stop);
    let meddling = async {
        until("health is known", async || {
            world.component().await.unwrap().status.unwrap().health.is_some()
        })
        .await;
        world.delete(&path).await;
        world.delete(&format!("{path}/configmaps/settings")).await;
        world.finalize(&extra).await;
        until("the namespace and its object are back", async || {
            let get = |path: String| http::Request::get(format!("/{path}")).body(vec![]).unwrap();
            let namespace = world.client.request::<Value>(get(path.clone())).await;
            let config =
                world.client.request::<Value>(get(format!("{path}/configmaps/settings"))).await;
            namespace.is_ok_and(|found| found["metadata"]["deletionTimestamp"].is_null())
                && config.is_ok_and(|found| found["data"]["a"] == "1")
        })
        .await;
        stop.cancel();
    };
    let (watched, ()) = tokio::join!(watched, meddling);
    watched.expect("drift correction goes on");
}

#[tokio::test]
async fn a_release_that_can_wait_is_held_back_while_a_disruption_budget_is_short() {
    let world = World::new().await;
    let parts = Parts(&world);
    let old = world.cluster.server_version.parse::<Version>().unwrap() < "1.21".parse().unwrap();
    let version = if old { "v1beta1" } else { "v1" };
    let budget = json!({"apiVersion": format!("policy/{version}"), "kind": "PodDisruptionBudget",
        "metadata": {"name": "operator", "namespace": world.target},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "operator"}}}});
    let path = world.within(&format!("apis/policy/{version}"), "poddisruptionbudgets/operator");
    let healthy = async |pods: u32| {
        let status = json!({"status": {"observedGeneration": 1, "expectedPods": 2, "currentHealthy": pods,
            "desiredHealthy": 1, "disruptionsAllowed": 0}});
        world.merge(&format!("{path}/status"), status).await;
    };
    let first = [budget.clone(), parts.config("settings", json!({"a": "1"}))];
    let run = world.start(world.publish(1, &first));
    until("the budget is there", async || {
        let get = http::Request::get(format!("/{path}")).body(vec![]).unwrap();
        world.client.request::<Value>(get).await.is_ok()
    })
    .await;
    healthy(1).await;
    assert_eq!(state(&ended(run).await), "Committed");

    // A node is drained: what may be missing is missing already.
    healthy(0).await;
    let second = [budget.clone(), parts.config("settings", json!({"a": "2"}))];
    let weekly = world.publish_with(2, &second, |index| index.class = ReleaseClass::Weekly);
    let run = world.start(weekly);
    world.until_said("0 of 1 pods that it needs are healthy").await;
    assert!(!run.is_finished());
    let settings = world.get("ConfigMap", "settings").await.unwrap();
    assert_eq!(settings["data"]["a"], "1");
    healthy(1).await;
    assert_eq!(state(&ended(run).await), "Committed");

    // What is critical does not wait for it.
    healthy(0).await;
    let third = [budget, parts.config("settings", json!({"a": "3"}))];
    assert_eq!(state(&world.take(world.publish(3, &third)).await), "Committed");
}

#[tokio::test]
async fn a_webhook_that_goes_down_midway_is_named_and_the_run_goes_on_when_it_is_gone() {
    let world = World::new().await;
    let webhook = world.with_webhook().await;
    // The first component waits at its Job; the second one needs the webhook.
    let parts = Parts(&world);
    let first = [parts.config("first", json!({})), parts.job("migrate")];
    let second = [parts.config("second", json!({}))];
    let run = world.start(world.publish_with(1, &first, |index| {
        index.components.push(world.entry("monitoring", 2, &world.target, 1, &second));
    }));
    until("the Job was made", async || world.get("Job", "migrate").await.is_some()).await;
    assert!(world.get("ConfigMap", "first").await.is_some(), "the webhook was asked and said yes");

    drop(webhook);
    let failed = format!("failed calling webhook \"{}\"", Webhook::name(&world.target));
    world.until_refused("any", &failed).await;
    world.finish_job("migrate").await;
    world.until_said(&failed).await;
    assert!(!run.is_finished());
    world.delete(&format!("{}/{}", Webhook::PATH, world.target)).await;

    let bundle = ended(run).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let history = bundle.status.unwrap().history;
    assert!(history.iter().all(|step| step.state != "RollingBack"), "{history:?}");
    assert!(world.get("ConfigMap", "second").await.is_some());
}
