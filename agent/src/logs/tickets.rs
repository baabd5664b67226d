//! Follows the tickets: keeps their SupportTicket objects, voids grants that have ended, and reports
//! what each ticket allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt;
use mendix_agent_core::consent::{
    Refusal,
    gate::{self, Facts, Told, Wish},
    grant,
    ledger::Ledger,
    ticket::{MAX_TICKETS, Ticket},
};
use mendix_agent_core::redact::POLICY_VERSION;
use mendix_agent_core::{audit::Event, ordered};
use mendix_agent_proto::v1;
use tokio::time::sleep;

use super::{
    Logs,
    objects::{DELETED, Mirrors, reference},
};
use crate::{
    audit::grant_name,
    cluster::ApiError,
    crd::support_ticket::{SupportTicket, SupportTicketStatus},
    errors::describe,
    occasion,
};

/// How often everything is looked at again without a change: grants expire, inventories change.
const REFRESH: Duration = Duration::from_secs(30);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// A ticket and what it allows, as the objects and the report show it.
struct Standing {
    ticket: Ticket,
    status: SupportTicketStatus,
}

/// Keeps the mirrors; never ends.
pub(super) async fn follow(logs: &Logs) {
    let mirrors = Mirrors::new(&logs.cluster);
    let mut tickets = logs.sources.tickets.clone();
    let mut link = logs.sources.link.clone();
    let mut policy = logs.policy.changes();
    let mut pinned = logs.pinned.changes();
    let mut spent = logs.spent.subscribe();
    let mut known = None;
    loop {
        let pause = match round(logs, &mirrors, &mut known).await {
            Ok(()) => REFRESH,
            Err(error) => {
                tracing::warn!(error = describe(&error), "tickets could not be brought up to date");
                RETRY
            }
        };
        // The policy is read every few seconds; only a decision that changed is worth a round.
        let allowed = logs.policy.allows().is_ok();
        let policy_changed = async {
            while policy.changed().await.is_ok() && logs.policy.allows().is_ok() == allowed {}
        };
        tokio::select! {
            Ok(()) = tickets.changed() => {}
            Ok(()) = link.changed() => {}
            Ok(()) = spent.changed() => {}
            Ok(()) = pinned.changed() => {}
            () = policy_changed => {}
            () = sleep(pause) => {}
        }
    }
}

async fn round(logs: &Logs, mirrors: &Mirrors, known: &mut Option<Known>) -> Result<(), ApiError> {
    let Some(listed) = listed(logs) else {
        // Nothing heard since the start: what is known stays as it is.
        return Ok(());
    };
    let Known { written, decided } = match known {
        Some(known) => known,
        // What an earlier process has told is not told again.
        None => known.insert(Known::read(mirrors).await?),
    };
    let managed = logs.managed().await?;
    let managed = ordered::set(managed.iter().map(|component| component.spec.component.clone()));
    let ledger = void_ended(logs, &listed).await;
    let mut standings: Vec<Standing> =
        listed.into_iter().map(|ticket| judge(logs, ticket, &managed, ledger.as_ref())).collect();
    for standing in &mut standings {
        let name = standing.ticket.object_name();
        let before = written.get(&name).and_then(|status| status.last_refusal.clone());
        standing.status.last_refusal = logs.refusals.of(&name).or(before);
    }
    report(logs, &standings);
    let present = ordered::set(standings.iter().map(|s| s.ticket.object_name()));
    for standing in &standings {
        let name = standing.ticket.object_name();
        if written.get(&name) == Some(&standing.status) {
            continue;
        }
        write_down(logs, &standing.ticket.id, decided, &standing.status).await;
        let object = mirrors.write(&name, &standing.ticket.id, &standing.status).await?;
        announce(logs, &object, written.get(&name), &standing.status).await;
        written.insert(name, standing.status.clone());
    }
    let objects = mirrors.all().await?;
    for object in &objects {
        let Some(status) = &object.status else { continue };
        if present.contains(&object.name_any()) || status.ticket_status == DELETED {
            continue;
        }
        let status = SupportTicketStatus {
            ticket_status: DELETED.into(),
            consent: "Inactive".into(),
            reason: Some("NoTicket".into()),
            message: Some("the ticket no longer exists; its consent is void".into()),
            ..status.clone()
        };
        let name = object.name_any();
        let before = written.remove(&name);
        write_down(logs, &object.spec.ticket_id, decided, &status).await;
        let object = mirrors.write(&name, &object.spec.ticket_id, &status).await?;
        announce(logs, &object, before.as_ref(), &status).await;
    }
    mirrors.prune(&objects).await
}

