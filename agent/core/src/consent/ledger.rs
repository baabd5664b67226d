//! The ledger: what was spent of each grant, and which grants are void.
//!
//! Kept by the edge in a Secret of the agent's namespace, written by compare-and-swap before
//! anything is sent: two replicas can't spend one budget twice, and a crash between spending and
//! sending loses budget, never gains it. Keyed by grant id: the envelope's bytes can be re-encoded
//! by whoever carries it, the id is signed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{grant::Grant, refusal::Refusal};

/// Bytes of a grant's budget that are taken at once: few writes, little lost by a crash.
pub const RESERVATION: u64 = 8 * 1024 * 1024;
/// Most grants that are remembered; more are refused, not forgotten.
pub const MAX_GRANTS: usize = 512;
/// How long after its end a grant is remembered. An expired one can't be used anyway; this covers a
/// clock that was wrong.
const REMEMBER: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Grants from which on old ones are forgotten; below, a clock that was once far ahead makes the
/// ledger forget nothing.
const FORGET_FROM: usize = MAX_GRANTS / 2;
/// How far the clock may be behind the latest time seen before it is believed again. Without a bound
/// a clock that was once years ahead would make every later grant look expired.
const MAX_SETBACK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Why the stored ledger can't be used. Nothing is shared until a person has looked at it.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// Not what this build writes.
    #[error("the stored ledger can't be read")]
    Json(#[source] serde_json::Error),
    /// Written by a newer build.
    #[error("the stored ledger has version {found}; this agent reads version 1")]
    Version {
        /// The one it has.
        found: u32,
    },
}

/// What was spent, by grant id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    version: u32,
    /// Latest time that was ever seen: a clock set back does not revive an expired grant.
    clock_floor: Timestamp,
    grants: BTreeMap<String, Entry>,
}

/// One grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its ticket.
    pub ticket_id: String,
    /// Snapshots begun.
    pub snapshots: u32,
    /// Sealed bytes reserved or sent.
    pub bytes: u64,
    /// Why it can never be used again; none while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voided: Option<String>,
    /// When it ends; it is forgotten some time later.
    pub expires_at: Timestamp,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { version: 1, clock_floor: Timestamp::UNIX_EPOCH, grants: BTreeMap::new() }
    }
}

impl Ledger {
    /// Reads what [`Ledger::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`LedgerError`]: a damaged ledger is not an empty one.
    pub fn parse(bytes: &[u8]) -> Result<Self, LedgerError> {
        let ledger: Self = serde_json::from_slice(bytes).map_err(LedgerError::Json)?;
        match ledger.version {
            1 => Ok(ledger),
            found => Err(LedgerError::Version { found }),
        }
    }

    /// The form it is stored in.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Maps with string keys, numbers and times: serialisation has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The time to judge by: not earlier than any time seen before, unless the clock is more than
    /// seven days behind it.
    pub fn now(&self, clock: Timestamp) -> Timestamp {
        let setback = self.clock_floor.duration_since(clock);
        if setback > SignedDuration::ZERO && setback <= MAX_SETBACK {
            self.clock_floor
        } else {
            clock
        }
    }

    /// What is known of a grant.
    pub fn entry(&self, grant_id: &str) -> Option<&Entry> {
        self.grants.get(grant_id)
    }

