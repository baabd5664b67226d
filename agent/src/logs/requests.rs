//! Follows the requests for snapshots and answers each: refused by the gate, or taken and ended.
//!
//! One at a time. A request stays wanted until its outcome was seen, so a restart comes back to it:
//! what had succeeded is not taken again, what the restart cut off begins anew while budget lasts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, ResourceExt, runtime::events::EventType};
use mendix_agent_core::{
    consent::{
        Refusal,
        gate::{self, ActiveConsent, Candidate, Facts, Told, Wish},
        ledger::Ledger,
    },
    redact::POLICY_VERSION,
};
use mendix_agent_proto::v1::{self, Outcome, request::Kind};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Logs,
    assemble::Tally,
    clock,
    ledger::Budget,
    live::{self, Live},
    news::News,
    objects::{Receipts, RecordError, STARTED, call, reference},
    snapshot::{self, Ending, Snapshot},
    upload::{self, Settled, UploadError},
};
use crate::{
    channel::Link,
    crd::{
        log_snapshot::{LogSnapshot, LogSnapshotSpec, LogSnapshotStatus},
        managed_component::ManagedComponent,
        support_ticket::SupportTicket,
    },
    errors::describe,
};

/// Pause after a failure of the Kubernetes API.
const RETRY: Duration = Duration::from_secs(5);
/// A ticket and the request for it are sections of their own and may arrive one after the other.
const TICKET_GRACE: Duration = Duration::from_secs(3);

/// Answers requests until shutdown.
pub(super) async fn follow(logs: &Arc<Logs>, shutdown: &CancellationToken) {
    let receipts = Receipts::new(&logs.cluster);
    let mut orphans = loop {
        match close_orphans(logs, &receipts).await {
            Ok(orphans) => break orphans,
            Err(error) => {
                tracing::warn!(error = describe(&error), "receipts could not be read");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(RETRY) => {}
                }
            }
        }
    };
    let mut news = News::of(logs);
    loop {
        settle_orphans(logs, &receipts, &mut orphans).await;
        if let Some((id, request)) = next(logs) {
            let handled =
                Box::pin(handle(logs, &receipts, &mut orphans, &id, &request, shutdown)).await;
            if let Err(error) = handled {
                tracing::warn!(error = describe(&error), request = id, "request put off");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(RETRY) => {}
                }
            }
            if shutdown.is_cancelled() {
                return;
            }
            continue;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            woken = news.next() => if woken.is_err() { return },
        }
    }
}

/// The next unanswered request for a snapshot; none before the tickets are known.
fn next(logs: &Logs) -> Option<(String, v1::SnapshotRequest)> {
    logs.sources.tickets.borrow().as_ref()?;
    let section = logs.wanted.borrow();
    section.as_ref()?.value.requests.iter().find_map(|request| match &request.kind {
        Some(Kind::Snapshot(snapshot)) if !logs.outcomes.is_finished(&request.request_id) => {
            Some((request.request_id.clone(), snapshot.clone()))
        }
        _ => None,
    })
}

/// Ends what an earlier process left in state Started. Gives their ids: the server is to be asked
/// what it has of them.
async fn close_orphans(logs: &Logs, receipts: &Receipts) -> Result<BTreeSet<String>, RecordError> {
    let mut orphans = BTreeSet::new();
    for receipt in receipts.all().await? {
        let started = receipt.status.as_ref().is_none_or(|status| status.phase == STARTED);
        if !started {
            continue;
        }
        let status = LogSnapshotStatus {
            phase: "Failed".into(),
            reason: Some(AGENT_RESTARTED.into()),
            message: Some("the agent was restarted before it was complete".into()),
            finished_at: Some(Timestamp::now()),
            ..receipt.status.clone().unwrap_or_default()
        };
        let id = receipt.name_any();
        let receipt = receipts.update(&id, &status).await?;
        announce(logs, &receipt).await;
        orphans.insert(id);
    }
    Ok(orphans)
}

const AGENT_RESTARTED: &str = "AgentRestarted";

