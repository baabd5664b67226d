//! Consent from the portal to the cluster: how it comes, how it ends, what is said of it, and that
//! without it nothing is read and nothing leaves. Seen from outside: by the API server's audit log, by
//! the kubelet behind it, by the bytes on the wire, and by the agent's own audit log.

mod thousand;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, ResourceQuota, Secret};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use mendix_agent::{
    audit::show::Stored,
    occasion::{self, Occasion},
};
use mendix_agent_core::{
    audit::Record,
    consent::{
        grant::{Budget, Scope},
        ledger::Ledger,
    },
};
use mendix_control_plane::{
    portal::{self, GrantTerms, NewTicket, Rotation, open_ticket},
    repository::Expiry,
    store::{AuditRecord, DoneRequest, TicketOrigin, TicketRecord, TicketSeverity, TicketStatus},
};
use mendix_test_kit::{
    proxy::{Direction, Rule},
    wait::eventually,
};
use serde_json::{Value, json};

use super::{
    assert_ended,
    kubelet::Log,
    midway, noisy_world, slow,
    world::{COMPONENT, PATIENCE, World, consent, lines, minutes_ago},
};
use crate::events::told;

fn said(done: &DoneRequest) -> (&str, &str) {
    (done.outcome.as_str(), done.reason.as_str())
}

/// All decisions so far, of a log that is sound.
async fn decisions(world: &World) -> Vec<Record> {
    let stored = Stored::in_cluster(&world.admin, &world.agent_namespace).await.unwrap();
    let verified = stored.verify(Some(&world.uid), &[]);
    assert!(verified.is_sound(), "{}", verified.text());
    stored.newest(usize::MAX)
}

fn kinds(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.event["kind"].as_str().unwrap()).collect()
}

/// Nothing was read and nothing left, so far as anybody outside can tell.
fn assert_nothing_left(world: &World) {
    assert_eq!(world.log_reads(), 0);
    assert_eq!(world.kubelet.asked(), Vec::<String>::new());
    let counters = world.plane.counters();
    assert_eq!((counters.snapshot_begins, counters.snapshot_bytes), (0, 0));
}

