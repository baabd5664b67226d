//! Log snapshots from the ticket to the opened archive: real API server with the agent's own
//! rights, real control plane, real TLS; only the kubelet behind the API server is ours.

mod consent;
mod faults;
mod kubelet;
mod plain;
mod preview;
mod replicas;
mod secrecy;
mod world;

use std::time::Duration;

use mendix_agent::{crd::log_snapshot::LogSnapshot, occasion};
use mendix_agent_core::consent::grant::DataClass;
use mendix_control_plane::{
    snapshots::{Summary, UploadState, open},
    store::TicketStatus,
};
use mendix_test_kit::{
    proxy::{Direction, Rule},
    wait::eventually,
};
use serde_json::{Value, json};

use self::{
    kubelet::Log,
    world::{COMPONENT, PATIENCE, World, consent, lines, minutes_ago},
};
use crate::events::told;

const SECRETS: [&str; 3] =
    ["hunter2-Tr0ub4dor", "jane.doe@customer.example", "AKIAIOSFODNN7EXAMPLE"];

/// A component with one pod whose log holds secrets, and a customer's pod that wears its label.
async fn noisy_world() -> World {
    noisy(Box::pin(World::new()).await).await
}

async fn noisy(world: World) -> World {
    Box::pin(world.pod("noisy-1-abc", true, json!({}))).await;
    Box::pin(world.pod("shop-1-xyz", false, json!({}))).await;
    let text = lines(
        minutes_ago(10),
        &[
            "INFO starting",
            &format!("DEBUG connecting with password={}", SECRETS[0]),
            &format!("WARN order of {} failed", SECRETS[1]),
            &format!("ERROR aws_access_key_id={}", SECRETS[2]),
            "INFO ready",
        ],
    );
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(text));
    let foreign = lines(minutes_ago(10), &["INFO the customer's own data"]);
    world.kubelet.set(&world.namespace, "shop-1-xyz", "main", Log::Whole(foreign));
    world
}

