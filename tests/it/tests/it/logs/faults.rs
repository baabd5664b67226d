//! Uploads on a bad network: what becomes of them, and of the session beside them.

use std::time::Duration;

use mendix_agent_proto::limits::MAX_SNAPSHOT_UNACKED;
use mendix_control_plane::{Options, snapshots::open, store::TicketStatus};
use mendix_test_kit::{
    proxy::{Direction, Rule},
    wait::eventually,
};
use serde_json::json;

use super::{
    arriving, assert_ended,
    kubelet::Log,
    midway, noise, noisy,
    world::{PATIENCE, World, consent},
};

/// The shortest that agents accept.
const BEAT: Duration = Duration::from_secs(10);

/// Each 16 KiB of what goes up waits so long.
const SLOWLY: Rule = Rule::Delay(Duration::from_millis(150));
/// Enough for some seconds at that pace.
const LINES: usize = 40_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_their_pace_while_an_upload_is_stalled() {
    let options = Options { heartbeat_interval: BEAT, ..Options::default() };
    let mut world = noisy(Box::pin(World::with(options)).await).await;
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(noise(LINES)));
    world.start_agent().await;
    world.proxy.set(Direction::Up, SLOWLY);
    let (_, _request) = world.open_ticket_with_request(Some(consent()));
    midway(&world).await;
    let upload = world.proxy.seen().connections;
    world.proxy.hold(upload);
    world.proxy.set(Direction::Up, Rule::Pass);
    let session = |world: &World| world.plane.agent(&world.uid).unwrap().connected_since;
    let (since, mut last) = (session(&world), None);
    for beat in 0..4 {
        // Over the upload's connection, which is held all the while, not one would come.
        last = eventually(PATIENCE, format!("heartbeat {beat}"), async || {
            let seen = world.plane.agent(&world.uid)?.last_heartbeat;
            (seen.is_some() && seen != last).then_some(seen)
        })
        .await
        .unwrap();
    }
    assert_eq!(session(&world), since, "it is the same session all the while");
    world.kill_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_outlives_the_age_of_its_connection() {
    let options = Options { connection_age: Some(Duration::from_secs(2)), ..Options::default() };
    let mut world = noisy(Box::pin(World::with(options)).await).await;
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(noise(LINES)));
    world.start_agent().await;
    // Slow enough to be under way when the connection is told to end.
    world.proxy.set(Direction::Up, SLOWLY);
    let (_, request) = world.open_ticket_with_request(Some(consent()));
    arriving(&world).await;
    let upload = world.proxy.seen().connections;
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    let summary =
        open(world.plane.store(), &done.snapshot_id, &world.dir.path().join("opened")).unwrap();
    let after = world.plane.counters();
    assert_eq!((after.snapshot_begins, after.snapshot_bytes), (1, summary.sealed_size));
    let more = world.proxy.seen().connections > upload;
    assert!(more, "the connection did not end midway: make the upload longer");
    eventually(PATIENCE, "what was told to end has ended", async || {
        (world.proxy.seen().open <= 2).then_some(())
    })
    .await
    .unwrap();
    world.stop_agent().await;
}

/// The upload's own connection is held while consent ends, so that what the agent had sent by then waits
/// in it and what it sends afterwards would follow: everything that still arrives was sent before, and
/// that is no more than the control plane had not acknowledged.
async fn revoked_while_held(end: impl AsyncFnOnce(&World, &str), reason: &str) {
    let mut world = noisy(Box::pin(World::new()).await).await;
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(noise(LINES)));
    world.start_agent().await;
    world.proxy.set(Direction::Up, SLOWLY);
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let snapshot = midway(&world).await;
    let upload = world.proxy.seen().connections;
    world.proxy.hold(upload);
    world.proxy.set(Direction::Up, Rule::Pass);
    // Acknowledgements are held as well: from here on the agent sends no more than its window.
    let before = world.plane.counters().snapshot_bytes;
    end(&world, &ticket.ticket_id).await;
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!((done.outcome.as_str(), done.reason.as_str()), ("Revoked", reason));
    world.proxy.release(upload);
    assert_ended(&world, &snapshot, "Revoked", reason).await;
    world.stop_agent().await;
    let after = world.plane.counters().snapshot_bytes - before;
    assert!(after <= MAX_SNAPSHOT_UNACKED as u64, "{after} bytes came after consent had ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_ticket_ended_no_more_bytes_come_than_were_under_way() {
    let end = async |world: &World, ticket: &str| {
        world.plane.store().set_ticket_status(ticket, TicketStatus::Solved).unwrap();
    };
    revoked_while_held(end, "TicketInactive").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_veto_no_more_bytes_come_than_were_under_way() {
    let end = async |world: &World, _: &str| {
        world.set_policy(json!({ "mode": "WithConsent", "suspend": true })).await;
    };
    revoked_while_held(end, "PolicySuspended").await;
}
