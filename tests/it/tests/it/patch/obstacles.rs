//! What stands in a release's way in real clusters: the server's own rules, quotas, webhooks,
//! finalizers, rights that were taken away, records that were rewound. Nothing here is played: the API
//! server gives the answers.

mod contested;

use std::time::Duration;

use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use mendix_agent::{
    cluster::Cluster,
    crd::{managed_component::ManagedComponent, patch_bundle::PatchBundle},
    occasion,
    patch::{self, drift::Drift},
};
use mendix_agent_core::bundle::Authentic;
use mendix_agent_proto::v1::{Section, report::Body};
use mendix_test_kit::apiserver::ApiServer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::manifests;

use super::{
    webhook::Webhook,
    world::{LONG, Parts, World, message, state, until},
};

impl World {
    /// Writes an object as an administrator.
    async fn administer(&self, path: &str, body: Value) -> Value {
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        let request = http::Request::patch(format!("/{path}/{name}?fieldManager=admin&force=true"))
            .header("content-type", "application/apply-patch+yaml")
            .body(serde_json::to_vec(&body).unwrap())
            .unwrap();
        self.client.request(request).await.unwrap_or_else(|error| panic!("{path}/{name}: {error}"))
    }

    async fn delete(&self, path: &str) {
        let request = http::Request::delete(format!("/{path}")).body(vec![]).unwrap();
        let done = self.client.request::<Value>(request).await;
        done.unwrap_or_else(|error| panic!("delete {path}: {error}"));
    }

    async fn merge(&self, path: &str, patch: Value) -> Value {
        let request = http::Request::patch(format!("/{path}"))
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(&patch).unwrap())
            .unwrap();
        self.client.request(request).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn within(&self, group: &str, rest: &str) -> String {
        format!("{group}/namespaces/{}/{rest}", self.target)
    }

    /// A webhook that the API server asks about this world's ConfigMaps from when this returns.
    async fn with_webhook(&self) -> Webhook {
        self.label_namespace().await;
        let webhook = Webhook::start(&self.target).await;
        self.administer(Webhook::PATH, webhook.registration()).await;
        self.until_refused("forbidden", "the customer's policy says no").await;
        webhook
    }

    /// Lets webhooks choose this world's namespace.
    async fn label_namespace(&self) {
        let labels = json!({"metadata": {"labels": {"world": self.target}}});
        self.merge(&format!("api/v1/namespaces/{}", self.target), labels).await;
    }

    /// Waits until the API server refuses a ConfigMap of this name in the component's namespace, with
    /// these words: quotas and webhooks are known to its admission some time after they were written.
    async fn until_refused(&self, name: &str, words: &str) {
        let path = self.within("api/v1", "configmaps?dryRun=All");
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        until(words, async || {
            let create = http::Request::post(format!("/{path}"))
                .header("content-type", "application/json")
                .body(serde_json::to_vec(&body).unwrap())
                .unwrap();
            match self.client.request::<Value>(create).await {
                Ok(_) => false,
                Err(error) => error.to_string().contains(words),
            }
        })
        .await;
    }

    /// A run in the background, and what it says while it waits.
    fn start(&self, index: Authentic) -> tokio::task::JoinHandle<PatchBundle> {
        self.start_as(self.cluster.clone(), index)
    }

    fn start_as(&self, cluster: Cluster, index: Authentic) -> tokio::task::JoinHandle<PatchBundle> {
        let driver = self.driver_on(cluster);
        let supply = self.supply.clone();
        tokio::spawn(async move {
            let token = CancellationToken::new();
            patch::take(&driver, index, &supply, &token, &token).await.expect("driven")
        })
    }

    /// Waits until the report of the run says this.
    async fn until_said(&self, text: &str) {
        let reports = self.reports.subscribe();
        until(text, async || match reports.borrow().get(&Section::ReleaseRun) {
            Some(Body::ReleaseRun(run)) => run.message.contains(text),
            _ => false,
        })
        .await;
    }

