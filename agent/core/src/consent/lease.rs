//! The lease: a status key's word that a ticket is still active, good for 60 s.
//!
//! The agent sends a fresh nonce up every 20 s while it works; [`LeaseClock`] counts the 60 s from
//! the sending of the nonce, so that whoever carries the answer can only make it worth less.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use mendix_agent_proto::limits::{LEASE_TTL, MAX_LEASE_ENVELOPE};
use serde::{Deserialize, Serialize};

use super::{grant::Grant, keys::Trust, refusal::Refusal, ticket::Status};
use crate::envelope::{self, KeyRing, Signed};

/// DSSE payload type of a lease.
pub const LEASE_PAYLOAD_TYPE: &str = "application/vnd.mendix.ticket-lease.v1+json";

/// Nonces that may be under way; older ones are forgotten.
const MAX_OUTSTANDING: usize = 4;

/// Payload of a lease's envelope. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Always 1.
    pub version: u32,
    /// SHA-256 of the grant's envelope as it was received, hex.
    pub grant_sha256: String,
    /// The cluster.
    pub cluster_uid: String,
    /// The ticket.
    pub ticket_id: String,
    /// `OPEN`, `ON_HOLD`, `AWAITING_YOUR_REPLY`, `SOLVED` or another word; only the first three
    /// are active.
    pub ticket_status: String,
    /// Increases with each lease of this grant.
    pub sequence: u64,
    /// The agent's nonce, hex; binds the lease to the moment the agent asked.
    pub nonce: String,
    /// When it was signed; for people, no decision is made on it.
    pub issued_at: Timestamp,
}

/// Reads a lease that any pinned status key signed. It proves nothing by itself: a snapshot needs one
/// that answers its own nonce ([`LeaseClock::hear`]).
///
/// # Errors
/// [`Refusal::LeaseUnsigned`].
pub fn verify(envelope: &[u8], trust: &Trust) -> Result<Signed<Lease>, Refusal> {
    envelope::verify(envelope, LEASE_PAYLOAD_TYPE, MAX_LEASE_ENVELOPE, &trust.status)
        .map_err(Refusal::LeaseUnsigned)
}

/// Follows the leases of one grant while a snapshot is taken.
///
/// Times are readings of CLOCK_BOOTTIME: a clock that stops in suspend would stretch the 60 s.
#[derive(Debug)]
pub struct LeaseClock {
    keys: KeyRing,
    grant_sha256: [u8; 32],
    cluster_uid: String,
    ticket_id: String,
    outstanding: VecDeque<([u8; 16], Duration)>,
    sequence: Option<u64>,
    valid_until: Option<Duration>,
    ended: Option<Status>,
    ended_word: String,
}

/// What an envelope did to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It belongs to another grant.
    NotOurs,
    /// The ticket is active until this reading of the clock.
    Active(Duration),
}

impl LeaseClock {
    /// For a grant whose status key is the only one in `keys`.
    pub(super) fn new(grant: &Signed<Grant>, keys: KeyRing) -> Self {
        Self {
            keys,
            grant_sha256: *grant.envelope_sha256(),
            cluster_uid: grant.cluster_uid.clone(),
            ticket_id: grant.ticket_id.clone(),
            outstanding: VecDeque::new(),
            sequence: None,
            valid_until: None,
            ended: None,
            ended_word: String::new(),
        }
    }

    /// The grant that leases have to name.
    pub fn grant_sha256(&self) -> &[u8; 32] {
        &self.grant_sha256
    }

    /// Notes a nonce, to be called before it is sent.
    pub fn ask(&mut self, nonce: [u8; 16], now: Duration) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((nonce, now));
    }

    /// Takes an envelope.
    ///
    /// # Errors
    /// [`Refusal::LeaseUnsigned`] and [`Refusal::LeaseInvalid`] change nothing: anybody on the way
    /// can cause them. [`Refusal::TicketInactive`] is signed, and final for this clock.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Heard, Refusal> {
        let invalid = |what| Err(Refusal::LeaseInvalid { what });
        let lease: Signed<Lease> =
            envelope::verify(bytes, LEASE_PAYLOAD_TYPE, MAX_LEASE_ENVELOPE, &self.keys)
                .map_err(Refusal::LeaseUnsigned)?;
        if lease.grant_sha256 != hex::encode(self.grant_sha256) {
            return Ok(Heard::NotOurs);
        }
        if lease.version != 1 {
            return invalid("its version is not 1");
        }
        if lease.cluster_uid != self.cluster_uid {
            return invalid("it is for another cluster");
        }
        if lease.ticket_id != self.ticket_id {
            return invalid("it is for another ticket");
        }
        let status = Status::from_word(&lease.ticket_status);
        if !status.is_active() {
            // The end needs no nonce: it may be pushed, and an old one replayed only withholds.
            self.ended = Some(status);
            self.ended_word = lease.ticket_status.chars().take(32).collect();
            self.valid_until = None;
            return Err(self.inactive());
        }
        let Some(position) =
            self.outstanding.iter().position(|(nonce, _)| hex::encode(nonce) == lease.nonce)
        else {
            return invalid("its nonce was not asked, or was answered already");
        };
        if self.sequence.is_some_and(|last| lease.sequence <= last) {
            return invalid("its sequence does not increase");
        }
        if self.ended.is_some() {
            return Err(self.inactive());
        }
        self.sequence = Some(lease.sequence);
        // What was asked earlier is answered by this as well.
        let asked_at = self.outstanding.drain(..=position).next_back().map(|(_, at)| at);
        let until = asked_at.unwrap_or_default() + LEASE_TTL;
        self.valid_until = self.valid_until.max(Some(until));
        Ok(Heard::Active(until))
    }

    /// Whether the ticket is proven active at this moment.
    ///
    /// # Errors
    /// [`Refusal::LeaseMissing`] without a fresh lease, [`Refusal::TicketInactive`] after the end.
    pub fn check(&self, now: Duration) -> Result<(), Refusal> {
        if self.ended.is_some() {
            return Err(self.inactive());
        }
        match self.valid_until {
            Some(until) if now < until => Ok(()),
            _ => Err(Refusal::LeaseMissing),
        }
    }

    fn inactive(&self) -> Refusal {
        Refusal::TicketInactive { status: self.ended_word.clone() }
    }

    /// Whether the ticket was solved, which voids the grant for good.
    pub fn solved(&self) -> bool {
        self.ended == Some(Status::Solved)
    }
}
