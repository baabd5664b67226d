//! Carrying out releases against a real API server.

mod charts;
mod drift;
mod fencing;
mod foundation;
mod killed;
mod model;
mod obstacles;
mod record;
mod requests;
mod upgrade;
mod webhook;
mod world;

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use mendix_agent::{
    occasion,
    patch::{
        failure::CallError,
        gate::{self, Baseline, Passage, Terms},
        live::Live,
    },
};
use mendix_agent_core::bundle::object::Object;
use mendix_agent_proto::v1::{Section, report::Body};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use world::{Parts, World, message, state, until};

#[tokio::test]
async fn a_release_is_applied_gated_and_committed() {
    let world = World::new().await;
    let parts = Parts(&world);
    let index = world.publish(
        1,
        &[parts.config("settings", json!({"a": "1"})), parts.deployment("good", Some(2))],
    );
    let bundle = world.take(index).await;
    assert_eq!((state(&bundle), message(&bundle)), ("Committed", ""));
    for occasion in [
        occasion::RECEIVING,
        occasion::VERIFIED,
        occasion::PREFLIGHTED,
        occasion::SCHEDULED,
        occasion::SNAPSHOTTED,
        occasion::APPLYING,
        occasion::GATING,
        occasion::SOAKING,
        occasion::COMMITTED,
    ] {
        world.told(occasion).await;
    }
    let history = bundle.status.as_ref().unwrap().history.iter();
    let history: Vec<&str> = history.map(|transition| transition.state.as_str()).collect();
    assert_eq!(
        history,
        [
            "Receiving",
            "Verified",
            "Preflighted",
            "Scheduled",
            "Snapshotted",
            "Applying",
            "Gating",
            "Soaking",
            "Committed"
        ]
    );
    let component = world.component().await.unwrap().status.unwrap();
    assert_eq!(
        (component.version.as_deref(), component.sequence, component.objects),
        (Some("1.1"), 1, 2)
    );
    assert_eq!(component.run, None);
    for owned in component.inventory {
        let live = world.get(&owned.kind, &owned.name).await.unwrap();
        assert_eq!(live["metadata"]["uid"].as_str(), owned.uid.as_deref());
    }
}

#[tokio::test]
async fn a_bad_release_is_rolled_back_exactly_and_never_tried_again() {
    let world = World::new().await;
    let parts = Parts(&world);
    let good = world.publish(
        1,
        &[
            parts.config("settings", json!({"a": "1", "b": "2"})),
            parts.config("dropped", json!({"x": "y"})),
            parts.deployment("good", Some(2)),
            parts.binding("operator"),
        ],
    );
    assert_eq!(state(&world.take(good).await), "Committed");
    world.meddle("ConfigMap", "settings", json!({"metadata": {"labels": {"team": "blue"}}})).await;
    let before = world.contents().await;
    let component = world.component().await.unwrap().status.unwrap();

    let bad = world.publish(
        2,
        &[
            parts.config("settings", json!({"a": "changed", "c": "3"})),
            parts.config("created", json!({})),
            parts.deployment("bad", None),
            parts.binding("other"),
        ],
    );
    let bundle = world.take(bad.clone()).await;
    assert_eq!(state(&bundle), "RolledBack");
    let said = format!(
        "does not get ready: Deployment {}/operator: Progressing=False (ProgressDeadlineExceeded): \
         has timed out progressing",
        world.target
    );
    assert_eq!(message(&bundle), said);
    world.told(occasion::ROLLING_BACK).await;
    world.told(occasion::ROLLED_BACK).await;

    let mut after = world.contents().await;
    // A binding to another role can't be changed in place: it is another object with the same content.
    let binding = "RoleBinding/operator";
    for key in ["uid", "creationTimestamp"] {
        after.get_mut(binding).unwrap()["metadata"][key] = before[binding]["metadata"][key].clone();
    }
    assert_eq!(after, before);
    assert_eq!(world.component().await.unwrap().status.unwrap(), component);

    // The same release is wanted again: it is quarantined, nothing happens.
    assert_eq!(world.take(bad).await, bundle);
    assert_eq!(world.contents().await, after_binding(&before, &world.contents().await));
}

#[tokio::test]
async fn a_release_that_was_replaced_is_not_applied_again_and_the_report_says_what_runs() {
    let world = World::new().await;
    let parts = Parts(&world);
    let objects =
        |a| [parts.config("settings", json!({"a": a})), parts.deployment("good", Some(1))];
    let first = world.publish(1, &objects("1"));
    let second = world.publish(2, &objects("2"));
    for index in [first.clone(), second.clone()] {
        assert_eq!(state(&world.take(index).await), "Committed");
    }
    let before = world.contents().await;
    assert_eq!(state(&world.take(first).await), "Committed");
    assert_eq!(world.contents().await, before);
    let run = || match world.reports.subscribe().borrow().get(&Section::ReleaseRun) {
        Some(Body::ReleaseRun(run)) => run.clone(),
        other => panic!("{other:?}"),
    };
    let told = run();
    assert_eq!(told.sequence, 1);
    assert!(told.message.contains("with sequence 2 since"), "{}", told.message);
    // What runs is only that.
    assert_eq!(state(&world.take(second).await), "Committed");
    let told = run();
    assert_eq!((told.sequence, told.message.as_str()), (2, ""));
}

