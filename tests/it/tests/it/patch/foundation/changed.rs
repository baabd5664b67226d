//! What a release brought of the agent's own definitions and rights, and a customer changes by hand: the
//! watches find it, under no other rights than those that are being changed, and put it back.

use kube::Api;
use mendix_agent::{
    crd::managed_component::{LastDrift, ManagedComponent},
    occasion,
    patch::drift::Drift,
};
use mendix_agent_core::bundle::foundation::FOUNDATION_COMPONENT;
use mendix_agent_proto::v1::{Section, report::Body};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{RBAC, ROLE, Site, TICKETS, id, installed, path, until};
use crate::patch::world::{message, state};

const NAMESPACED: &str = "ClusterRole /mendix-agent-managed-namespace";
const GUARD: &str = "Role mendix-agent/mendix-agent-guard";
const BOUND: &str = "ClusterRoleBinding /mendix-agent";
const OPERATOR: &str = "RoleBinding mendix-operator/mendix-agent";
const WORDS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/words";
/// Who did it, as the API server is told.
const CUSTOMER: &str = "kubectl-edit";

impl Site {
    async fn status(&self) -> (u64, Option<LastDrift>) {
        let components: Api<ManagedComponent> = self.world.cluster.own();
        let status = components.get(FOUNDATION_COMPONENT).await.unwrap().status.unwrap();
        (status.drift_corrected, status.last_drift)
    }

    /// The customer changes an object by a JSON patch.
    async fn edit(&self, body: &Value, patch: &Value) {
        let request = http::Request::patch(format!("{}?fieldManager={CUSTOMER}", path(&id(body))))
            .header("content-type", "application/json-patch+json")
            .body(patch.to_string().into_bytes())
            .unwrap();
        self.world.client.request::<Value>(request).await.unwrap();
    }

    /// The customer deletes it.
    async fn delete(&self, body: &Value) {
        let request = http::Request::delete(path(&id(body))).body(vec![]).unwrap();
        self.world.client.request::<Value>(request).await.unwrap();
    }

    /// What it says: all but who made it, when, and how it fares.
    async fn says(&self, body: &Value) -> Option<Value> {
        let mut live = self.live(body).await?;
        let object = live.as_object_mut().unwrap();
        object.remove("metadata");
        object.remove("status");
        Some(live)
    }

    /// Waits for one more correction and says what it was about.
    async fn until_corrected(&self, before: u64, what: &str) -> LastDrift {
        until(&format!("{what} is put back"), async || self.status().await.0 > before).await;
        let (corrected, drift) = self.status().await;
        assert_eq!(corrected, before + 1, "{what}: put back once");
        drift.unwrap()
    }
}

/// What is told of a change: who is said to have made it, and of which part of the object.
fn told(drift: &LastDrift, object: &Value, claimed_by: &str, part: &str) {
    let LastDrift { object: named, fields, claimed_by: by, found_at, corrected_at } = drift;
    assert_eq!((named.as_str(), by.as_str()), (id(object).to_string().as_str(), claimed_by));
    assert!(fields.iter().any(|field| field.starts_with(part)), "{part} in {fields:?}");
    assert!(found_at.is_some() && found_at <= corrected_at);
}

#[tokio::test]
async fn what_a_customer_changes_of_the_agents_rights_and_definitions_is_put_back_by_the_watches() {
    let site = Site::new().await;
    let foundation = installed();
    let bundle = site.release(1, &foundation, |_| {}).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));

    let (drift, stop) = (Drift::new(&site.world.driver()), CancellationToken::new());
    let end = stop.clone();
    let watch = tokio::spawn(async move { drift.run(&end).await });
    until("health is known", async || {
        let components: Api<ManagedComponent> = site.world.cluster.own();
        let status = components.get(FOUNDATION_COMPONENT).await.unwrap().status.unwrap();
        status.health.as_deref() == Some("Ready")
    })
    .await;

    let last = foundation[ROLE]["rules"].as_array().unwrap().len() - 1;
    let everything = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let secrets = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]});
    let stranger = json!({"kind": "ServiceAccount", "name": "default", "namespace": "default"});
    let more = |path: &str, value: &Value| json!([{"op": "add", "path": path, "value": value}]);
    let mut times = 0;
    for (name, patch, part) in [
        (ROLE, more("/rules/-", &everything), "rules"),
        // What the agent does not hold at this moment it may still give itself back: `escalate`, by name.
        (ROLE, json!([{"op": "remove", "path": format!("/rules/{last}")}]), "rules"),
        (GUARD, more("/rules/-", &secrets), "rules"),
        (NAMESPACED, json!([{"op": "remove", "path": "/rules/0"}]), "rules"),
        (BOUND, more("/subjects/-", &stranger), "subjects"),
        (TICKETS, more(WORDS, &json!({"type": "string"})), "spec"),
    ] {
        let object = &foundation[name];
        let released = site.says(object).await;
        site.edit(object, &patch).await;
        let drift = site.until_corrected(times, name).await;
        told(&drift, object, CUSTOMER, part);
        assert_eq!(site.says(object).await, released, "{name}");
        if times == 0 {
            let event = site.world.told(occasion::DRIFT_CORRECTED).await;
            let note = event.note.unwrap();
            assert!(note.starts_with("ClusterRole mendix-agent: rules"), "{note}");
            assert!(note.contains(CUSTOMER), "{note}");
        }
        times += 1;
    }
    site.until_may(false, ("create", "", "pods/exec"), ("mendix-operator", "")).await;
    site.until_may(true, ("get", "", "configmaps"), ("mendix-operator", "any")).await;

    for name in [GUARD, NAMESPACED, OPERATOR, TICKETS] {
        let object = &foundation[name];
        let released = site.says(object).await;
        site.delete(object).await;
        let drift = site.until_corrected(times, name).await;
        // Nobody can say who deleted an object.
        told(&drift, object, "unknown", "(deleted)");
        assert_eq!(site.says(object).await, released, "{name}");
        times += 1;
    }
    site.until_may(true, ("patch", RBAC, "roles"), ("mendix-operator", "any")).await;

    let reported = site.world.reports.subscribe();
    until("the control plane is told how often", async || {
        match reported.borrow().get(&Section::Components) {
            Some(Body::Components(report)) => (report.components.iter())
                .any(|it| it.name == FOUNDATION_COMPONENT && it.drift_corrected == times),
            _ => false,
        }
    })
    .await;
    stop.cancel();
    watch.await.unwrap().unwrap();
}