    /// Grants that are void here and were not in an earlier ledger: why, and of which ticket.
    pub fn voided_since<'a>(
        &'a self,
        earlier: &'a Self,
    ) -> impl Iterator<Item = (String, String)> + 'a {
        self.grants.iter().filter_map(|(id, entry)| {
            let reason = entry.voided.clone()?;
            let known = earlier.grants.get(id).is_some_and(|entry| entry.voided.is_some());
            (!known).then(|| (reason, entry.ticket_id.clone()))
        })
    }

    /// Grants of a ticket.
    pub fn of_ticket<'a>(&'a self, ticket_id: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.grants.values().filter(move |entry| entry.ticket_id == ticket_id)
    }

    /// Whether a snapshot could begin under the grant.
    ///
    /// # Errors
    /// [`Refusal::GrantVoided`], [`Refusal::SnapshotsSpent`], [`Refusal::BytesSpent`], or
    /// [`Refusal::LedgerUnavailable`] when no more grants can be remembered.
    pub fn check(&self, grant: &Grant) -> Result<(), Refusal> {
        let Some(entry) = self.grants.get(&grant.grant_id) else {
            return if self.grants.len() < MAX_GRANTS {
                Ok(())
            } else {
                Err(Refusal::LedgerUnavailable { what: format!("{MAX_GRANTS} grants in use") })
            };
        };
        if let Some(reason) = &entry.voided {
            return Err(Refusal::GrantVoided { reason: reason.clone() });
        }
        if entry.ticket_id != grant.ticket_id {
            return Err(Refusal::WrongTicket);
        }
        if entry.snapshots >= grant.budget.snapshots {
            return Err(Refusal::SnapshotsSpent { allowed: grant.budget.snapshots });
        }
        if entry.bytes >= grant.budget.bytes {
            return Err(Refusal::BytesSpent { allowed: grant.budget.bytes });
        }
        Ok(())
    }

    /// Spends one snapshot and the first reservation of bytes. Gives the bytes.
    ///
    /// # Errors
    /// What [`Ledger::check`] refuses; nothing is spent then.
    pub fn begin(&mut self, grant: &Grant, clock: Timestamp) -> Result<u64, Refusal> {
        self.forget(clock);
        self.check(grant)?;
        let entry = self.grants.entry(grant.grant_id.clone()).or_insert_with(|| Entry {
            ticket_id: grant.ticket_id.clone(),
            snapshots: 0,
            bytes: 0,
            voided: None,
            expires_at: grant.expires_at,
        });
        entry.snapshots = entry.snapshots.saturating_add(1);
        self.reserve(grant, clock)
    }

    /// Spends another [`RESERVATION`], or what is left of the budget. Gives the bytes.
    ///
    /// # Errors
    /// [`Refusal::BytesSpent`], [`Refusal::GrantVoided`], or [`Refusal::LedgerUnavailable`] when
    /// the grant was never begun.
    pub fn reserve(&mut self, grant: &Grant, clock: Timestamp) -> Result<u64, Refusal> {
        let Some(entry) = self.grants.get_mut(&grant.grant_id) else {
            return Err(Refusal::LedgerUnavailable { what: "the grant's entry is gone".into() });
        };
        if let Some(reason) = &entry.voided {
            return Err(Refusal::GrantVoided { reason: reason.clone() });
        }
        let take = grant.budget.bytes.saturating_sub(entry.bytes).min(RESERVATION);
        if take == 0 {
            return Err(Refusal::BytesSpent { allowed: grant.budget.bytes });
        }
        entry.bytes += take;
        self.clock_floor = self.now(clock);
        Ok(take)
    }

    /// Gives back what was reserved and is known not to have been sent.
    pub fn give_back(&mut self, grant_id: &str, bytes: u64) {
        if let Some(entry) = self.grants.get_mut(grant_id) {
            entry.bytes = entry.bytes.saturating_sub(bytes);
        }
    }

    /// Voids a grant for good, whether it was used or not. True when that is news.
    pub fn void(&mut self, grant: &Grant, reason: &str, clock: Timestamp) -> bool {
        self.forget(clock);
        if !self.grants.contains_key(&grant.grant_id) && self.grants.len() >= MAX_GRANTS {
            // Full of live grants: a new one is refused by `check` for the same reason.
            return false;
        }
        let entry = self.grants.entry(grant.grant_id.clone()).or_insert_with(|| Entry {
            ticket_id: grant.ticket_id.clone(),
            snapshots: 0,
            bytes: 0,
            voided: None,
            expires_at: grant.expires_at,
        });
        let news = entry.voided.is_none();
        entry.voided.get_or_insert_with(|| reason.to_owned());
        news
    }

    /// Voids every grant in it of which `gone` says so. Gives how many that changed.
    pub fn void_where(&mut self, reason: &str, gone: impl Fn(&Entry) -> bool) -> usize {
        let mut changed = 0;
        for entry in self.grants.values_mut() {
            if entry.voided.is_none() && gone(entry) {
                entry.voided = Some(reason.to_owned());
                changed += 1;
            }
        }
        changed
    }

    fn forget(&mut self, clock: Timestamp) {
        let now = self.now(clock);
        self.clock_floor = now;
        if self.grants.len() < FORGET_FROM {
            return;
        }
        self.grants.retain(|_, entry| {
            entry.expires_at.saturating_add(REMEMBER).is_ok_and(|end| now < end)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consent::grant::tests::grant;

    fn clock() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn snapshots_are_spent_when_they_begin() {
        let grant = grant();
        let mut ledger = Ledger::default();
        for _ in 0..grant.budget.snapshots {
            ledger.begin(&grant, clock()).unwrap();
        }
        assert_eq!(ledger.begin(&grant, clock()).unwrap_err().code(), "SnapshotsSpent");
        let reread = Ledger::parse(&ledger.to_bytes()).unwrap();
        assert_eq!(reread, ledger);
        assert_eq!(reread.check(&grant).unwrap_err().code(), "SnapshotsSpent");
    }

    #[test]
    fn bytes_are_spent_before_they_are_sent_and_never_over_the_budget() {
        let mut grant = grant();
        grant.budget.bytes = RESERVATION + 100;
        let mut ledger = Ledger::default();
        assert_eq!(ledger.begin(&grant, clock()).unwrap(), RESERVATION);
        assert_eq!(ledger.reserve(&grant, clock()).unwrap(), 100);
        assert_eq!(ledger.reserve(&grant, clock()).unwrap_err().code(), "BytesSpent");
        ledger.give_back(&grant.grant_id, 60);
        assert_eq!(ledger.reserve(&grant, clock()).unwrap(), 60);
        assert_eq!(ledger.entry(&grant.grant_id).unwrap().bytes, grant.budget.bytes);
    }

    #[test]
    fn a_voided_grant_never_comes_back() {
        let grant = grant();
        let mut ledger = Ledger::default();
        assert!(ledger.void(&grant, "Solved", clock()));
        assert!(!ledger.void(&grant, "Deleted", clock()));
        let refused = Ledger::parse(&ledger.to_bytes()).unwrap().begin(&grant, clock());
        assert_eq!(refused.unwrap_err().code(), "GrantVoided");
    }

    #[test]
    fn voiding_midway_stops_the_next_reservation() {
        let grant = grant();
        let mut ledger = Ledger::default();
        ledger.begin(&grant, clock()).unwrap();
        assert_eq!(ledger.void_where("TicketDeleted", |e| e.ticket_id == grant.ticket_id), 1);
        assert_eq!(ledger.reserve(&grant, clock()).unwrap_err().code(), "GrantVoided");
    }

    #[test]
    fn a_clock_set_back_does_not_turn_time_back() {
        let mut ledger = Ledger::default();
        ledger.begin(&grant(), clock()).unwrap();
        let earlier: Timestamp = "2026-11-18T12:00:00Z".parse().unwrap();
        assert_eq!(ledger.now(earlier), clock());
        let later: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(ledger.now(later), later);
    }

    #[test]
    fn a_clock_that_was_once_years_ahead_does_not_end_all_consent() {
        let mut ledger = Ledger::default();
        let ahead: Timestamp = "2036-01-01T00:00:00Z".parse().unwrap();
        ledger.begin(&grant(), ahead).unwrap();
        assert_eq!(ledger.now(clock()), clock());
        assert!(ledger.entry(&grant().grant_id).is_some());
    }

    #[test]
    fn old_grants_are_forgotten_and_live_ones_are_not() {
        let mut ledger = Ledger::default();
        for n in 0..FORGET_FROM {
            let mut old = grant();
            old.grant_id = format!("grant-{n}");
            ledger.begin(&old, clock()).unwrap();
        }
        let mut other = grant();
        other.grant_id = "another".into();
        other.expires_at = "2027-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-12-30T00:00:00Z".parse().unwrap();
        ledger.begin(&other, later).unwrap();
        assert!(ledger.entry("grant-0").is_none());
        assert!(ledger.entry("another").is_some());
    }

    #[test]
    fn a_full_ledger_refuses_instead_of_forgetting() {
        let mut ledger = Ledger::default();
        for n in 0..MAX_GRANTS {
            let mut other = grant();
            other.grant_id = format!("grant-{n}");
            ledger.begin(&other, clock()).unwrap();
        }
        assert_eq!(ledger.begin(&grant(), clock()).unwrap_err().code(), "LedgerUnavailable");
    }

    #[test]
    fn damage_is_not_an_empty_ledger() {
        let mut ledger = Ledger::default();
        ledger.begin(&grant(), clock()).unwrap();
        let bytes = ledger.to_bytes();
        assert!(Ledger::parse(&bytes[..bytes.len() / 2]).is_err());
        assert!(Ledger::parse(b"").is_err());
        let newer = String::from_utf8(bytes).unwrap().replacen("\"version\":1", "\"version\":2", 1);
        assert!(matches!(Ledger::parse(newer.as_bytes()), Err(LedgerError::Version { found: 2 })));
    }
}