/// Lines of numbers that compress badly, so that there is something to send.
fn noise(count: usize) -> String {
    let mut state = 1u64;
    let texts: Vec<String> = (0..count)
        .map(|n| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("INFO request {n} took {} ms, {} rows", state >> 44, (state >> 20) & 0xfffff)
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    texts.chunks(500).map(|chunk| lines(minutes_ago(10), chunk)).collect()
}

/// An upload that takes a while: about a megabyte, over a slow connection.
fn slow(world: &World) {
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(noise(60_000)));
    world.proxy.set(Direction::Up, Rule::Delay(Duration::from_millis(100)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_consent_no_log_is_read_and_no_byte_leaves() {
    let mut world = noisy_world().await;
    world.start_agent().await;
    let ticket = world.open_ticket(None);
    let request = world.request(&ticket);
    let done = world.outcome(&request).await;
    assert_eq!((done.outcome.as_str(), done.reason.as_str()), ("Refused", "NoGrant"));
    let object = world.ticket_object(&ticket, "Inactive").await;
    assert_eq!(object.status.unwrap().reason.as_deref(), Some("NoGrant"));
    assert_eq!(world.log_reads(), 0);
    assert_eq!(world.kubelet.asked(), Vec::<String>::new());
    let counters = world.plane.counters();
    assert_eq!((counters.snapshot_begins, counters.snapshot_bytes), (0, 0));
    assert_eq!(world.snapshots().await.len(), 0);
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_granted_ticket_brings_a_redacted_snapshot_that_only_its_key_opens() {
    let mut world = noisy_world().await;
    world
        .pod(
            "noisy-1-def",
            true,
            json!({ "restartCount": 1, "lastState": { "terminated": { "exitCode": 1 } } }),
        )
        .await;
    let text = lines(minutes_ago(10), &["first line", "second run"]);
    world.kubelet.set(&world.namespace, "noisy-1-def", "main", Log::Whole(text));
    let text = lines(minutes_ago(20), &["cut perhaps", "panic: out of cheese"]);
    world.kubelet.set_previous(&world.namespace, "noisy-1-def", "main", Log::Whole(text));
    world.start_agent().await;

    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    for occasion in
        [occasion::CONSENT_ACTIVE, occasion::SNAPSHOT_STARTED, occasion::SNAPSHOT_SUCCEEDED]
    {
        told(&world.admin, &world.agent_namespace, occasion).await;
    }

    let out = world.dir.path().join("opened");
    let summary = open(world.plane.store(), &done.snapshot_id, &out).unwrap();
    let paths: Vec<_> = summary.files.iter().map(|file| file.path.as_str()).collect();
    let log = |pod: &str, run: &str| format!("logs/{}/{pod}/main/{run}.log", world.namespace);
    for expected in [
        &log("noisy-1-abc", "current"),
        &log("noisy-1-def", "current"),
        &log("noisy-1-def", "previous"),
        "status.jsonl",
        "redaction.json",
    ] {
        assert!(
            paths.contains(&expected),
            "{expected} is missing in {paths:?}; gaps: {:?}",
            summary.errors
        );
    }
    assert_eq!(paths.last(), Some(&"manifest.json"));
    let all: String = walk(&out).into_iter().map(|file| read(&file)).collect();
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret} left the cluster");
    }
    assert!(!all.contains("customer's own data"), "a pod with a forged label was read");
    let text = read(&out.join(log("noisy-1-abc", "current")));
    assert!(text.contains("INFO starting") && text.contains("[R:"), "{text}");
    let text = read(&out.join(log("noisy-1-def", "previous")));
    assert!(text.contains("panic: out of cheese") && !text.contains("cut perhaps"), "{text}");

    let receipt = world.snapshot(&done.snapshot_id).await;
    let status = receipt.status.unwrap();
    assert_eq!(status.phase, "Succeeded");
    assert!(status.replaced >= 3, "{status:?}");
    assert_eq!(status.sha256.as_deref(), Some(summary.sealed_sha256.as_str()));
    assert_eq!(status.sealed_bytes, summary.sealed_size);
    assert_eq!(receipt.spec.ticket_id, ticket.ticket_id);
    let status = world.ticket_object(&ticket, "Active").await.status.unwrap();
    assert_eq!(status.snapshots_allowed, 5);
    eventually(PATIENCE, "the ticket shows what was spent", async || {
        let status = world.ticket_object(&ticket, "Active").await.status.unwrap();
        (status.snapshots_used == 1 && status.bytes_used == summary.sealed_size).then_some(())
    })
    .await
    .unwrap();
    // Inside the window; or the time of the oldest record that there is, and no more.
    let asked = world.kubelet.asked();
    let within = |path: &&String| path.contains("sinceTime=") || path.contains("limitBytes=40");
    assert_eq!(asked.iter().filter(within).count(), asked.len(), "{asked:?}");
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_veto_midway_leaves_nothing_that_opens() {
    let mut world = noisy_world().await;
    slow(&world);
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let snapshot = midway(&world).await;
    world.set_policy(json!({ "mode": "WithConsent", "suspend": true })).await;
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!((done.outcome.as_str(), done.reason.as_str()), ("Revoked", "PolicySuspended"));
    assert_ended(&world, &snapshot, "Revoked", "PolicySuspended").await;
    world.ticket_object(&ticket, "Inactive").await;
    told(&world.admin, &world.agent_namespace, occasion::CONSENT_INACTIVE).await;
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_solved_midway_ends_its_consent_for_good() {
    let mut world = noisy_world().await;
    slow(&world);
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let snapshot = midway(&world).await;
    world.plane.store().set_ticket_status(&ticket.ticket_id, TicketStatus::Solved).unwrap();
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!((done.outcome.as_str(), done.reason.as_str()), ("Revoked", "TicketInactive"));
    assert_ended(&world, &snapshot, "Revoked", "TicketInactive").await;
    let reads = world.log_reads();
    let done = world.outcome(&world.request(&ticket)).await;
    assert_eq!((done.outcome.as_str(), done.reason.as_str()), ("Refused", "TicketInactive"));
    assert_eq!(world.log_reads(), reads);
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_midway_fails_that_snapshot_and_takes_another() {
    let mut world = noisy_world().await;
    slow(&world);
    world.start_agent().await;
    let (_, request) = world.open_ticket_with_request(Some(consent()));
    let first = midway(&world).await;
    world.kill_agent().await;
    world.proxy.set(Direction::Up, Rule::Pass);
    let text = lines(minutes_ago(10), &["short now"]);
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(text));
    world.start_agent().await;
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    assert_ne!(done.snapshot_id, first);
    assert_ended(&world, &first, "Failed", "AgentRestarted").await;
    told(&world.admin, &world.agent_namespace, occasion::SNAPSHOT_FAILED).await;
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_after_its_connection_was_cut() {
    let mut world = noisy_world().await;
    let text = noise(60_000);
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(text.clone()));
    // So much gets through before everything stands still, the session included.
    world.proxy.set(Direction::Up, Rule::StallAfter(400_000));
    world.start_agent().await;
    let (_, request) = world.open_ticket_with_request(Some(consent()));
    eventually(PATIENCE, "some of it has arrived", async || {
        (world.plane.counters().snapshot_bytes > 200_000).then_some(())
    })
    .await
    .unwrap();
    let before = world.plane.counters();
    world.proxy.cut();
    world.proxy.set(Direction::Up, Rule::Pass);
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    let out = world.dir.path().join("opened");
    let summary = open(world.plane.store(), &done.snapshot_id, &out).unwrap();
    let after = world.plane.counters();
    assert_eq!(after.snapshot_begins, 1, "the same upload went on");
    assert!(before.snapshot_bytes < summary.sealed_size, "it was cut midway");
    assert_eq!(after.snapshot_bytes, summary.sealed_size, "no byte was stored twice");
    let mut parts: Vec<_> =
        walk(&out).into_iter().filter(|path| path.to_string_lossy().contains("abc")).collect();
    parts.sort();
    assert!(parts.len() > 1, "{parts:?}");
    let all: String = parts.iter().map(|path| read(path)).collect();
    assert_eq!(all, text);
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_policy_denies() {
    let mut world = noisy_world().await;
    let api: kube::Api<mendix_agent::crd::log_sharing_policy::LogSharingPolicy> =
        kube::Api::namespaced(world.admin.clone(), &world.agent_namespace);
    api.delete("default", &Default::default()).await.unwrap();
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!((done.outcome.as_str(), done.reason.as_str()), ("Refused", "PolicyAbsent"));
    let status = world.ticket_object(&ticket, "Inactive").await.status.unwrap();
    assert_eq!(status.components, [COMPONENT]);
    assert_eq!(world.log_reads(), 0);
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_before_finish_begins_again_and_the_first_never_opens() {
    let mut world = noisy_world().await;
    slow(&world);
    world.start_agent().await;
    let (_, request) = world.open_ticket_with_request(Some(consent()));
    let first = midway(&world).await;
    // The upload's connection is made; the one that Finish goes over is not.
    world.proxy.refuse(true);
    let known = world.proxy.seen().connections;
    world.proxy.set(Direction::Up, Rule::Pass);
    // All of it is there once the agent dials, in vain.
    eventually(PATIENCE, "the agent dials for Finish", async || {
        (world.proxy.seen().connections > known + 1).then_some(())
    })
    .await
    .unwrap();
    world.kill_agent().await;
    let text = lines(minutes_ago(10), &["short now"]);
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(text));
    world.proxy.refuse(false);
    world.start_agent().await;
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    assert_ne!(done.snapshot_id, first);
    assert_ended(&world, &first, "Failed", "AgentRestarted").await;
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_leaves_no_plaintext_in_any_file() {
    let mut world = noisy_world().await;
    let canary = format!("canary-{}", world.uid.replace('-', ""));
    let text = lines(minutes_ago(10), &[&format!("INFO {canary}")]) + &noise(60_000);
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(text));
    world.proxy.set(Direction::Up, Rule::Delay(Duration::from_millis(100)));
    world.start_agent().await;
    let (_, request) = world.open_ticket_with_request(Some(consent()));
    midway(&world).await;
    let looked = plain::files_that_hold(&canary, world.dir.path());
    assert_eq!(looked.holding, Vec::<String>::new());
    assert!(looked.read > 0, "nothing was looked at");
    world.proxy.set(Direction::Up, Rule::Pass);
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    let looked = plain::files_that_hold(&canary, world.dir.path());
    assert_eq!(looked.holding, Vec::<String>::new());
    // The search finds what is there: the opened snapshot holds it.
    let out = world.dir.path().join("opened");
    open(world.plane.store(), &done.snapshot_id, &out).unwrap();
    assert_eq!(plain::files_that_hold(&canary, world.dir.path()).holding.len(), 1);
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runtime_logs_come_with_the_class_and_the_customers_right() {
    let mut world = noisy_world().await;
    world.app("shop").await;
    let text =
        lines(minutes_ago(9), &["first", "INFO order placed", "INFO by jane.doe@customer.example"]);
    world.kubelet.set("mendix", "shop-master-5f6d-x", "mendix", Log::Whole(text));
    world.start_agent().await;
    let terms = || {
        let mut terms = consent();
        terms.data_classes.push(DataClass::RuntimeLogs);
        terms
    };
    // Named, and not readable: declared.
    let (_, request) = world.open_ticket_with_request(Some(terms()));
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    let summary =
        open(world.plane.store(), &done.snapshot_id, &world.dir.path().join("a")).unwrap();
    assert!(!summary.files.iter().any(|file| file.path.starts_with("logs/mendix/")));
    let reasons = |summary: &Summary| {
        let about = |gap: &&Value| gap["subject"] == "runtime-logs";
        summary.errors.iter().filter(about).map(|gap| gap["reason"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&summary), ["NotListed"]);
    // What the Operator keeps of the apps is the customer's to allow, too; in the managed namespaces it is read.
    let unread = |summary: &Summary| {
        let subjects = summary.errors.iter().filter_map(|gap| gap["subject"].as_str());
        subjects.filter(|it| it.ends_with("/resources")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(unread(&summary), ["mendix/resources"]);
    // Readable, and named.
    world.allow_runtime_logs().await;
    let (_, request) = world.open_ticket_with_request(Some(terms()));
    let done = world.outcome(&request.unwrap()).await;
    let out = world.dir.path().join("b");
    let summary = open(world.plane.store(), &done.snapshot_id, &out).unwrap();
    assert_eq!(reasons(&summary), Vec::<Value>::new(), "{:?}", summary.errors);
    assert_eq!(unread(&summary), Vec::<String>::new(), "{:?}", summary.errors);
    let text = read(&out.join("logs/mendix/shop-master-5f6d-x/mendix/current.log"));
    assert!(text.contains("INFO order placed") && !text.contains("jane.doe"), "{text}");
    assert!(read(&out.join("resources.jsonl")).contains("\"MendixApp\""));
    // Readable, and not named.
    let (_, request) = world.open_ticket_with_request(Some(consent()));
    let done = world.outcome(&request.unwrap()).await;
    let summary =
        open(world.plane.store(), &done.snapshot_id, &world.dir.path().join("c")).unwrap();
    assert!(!summary.files.iter().any(|file| file.path.starts_with("logs/mendix/")));
    world.stop_agent().await;
}

/// Waits until sealed bytes are on their way, and has what is left of them come so slowly that the
/// upload lasts longer than any test needs. Gives the snapshot's id.
async fn midway(world: &World) -> String {
    arriving(world).await;
    world.proxy.set(Direction::Up, Rule::Delay(Duration::from_secs(1)));
    the_only_snapshot(world).await
}

async fn arriving(world: &World) {
    eventually(PATIENCE, "sealed bytes arrive", async || {
        (world.plane.counters().snapshot_bytes > 0).then_some(())
    })
    .await
    .unwrap();
}

/// The id of a snapshot that is under way.
async fn the_only_snapshot(world: &World) -> String {
    let started: Vec<LogSnapshot> = world.snapshots().await;
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].status.as_ref().unwrap().phase, "Started");
    started[0].metadata.name.clone().unwrap()
}

/// The receipt says so, and what the server has is gone.
async fn assert_ended(world: &World, snapshot: &str, phase: &str, reason: &str) {
    let status = world.snapshot(snapshot).await.status.unwrap();
    assert_eq!((status.phase.as_str(), status.reason.as_deref()), (phase, Some(reason)));
    assert!(status.finished_at.is_some());
    eventually(PATIENCE, "the server has discarded the upload", async || {
        let upload = world.plane.store().upload(snapshot).unwrap();
        matches!(upload.state, UploadState::Aborted { .. }).then_some(())
    })
    .await
    .unwrap();
    let out = world.dir.path().join("never");
    assert!(open(world.plane.store(), snapshot, &out).is_err());
}

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
