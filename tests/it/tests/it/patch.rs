//! Carrying out releases against a real API server.

mod world;

use serde_json::json;

use world::{COMPONENT, Parts, World, message, state};

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
    assert!(message(&bundle).contains("timed out progressing"), "{}", message(&bundle));

    let mut after = world.contents().await;
    // A binding to another role can't be changed in place: it is another object with the same content.
    let binding = "RoleBinding/operator";
    for contents in [&mut after] {
        for key in ["uid", "creationTimestamp"] {
            contents.get_mut(binding).unwrap()["metadata"][key] =
                before[binding]["metadata"][key].clone();
        }
    }
    assert_eq!(after, before);
    assert_eq!(world.component().await.unwrap().status.unwrap(), component);

    // The same release is wanted again: nothing happens.
    let again = world.take(bad).await;
    assert_eq!(again, bundle);
    assert_eq!(world.contents().await, after_of(&world).await);
    assert_eq!(COMPONENT, "operator");
}

async fn after_of(world: &World) -> std::collections::BTreeMap<String, serde_json::Value> {
    world.contents().await
}