#[tokio::test]
async fn a_gate_whose_time_is_over_says_how_long_it_waited_and_what_the_pods_are_up_to() {
    let world = World::new().await;
    let deployment = Parts(&world).deployment("hanging", None);
    let id = Object::from_body(&deployment).unwrap().id;
    let live = Live::new(&world.cluster);
    live.create(&id, &deployment, "somebody").await.unwrap();
    until("the rollout has begun", async || {
        live.get(&id).await.unwrap().unwrap()["status"]["updatedReplicas"] == 1
    })
    .await;
    let missed = async || {
        let terms = Terms { hold: Duration::ZERO, limit: Duration::ZERO, wait_for_sick: true };
        let token = CancellationToken::new();
        let ids = std::slice::from_ref(&id);
        match gate::pass(&live, ids, &Baseline::new(), terms, &token, &|_| {}).await.unwrap() {
            Passage::Failed(failure) => failure.line(),
            passed => panic!("{passed:?}"),
        }
    };
    let said = format!(
        "not ready within 0 s: Deployment {}/operator: 0 of 1 updated pods are ready",
        world.target
    );
    assert_eq!(missed().await, said);
    world.pod("operator-1-x", json!({"waiting": {"reason": "ImagePullBackOff"}})).await;
    assert_eq!(
        missed().await,
        format!("{said}; pod operator-1-x: container operator waits: ImagePullBackOff")
    );
}

#[tokio::test]
async fn a_gates_time_stands_still_while_the_state_of_nodes_keeps_pods_out() {
    let world = World::new().await;
    let deployment = Parts(&world).deployment("hanging", None);
    let id = Object::from_body(&deployment).unwrap().id;
    let live = Live::new(&world.cluster);
    live.create(&id, &deployment, "somebody").await.unwrap();
    world.pod("operator-1-x", json!({"waiting": {"reason": "x"}})).await;
    let sick = "0/1 nodes are available: 1 node(s) had taint {node.kubernetes.io/disk-pressure: }, \
                that the pod didn't tolerate.";
    world.scheduled("operator-1-x", Some(sick)).await;

    let limit = Duration::from_secs(3);
    let terms = Terms { hold: Duration::ZERO, limit, wait_for_sick: true };
    let (token, said) = (CancellationToken::new(), Mutex::new(vec![]));
    let paused = |error: Option<&CallError>| said.lock().unwrap().push(error.map(CallError::line));
    let none = Baseline::new();
    let ids = std::slice::from_ref(&id);
    let gate = gate::pass(&live, ids, &none, terms, &token, &paused);
    let well_again_at = async {
        tokio::time::sleep(limit * 3).await;
        let named = format!(
            "wait for Deployment {}/operator: pod operator-1-x: PodScheduled=False (Unschedulable): {sick}",
            world.target
        );
        let said = said.lock().unwrap().clone();
        assert!(!said.is_empty() && said.iter().all(|it| it.as_ref() == Some(&named)), "{said:?}");
        world.scheduled("operator-1-x", None).await;
        Instant::now()
    };
    let (passage, well_again_at) = tokio::join!(gate, well_again_at);
    // Then it has its time, all of it.
    let Passage::Failed(failure) = passage.unwrap() else { panic!("nothing ran") };
    assert!(failure.line().starts_with("not ready within 3 s: "), "{}", failure.line());
    assert!(well_again_at.elapsed() >= limit, "{:?}", well_again_at.elapsed());
    assert_eq!(said.lock().unwrap().last(), Some(&None));
}

/// `before` with the binding of `now`, which is another object since the rollback.
fn after_binding(
    before: &BTreeMap<String, Value>,
    now: &BTreeMap<String, Value>,
) -> BTreeMap<String, Value> {
    let mut expected = before.clone();
    expected.insert("RoleBinding/operator".into(), now["RoleBinding/operator"].clone());
    expected
}