    /// A process with these rights in the component's namespace.
    async fn with_rights(&self, verbs: Value) -> Cluster {
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "limited"}});
        self.administer(&self.within("api/v1", "serviceaccounts"), account).await;
        let server = ApiServer::shared().await.unwrap();
        let client = server.client_for(&self.target, "limited").await.unwrap();
        let account = (self.target.as_str(), "limited");
        let version = "rbac.authorization.k8s.io/v1";
        let any = |verbs: &Value| json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]);
        let subjects =
            json!([{"kind": "ServiceAccount", "name": "limited", "namespace": self.target}]);
        let binding = |kind: &str, name: &str, role: &str| {
            json!({"apiVersion": version, "kind": format!("{kind}Binding"), "metadata": {"name": name},
                "subjects": subjects,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}})
        };
        for (namespace, verbs) in [(&self.target, &verbs), (&self.cluster.namespace, &json!(["*"]))]
        {
            let path = format!("{RBAC}/namespaces/{namespace}");
            let role = json!({"apiVersion": version, "kind": "Role",
                "metadata": {"name": "limited"}, "rules": any(verbs)});
            self.administer(&format!("{path}/roles"), role).await;
            let binding = binding("Role", "limited", "limited");
            self.administer(&format!("{path}/rolebindings"), binding).await;
            manifests::until_granted(&self.client, account, namespace, &any(verbs)).await;
        }
        // What connecting takes: the cluster's name is the UID of kube-system.
        let role = json!({"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": self.target},
            "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}]});
        let rules = role["rules"].clone();
        self.administer(&format!("{RBAC}/clusterroles"), role).await;
        let binding = binding("ClusterRole", &self.target, &self.target);
        self.administer(&format!("{RBAC}/clusterrolebindings"), binding).await;
        manifests::until_granted(&self.client, account, "", &rules).await;
        Cluster::connect(client, self.cluster.namespace.clone()).await.unwrap()
    }

    fn refusals(bundle: &PatchBundle) -> Vec<String> {
        bundle.status.clone().unwrap().refusals
    }

    fn group(&self) -> String {
        format!("{}.example.com", self.target)
    }

    /// A CRD of this world's own group; the first version is the one that is stored.
    fn definition(&self, versions: &[&str]) -> Value {
        let versions: Vec<Value> = versions
            .iter()
            .enumerate()
            .map(|(n, name)| {
                json!({"name": name, "served": true, "storage": n == 0, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}})
            })
            .collect();
        let group = self.group();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("things.{group}")},
            "spec": {"group": group, "scope": "Namespaced", "versions": versions,
                "names": {"kind": "Thing", "listKind": "ThingList", "plural": "things", "singular": "thing"}}})
    }

    fn thing(&self, version: &str, size: u32) -> Value {
        json!({"apiVersion": format!("{}/{version}", self.group()), "kind": "Thing",
            "metadata": {"name": "one", "namespace": self.target}, "spec": {"size": size}})
    }
}

const RBAC: &str = "apis/rbac.authorization.k8s.io/v1";
const CRDS: &str = "apis/apiextensions.k8s.io/v1/customresourcedefinitions";

async fn ended(run: tokio::task::JoinHandle<PatchBundle>) -> PatchBundle {
    tokio::time::timeout(LONG, run).await.expect("the run ends").expect("no panic")
}

#[tokio::test]
async fn a_release_that_drops_a_stored_version_of_a_crd_is_refused_before_anything_is_touched() {
    let world = World::new().await;
    let first = [world.definition(&["v1alpha1"]), world.thing("v1alpha1", 1)];
    let bundle = world.take(world.publish(1, &first)).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));

    let config = Parts(&world).config("settings", json!({}));
    let second = [world.definition(&["v1"]), world.thing("v1", 2), config];
    let bundle = world.take(world.publish(2, &second)).await;
    assert_eq!(state(&bundle), "Refused", "{}", message(&bundle));
    let refusals = World::refusals(&bundle);
    assert!(
        refusals.iter().any(|line| line.contains("CustomResourceDefinition things.")
            && line.contains("storedVersions")),
        "{refusals:?}"
    );
    assert!(world.get("ConfigMap", "settings").await.is_none());
}

