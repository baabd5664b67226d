//! Two replicas, one after the other, under one consent.

use mendix_control_plane::portal::GrantTerms;

use super::{
    noisy_world,
    world::{World, consent},
};

async fn asked(world: &World, ticket: &mendix_control_plane::store::TicketRecord) -> String {
    let done = world.outcome(&world.request(ticket)).await;
    if done.outcome == "Succeeded" { done.outcome } else { done.reason }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_spend_one_snapshot_budget() {
    let mut world = noisy_world().await;
    let mut terms: GrantTerms = consent();
    terms.budget.snapshots = 2;
    world.start_agent().await;
    let (ticket, first) = world.open_ticket_with_request(Some(terms));
    assert_eq!(world.outcome(&first.unwrap()).await.outcome, "Succeeded");
    // The leader dies, and the other replica knows only what is in the cluster.
    world.kill_agent().await;
    world.start_agent().await;
    assert_eq!(asked(&world, &ticket).await, "Succeeded");
    assert_eq!(asked(&world, &ticket).await, "SnapshotsSpent");
    // Nor does the first one have anything left when it leads again.
    world.kill_agent().await;
    world.start_agent().await;
    assert_eq!(asked(&world, &ticket).await, "SnapshotsSpent");
    assert_eq!(world.plane.counters().snapshot_begins, 2);
    world.stop_agent().await;
}