#[tokio::test]
async fn objects_that_are_as_wanted_already_are_not_written() {
    let world = World::new().await;
    let parts = Parts(&world);
    // In the server's own form: before 1.22 it writes anew what is said in another.
    let mut deployment = parts.deployment("good", Some(1));
    deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] =
        "1".into();
    let objects = [
        parts.config("settings", json!({"a": "1"})),
        parts.claim("data"),
        parts.binding("operator"),
        deployment,
    ];
    assert_eq!(state(&world.take(world.publish(1, &objects)).await), "Committed");
    let versions = async || {
        let mut versions = vec![];
        for (kind, name) in [
            ("ConfigMap", "settings"),
            ("PersistentVolumeClaim", "data"),
            ("RoleBinding", "operator"),
            ("Deployment", "operator"),
        ] {
            let live = world.get(kind, name).await.unwrap();
            versions.push(live["metadata"]["resourceVersion"].clone());
        }
        versions
    };
    let before = versions().await;
    let bundle = world.take(world.publish(2, &objects)).await;
    // The claim is pending for ever on this server; it was before, and is no reason to go back.
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    assert_eq!(versions().await, before);
    assert_eq!(world.component().await.unwrap().status.unwrap().sequence, 2);
}

#[tokio::test]
async fn pruning_deletes_what_is_no_longer_named_and_keeps_data() {
    let world = World::new().await;
    let parts = Parts(&world);
    let all =
        [parts.config("keep", json!({})), parts.config("drop", json!({})), parts.claim("data")];
    assert_eq!(state(&world.take(world.publish(1, &all)).await), "Committed");
    let bundle = world.take(world.publish(2, &all[..1])).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let contents = world.contents().await;
    let names: Vec<&str> = contents.keys().map(String::as_str).collect();
    assert_eq!(names, ["ConfigMap/keep", "PersistentVolumeClaim/data"]);
    let inventory = world.component().await.unwrap().status.unwrap().inventory;
    let claim = inventory.iter().find(|owned| owned.kind == "PersistentVolumeClaim").unwrap();
    assert_eq!(claim.hash, None, "kept, and wanted by no release");
}

#[tokio::test]
async fn an_object_of_somebody_else_is_taken_over_only_when_the_release_says_so() {
    let world = World::new().await;
    let parts = Parts(&world);
    let path = format!("/api/v1/namespaces/{}/configmaps?fieldManager=helm", world.target);
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
                        "data": {"a": "theirs", "b": "theirs"}});
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&theirs).unwrap())
        .unwrap();
    let created: Value = world.client.request(request).await.unwrap();
    let before = world.contents().await;

    let ours = [parts.config("settings", json!({"a": "ours"}))];
    let refused = world.take(world.publish(1, &ours)).await;
    assert_eq!(state(&refused), "Refused");
    let refusals = refused.status.unwrap().refusals;
    assert!(refusals[0].starts_with("NotAdopted: operator: apply ConfigMap"), "{refusals:?}");
    assert_eq!(world.contents().await, before);

    // A release that adopts it, and fails: it is theirs again, in every field.
    let mut objects = ours.to_vec();
    objects.push(parts.deployment("bad", None));
    let bundle =
        world.take(world.publish_with(2, &objects, |i| i.components[0].adopt = true)).await;
    assert_eq!(state(&bundle), "RolledBack", "{}", message(&bundle));
    assert_eq!(world.contents().await, before);
    let now = world.get("ConfigMap", "settings").await.unwrap();
    assert_eq!(now["metadata"]["managedFields"], created["metadata"]["managedFields"]);

    // And one that works.
    let bundle = world.take(world.publish_with(3, &ours, |i| i.components[0].adopt = true)).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let now = world.get("ConfigMap", "settings").await.unwrap();
    assert_eq!(now["data"], json!({"a": "ours"}), "what they added is gone, too");
}

#[tokio::test]
async fn everything_that_is_wrong_is_refused_at_once_and_nothing_is_touched() {
    let world = World::new().await;
    let parts = Parts(&world);
    let mut invalid = parts.deployment("good", None);
    invalid["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    let mut unknown = parts.config("unknown", json!({}));
    unknown["nonsense"] = true.into();
    let refused =
        world.take(world.publish(1, &[invalid, unknown, parts.config("fine", json!({}))])).await;
    assert_eq!(state(&refused), "Refused");
    world.told(occasion::REFUSED).await;
    let refusals = refused.status.unwrap().refusals;
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    assert!(world.contents().await.is_empty());
    assert!(world.component().await.is_none());

    // Wanted again, it is looked at again.
    let fixed = world.take(world.publish(2, &[parts.config("fine", json!({}))])).await;
    assert_eq!(state(&fixed), "Committed");
}

#[tokio::test]
async fn replicas_that_a_release_stops_setting_keep_their_value() {
    let world = World::new().await;
    let parts = Parts(&world);
    world.take(world.publish(1, &[parts.deployment("good", Some(3))])).await;
    let bundle = world.take(world.publish(2, &[parts.deployment("good", None)])).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let live = world.get("Deployment", "operator").await.unwrap();
    assert_eq!(live["spec"]["replicas"], 3);
}
