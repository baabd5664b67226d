//! The way through the gate: grant → ticket → lease → local policy → ledger, then the audit log, then
//! the budget. Whatever refuses on the way is told everywhere it is looked for.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use mendix_agent_core::{
    audit::Event,
    consent::{
        Refusal,
        gate::{self, ActiveConsent, Candidate, Facts, Now, Told, Wish},
        grant::Grant,
        lease::LeaseClock,
        ledger::Ledger,
    },
    redact::POLICY_VERSION,
};
use mendix_agent_proto::v1::{self, Outcome};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::{
    Logs,
    ledger::Budget,
    live::{self, Live},
    objects::reference,
};
use crate::{
    audit::RecordedSnapshot,
    cluster::call,
    crd::{
        log_snapshot::LogSnapshotStatus,
        managed_component::ManagedComponent,
        support_ticket::{LastRefusal, SupportTicket},
    },
    occasion::Occasion,
};

/// A ticket and the request for it are sections of their own and may arrive one after the other.
const TICKET_GRACE: Duration = Duration::from_secs(3);

/// A consent in force and written down, with its first bytes of budget.
pub(super) struct Admitted {
    pub(super) live: Live,
    pub(super) recorded: RecordedSnapshot,
    pub(super) budget: Budget,
}

/// The whole way.
pub(super) async fn admit(
    logs: &Arc<Logs>,
    request_id: &str,
    request: &v1::SnapshotRequest,
    components: &[ManagedComponent],
    snapshot_id: String,
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
        let now = logs.sources.clock.now();
        let view = logs.policy.view();
        candidate.admit(&lease, &view, &ledger, now)?
    };
    // What is written down holds at that moment: the ticket may have ended while we waited.
    still_holds(logs, &request.ticket_id, &consent, &lease, &ledger)?;
    let consent = Arc::new(consent);
    // Written down before anything is spent or read: what can't be is not done.
    let recorded = logs
        .audit
        .allow_snapshot(snapshot_id, request_id, &consent)
        .await
        .map_err(|error| error.refusal())?;
    // Spent before anything is read; this is where two replicas meet.
    let budget = spend(logs, &recorded, &consent).await?;
    logs.spent.send_modify(|n| *n += 1);
    let live = Live::new(
        consent,
        lease,
        logs.sources.clone(),
        logs.pinned.clone(),
        logs.policy.clone(),
        ledger,
        shutdown.child_token(),
    );
    Ok(Admitted { live, recorded, budget })
}

/// Whether nothing has ended a consent since the gate opened.
fn still_holds(
    logs: &Logs,
    ticket_id: &str,
    consent: &ActiveConsent,
    lease: &LeaseClock,
    ledger: &Ledger,
) -> Result<(), Refusal> {
    let ticket = logs.sources.ticket(ticket_id);
    let told = Told { ticket: ticket.as_ref(), deregistered: logs.sources.deregistered() };
    let (trust, now) = (logs.pinned.current(), logs.sources.clock.now());
    let now = Now { wall: ledger.now(now.wall), ..now };
    consent.still_holds(&trust, told, lease, &logs.policy.view(), now)
}

/// The first bytes of the grant's budget. When they can't be had the audit log, which has the
/// snapshot already, is told that it ended.
async fn spend(
    logs: &Logs,
    recorded: &RecordedSnapshot,
    consent: &ActiveConsent,
) -> Result<Budget, Refusal> {
    match Budget::begin(&logs.ledger, consent.grant()).await {
        Ok(budget) => Ok(budget),
        Err(refusal) => {
            let ended = Event::SnapshotEnded {
                snapshot: recorded.id().into(),
                phase: "Refused".into(),
                reason: Some(refusal.code().into()),
                sealed_bytes: 0,
                sha256: None,
                replaced: Default::default(),
            };
            logs.audit.tell(ended).await;
            Err(refusal)
        }
    }
}

async fn consider(
    logs: &Logs,
    request: &v1::SnapshotRequest,
    components: &[ManagedComponent],
    ledger: &Ledger,
) -> Result<Candidate, Refusal> {
    let managed = components.iter().map(|c| c.spec.component.clone()).collect();
    let trust = logs.pinned.current();
    let facts = Facts {
        cluster_uid: &logs.cluster.uid,
        trust: &trust,
        managed: &managed,
        redaction_policy: POLICY_VERSION,
    };
    let wish = Wish { ticket_id: &request.ticket_id, components: &request.components };
    let look = || {
        let ticket = logs.sources.ticket(&request.ticket_id);
        let told = Told { ticket: ticket.as_ref(), deregistered: logs.sources.deregistered() };
        gate::consider(facts, told, wish, ledger, logs.sources.clock.now().wall)
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

/// Says no: in the audit log, in the ticket's object, as an Event, in the metric, and to the control
/// plane.
pub(super) async fn refuse(
    logs: &Logs,
    id: &str,
    request: &v1::SnapshotRequest,
    refusal: &Refusal,
) {
    let (code, message) = (refusal.code(), refusal.sentence());
    let ticket = &request.ticket_id;
    tracing::info!(request = id, ticket, reason = code, message, "snapshot refused");
    logs.audit
        .tell(Event::SnapshotRefused {
            request: id.into(),
            ticket: ticket.clone(),
            reason: code.into(),
        })
        .await;
    note(logs, id, ticket, code, &message);
    let about = subject(logs, ticket).await;
    logs.cluster.event(&about, Occasion::refused(code), message.clone()).await;
    logs.outcomes.finish(id, Outcome::Refused, code, &message, None);
}

/// Remembers why a snapshot ended early, if a gate ended it.
pub(super) fn remember(logs: &Logs, id: &str, ticket: &str, status: &LogSnapshotStatus) {
    let code = status.reason.as_deref().unwrap_or_default();
    // The budget is the one gate whose end is a failure: the bytes so far were consented to.
    let by_gate = status.phase == "Revoked"
        || matches!(code, "BytesSpent" | "GrantVoided" | "LedgerUnavailable");
    if by_gate {
        note(logs, id, ticket, code, status.message.as_deref().unwrap_or_default());
    }
}

fn note(logs: &Logs, id: &str, ticket: &str, code: &str, message: &str) {
    logs.audit.count_refusal(code);
    let refusal = LastRefusal {
        request_id: id.into(),
        reason: code.into(),
        message: message.into(),
        at: Timestamp::now(),
    };
    logs.refusals.set(ticket, refusal);
    logs.spent.send_modify(|n| *n += 1);
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

/// Voids a grant whose ticket was said to be solved, by signature.
pub(super) async fn void_grant(logs: &Logs, grant: &Grant) {
    let result =
        logs.ledger.update(|ledger| Ok(ledger.void(grant, "TicketSolved", Timestamp::now())));
    match result.await {
        Ok(true) => {
            let tickets = vec![grant.ticket_id.clone()];
            logs.audit.tell(Event::GrantsVoided { reason: "TicketSolved".into(), tickets }).await;
        }
        Ok(false) => {}
        Err(refusal) => {
            tracing::warn!(reason = %refusal, "a solved ticket's grant could not be voided yet");
        }
    }
    logs.spent.send_modify(|n| *n += 1);
}