/// What the customer can see already, by name of the object.
struct Known {
    written: BTreeMap<String, SupportTicketStatus>,
    decided: BTreeMap<String, Decision>,
}

/// Consent, why not, and under which grant: what the audit log is about.
type Decision = (String, Option<String>, Option<String>);

fn decision(status: &SupportTicketStatus) -> Decision {
    (status.consent.clone(), status.reason.clone(), status.grant_id.clone())
}

impl Known {
    /// What the objects say.
    async fn read(mirrors: &Mirrors) -> Result<Self, ApiError> {
        let objects = mirrors.all().await?;
        let status = |object: SupportTicket| Some((object.name_any(), object.status?));
        let written = ordered::map(objects.into_iter().filter_map(status));
        let decided = written.iter().map(|(name, status)| (name.clone(), decision(status)));
        Ok(Self { decided: ordered::map(decided), written })
    }
}

/// Writes down that a ticket allows something else than before; once, also when its object can't be
/// written.
async fn write_down(
    logs: &Logs,
    ticket: &str,
    decided: &mut BTreeMap<String, Decision>,
    after: &SupportTicketStatus,
) {
    let now = decision(after);
    if decided.insert(ticket.to_ascii_lowercase(), now.clone()) == Some(now) {
        return;
    }
    let listed = logs.sources.ticket(ticket);
    let grant = listed
        .and_then(|ticket| grant::verify(&ticket.grant_envelope, &logs.pinned.current()).ok())
        .filter(|grant| Some(&grant.grant_id) == after.grant_id.as_ref());
    logs.audit
        .tell(Event::Consent {
            ticket: ticket.into(),
            consent: after.consent.clone(),
            reason: after.reason.clone(),
            grant: grant.as_ref().map(grant_name),
        })
        .await;
}

/// The listed tickets, once each; none before the control plane has said anything.
fn listed(logs: &Logs) -> Option<Vec<Ticket>> {
    let section = logs.sources.tickets.borrow();
    let wire = &section.as_ref()?.value.tickets;
    if wire.len() > MAX_TICKETS {
        tracing::warn!(listed = wire.len(), "more tickets than are followed ({MAX_TICKETS})");
    }
    let mut names = BTreeSet::new();
    let mut tickets = vec![];
    for ticket in wire.iter().take(MAX_TICKETS) {
        match Ticket::from_wire(ticket) {
            Ok(ticket) if names.insert(ticket.object_name()) => tickets.push(ticket),
            Ok(ticket) => tracing::warn!(ticket = ticket.id, "a ticket is listed twice"),
            Err(error) => tracing::warn!(%error, "a listed ticket is ignored"),
        }
    }
    Some(tickets)
}

/// Voids what has ended: solved tickets, tickets that are gone, all of a deregistered cluster. Gives
/// the ledger as it is then; none when it can't be kept.
async fn void_ended(logs: &Logs, listed: &[Ticket]) -> Result<Ledger, Refusal> {
    let ids = ordered::set(listed.iter().map(|ticket| ticket.id.as_str()));
    let deregistered = logs.sources.deregistered();
    let solved: Vec<_> = listed
        .iter()
        .filter(|ticket| gate::voids_grant(ticket))
        .filter_map(|ticket| grant::verify(&ticket.grant_envelope, &logs.pinned.current()).ok())
        .filter(|grant| grant.cluster_uid == logs.cluster.uid)
        .collect();
    let change = |ledger: &mut Ledger| {
        let now = Timestamp::now();
        for grant in &solved {
            ledger.void(grant, "TicketSolved", now);
        }
        ledger.void_where("TicketDeleted", |entry| !ids.contains(entry.ticket_id.as_str()));
        if deregistered {
            ledger.void_where("Deregistered", |_| true);
        }
    };
    let before = logs.ledger.read().await?;
    let mut after = before.clone();
    change(&mut after);
    if after == before {
        return Ok(before);
    }
    let after = logs
        .ledger
        .update(|ledger| {
            change(ledger);
            Ok(ledger.clone())
        })
        .await?;
    let mut voided: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (reason, ticket) in after.voided_since(&before) {
        voided.entry(reason).or_default().push(ticket);
    }
    for (reason, tickets) in voided {
        logs.audit.tell(Event::GrantsVoided { reason, tickets }).await;
    }
    Ok(after)
}

