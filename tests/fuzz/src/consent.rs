//! Consent: grants and leases, signed by somebody who lost their mind, or not signed at all.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::{
    consent::{
        gate::{self, Candidate, Facts, Told, Wish},
        grant::{self, GRANT_PAYLOAD_TYPE},
        keys::Trust,
        lease::{Heard, LEASE_PAYLOAD_TYPE, LeaseClock},
        ledger::Ledger,
        refusal::Refusal,
        ticket::{Origin, Status, Ticket},
    },
    envelope::SigningKey,
};
use mendix_agent_proto::{limits::LEASE_TTL, v1};
use prost::Message as _;
use serde_json::{Value, json};

use crate::input::Input;

const TICKET: &str = "MX-1001";
const CLUSTER: &str = "cluster-1";

fn consent_key() -> SigningKey {
    SigningKey::from_seed(&[1; 32]).unwrap()
}

fn status_key() -> SigningKey {
    SigningKey::from_seed(&[2; 32]).unwrap()
}

fn trust() -> Trust {
    let file = json!({
        "version": 1,
        "consent": [consent_key().pinned()],
        "status": [status_key().pinned()],
    });
    Trust::parse(file.to_string().as_bytes()).unwrap()
}

fn noon() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// A grant that holds at [`noon`].
pub(crate) fn good_grant() -> Value {
    json!({
        "version": 1,
        "grant_id": "6f9c2a52-1d3e-4c5b-9a70-000000000001",
        "cluster_uid": CLUSTER,
        "ticket_id": TICKET,
        "scopes": ["LOG_SHARING"],
        "consented_by": "ops@customer.example",
        "consented_at": "2026-11-20T08:59:00Z",
        "consented_how": "portal-ticket-form",
        "components": ["mendix-operator", "ingress"],
        "data_classes": ["component-logs", "events"],
        "window": {"from": "2026-11-20T06:00:00Z", "to": "2026-11-21T09:00:00Z"},
        "not_before": "2026-11-20T09:00:00Z",
        "expires_at": "2026-11-21T09:00:00Z",
        "budget": {"snapshots": 5, "bytes": 67_108_864},
        "min_redaction_policy": 1,
        "recipient_public_key": "B6r/Pp/BZydVRPTDpqF82Dfy7G54zYpXsePfs8wDWnY=",
        "status_key_id": status_key().keyid(),
    })
}

fn consider(envelope: Vec<u8>, clock: Timestamp, ledger: &Ledger) -> Result<Candidate, Refusal> {
    let ticket = Ticket {
        id: TICKET.into(),
        status: Status::Open,
        origin: Origin::Customer,
        severity: "LOW",
        title: String::new(),
        grant_envelope: envelope,
    };
    let managed = BTreeSet::from(["mendix-operator".into(), "ingress".into()]);
    gate::consider(
        Facts { cluster_uid: CLUSTER, trust: &trust(), managed: &managed, redaction_policy: 1 },
        Told { ticket: Some(&ticket), deregistered: false },
        Wish { ticket_id: TICKET, components: &[] },
        ledger,
        clock,
    )
}

/// Bytes as an envelope, as a signed payload, as a listed ticket and as a ledger.
pub fn grant(bytes: &[u8]) -> bool {
    assert!(grant::verify(bytes, &trust()).is_err(), "nobody signed this");
    let _ = v1::Ticket::decode(bytes).map(|wire| Ticket::from_wire(&wire));
    if let Ok(ledger) = Ledger::parse(bytes) {
        let read = Ledger::parse(&ledger.to_bytes()).expect("what was written is read");
        assert_eq!(read.to_bytes(), ledger.to_bytes());
        let _ = consider(consent_key().sign(GRANT_PAYLOAD_TYPE, &payload()), noon(), &ledger);
    }
    let by_status = status_key().sign(GRANT_PAYLOAD_TYPE, bytes);
    assert!(grant::verify(&by_status, &trust()).is_err(), "the roles are apart");
    let envelope = consent_key().sign(GRANT_PAYLOAD_TYPE, bytes);
    let Ok(grant) = grant::verify(&envelope, &trust()) else { return false };
    let mut considered = false;
    assert!(grant.not_before < grant.expires_at && grant.window.from < grant.window.to);
    assert!(grant.expires_at.duration_since(grant.not_before) <= SignedDuration::from_hours(72));
    assert!(grant.components.iter().all(|name| grant::is_dns_label(name)));
    for hours in [-100, 0, 20, 100] {
        let clock = noon() + SignedDuration::from_hours(hours);
        if let Ok(candidate) = consider(envelope.clone(), clock, &Ledger::default()) {
            assert!(clock < grant.expires_at, "past its end");
            assert!(grant.cluster_uid == CLUSTER && grant.ticket_id == TICKET);
            candidate.grant().recipient().expect("it can be sealed to");
            considered = true;
        }
    }
    considered
}