/// Settles them with the server as soon as there is a session. One that turns out to be complete
/// gets the receipt it deserves.
async fn settle_orphans(logs: &Logs, receipts: &Receipts, orphans: &mut BTreeSet<String>) {
    let connected = matches!(*logs.sources.link.borrow(), Link::Connected { .. });
    if !connected {
        return;
    }
    while let Some(id) = orphans.first().cloned() {
        match upload::settle(&logs.dialer, &id, AGENT_RESTARTED).await {
            Ok(Settled::Discarded) => {}
            Ok(Settled::Finished { size }) => {
                if let Err(error) = correct(logs, receipts, &id, size).await {
                    tracing::warn!(
                        error = describe(&error),
                        snapshot = id,
                        "receipt not corrected"
                    );
                    return;
                }
            }
            Err(error @ UploadError::Unreachable(_)) => {
                tracing::warn!(error = describe(&error), snapshot = id, "not settled yet");
                return;
            }
            Err(error) => {
                tracing::warn!(error = describe(&error), snapshot = id, "can't be settled");
            }
        }
        orphans.remove(&id);
    }
}

async fn correct(logs: &Logs, receipts: &Receipts, id: &str, size: u64) -> Result<(), RecordError> {
    let Some(receipt) = receipts.all().await?.into_iter().find(|r| r.name_any() == id) else {
        return Ok(());
    };
    let status = finished_after_all(receipt.status.unwrap_or_default(), size);
    let receipt = receipts.update(id, &status).await?;
    announce(logs, &receipt).await;
    Ok(())
}

/// The server has all of it and the key, although we did not hear so.
fn finished_after_all(status: LogSnapshotStatus, size: u64) -> LogSnapshotStatus {
    LogSnapshotStatus {
        phase: "Succeeded".into(),
        reason: None,
        message: Some("complete at the control plane; its answer came late".into()),
        sealed_bytes: size,
        ..status
    }
}

/// Answers one request. An error leaves it unanswered, to be tried again.
async fn handle(
    logs: &Arc<Logs>,
    receipts: &Receipts,
    orphans: &mut BTreeSet<String>,
    id: &str,
    request: &v1::SnapshotRequest,
    shutdown: &CancellationToken,
) -> Result<(), RecordError> {
    if let Some(receipt) = answered(receipts, id).await? {
        tell(logs, &receipt);
        return Ok(());
    }
    let components = logs.managed().await?;
    let admitted = match admit(logs, request, &components, shutdown).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            refuse(logs, id, request, &refusal).await;
            return Ok(());
        }
    };
    // What was asked is written before it is done.
    let snapshot_id = match snapshot::new_id() {
        Ok(snapshot_id) => snapshot_id,
        Err(error) => {
            let message = error.to_string();
            logs.outcomes.finish(id, Outcome::Failed, "SealFailed", &message, None);
            return Ok(());
        }
    };
    let receipt = receipts.start(&snapshot_id, spec(id, &admitted.live)).await?;
    announce(logs, &receipt).await;
    let Admitted { live, mut budget } = admitted;
    let (ending, tally) = {
        let snapshot = Snapshot {
            id: &snapshot_id,
            cluster: &logs.cluster,
            dialer: &logs.dialer,
            live: &live,
            components,
            finders: vec![Box::new(logs.own.secrets().await)],
            budget: &mut budget,
        };
        Box::pin(snapshot.run()).await
    };
    budget.close().await;
    logs.spent.send_modify(|n| *n += 1);
    if live.solved() {
        void(logs, live.consent()).await;
    }
    let started_at = receipt.status.as_ref().and_then(|status| status.started_at);
    let mut status = ended(&ending, tally, started_at);
    if !matches!(ending, Ending::Succeeded(_)) {
        let reason = status.reason.clone().unwrap_or_default();
        match upload::settle(&logs.dialer, &snapshot_id, &reason).await {
            Ok(Settled::Discarded) => {}
            Ok(Settled::Finished { size }) => status = finished_after_all(status, size),
            Err(error) => {
                tracing::warn!(error = describe(&error), snapshot_id, "not settled yet");
                orphans.insert(snapshot_id.clone());
            }
        }
    }
    let receipt = close(receipts, &snapshot_id, &status).await;
    if let Some(receipt) = &receipt {
        announce(logs, receipt).await;
    }
    let was_shutdown = shutdown.is_cancelled() && matches!(ending, Ending::Failed { .. });
    if !was_shutdown {
        let (outcome, reason, message) = outcome(&status);
        logs.outcomes.finish(id, outcome, &reason, &message, Some(&snapshot_id));
    }
    if let Err(error) = receipts.prune().await {
        tracing::warn!(error = describe(&error), "old receipts could not be deleted");
    }
    Ok(())
}

