//! The gate: the one place that decides whether logs may leave, and for how long.
//!
//! Two steps, because a lease has to be asked for in between: [`consider`] checks grant and ticket
//! and gives a [`Candidate`]; with a lease for it, [`Candidate::admit`] checks the rest and makes
//! the [`ActiveConsent`]. While a snapshot is taken [`ActiveConsent::still_holds`] is asked again
//! and again; its first refusal ends it.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    grant::{self, CLOCK_SKEW, DataClass, Grant, Scope, Window},
    keys::Trust,
    lease::LeaseClock,
    ledger::Ledger,
    policy::{ExtraPatterns, PolicyView},
    refusal::Refusal,
    ticket::{Origin, Status, Ticket},
};
use crate::{
    envelope::{KeyRing, Signed},
    ordered,
    redact::custom::CustomPatterns,
    seal::{Header, RecipientPublicKey, SealError},
};

/// What the agent knows by itself.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// UID of this cluster.
    pub cluster_uid: &'a str,
    /// The pinned keys.
    pub trust: &'a Trust,
    /// Components managed in this cluster, from their inventory.
    pub managed: &'a BTreeSet<String>,
    /// Version of the redaction rules of this build.
    pub redaction_policy: u32,
}

/// What the control plane says; each part can only take away.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The requested ticket as it is listed now; none when it is not.
    pub ticket: Option<&'a Ticket>,
    /// The cluster was deleted in the portal.
    pub deregistered: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The ticket.
    pub ticket_id: &'a str,
    /// Components by exact name; empty: all of the grant's.
    pub components: &'a [String],
}

/// Readings of both clocks, taken together.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Wall clock.
    pub wall: Timestamp,
    /// CLOCK_BOOTTIME.
    pub boot: Duration,
}

/// Grant and ticket were in order when they were looked at. Not a consent yet.
#[derive(Debug)]
pub struct Candidate {
    grant: Signed<Grant>,
    status_key: KeyRing,
    recipient: RecipientPublicKey,
    components: Vec<String>,
}

/// Checks grant and ticket.
///
/// # Errors
/// The first gate that refuses.
pub fn consider(
    facts: Facts<'_>,
    told: Told<'_>,
    wish: Wish<'_>,
    ledger: &Ledger,
    clock: Timestamp,
) -> Result<Candidate, Refusal> {
    if told.deregistered {
        return Err(Refusal::Deregistered);
    }
    let ticket = told
        .ticket
        .filter(|ticket| ticket.id == wish.ticket_id)
        .ok_or_else(|| Refusal::NoTicket { ticket: wish.ticket_id.into() })?;
    if ticket.grant_envelope.is_empty() {
        return Err(match ticket.origin {
            Origin::Automatic => Refusal::AutomaticTicket { ticket: ticket.id.clone() },
            Origin::Customer | Origin::Unknown => Refusal::NoGrant { ticket: ticket.id.clone() },
        });
    }
    let grant = grant::verify(&ticket.grant_envelope, facts.trust)?;
    if grant.cluster_uid != facts.cluster_uid {
        return Err(Refusal::WrongCluster);
    }
    if grant.ticket_id != ticket.id {
        return Err(Refusal::WrongTicket);
    }
    if !grant.scopes.contains(&Scope::LogSharing) {
        return Err(Refusal::ScopeMissing);
    }
    let now = ledger.now(clock);
    check_validity(&grant, now)?;
    if grant.consented_at.saturating_sub(CLOCK_SKEW).is_ok_and(|at| at > now) {
        return Err(Refusal::GrantField { field: "consented_at", rule: "lies in the future" });
    }
    if let Some(component) = grant.components.iter().find(|name| !facts.managed.contains(*name)) {
        return Err(Refusal::ComponentNotManaged { component: component.clone() });
    }
    if grant.min_redaction_policy > facts.redaction_policy {
        return Err(Refusal::RedactionTooOld {
            wanted: grant.min_redaction_policy,
            ours: facts.redaction_policy,
        });
    }
    let components = if wish.components.is_empty() {
        grant.components.clone()
    } else {
        if let Some(component) =
            wish.components.iter().find(|name| !grant.components.contains(name))
        {
            // The wish is not signed: its text is cut before it is repeated anywhere.
            let component = component.chars().take(63).collect();
            return Err(Refusal::ComponentNotGranted { component });
        }
        let wished = ordered::set(wish.components);
        wished.into_iter().cloned().collect()
    };
    check_status(ticket)?;
    let status_key =
        facts.trust.status.only(&grant.status_key_id).ok_or(Refusal::StatusKeyNotPinned)?;
    let recipient = grant.recipient()?;
    Ok(Candidate { grant, status_key, recipient, components })
}

fn check_validity(grant: &Grant, now: Timestamp) -> Result<(), Refusal> {
    if grant.not_before.saturating_sub(CLOCK_SKEW).is_ok_and(|from| now < from) {
        return Err(Refusal::NotYetValid);
    }
    if now >= grant.expires_at {
        return Err(Refusal::Expired);
    }
    Ok(())
}

fn check_status(ticket: &Ticket) -> Result<(), Refusal> {
    if ticket.status.is_active() {
        Ok(())
    } else {
        Err(Refusal::TicketInactive { status: ticket.status.word().into() })
    }
}

impl Candidate {
    /// The grant.
    pub fn grant(&self) -> &Signed<Grant> {
        &self.grant
    }

    /// A clock that follows the leases of this grant.
    pub fn lease_clock(&self) -> LeaseClock {
        LeaseClock::new(&self.grant, self.status_key.clone())
    }