#[tokio::test]
async fn a_rollback_over_a_new_storage_version_is_held_and_says_what_is_in_the_way() {
    let world = World::new().await;
    let parts = Parts(&world);
    let first = [world.definition(&["v1alpha1"]), world.thing("v1alpha1", 1)];
    assert_eq!(state(&world.take(world.publish(1, &first)).await), "Committed");
    // Objects are stored as v1 from here on: the old definition can't read them.
    let second = [
        world.definition(&["v1", "v1alpha1"]),
        world.thing("v1", 2),
        parts.deployment("bad", None),
    ];
    let bundle = world.take(world.publish(2, &second)).await;
    assert_eq!(state(&bundle), "Held", "{}", message(&bundle));
    world.told(occasion::HELD).await;
    let said = message(&bundle);
    assert!(
        said.contains("CustomResourceDefinition things.") && said.contains("storedVersions"),
        "{said}"
    );
    // It was said before anything was touched.
    let history = bundle.status.as_ref().unwrap().history.iter();
    let preflighted = history.clone().find(|entry| entry.state == "Preflighted").unwrap();
    let warned = preflighted.message.clone().unwrap_or_default();
    assert!(warned.contains("can't be undone") && warned.contains("stored as v1 "), "{warned}");
    // What could be put back was.
    assert!(world.get("Deployment", "operator").await.is_none());

    // A higher release helps.
    let third = [world.definition(&["v1", "v1alpha1"]), world.thing("v1", 3)];
    let bundle = world.take(world.publish(3, &third)).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
}

#[tokio::test]
async fn an_object_whose_managers_speak_a_version_that_is_served_no_more_is_still_ours_to_set() {
    let world = World::new().await;
    let first = [world.definition(&["v1", "v1alpha1"]), world.thing("v1", 1)];
    assert_eq!(state(&world.take(world.publish(1, &first)).await), "Committed");
    // Somebody labels it in the old version, which then goes.
    let path = world.within(&format!("apis/{}/v1alpha1", world.group()), "things/one");
    world.merge(&path, json!({"metadata": {"labels": {"team": "blue"}}})).await;
    let second = [world.definition(&["v1"]), world.thing("v1", 2)];
    let bundle = world.take(world.publish(2, &second)).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let third = [world.definition(&["v1"]), world.thing("v1", 3)];
    let bundle = world.take(world.publish(3, &third)).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let path = world.within(&format!("apis/{}/v1", world.group()), "things/one");
    let live: Value = world
        .client
        .request(http::Request::get(format!("/{path}")).body(vec![]).unwrap())
        .await
        .unwrap();
    assert_eq!(live["spec"]["size"], 3);
    assert_eq!(live["metadata"]["labels"]["team"], "blue");
}

#[tokio::test]
async fn an_immutable_change_of_a_claim_is_refused_and_the_claim_stays() {
    let world = World::new().await;
    let parts = Parts(&world);
    assert_eq!(state(&world.take(world.publish(1, &[parts.claim("data")])).await), "Committed");
    let before = world.get("PersistentVolumeClaim", "data").await;
    let mut other = parts.claim("data");
    other["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    let bundle = world.take(world.publish(2, &[other, parts.config("settings", json!({}))])).await;
    assert_eq!(state(&bundle), "Refused", "{}", message(&bundle));
    let refusals = World::refusals(&bundle);
    assert!(
        refusals[0].contains("PersistentVolumeClaim") && refusals[0].contains("immutable"),
        "{refusals:?}"
    );
    assert_eq!(world.get("PersistentVolumeClaim", "data").await, before);
    assert!(world.get("ConfigMap", "settings").await.is_none());
}

#[tokio::test]
async fn a_quota_that_is_full_pauses_the_run_until_there_is_room() {
    let world = World::new().await;
    let parts = Parts(&world);
    let path = world.within("api/v1", "resourcequotas");
    let quota = |hard: &str| {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"},
            "spec": {"hard": {"count/configmaps": hard}}})
    };
    // The quota controller is not there to count; its figures are what admission goes by.
    let counted = |hard: &str| json!({"status": {"hard": {"count/configmaps": hard}, "used": {"count/configmaps": "0"}}});
    world.administer(&path, quota("0")).await;
    world.merge(&format!("{path}/small/status"), counted("0")).await;
    world.until_refused("any", "exceeded quota: small").await;
    let run = world.start(world.publish(1, &[parts.config("settings", json!({}))]));
    world.until_said("exceeded quota: small").await;
    assert!(!run.is_finished());
    world.administer(&path, quota("9")).await;
    world.merge(&format!("{path}/small/status"), counted("9")).await;
    let bundle = ended(run).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
}