/// A terminal receipt of an earlier process for this request; one that a restart cut off is none.
async fn answered(receipts: &Receipts, id: &str) -> Result<Option<LogSnapshot>, RecordError> {
    let all = receipts.all().await?;
    Ok(all.into_iter().find(|receipt| {
        let status = receipt.status.as_ref();
        receipt.spec.request_id == id
            && status.is_some_and(|status| {
                let reason = status.reason.as_deref();
                status.finished_at.is_some()
                    && !matches!(reason, Some(AGENT_RESTARTED | "Shutdown"))
            })
    }))
}

fn tell(logs: &Logs, receipt: &LogSnapshot) {
    if let Some(status) = &receipt.status {
        let (kind, reason, message) = outcome(status);
        let name = receipt.name_any();
        logs.outcomes.finish(&receipt.spec.request_id, kind, &reason, &message, Some(&name));
    }
}

fn outcome(status: &LogSnapshotStatus) -> (Outcome, String, String) {
    let kind = match status.phase.as_str() {
        "Succeeded" => Outcome::Succeeded,
        "Revoked" => Outcome::Revoked,
        _ => Outcome::Failed,
    };
    let reason = status.reason.clone().unwrap_or_default();
    let message = status.message.clone().unwrap_or_else(|| {
        format!(
            "{} files, {} sealed bytes, {} values replaced",
            status.files, status.sealed_bytes, status.replaced
        )
    });
    (kind, reason, message)
}

/// A consent in force with its first bytes of budget.
struct Admitted {
    live: Live,
    budget: Budget,
}

/// The whole gate: grant → ticket → lease → local policy → ledger.
async fn admit(
    logs: &Arc<Logs>,
    request: &v1::SnapshotRequest,
    components: &[ManagedComponent],
    shutdown: &CancellationToken,
) -> Result<Admitted, Refusal> {
    let ledger = logs.ledger.read().await?;
    let candidate = consider(logs, request, components, &ledger).await?;
    let (lease, proven) = live::first_lease(&logs.sources, &candidate).await;
    if let Err(refusal) = proven {
        if lease.solved() {
            void_grant(logs, candidate.grant()).await;
        }
        return Err(refusal);
    }
    // Fresh, not what was known: the customer may have decided while we waited.
    logs.policy.read().await;
    let consent = {
        let view = logs.policy.view();
        candidate.admit(&lease, &view, &ledger, clock::now())?
    };
    let consent = Arc::new(consent);
    // Spent before anything is read; this is where two replicas meet.
    let budget = Budget::begin(&logs.ledger, consent.grant()).await?;
    logs.spent.send_modify(|n| *n += 1);
    let live = Live::new(
        consent,
        lease,
        logs.sources.clone(),
        logs.policy.clone(),
        ledger,
        shutdown.child_token(),
    );
    Ok(Admitted { live, budget })
}

async fn consider(
    logs: &Logs,
    request: &v1::SnapshotRequest,
    components: &[ManagedComponent],
    ledger: &Ledger,
) -> Result<Candidate, Refusal> {
    let managed = components.iter().map(|c| c.spec.component.clone()).collect();
    let facts = Facts {
        cluster_uid: &logs.cluster.uid,
        trust: &logs.trust,
        managed: &managed,
        redaction_policy: POLICY_VERSION,
    };
    let wish = Wish { ticket_id: &request.ticket_id, components: &request.components };
    let look = || {
        let ticket = logs.sources.ticket(&request.ticket_id);
        let told = Told { ticket: ticket.as_ref(), deregistered: logs.sources.deregistered() };
        gate::consider(facts, told, wish, ledger, Timestamp::now())
    };
    let mut tickets = logs.sources.tickets.clone();
    tickets.mark_unchanged();
    match look() {
        Err(Refusal::NoTicket { .. }) => {
            // Either way the second look decides.
            let _came_or_not = timeout(TICKET_GRACE, tickets.changed()).await;
            look()
        }
        decided => decided,
    }
}

async fn refuse(logs: &Logs, id: &str, request: &v1::SnapshotRequest, refusal: &Refusal) {
    let message = refusal.sentence();
    tracing::info!(
        request = id,
        ticket = request.ticket_id,
        reason = refusal.code(),
        message,
        "snapshot refused"
    );
    let about = subject(logs, &request.ticket_id).await;
    logs.cluster
        .event(&about, EventType::Warning, refusal.code(), "RefuseSnapshot", message.clone())
        .await;
    logs.outcomes.finish(id, Outcome::Refused, refusal.code(), &message, None);
}

