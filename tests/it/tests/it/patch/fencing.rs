//! Two leaders of one cluster, one after the other, in the middle of a run.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use mendix_agent::{
    cluster::Site,
    leadership::{self, Post},
    patch,
    term::Term,
};
use mendix_test_kit::wait::eventually;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Parts, state, world::World};

const PATIENCE: Duration = Duration::from_secs(240);

/// A replica's part in the Lease, without the rest of the agent.
struct Candidate {
    site: Site,
    posts: watch::Receiver<Post>,
    cancel: CancellationToken,
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Candidate {
    async fn start(client: Client, world: &World, name: &str) -> Self {
        let site = Site::connect(client, world.cluster.namespace.clone()).await.unwrap();
        let (sender, posts) = watch::channel(Post::Standby { leader: None });
        let cancel = CancellationToken::new();
        let run = leadership::run(site.clone(), name.to_owned(), Arc::new(sender), cancel.clone());
        tokio::spawn(run);
        Self { site, posts, cancel }
    }

    async fn leads(&mut self) -> Term {
        let led = self.posts.wait_for(|post| matches!(post, Post::Leader(_)));
        let post = tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap();
        let Post::Leader(term) = &*post else { unreachable!() };
        term.clone()
    }
}

/// The state that a run's record is in.
async fn run_is(world: &World, wanted: &str) {
    let records = patch::records::Records::new(&world.cluster);
    eventually(PATIENCE, format!("a run is {wanted}"), async || {
        let bundles = records.bundles().await.ok()?;
        bundles.iter().any(|bundle| state(bundle) == wanted).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lost_in_the_middle_of_an_apply_leaves_one_run_with_one_end() {
    let world = World::new().await;
    let parts = Parts(&world);
    let mut first = Candidate::start(world.client.clone(), &world, "first").await;
    let old_term = first.leads().await;
    let old = world.driver_on(first.site.lead(&old_term));
    // Its Deployment is on its way for ever: the run stays in the gate.
    let index = world.publish_with(
        1,
        &[parts.config("settings", json!({"a": "1"})), parts.deployment("hanging", Some(1))],
        |index| index.components[0].gates.timeout_seconds = 60,
    );
    let (supply, wanted) = (world.supply.clone(), index.clone());
    let abandoned = tokio::spawn(async move {
        // Nobody cancels it: it stands for a leader that did not notice.
        let never = CancellationToken::new();
        patch::take(&old, wanted, &supply, &never, &never).await.map(|_| ())
    });
    run_is(&world, "Gating").await;

    // Somebody takes the Lease away while the run is on its way.
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), &world.cluster.namespace);
    let stolen = json!({ "spec": { "holderIdentity": "somebody", "leaseTransitions": 5 } });
    leases.patch("mendix-agent", &PatchParams::default(), &Patch::Merge(&stolen)).await.unwrap();
    tokio::time::timeout(PATIENCE, old_term.over().cancelled()).await.unwrap();
    first.cancel.cancel();
    let mut second = Candidate::start(world.client.clone(), &world, "second").await;
    let new_term = second.leads().await;
    assert!(new_term.epoch() > old_term.epoch());

    let new = world.driver_on(second.site.lead(&new_term));
    let token = CancellationToken::new();
    let resumed = patch::resume(&new, &token);
    tokio::time::timeout(PATIENCE, resumed).await.unwrap().unwrap();
    run_is(&world, "RolledBack").await;
    // The old one has ended without a word in the record, or still waits for ever.
    abandoned.abort();
    let records = patch::records::Records::new(&world.cluster);
    let bundles = records.bundles().await.unwrap();
    assert_eq!(bundles.len(), 1);
    let status = bundles[0].status.clone().unwrap();
    assert_eq!(status.epoch, Some(new_term.epoch()));
    let rolled_back = status.history.iter().filter(|it| it.state == "RolledBack").count();
    assert_eq!(rolled_back, 1, "{:?}", status.history);
    assert!(world.contents().await.is_empty(), "what the run made is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_a_later_leader_has_claimed_is_not_written_by_an_earlier_one() {
    let world = World::new().await;
    let parts = Parts(&world);
    let mut first = Candidate::start(world.client.clone(), &world, "first").await;
    let old_term = first.leads().await;
    let old = patch::records::Records::new(&first.site.lead(&old_term));
    let index = world.publish(1, &[parts.config("settings", json!({"a": "1"}))]);
    let token = CancellationToken::new();
    let driver = world.driver_on(first.site.lead(&old_term));
    let run = patch::take(&driver, index, &world.supply, &token, &token).await.unwrap();
    let mut open = run.status.clone().unwrap();
    (open.state, open.component_index) = ("Gating".into(), Some(0));
    let read_by_old = old.save(&run, open.clone()).await.unwrap();

    // It stops as it should; whatever it has under way could still arrive.
    first.cancel.cancel();
    let mut second = Candidate::start(world.client.clone(), &world, "second").await;
    let new_term = second.leads().await;
    let new = patch::records::Records::new(&second.site.lead(&new_term));
    new.claim().await.unwrap();

    // The same write with a client that no fence holds back: the record itself refuses it.
    let late = patch::records::Records::new(&first.site.lead(&Term::sole()));
    open.message = Some("late".into());
    let error = late.save(&read_by_old, open).await.unwrap_err();
    assert!(error.line().contains("a newer leader"), "{}", error.line());
    let component = late.update_component("operator", |mut status| {
        status.health = Some("Late".into());
        Some(status)
    });
    let error = component.await.unwrap_err();
    assert!(error.line().contains("a newer leader"), "{}", error.line());
    let now = new.bundle(&kube::ResourceExt::name_any(&run)).await.unwrap().unwrap();
    let status = now.status.unwrap();
    assert_eq!((status.epoch, status.message), (Some(new_term.epoch()), None));
}