#[tokio::test]
async fn a_webhook_that_is_down_is_named_and_waited_for() {
    let world = World::new().await;
    world.label_namespace().await;
    let configuration = Webhook::configuration(&world.target, "https://127.0.0.1:1/", None);
    world.administer(Webhook::PATH, configuration).await;
    let failed = format!("failed calling webhook \"{}\"", Webhook::name(&world.target));
    world.until_refused("any", &failed).await;
    let run = world.start(world.publish(1, &[Parts(&world).config("settings", json!({}))]));
    world.until_said(&failed).await;
    assert!(!run.is_finished());
    world.delete(&format!("{}/{}", Webhook::PATH, world.target)).await;
    let bundle = ended(run).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
}

#[tokio::test]
async fn an_admission_policy_of_the_customer_is_named_with_what_it_refuses() {
    let world = World::new().await;
    let _webhook = world.with_webhook().await;
    let parts = Parts(&world);
    let objects = [parts.config("allowed", json!({})), parts.config("forbidden", json!({}))];
    let bundle = world.take(world.publish(1, &objects)).await;
    world.delete(&format!("{}/{}", Webhook::PATH, world.target)).await;
    assert_eq!(state(&bundle), "Refused", "{}", message(&bundle));
    let refusals = World::refusals(&bundle);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    for part in
        ["/forbidden", Webhook::name(&world.target).as_str(), "the customer's policy says no"]
    {
        assert!(refusals[0].contains(part), "{part} is not in {refusals:?}");
    }
    assert!(world.contents().await.is_empty());
}

#[tokio::test]
async fn an_object_that_a_finalizer_keeps_does_not_hold_the_release_and_is_not_written_again() {
    let world = World::new().await;
    let parts = Parts(&world);
    let both = [parts.config("keep", json!({})), parts.config("drop", json!({}))];
    assert_eq!(state(&world.take(world.publish(1, &both)).await), "Committed");
    let path = world.within("api/v1", "configmaps/drop");
    world.merge(&path, json!({"metadata": {"finalizers": ["example.com/never"]}})).await;
    let bundle = world.take(world.publish(2, &both[..1])).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let live = world.get("ConfigMap", "drop").await.expect("still there");
    assert!(live["metadata"]["deletionTimestamp"].is_string());

    // Wanted again while it is on its way out: waited for, and made anew once it is gone.
    let run = world.start(world.publish(3, &both));
    world.until_said("it is being deleted").await;
    world.merge(&path, json!({"metadata": {"finalizers": null}})).await;
    let bundle = ended(run).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let live = world.get("ConfigMap", "drop").await.expect("made anew");
    assert!(live["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test]
async fn rights_that_are_taken_away_midway_pause_the_run_until_they_are_back() {
    let world = World::new().await;
    let parts = Parts(&world);
    let cluster = world.with_rights(json!(["*"])).await;

    // The job's end is what the run waits for while its rights go.
    let objects = [parts.job("migrate"), parts.deployment("good", Some(1))];
    let run = world.start_as(cluster, world.publish(1, &objects));
    until("the job is there", async || world.get("Job", "migrate").await.is_some()).await;
    let role = world.within(RBAC, "roles/limited");
    let rules =
        |verbs: Value| json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]});
    world.merge(&role, rules(json!(["get", "list", "watch"]))).await;
    let (account, place) = ((world.target.as_str(), "limited"), (world.target.as_str(), ""));
    until("the rights are gone", async || {
        !manifests::may(&world.client, account, ("patch", "apps", "deployments"), place).await
    })
    .await;
    world.finish_job("migrate").await;
    world.until_said("cannot patch resource \"deployments\"").await;
    assert!(!run.is_finished());
    world.merge(&role, rules(json!(["*"]))).await;
    let bundle = ended(run).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
}

#[tokio::test]
async fn a_release_without_the_rights_for_its_kinds_is_refused_and_not_waited_for() {
    let world = World::new().await;
    let cluster = world.with_rights(json!(["get", "list"])).await;
    let index = world.publish(1, &[Parts(&world).config("settings", json!({}))]);
    let bundle = ended(world.start_as(cluster, index)).await;
    assert_eq!(state(&bundle), "Refused", "{}", message(&bundle));
    let refusals = World::refusals(&bundle);
    assert!(refusals[0].contains("cannot patch resource \"configmaps\""), "{refusals:?}");
}

