//! Without consent no log is read and no byte leaves, whatever is missing; seen from outside, by the
//! API server's audit log and by the control plane's counters.

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams};
use mendix_agent::crd::log_sharing_policy::{LogSharingPolicy, NAME};
use mendix_agent_core::{
    consent::grant::{Budget, DataClass, GRANT_PAYLOAD_TYPE, Grant, Scope, Window},
    envelope::{SigningKey, sha256},
    seal,
};
use mendix_control_plane::store::{TicketGrant, TicketStatus};
use mendix_test_kit::{node::Node, skip};
use serde_json::{Value, json};

use crate::site::{Site, terms};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_consent_no_log_is_read_and_no_byte_leaves() -> Result<()> {
    if let Some(obstacle) = Node::obstacle() {
        skip(&obstacle.to_string());
        return Ok(());
    }
    let site = Site::take().await?;
    let result = nothing_leaves(&site).await;
    site.launcher.explained(result)
}

async fn nothing_leaves(site: &Site) -> Result<()> {
    let _agent = site.agent().await?;
    let before = site.sightings()?;
    let mut refused = 0;
    for (ticket, reason, request) in [
        ("not-there", "NoTicket", not_there as fn(&Site, &str) -> Result<String>),
        ("no-grant", "NoGrant", no_grant),
        ("other-cluster", "WrongCluster", other_cluster),
        ("other-ticket", "WrongTicket", other_ticket),
        ("other-scope", "ScopeMissing", other_scope),
        ("other-key", "GrantInvalid", other_key),
        ("expired", "Expired", expired),
        ("solved", "TicketInactive", solved),
    ] {
        let request = request(site, ticket)?;
        refuses(site, &request, reason).await?;
        refused += 1;
    }

    // Consent that is in order, and a customer who says no all the same.
    for (ticket, reason, policy) in [
        ("denied", "PolicyDenies", json!({ "mode": "Deny" })),
        ("suspended", "PolicySuspended", json!({ "mode": "WithConsent", "suspend": true })),
    ] {
        set_policy(site, &policy).await?;
        refuses(site, &granted(site, ticket)?, reason).await?;
        refused += 1;
    }
    site.api::<LogSharingPolicy>().delete(NAME, &DeleteParams::default()).await?;
    refuses(site, &granted(site, "no-policy")?, "PolicyAbsent").await?;
    refused += 1;

    let after = site.sightings()?;
    ensure!(after == before, "something was read, or left: {before:?}, then {after:?}");

    // The same instruments do see a snapshot that is consented to.
    set_policy(site, &json!({ "mode": "WithConsent" })).await?;
    let outcome = site.outcome(&granted(site, "consented")?).await?;
    ensure!(outcome.outcome == "Succeeded", "with consent: {outcome:?}");
    let seen = site.sightings()?;
    ensure!(
        seen.reads > after.reads && seen.bytes > after.bytes && seen.begins == after.begins + 1,
        "a snapshot was taken, and nothing of it seen: {seen:?}"
    );
    println!(
        "{refused} requests refused: no pods/log, no upload; one consented: {} pods/log, {} bytes",
        seen.reads - after.reads,
        seen.bytes - after.bytes
    );
    Ok(())
}

async fn refuses(site: &Site, request: &str, reason: &str) -> Result<()> {
    let outcome = site.outcome(request).await.with_context(|| format!("waiting for {reason}"))?;
    ensure!(
        (outcome.outcome.as_str(), outcome.reason.as_str()) == ("Refused", reason),
        "expected Refused ({reason}), got {outcome:?}"
    );
    ensure!(outcome.snapshot_id.is_empty(), "refused, with a snapshot: {outcome:?}");
    Ok(())
}

async fn set_policy(site: &Site, spec: &Value) -> Result<()> {
    let policy = json!({
        "apiVersion": "agent.mendix.com/v1alpha1", "kind": "LogSharingPolicy",
        "metadata": { "name": NAME }, "spec": spec,
    });
    let params = PatchParams::apply("install").force();
    site.api::<LogSharingPolicy>().patch(NAME, &params, &Patch::Apply(&policy)).await?;
    Ok(())
}