/// What a refusal's Event is about: the ticket's object, or the agent's namespace when there is none.
async fn subject(logs: &Logs, ticket_id: &str) -> ObjectReference {
    let name = ticket_id.to_ascii_lowercase();
    let api: Api<SupportTicket> = logs.cluster.own();
    match call("get SupportTicket", api.get_opt(&name)).await {
        Ok(Some(ticket)) => reference(&ticket),
        Ok(None) | Err(_) => ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Namespace".into()),
            name: Some(logs.cluster.namespace.clone()),
            namespace: Some(logs.cluster.namespace.clone()),
            ..Default::default()
        },
    }
}

async fn void(logs: &Logs, consent: &ActiveConsent) {
    void_grant(logs, consent.grant()).await;
}

async fn void_grant(logs: &Logs, grant: &mendix_agent_core::consent::grant::Grant) {
    let result = logs.ledger.update(|ledger| {
        ledger.void(grant, "TicketSolved", Timestamp::now());
        Ok(())
    });
    if let Err(refusal) = result.await {
        tracing::warn!(reason = %refusal, "a solved ticket's grant could not be voided yet");
    }
    logs.spent.send_modify(|n| *n += 1);
}

fn spec(request_id: &str, live: &Live) -> LogSnapshotSpec {
    let consent = live.consent();
    let grant = consent.grant();
    let window = consent.window();
    LogSnapshotSpec {
        ticket_id: grant.ticket_id.clone(),
        request_id: request_id.to_owned(),
        grant_id: grant.grant_id.clone(),
        grant_sha256: hex::encode(consent.grant_sha256()),
        consented_by: grant.consented_by.clone(),
        components: consent.components().to_vec(),
        data_classes: grant.data_classes.iter().map(name).collect(),
        window_from: window.from,
        window_to: window.to,
        redaction_policy: POLICY_VERSION,
        recipient_public_key: consent.recipient().to_base64(),
    }
}

/// The name a value has on the wire.
fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

fn ended(ending: &Ending, tally: Tally, started_at: Option<Timestamp>) -> LogSnapshotStatus {
    let mut status = LogSnapshotStatus {
        started_at,
        finished_at: Some(Timestamp::now()),
        raw_bytes: tally.raw_bytes,
        sealed_bytes: tally.sealed_bytes,
        files: tally.files,
        replaced: tally.counts.total(),
        replaced_by_class: tally
            .counts
            .iter()
            .map(|(class, n)| (class.name().to_owned(), n))
            .collect(),
        gap_count: tally.gap_count,
        gaps: tally.gaps,
        ..Default::default()
    };
    match ending {
        Ending::Succeeded(totals) => {
            status.phase = "Succeeded".into();
            status.sha256 = Some(hex::encode(totals.sha256));
        }
        Ending::Revoked(refusal) => {
            status.phase = "Revoked".into();
            status.reason = Some(refusal.code().into());
            status.message = Some(refusal.sentence());
        }
        Ending::Failed { reason, message } => {
            status.phase = "Failed".into();
            status.reason = Some((*reason).into());
            status.message = Some(message.clone());
        }
    }
    status
}

/// Writes the final receipt; tries a few times, since it is all that is left of a snapshot. If it
/// stays Started, the next start closes it.
async fn close(receipts: &Receipts, id: &str, status: &LogSnapshotStatus) -> Option<LogSnapshot> {
    for _ in 0..3 {
        match receipts.update(id, status).await {
            Ok(receipt) => return Some(receipt),
            Err(error) => tracing::warn!(error = describe(&error), id, "receipt not written"),
        }
        sleep(RETRY).await;
    }
    None
}

/// An Event for each phase a snapshot reaches.
async fn announce(logs: &Logs, receipt: &LogSnapshot) {
    let Some(status) = &receipt.status else { return };
    let kind = if matches!(status.phase.as_str(), "Started" | "Succeeded") {
        EventType::Normal
    } else {
        EventType::Warning
    };
    let note = if status.phase == STARTED {
        format!(
            "ticket {}: {} by consent of {}",
            receipt.spec.ticket_id,
            receipt.spec.components.join(", "),
            receipt.spec.consented_by
        )
    } else {
        outcome(status).2
    };
    let reason = format!("Snapshot{}", status.phase);
    logs.cluster.event(&reference(receipt), kind, &reason, "TakeSnapshot", note).await;
}