#[tokio::test]
async fn a_job_that_was_cleaned_away_after_it_was_done_is_not_run_again() {
    let world = World::new().await;
    let parts = Parts(&world);
    let objects = [parts.job("migrate"), parts.deployment("good", Some(1))];
    let run = world.start(world.publish(1, &objects));
    until("the job is there", async || world.get("Job", "migrate").await.is_some()).await;
    assert!(world.get("Deployment", "operator").await.is_none(), "a job is a barrier");
    world.finish_job("migrate").await;
    let bundle = ended(run).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let job = world.within("apis/batch/v1", "jobs/migrate");
    world.delete(&format!("{job}?propagationPolicy=Background")).await;

    let drift = Drift::new(&world.driver());
    let recovery = drift.recover(&CancellationToken::new()).await.expect("recovered");
    assert!(recovery.failures.is_empty(), "{:?}", recovery.failures);
    assert!(world.get("Job", "migrate").await.is_none());
}

#[tokio::test]
async fn a_job_that_was_done_while_nobody_looked_counts_as_done() {
    let world = World::new().await;
    let parts = Parts(&world);
    let index = world.publish(1, &[parts.job("migrate"), parts.deployment("good", Some(1))]);
    let run = world.start(index.clone());
    until("the job is there", async || world.get("Job", "migrate").await.is_some()).await;
    // The process dies while it waits, and the job ends without it.
    run.abort();
    world.finish_job("migrate").await;
    let uid = world.get("Job", "migrate").await.unwrap()["metadata"]["uid"].clone();
    patch::resume(&world.driver(), &CancellationToken::new()).await.expect("resumed");
    let bundle = world.take(index).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    assert_eq!(world.get("Job", "migrate").await.unwrap()["metadata"]["uid"], uid);
}