/// A ticket with the customer's consent; the portal requests a snapshot with it.
fn granted(site: &Site, ticket: &str) -> Result<String> {
    site.open_ticket(ticket, Some(terms()))?.1.context("no snapshot was requested")
}

fn not_there(site: &Site, ticket: &str) -> Result<String> {
    site.request(ticket)
}

fn no_grant(site: &Site, ticket: &str) -> Result<String> {
    site.open_ticket(ticket, None)?;
    site.request(ticket)
}

fn other_cluster(site: &Site, ticket: &str) -> Result<String> {
    with_grant(site, ticket, CONSENT, |grant| grant.cluster_uid = "another-cluster".into())
}

fn other_ticket(site: &Site, ticket: &str) -> Result<String> {
    with_grant(site, ticket, CONSENT, |grant| grant.ticket_id = "another-ticket".into())
}

fn other_scope(site: &Site, ticket: &str) -> Result<String> {
    with_grant(site, ticket, CONSENT, |grant| grant.scopes = vec![Scope::DirectEnvironmentAccess])
}

/// The control plane may have the status key some day; it still can't consent.
fn other_key(site: &Site, ticket: &str) -> Result<String> {
    with_grant(site, ticket, STATUS, |_| {})
}

fn expired(site: &Site, ticket: &str) -> Result<String> {
    with_grant(site, ticket, CONSENT, |grant| {
        grant.expires_at = Timestamp::now() - SignedDuration::from_mins(1);
    })
}

fn solved(site: &Site, ticket: &str) -> Result<String> {
    site.open_ticket(ticket, None)?;
    site.smuggle(ticket, grant(site, ticket, CONSENT, |_| {})?)?;
    site.store().set_ticket_status(ticket, TicketStatus::Solved)?;
    site.request(ticket)
}

const CONSENT: &str = "consent.pk8";
const STATUS: &str = "status.pk8";

/// A ticket with a grant that is in order but for one change, and a request for it.
fn with_grant(
    site: &Site,
    ticket: &str,
    key: &str,
    change: impl FnOnce(&mut Grant),
) -> Result<String> {
    site.open_ticket(ticket, None)?;
    site.smuggle(ticket, grant(site, ticket, key, change)?)?;
    site.request(ticket)
}

/// Signs a grant with one of the portal's keys.
fn grant(
    site: &Site,
    ticket: &str,
    key: &str,
    change: impl FnOnce(&mut Grant),
) -> Result<TicketGrant> {
    let key_of = |name: &str| -> Result<SigningKey> {
        let pkcs8 = std::fs::read(site.store().dir().join("portal").join(name));
        Ok(SigningKey::from_pkcs8(&pkcs8.context("read a key of the portal")?)?)
    };
    let now = Timestamp::now();
    let hours = SignedDuration::from_hours;
    let (recipient, _) = seal::generate_recipient_keypair()?;
    let recipient = recipient.to_base64();
    let mut grant = Grant {
        version: 1,
        grant_id: format!("grant-of-{ticket}"),
        cluster_uid: site.uid.clone(),
        ticket_id: ticket.into(),
        scopes: vec![Scope::LogSharing],
        consented_by: "a scenario".into(),
        consented_at: now - hours(2),
        consented_how: "portal-ticket-form".into(),
        components: terms().components,
        data_classes: vec![DataClass::ComponentLogs, DataClass::Events, DataClass::Status],
        window: Window { from: now - hours(24), to: now + hours(1) },
        not_before: now - hours(2),
        expires_at: now + hours(1),
        budget: Budget { snapshots: 5, bytes: 1 << 28 },
        min_redaction_policy: 1,
        recipient_public_key: recipient.clone(),
        status_key_id: key_of(STATUS)?.keyid(),
    };
    change(&mut grant);
    let envelope = key_of(key)?.sign(GRANT_PAYLOAD_TYPE, &serde_json::to_vec(&grant)?);
    Ok(TicketGrant {
        sha256: sha256(&envelope).iter().map(|byte| format!("{byte:02x}")).collect(),
        envelope: String::from_utf8(envelope)?,
        recipient,
        budget_bytes: grant.budget.bytes,
        lease_sequence: 0,
    })
}