fn payload() -> Vec<u8> {
    good_grant().to_string().into_bytes()
}

/// What has to be true of a [`LeaseClock`]: active only within 60 s of an asked nonce that was
/// answered in a lease newer than the last one, and never again after a signed end.
struct Model {
    clock: LeaseClock,
    now: Duration,
    asked: Vec<([u8; 16], Duration)>,
    proven_until: Duration,
    sequence: Option<u8>,
    ended: bool,
}

/// Asking, waiting and hearing in any order.
pub fn lease(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let envelope = consent_key().sign(GRANT_PAYLOAD_TYPE, &payload());
    let candidate = consider(envelope, noon(), &Ledger::default()).expect("a good grant");
    let mut model = Model {
        clock: candidate.lease_clock(),
        now: Duration::from_secs(1000),
        asked: Vec::new(),
        proven_until: Duration::ZERO,
        sequence: None,
        ended: false,
    };
    while !input.is_empty() {
        match input.byte() % 5 {
            0 => model.ask(),
            1 => model.now += Duration::from_millis(u64::from(input.word()) * 4),
            2 | 3 => model.hear(&mut input),
            _ => {
                let raw = input.framed();
                assert!(model.clock.hear(raw).is_err(), "nobody signed this");
            }
        }
        let active = model.clock.check(model.now).is_ok();
        assert!(!active || (model.now < model.proven_until && !model.ended), "active unproven");
    }
    model.proven_until > Duration::ZERO
}

impl Model {
    fn ask(&mut self) {
        let nonce = [self.asked.len() as u8; 16];
        self.clock.ask(nonce, self.now);
        self.asked.push((nonce, self.now));
    }

    fn hear(&mut self, input: &mut Input<'_>) {
        let wrong = input.byte();
        let nonce = self.asked.get(usize::from(input.byte())).copied();
        let status = *["OPEN", "ON_HOLD", "AWAITING_YOUR_REPLY", "SOLVED", "REOPENED", ""]
            .get(usize::from(input.byte() % 16))
            .unwrap_or(&"OPEN");
        let sequence = input.byte();
        let ours = hex::encode(self.clock.grant_sha256());
        let lease = json!({
            "version": if wrong == 1 { 2 } else { 1 },
            "grant_sha256": if wrong == 2 { "00".repeat(32) } else { ours },
            "cluster_uid": if wrong == 3 { "cluster-2" } else { CLUSTER },
            "ticket_id": if wrong == 4 { "MX-1002" } else { TICKET },
            "ticket_status": status,
            "sequence": sequence,
            "nonce": hex::encode(nonce.map_or([255; 16], |(nonce, _)| nonce)),
            "issued_at": noon(),
        });
        let key = if wrong == 5 { consent_key() } else { status_key() };
        let heard = self.clock.hear(&key.sign(LEASE_PAYLOAD_TYPE, lease.to_string().as_bytes()));
        let in_order = !(1..=5).contains(&wrong);
        match heard {
            Ok(Heard::NotOurs) => assert_eq!(wrong, 2),
            Ok(Heard::Active(until)) => {
                let (_, at) = nonce.expect("an asked nonce");
                assert!(in_order && Status::from_word(status).is_active() && !self.ended);
                assert!(until <= at + LEASE_TTL, "longer than 60 s from its asking");
                assert!(self.sequence.is_none_or(|last| last < sequence), "replayed");
                self.sequence = Some(sequence);
                self.proven_until = self.proven_until.max(until);
            }
            Err(Refusal::TicketInactive { .. }) => {
                assert!(in_order);
                self.ended |= !Status::from_word(status).is_active();
                assert!(self.ended, "ended by an active ticket");
            }
            Err(_) => {}
        }
        if in_order && !Status::from_word(status).is_active() {
            assert!(self.ended, "a signed end was passed over");
        }
    }
}