fn automatic(world: &World) -> TicketRecord {
    let new = NewTicket {
        ticket_id: None,
        cluster_uid: world.uid.clone(),
        title: "Initialization failed again".into(),
        severity: TicketSeverity::High,
        origin: TicketOrigin::Automatic,
        grant: None,
    };
    open_ticket(world.plane.store(), new).unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_automatic_ticket_shares_only_after_a_customers_act() {
    let mut world = noisy_world().await;
    world.start_agent().await;
    let ticket = automatic(&world);
    let done = world.outcome(&world.request(&ticket)).await;
    assert_eq!(said(&done), ("Refused", "AutomaticTicket"));
    assert_nothing_left(&world);
    let (_, request) =
        portal::grant_ticket(world.plane.store(), &ticket.ticket_id, &consent()).unwrap();
    let done = world.outcome(&request).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_of_direct_access_shares_no_log() {
    let mut world = noisy_world().await;
    world.start_agent().await;
    let access = GrantTerms { scopes: vec![Scope::DirectEnvironmentAccess], ..consent() };
    let (ticket, request) = world.open_ticket_with_request(Some(access));
    assert_eq!(said(&world.outcome(&request.unwrap()).await), ("Refused", "ScopeMissing"));
    let status = world.ticket_object(&ticket, "Inactive").await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("ScopeMissing"));
    assert_nothing_left(&world);
    // Both at once are two consents.
    let both = vec![Scope::DirectEnvironmentAccess, Scope::LogSharing];
    let (_, request) =
        world.open_ticket_with_request(Some(GrantTerms { scopes: both, ..consent() }));
    assert_eq!(world.outcome(&request.unwrap()).await.outcome, "Succeeded");
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_was_solved_and_opened_again_shares_only_with_a_new_grant() {
    let mut world = noisy_world().await;
    slow(&world);
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let old = ticket.grant.clone().unwrap();
    midway(&world).await;
    world.plane.store().set_ticket_status(&ticket.ticket_id, TicketStatus::Solved).unwrap();
    assert_eq!(said(&world.outcome(&request.unwrap()).await), ("Revoked", "TicketInactive"));
    world.proxy.set(Direction::Up, Rule::Pass);
    let text = lines(minutes_ago(10), &["short now"]);
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(text));
    let reads = world.log_reads();

    // The ticket is open again, with the consent it had before.
    let id = ticket.ticket_id.as_str();
    let (_, request) = portal::grant_ticket(world.plane.store(), id, &consent()).unwrap();
    world.smuggle(id, |ticket| ticket.grant = Some(old.clone()));
    let outcome = world.outcome(&request).await;
    // Whichever of the two grants it saw first: the old one never counts.
    if outcome.outcome != "Succeeded" {
        assert_eq!(said(&outcome), ("Refused", "GrantVoided"));
        assert_eq!(world.log_reads(), reads);
    }
    let done = world.outcome(&world.request(&ticket)).await;
    assert_eq!(said(&done), ("Refused", "GrantVoided"));

    let (_, request) = portal::grant_ticket(world.plane.store(), id, &consent()).unwrap();
    let done = world.outcome(&request).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_deleted_during_an_upload_ends_it_and_its_consent() {
    let mut world = noisy_world().await;
    slow(&world);
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let snapshot = midway(&world).await;
    world.plane.store().delete_ticket(&ticket.ticket_id).unwrap();
    assert_eq!(said(&world.outcome(&request.unwrap()).await), ("Revoked", "NoTicket"));
    assert_ended(&world, &snapshot, "Revoked", "NoTicket").await;
    eventually(PATIENCE, "the grant is void", async || {
        let ledger = ledger(&world).await?;
        let voided = ledger.of_ticket(&ticket.ticket_id).all(|entry| entry.voided.is_some());
        voided.then_some(())
    })
    .await
    .unwrap();
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_deleted_during_an_upload_ends_it_and_all_consent() {
    let mut world = noisy_world().await;
    slow(&world);
    world.start_agent().await;
    let (ticket, _) = world.open_ticket_with_request(Some(consent()));
    let snapshot = midway(&world).await;
    world.plane.store().delete_cluster(&world.uid).unwrap();
    eventually(PATIENCE, "the snapshot is revoked", async || {
        let status = world.snapshot(&snapshot).await.status?;
        (status.phase == "Revoked").then_some(())
    })
    .await
    .unwrap();
    let status = world.snapshot(&snapshot).await.status.unwrap();
    assert!(
        matches!(status.reason.as_deref(), Some("Deregistered" | "NoTicket")),
        "{:?}",
        status.reason
    );
    eventually(PATIENCE, "the grant is void", async || {
        let ledger = ledger(&world).await?;
        let voided = ledger.of_ticket(&ticket.ticket_id).all(|entry| entry.voided.is_some());
        voided.then_some(())
    })
    .await
    .unwrap();
    let reads = world.log_reads();
    eventually(PATIENCE, "the audit log says so", async || {
        kinds(&decisions(&world).await).contains(&"deregistered").then_some(())
    })
    .await
    .unwrap();
    assert_eq!(world.log_reads(), reads);
    world.stop_agent().await;
}

/// What the control plane holds of the audit log.
fn held_of(world: &World) -> Option<AuditRecord> {
    world.plane.store().agent(&world.uid).unwrap().map(|agent| agent.audit)
}

async fn ledger(world: &World) -> Option<Ledger> {
    let secrets: Api<Secret> = Api::namespaced(world.admin.clone(), &world.agent_namespace);
    let secret = secrets.get_opt("mendix-agent-consent-ledger").await.unwrap()?;
    Ledger::parse(&secret.data?.get("ledger.json")?.0).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_spending_and_sending_loses_budget_and_gains_none() {
    let mut world = noisy_world().await;
    slow(&world);
    world.start_agent().await;
    let terms = GrantTerms { budget: Budget { snapshots: 2, bytes: 64 << 20 }, ..consent() };
    let (ticket, request) = world.open_ticket_with_request(Some(terms));
    midway(&world).await;
    world.kill_agent().await;
    let sent = world.plane.counters().snapshot_bytes;
    let spent = ledger(&world).await.unwrap();
    let before = spent.of_ticket(&ticket.ticket_id).next().unwrap().clone();
    assert_eq!(before.snapshots, 1);
    assert!(before.bytes >= sent, "{} spent, {sent} sent", before.bytes);

    world.proxy.set(Direction::Up, Rule::Pass);
    let text = lines(minutes_ago(10), &["short now"]);
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(text));
    world.start_agent().await;
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    let spent = ledger(&world).await.unwrap();
    let after = spent.of_ticket(&ticket.ticket_id).next().unwrap().clone();
    assert_eq!(after.snapshots, 2, "the one that was cut off counts");
    assert!(after.bytes > before.bytes, "what was reserved for it is gone");
    assert!(after.bytes >= world.plane.counters().snapshot_bytes);
    let done = world.outcome(&world.request(&ticket)).await;
    assert_eq!(said(&done), ("Refused", "SnapshotsSpent"));
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_the_release_root_rotated_count_without_a_restart() {
    let mut world = noisy_world().await;
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    assert_eq!(world.outcome(&request.unwrap()).await.outcome, "Succeeded");
    world.ticket_object(&ticket, "Active").await;

    // The consent key was stolen.
    let rotation = Rotation { consent: true, ..Rotation::default() };
    let keys =
        Box::pin(portal::rotate_keys(world.plane.store(), rotation, Expiry::default())).await;
    assert_eq!(keys.unwrap().sequence, 2);
    let status = world.ticket_object(&ticket, "Inactive").await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("GrantInvalid"));
    let reads = world.log_reads();
    let done = world.outcome(&world.request(&ticket)).await;
    assert_eq!(said(&done), ("Refused", "GrantInvalid"));
    assert_eq!(world.log_reads(), reads);
    let (_, request) = world.open_ticket_with_request(Some(consent()));
    assert_eq!(world.outcome(&request.unwrap()).await.outcome, "Succeeded");

    // A restart does not bring the old key back, whatever the trust folder says.
    world.stop_agent().await;
    let folder = world.plane.store().trust_dir();
    let now = std::fs::read_to_string(folder.join("consent-keys.json")).unwrap();
    std::fs::write(
        folder.join("consent-keys.json"),
        now.replace("\"sequence\": 2", "\"sequence\": 1"),
    )
    .unwrap();
    world.start_agent().await;
    let done = world.outcome(&world.request(&ticket)).await;
    assert_eq!(said(&done), ("Refused", "GrantInvalid"));
    let records = decisions(&world).await;
    let rotated = records.iter().filter(|r| r.event["kind"] == "consent-keys");
    let sources: Vec<_> = rotated.map(|r| r.event["source"].clone()).collect();
    assert_eq!(sources, ["installed", "rotated", "rotated"]);
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_of_the_customer_are_replaced_and_bad_ones_stop_all_sharing() {
    let mut world = noisy_world().await;
    let text = lines(minutes_ago(10), &["INFO order ACME-4711 accepted", "INFO bye"]);
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(text));
    world.set_policy(json!({ "mode": "WithConsent", "extraPatterns": ["ACME-(", "x"] })).await;
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    assert_eq!(said(&world.outcome(&request.unwrap()).await), ("Refused", "PolicyPatterns"));
    let status = world.ticket_object(&ticket, "Inactive").await.status.unwrap();
    let message = status.message.unwrap();
    assert!(message.contains("extraPatterns[0]"), "{message}");
    told(&world.admin, &world.agent_namespace, occasion::POLICY_PATTERNS).await;
    assert_nothing_left(&world);

    world.set_policy(json!({ "mode": "WithConsent", "extraPatterns": ["ACME-[0-9]+"] })).await;
    world.ticket_object(&ticket, "Active").await;
    let done = world.outcome(&world.request(&ticket)).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    let out = world.dir.path().join("opened");
    mendix_control_plane::snapshots::open(world.plane.store(), &done.snapshot_id, &out).unwrap();
    let log = out.join(format!("logs/{}/noisy-1-abc/main/current.log", world.namespace));
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.contains("INFO order [R:") && !text.contains("4711"), "{text}");
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_in_the_object_the_event_the_metric_and_the_audit_log() {
    let mut world = noisy_world().await;
    world.start_agent().await;
    let ticket = world.open_ticket(None);
    // Before there is an object the event is about the namespace.
    world.ticket_object(&ticket, "Inactive").await;
    let request = world.request(&ticket);
    assert_eq!(said(&world.outcome(&request).await), ("Refused", "NoGrant"));
    eventually(PATIENCE, "the ticket's object shows it", async || {
        let status = world.ticket_object(&ticket, "Inactive").await.status?;
        let refusal = status.last_refusal?;
        (refusal.reason == "NoGrant" && refusal.request_id == request.request_id).then_some(())
    })
    .await
    .unwrap();
    told(&world.admin, &world.agent_namespace, Occasion::refused("NoGrant")).await;
    let refusals = world.audit.as_ref().unwrap().figures().refusals;
    assert_eq!(refusals.get("NoGrant"), Some(&1));
    let records = decisions(&world).await;
    let refused = records.iter().find(|r| r.event["kind"] == "snapshot-refused").unwrap();
    assert_eq!(
        refused.event,
        json!({ "kind": "snapshot-refused", "request": request.request_id,
                "ticket": ticket.ticket_id, "reason": "NoGrant" })
    );

    // The same for a consent that ends midway.
    slow(&world);
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let snapshot = midway(&world).await;
    world.set_policy(json!({ "mode": "Deny" })).await;
    assert_eq!(said(&world.outcome(&request.unwrap()).await), ("Revoked", "PolicyDenies"));
    assert_ended(&world, &snapshot, "Revoked", "PolicyDenies").await;
    told(&world.admin, &world.agent_namespace, occasion::SNAPSHOT_REVOKED).await;
    eventually(PATIENCE, "the ticket's object shows it", async || {
        let refusal = world.ticket_object(&ticket, "Inactive").await.status?.last_refusal?;
        (refusal.reason == "PolicyDenies").then_some(())
    })
    .await
    .unwrap();
    let refusals = world.audit.as_ref().unwrap().figures().refusals;
    assert_eq!(refusals.get("PolicyDenies"), Some(&1));
    let ended = decisions(&world).await;
    let ended = ended.iter().find(|r| r.event["kind"] == "snapshot-ended").unwrap();
    assert_eq!(
        (&ended.event["phase"], &ended.event["reason"]),
        (&json!("Revoked"), &json!("PolicyDenies"))
    );
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_tells_what_was_shared_before_it_was_and_the_control_plane_vouches_for_it() {
    let mut world = noisy_world().await;
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    let records = decisions(&world).await;
    let of = |kind: &str| records.iter().find(|r| r.event["kind"] == kind).unwrap();
    let (allowed, ended) = (of("snapshot-allowed"), of("snapshot-ended"));
    assert!(allowed.sequence < ended.sequence);
    assert_eq!(allowed.event["snapshot"], done.snapshot_id);
    assert_eq!(allowed.event["grant"]["sha256"], ticket.grant.unwrap().sha256);
    assert_eq!(allowed.event["components"], json!([COMPONENT]));
    let receipt = world.snapshot(&done.snapshot_id).await.status.unwrap();
    assert_eq!(ended.event["sha256"], receipt.sha256.unwrap());
    // Written before the first log was read, by the API server's own clock.
    let audit = world.server.audit_log().unwrap();
    let first_read = audit.requests_for(&world.namespace, "pods", "log").unwrap();
    let read_at = first_read[0]["requestReceivedTimestamp"].as_str().unwrap();
    let read_at: Timestamp = read_at.parse().unwrap();
    assert!(allowed.at <= read_at, "{} and {read_at}", allowed.at);
    for secret in super::SECRETS {
        let all: String = records.iter().map(Record::line).collect();
        assert!(!all.contains(secret));
    }

    world.stop_agent().await;
    let newest = decisions(&world).await.last().unwrap().sequence;
    let held = eventually(PATIENCE, "the control plane holds a checkpoint", async || {
        let held = held_of(&world)?;
        held.held.as_ref().is_some_and(|held| held.sequence + 1 >= newest).then_some(held)
    })
    .await
    .unwrap();
    assert_eq!(held.alarm, None);
    let stored = Stored::in_cluster(&world.admin, &world.agent_namespace).await.unwrap();
    let verified = stored.verify(Some(&world.uid), &held.checkpoints());
    assert!(verified.is_sound(), "{}", verified.text());
    assert!(verified.text().contains("CONFIRMED"), "{}", verified.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_log_that_was_cut_off_shows_to_the_agent_the_control_plane_and_the_reviewer() {
    let mut world = noisy_world().await;
    world.start_agent().await;
    let ticket = world.open_ticket(None);
    for _ in 0..3 {
        world.outcome(&world.request(&ticket)).await;
    }
    let before = eventually(PATIENCE, "a checkpoint is held", async || {
        let held = held_of(&world)?.held?;
        (held.sequence >= 4).then_some(held)
    })
    .await
    .unwrap();
    world.stop_agent().await;

    // Somebody with the rights to it takes the last refusals away, and mends the end.
    let maps: Api<ConfigMap> = Api::namespaced(world.admin.clone(), &world.agent_namespace);
    let mut map = maps.get("audit-000001").await.unwrap();
    let data = map.data.as_mut().unwrap();
    let kept: Vec<&str> = data["records"].lines().take(2).collect();
    let chain = mendix_agent_core::audit::record::hash(kept[1]);
    let records = kept.iter().map(|line| format!("{line}\n")).collect();
    data.insert("records".into(), records);
    data.insert("chain".into(), hex::encode(chain));
    maps.replace("audit-000001", &PostParams::default(), &map).await.unwrap();

    let stored = Stored::in_cluster(&world.admin, &world.agent_namespace).await.unwrap();
    assert!(stored.verify(Some(&world.uid), &[]).is_sound(), "consistent in itself");
    let checkpoint = format!("{}:{}", before.sequence, before.chain).parse().unwrap();
    let verified = stored.verify(Some(&world.uid), &[checkpoint]);
    assert!(verified.text().contains("the end was cut off"), "{}", verified.text());

    world.start_agent().await;
    let alarm =
        eventually(PATIENCE, "the control plane raises an alarm", async || held_of(&world)?.alarm)
            .await
            .unwrap();
    assert_eq!(alarm.held.sequence, before.sequence);
    eventually(PATIENCE, "the log says so itself", async || {
        kinds(&decisions(&world).await).contains(&"checkpoint-mismatch").then_some(())
    })
    .await
    .unwrap();
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_log_without_room_blocks_sending() {
    let mut world = noisy_world().await;
    // As many ConfigMaps as there are: the log can't begin.
    let quotas: Api<ResourceQuota> = Api::namespaced(world.admin.clone(), &world.agent_namespace);
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "no-room" },
        "spec": { "hard": { "count/configmaps": "0" } },
    });
    let params = PatchParams::apply("customer").force();
    quotas.patch("no-room", &params, &Patch::Apply(&quota)).await.unwrap();
    let status = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "no-room" },
        "status": { "hard": { "count/configmaps": "0" }, "used": { "count/configmaps": "0" } },
    });
    // No controller runs here to say what is used.
    let params = PatchParams::default();
    quotas.patch_status("no-room", &params, &Patch::Merge(&status)).await.unwrap();
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    assert_eq!(said(&world.outcome(&request.unwrap()).await), ("Refused", "AuditUnavailable"));
    assert_nothing_left(&world);
    assert_eq!(world.snapshots().await.len(), 0);
    assert!(ledger(&world).await.is_none_or(|l| l.of_ticket(&ticket.ticket_id).next().is_none()));

    quotas.delete("no-room", &DeleteParams::default()).await.unwrap();
    let done = eventually(PATIENCE, "the same is allowed once it is written", async || {
        let done = world.outcome(&world.request(&ticket)).await;
        (done.outcome == "Succeeded").then_some(done)
    })
    .await
    .unwrap();
    let records = decisions(&world).await;
    let refusals = records.iter().filter(|r| r.event["reason"] == "AuditUnavailable").count();
    assert!(refusals >= 1, "what could not be written then is written now");
    assert!(records.iter().any(|r| r.event["snapshot"] == done.snapshot_id));
    world.stop_agent().await;
}