    /// Whether local policy and ledger would let a snapshot begin now, if there were a lease. For
    /// showing a ticket's state; it gives no consent.
    ///
    /// # Errors
    /// The first gate that refuses.
    pub fn standing(&self, policy: &PolicyView, ledger: &Ledger, now: Now) -> Result<(), Refusal> {
        let local = policy.allows(now.boot)?;
        if self.components.iter().all(|name| local.excluded_components.contains(name)) {
            return Err(Refusal::ComponentsExcluded);
        }
        ledger.check(&self.grant)
    }

    /// Checks lease, local policy and ledger, and fixes what may be collected.
    ///
    /// # Errors
    /// The first gate that refuses.
    pub fn admit(
        self,
        lease: &LeaseClock,
        policy: &PolicyView,
        ledger: &Ledger,
        now: Now,
    ) -> Result<ActiveConsent, Refusal> {
        let wall = ledger.now(now.wall);
        check_validity(&self.grant, wall)?;
        if lease.grant_sha256() != self.grant.envelope_sha256() {
            return Err(Refusal::LeaseInvalid { what: "it is for another grant" });
        }
        lease.check(now.boot)?;
        let local = policy.allows(now.boot)?;
        let (components, excluded): (Vec<_>, Vec<_>) =
            self.components.into_iter().partition(|name| !local.excluded_components.contains(name));
        if components.is_empty() {
            return Err(Refusal::ComponentsExcluded);
        }
        let to = self.grant.window.to.min(wall);
        let mut from = self.grant.window.from;
        if let Some(hours) = local.max_window_hours {
            let span = SignedDuration::from_hours(hours.into());
            from = from.max(wall.saturating_sub(span).unwrap_or(wall));
        }
        if from >= to {
            return Err(Refusal::WindowExcluded);
        }
        ledger.check(&self.grant)?;
        Ok(ActiveConsent {
            grant: self.grant,
            recipient: self.recipient,
            components,
            excluded,
            window: Window { from, to },
            extra_patterns: local.extra_patterns.clone(),
        })
    }
}

/// A customer's consent, in force: made by [`Candidate::admit`] alone. Whoever holds it may collect
/// what it names, as long as [`ActiveConsent::still_holds`].
#[derive(Debug)]
pub struct ActiveConsent {
    grant: Signed<Grant>,
    recipient: RecipientPublicKey,
    components: Vec<String>,
    excluded: Vec<String>,
    window: Window,
    extra_patterns: ExtraPatterns,
}

impl ActiveConsent {
    /// The grant it rests on.
    pub fn grant(&self) -> &Signed<Grant> {
        &self.grant
    }

    /// The customer's patterns, as they were when the snapshot began.
    pub fn patterns(&self) -> CustomPatterns {
        // The gate admits none that could not be compiled.
        self.extra_patterns.compiled().cloned().unwrap_or_default()
    }

    /// How many patterns of the customer's are applied.
    pub fn pattern_count(&self) -> usize {
        self.extra_patterns.count()
    }

    /// SHA-256 of the grant's envelope.
    pub fn grant_sha256(&self) -> &[u8; 32] {
        self.grant.envelope_sha256()
    }

    /// Whose key the snapshot is sealed to.
    pub fn recipient(&self) -> &RecipientPublicKey {
        &self.recipient
    }

    /// Components that may be collected.
    pub fn components(&self) -> &[String] {
        &self.components
    }

    /// Components that were granted and that the local policy excludes.
    pub fn excluded(&self) -> &[String] {
        &self.excluded
    }

    /// Whether a kind of data may leave.
    pub fn allows(&self, class: DataClass) -> bool {
        self.grant.data_classes.contains(&class)
    }

    /// Records from here to there, both absolute; fixed when the snapshot began.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Header of a snapshot under this consent.
    ///
    /// # Errors
    /// [`SealError::Header`] when an id can't be in a header.
    pub fn header(&self, snapshot_id: &str) -> Result<Header, SealError> {
        let grant = &self.grant;
        Header::new(&grant.cluster_uid, &grant.ticket_id, *grant.envelope_sha256(), snapshot_id)
    }

    /// Whether everything that may change still says yes.
    ///
    /// # Errors
    /// The first gate that refuses: sending has to stop at once.
    pub fn still_holds(
        &self,
        trust: &Trust,
        told: Told<'_>,
        lease: &LeaseClock,
        policy: &PolicyView,
        now: Now,
    ) -> Result<(), Refusal> {
        if told.deregistered {
            return Err(Refusal::Deregistered);
        }
        if !self.grant.is_vouched_for(trust) {
            return Err(Refusal::KeyRotated { keyid: self.grant.keyid().into() });
        }
        let ticket = told
            .ticket
            .filter(|ticket| ticket.id == self.grant.ticket_id)
            .ok_or_else(|| Refusal::NoTicket { ticket: self.grant.ticket_id.clone() })?;
        if ticket.grant_envelope.is_empty() {
            return Err(Refusal::NoGrant { ticket: ticket.id.clone() });
        }
        check_validity(&self.grant, now.wall)?;
        check_status(ticket)?;
        lease.check(now.boot)?;
        let local = policy.allows(now.boot)?;
        if self.components.iter().any(|name| local.excluded_components.contains(name)) {
            return Err(Refusal::ComponentsExcluded);
        }
        if local.extra_patterns != self.extra_patterns {
            return Err(Refusal::PatternsChanged);
        }
        Ok(())
    }
}

/// Whether a listed ticket ends its grant for good.
pub fn voids_grant(ticket: &Ticket) -> bool {
    ticket.status == Status::Solved
}

#[cfg(test)]
#[path = "gate/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "gate/orders.rs"]
mod orders;