/// What a ticket allows now. The same gate as for a snapshot, without a lease.
fn judge(
    logs: &Logs,
    ticket: Ticket,
    managed: &BTreeSet<String>,
    ledger: Result<&Ledger, &Refusal>,
) -> Standing {
    let mut status = SupportTicketStatus {
        ticket_status: ticket.status.word().into(),
        origin: ticket.origin.word().into(),
        severity: ticket.severity.into(),
        title: Some(ticket.title.clone()).filter(|title| !title.is_empty()),
        consent: "Inactive".into(),
        ..Default::default()
    };
    if let Ok(grant) = grant::verify(&ticket.grant_envelope, &logs.pinned.current()) {
        let entry = ledger.ok().and_then(|ledger| ledger.entry(&grant.grant_id));
        status.consented_by = Some(grant.consented_by.clone());
        status.components = grant.components.clone();
        status.grant_id = Some(grant.grant_id.clone());
        status.grant_sha256 = Some(hex::encode(grant.envelope_sha256()));
        // Whole seconds, which is what people read; never later than it ends.
        status.expires_at = Timestamp::from_second(grant.expires_at.as_second()).ok();
        status.snapshots_used = entry.map_or(0, |entry| entry.snapshots);
        status.snapshots_allowed = grant.budget.snapshots;
        status.bytes_used = entry.map_or(0, |entry| entry.bytes);
        status.bytes_allowed = grant.budget.bytes;
    }
    let verdict = match ledger {
        Err(refusal) => Err((refusal.code(), refusal.sentence())),
        Ok(ledger) => allows(logs, &ticket, managed, ledger)
            .map_err(|refusal| (refusal.code(), refusal.sentence())),
    };
    match verdict {
        Ok(()) => status.consent = "Active".into(),
        Err((code, sentence)) => {
            status.reason = Some(code.into());
            status.message = Some(sentence);
        }
    }
    Standing { ticket, status }
}

fn allows(
    logs: &Logs,
    ticket: &Ticket,
    managed: &BTreeSet<String>,
    ledger: &Ledger,
) -> Result<(), Refusal> {
    let trust = logs.pinned.current();
    let facts = Facts {
        cluster_uid: &logs.cluster.uid,
        trust: &trust,
        managed,
        redaction_policy: POLICY_VERSION,
    };
    let told = Told { ticket: Some(ticket), deregistered: logs.sources.deregistered() };
    let wish = Wish { ticket_id: &ticket.id, components: &[] };
    let now = logs.sources.clock.now();
    let candidate = gate::consider(facts, told, wish, ledger, now.wall)?;
    candidate.standing(&logs.policy.view(), ledger, now)
}

fn report(logs: &Logs, standings: &[Standing]) {
    let tickets = standings
        .iter()
        .map(|Standing { ticket, status }| v1::TicketState {
            ticket_id: ticket.id.clone(),
            consent: status.consent.clone(),
            reason: status.reason.clone().unwrap_or_default(),
            snapshots_used: status.snapshots_used,
            bytes_used: status.bytes_used,
        })
        .collect();
    logs.reports.publish(v1::report::Body::TicketStates(v1::TicketStatesReport { tickets }));
}

/// An Event when consent began or ended.
async fn announce(
    logs: &Logs,
    object: &SupportTicket,
    before: Option<&SupportTicketStatus>,
    after: &SupportTicketStatus,
) {
    let active = |status: &SupportTicketStatus| status.consent == "Active";
    if before.is_some_and(|before| active(before) == active(after)) {
        return;
    }
    let (occasion, note) = if active(after) {
        let by = after.consented_by.as_deref().unwrap_or("the customer");
        (occasion::CONSENT_ACTIVE, format!("log sharing is allowed; consent by {by}"))
    } else {
        (occasion::CONSENT_INACTIVE, after.message.clone().unwrap_or_default())
    };
    logs.cluster.event(&reference(object), occasion, note).await;
}