#[tokio::test]
async fn a_gate_that_flaps_is_not_passed_and_the_release_goes_back() {
    let world = World::new().await;
    let parts = Parts(&world);
    assert_eq!(
        state(&world.take(world.publish(1, &[parts.deployment("good", Some(1))])).await),
        "Committed"
    );
    let before = world.contents().await;
    // Ready for a moment, again and again: never as long as the soak asks for.
    let index = world.publish_with(2, &[parts.deployment("flapping", Some(1))], |index| {
        index.components[0].gates.timeout_seconds = 10;
        index.components[0].gates.soak_seconds = 15;
    });
    let bundle = world.take(index).await;
    assert_eq!(state(&bundle), "RolledBack", "{}", message(&bundle));
    assert!(message(&bundle).contains("Deployment"), "{}", message(&bundle));
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn a_critical_release_that_arrives_during_a_rollback_waits_for_its_end() {
    let world = World::new().await;
    let parts = Parts(&world);
    let good = [parts.config("settings", json!({"a": "1"})), parts.deployment("good", Some(1))];
    assert_eq!(state(&world.take(world.publish(1, &good)).await), "Committed");
    // The rollback meets an object that a finalizer keeps, so that it lasts.
    let bad = [
        parts.config("settings", json!({"a": "2"})),
        parts.job("migrate"),
        parts.deployment("bad", Some(1)),
    ];
    let driver = world.driver();
    let (given_up, cancel) = (CancellationToken::new(), CancellationToken::new());
    let index = world.publish(2, &bad);
    let work = patch::take(&driver, index, &world.supply, &given_up, &cancel);
    tokio::pin!(work);
    let bundles: Api<PatchBundle> = world.cluster.own();
    let mut finished = false;
    let rolling_back = until("the run goes back", async || {
        // Once: afterwards the rollback takes it away.
        if !finished && world.get("Job", "migrate").await.is_some() {
            world.finish_job("migrate").await;
            finished = true;
        }
        let all = bundles.list(&Default::default()).await.unwrap();
        all.items.iter().any(|bundle| ["RollingBack", "RolledBack"].contains(&state(bundle)))
    });
    tokio::select! {
        ended = &mut work => assert_eq!(state(&ended.unwrap()), "RolledBack"),
        () = rolling_back => {
            given_up.cancel();
            let ended = tokio::time::timeout(LONG, &mut work).await.expect("in time").unwrap();
            assert_eq!(state(&ended), "RolledBack", "a run that has begun is not given up");
        }
    }
    let settings = world.get("ConfigMap", "settings").await.unwrap();
    assert_eq!(settings["data"]["a"], "1");
    let critical = [parts.config("settings", json!({"a": "3"})), parts.deployment("good", Some(1))];
    let bundle = world.take(world.publish(3, &critical)).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
}

#[tokio::test]
async fn records_that_a_restore_of_etcd_rewound_lead_to_the_wanted_release_again() {
    let world = World::new().await;
    let parts = Parts(&world);
    let one = [parts.config("settings", json!({"a": "1"})), parts.config("old", json!({}))];
    assert_eq!(state(&world.take(world.publish(1, &one)).await), "Committed");
    let components: Api<ManagedComponent> = world.cluster.own();
    let back_then = components.get("operator").await.unwrap();

    let two = [parts.config("settings", json!({"a": "2"})), parts.config("new", json!({}))];
    let index = world.publish(2, &two);
    assert_eq!(state(&world.take(index.clone()).await), "Committed");
    let after = world.contents().await;

    // The agent's records are those of before; the objects, being of another namespace, are not.
    let bundles: Api<PatchBundle> = world.cluster.own();
    for bundle in bundles.list(&Default::default()).await.unwrap() {
        if bundle.spec.sequence == 2 {
            let name = bundle.metadata.name.unwrap();
            bundles.delete(&name, &DeleteParams::default()).await.unwrap();
        }
    }
    let status = json!({ "status": back_then.status });
    let rewind = Patch::Merge(&status);
    components.patch_status("operator", &PatchParams::default(), &rewind).await.unwrap();
    let bundle = world.take(index).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    assert_eq!(world.contents().await, after);
    let inventory = components.get("operator").await.unwrap().status.unwrap().inventory;
    let names: Vec<&str> = inventory.iter().map(|owned| owned.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn an_aggregated_api_that_is_down_does_not_hold_a_release() {
    let world = World::new().await;
    let name = format!("v1.{}", world.group());
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name}, "spec": {"group": world.group(), "version": "v1",
        "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true,
        "service": {"namespace": world.target, "name": "nowhere", "port": 443}}});
    let path = "apis/apiregistration.k8s.io/v1/apiservices";
    let create = http::Request::post(format!("/{path}"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&service).unwrap())
        .unwrap();
    world.client.request::<Value>(create).await.unwrap();
    let parts = Parts(&world);
    let objects = [parts.config("settings", json!({})), parts.deployment("good", Some(1))];
    let bundle = world.take(world.publish(1, &objects)).await;
    world.delete(&format!("{path}/{name}")).await;
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
}

#[tokio::test]
async fn a_role_and_a_definition_that_were_deleted_come_back() {
    let world = World::new().await;
    let parts = Parts(&world);
    let objects = [world.definition(&["v1"]), parts.role(), parts.binding("operator")];
    assert_eq!(state(&world.take(world.publish(1, &objects)).await), "Committed");
    let drift = std::sync::Arc::new(Drift::new(&world.driver()));
    let (watched, stop) = (std::sync::Arc::clone(&drift), CancellationToken::new());
    let end = stop.clone();
    let watch = tokio::spawn(async move { watched.run(&end).await });
    until("health is known", async || {
        world.component().await.unwrap().status.unwrap().health.is_some()
    })
    .await;
    world.delete(&world.within("apis/rbac.authorization.k8s.io/v1", "roles/operator")).await;
    until("the role is back", async || world.get("Role", "operator").await.is_some()).await;
    let definition = format!("{CRDS}/things.{}", world.group());
    world.delete(&definition).await;
    until("the definition is back", async || {
        let get = http::Request::get(format!("/{definition}")).body(vec![]).unwrap();
        let live = world.client.request::<Value>(get).await;
        live.is_ok_and(|live| live["metadata"]["deletionTimestamp"].is_null())
    })
    .await;
    stop.cancel();
    let _ended = tokio::time::timeout(Duration::from_secs(10), watch).await;
}
