//! What an envelope of the portal allows, and what is wrong with it, by the pinned keys and a time alone.

use jiff::Timestamp;
use mendix_agent_core::{
    consent::{
        Refusal,
        grant::{self, CLOCK_SKEW, Grant, Scope},
        keys::Trust,
        lease::{self, LEASE_PAYLOAD_TYPE, Lease},
        ticket::Status,
    },
    envelope::Signed,
    redact::POLICY_VERSION,
};
use serde_json::{Value, json};

use super::second;
use crate::errors::describe;

/// An envelope, as `consent verify` sees it.
#[derive(Debug)]
pub enum Envelope {
    /// A customer's consent.
    Grant(Box<Signed<Grant>>),
    /// A word that a ticket is active.
    Lease(Box<Signed<Lease>>),
}

/// A verified envelope and what is wrong with it all the same.
#[derive(Debug)]
pub struct Verdict {
    envelope: Envelope,
    wrong: Vec<String>,
}

/// What an envelope is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The pinned keys.
    pub trust: &'a Trust,
    /// UID of the cluster, if it is known.
    pub cluster: Option<&'a str>,
    /// The time.
    pub at: Timestamp,
}

/// Verifies the bytes of a grant or a lease.
///
/// # Errors
/// [`Refusal`] when no pinned key signed them, or they are not what was signed; nothing of their
/// content is told then.
pub fn verify(bytes: &[u8], judge: Judge<'_>) -> Result<Verdict, Refusal> {
    let kind = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    if kind["payloadType"] == LEASE_PAYLOAD_TYPE {
        let lease = lease::verify(bytes, judge.trust)?;
        let wrong = judge.lease(&lease);
        return Ok(Verdict { envelope: Envelope::Lease(Box::new(lease)), wrong });
    }
    let grant = grant::verify(bytes, judge.trust)?;
    let wrong = judge.grant(&grant);
    Ok(Verdict { envelope: Envelope::Grant(Box::new(grant)), wrong })
}

impl Judge<'_> {
    fn grant(&self, grant: &Grant) -> Vec<String> {
        let mut wrong = self.cluster(&grant.cluster_uid);
        let mut add = |refusal: Refusal| wrong.push(refusal.to_string());
        if !grant.scopes.contains(&Scope::LogSharing) {
            add(Refusal::ScopeMissing);
        }
        if grant.not_before.saturating_sub(CLOCK_SKEW).is_ok_and(|from| self.at < from) {
            add(Refusal::NotYetValid);
        }
        if self.at >= grant.expires_at {
            add(Refusal::Expired);
        }
        if grant.min_redaction_policy > POLICY_VERSION {
            let wanted = grant.min_redaction_policy;
            add(Refusal::RedactionTooOld { wanted, ours: POLICY_VERSION });
        }
        wrong
    }

    fn lease(&self, lease: &Lease) -> Vec<String> {
        let mut wrong = self.cluster(&lease.cluster_uid);
        if !Status::from_word(&lease.ticket_status).is_active() {
            let status = lease.ticket_status.clone();
            wrong.push(Refusal::TicketInactive { status }.to_string());
        }
        wrong
    }

    fn cluster(&self, uid: &str) -> Vec<String> {
        match self.cluster {
            Some(cluster) if cluster != uid => vec![format!("it is for another cluster: {uid}")],
            _ => Vec::new(),
        }
    }
}

impl Verdict {
    /// Whether nothing is wrong with it.
    pub fn is_sound(&self) -> bool {
        self.wrong.is_empty()
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let (kind, keyid, sha256, payload) = match &self.envelope {
            Envelope::Grant(grant) => {
                ("grant", grant.keyid(), grant.envelope_sha256(), json!(&***grant))
            }
            Envelope::Lease(lease) => {
                ("lease", lease.keyid(), lease.envelope_sha256(), json!(&***lease))
            }
        };
        json!({
            "sound": self.is_sound(), "kind": kind, "keyid": keyid,
            "envelopeSha256": hex::encode(sha256), "payload": payload, "wrong": self.wrong,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| text.push_str(&format!("{name:<14} {value}\n"));
        match &self.envelope {
            Envelope::Grant(grant) => {
                line(
                    "Grant",
                    format!(
                        "{} (SHA-256 {})",
                        grant.grant_id,
                        hex::encode(grant.envelope_sha256())
                    ),
                );
                line("Signed by", format!("consent key {}", grant.keyid()));
                line("Cluster", grant.cluster_uid.clone());
                line("Ticket", grant.ticket_id.clone());
                let by = format!(
                    "{}, {}, {}",
                    grant.consented_by,
                    second(grant.consented_at),
                    grant.consented_how
                );
                line("Consented by", by);
                line("Components", grant.components.join(", "));
                let classes = grant.data_classes.iter().map(|class| class.name());
                line("Data", classes.collect::<Vec<_>>().join(", "));
                let (from, to) = (second(grant.window.from), second(grant.window.to));
                line("Records", format!("{from} to {to}"));
                let (from, to) = (second(grant.not_before), second(grant.expires_at));
                line("Valid", format!("{from} to {to}"));
                let budget = grant.budget;
                line("Budget", format!("{} snapshots, {} bytes", budget.snapshots, budget.bytes));
                line("Redaction", format!("policy {} or newer", grant.min_redaction_policy));
                line("Readable by", format!("X25519 key {}", grant.recipient_public_key));
                line("Leases by", format!("status key {}", grant.status_key_id));
            }
            Envelope::Lease(lease) => {
                line("Lease", format!("{} of grant {}", lease.sequence, lease.grant_sha256));
                line("Signed by", format!("status key {}", lease.keyid()));
                line("Cluster", lease.cluster_uid.clone());
                line("Ticket", format!("{} is {}", lease.ticket_id, lease.ticket_status));
                line("Issued", second(lease.issued_at));
                let counts =
                    "for 60 s from the moment at which the agent sent the nonce it answers";
                line("Counts", format!("{counts}: {}", lease.nonce));
            }
        }
        for wrong in &self.wrong {
            line("WRONG", wrong.clone());
        }
        match self.is_sound() {
            true => line(
                "Verdict",
                "in order by itself; ticket, lease, policy and budget decide besides".into(),
            ),
            false => line("Verdict", "it allows nothing".into()),
        }
        text
    }
}

/// What is told about an envelope that no pinned key vouches for.
pub fn refused(refusal: &Refusal) -> (String, Value) {
    let text = format!("WRONG          {}\nVerdict        it allows nothing\n", describe(refusal));
    let json = json!({ "sound": false, "reason": refusal.code(), "wrong": [describe(refusal)] });
    (text, json)
}

#[cfg(test)]
mod tests {
    use mendix_agent_core::{
        consent::{
            grant::{Budget, DataClass, GRANT_PAYLOAD_TYPE, Window},
            keys::ConsentKeys,
        },
        envelope::SigningKey,
        seal,
    };

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn trust() -> Trust {
        let (consent, status) = (vec![key(1).pinned()], vec![key(2).pinned()]);
        let keys = ConsentKeys { version: 1, sequence: 3, consent, status };
        Trust::parse(&serde_json::to_vec(&keys).unwrap()).unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn grant() -> Grant {
        Grant {
            version: 1,
            grant_id: "g-1".into(),
            cluster_uid: "c-1".into(),
            ticket_id: "MX-1".into(),
            scopes: vec![Scope::LogSharing],
            consented_by: "ops@customer.example".into(),
            consented_at: time("2026-11-20T09:00:00Z"),
            consented_how: "portal-ticket-form".into(),
            components: vec!["mendix-operator".into()],
            data_classes: vec![DataClass::ComponentLogs],
            window: Window { from: time("2026-11-20T06:00:00Z"), to: time("2026-11-21T09:00:00Z") },
            not_before: time("2026-11-20T09:00:00Z"),
            expires_at: time("2026-11-21T09:00:00Z"),
            budget: Budget { snapshots: 5, bytes: 1000 },
            min_redaction_policy: 1,
            recipient_public_key: seal::generate_recipient_keypair().unwrap().0.to_base64(),
            status_key_id: key(2).keyid(),
        }
    }

    fn signed(grant: &Grant, seed: u8) -> Vec<u8> {
        key(seed).sign(GRANT_PAYLOAD_TYPE, &serde_json::to_vec(grant).unwrap())
    }

    fn judged(bytes: &[u8], at: &str) -> Result<Verdict, Refusal> {
        verify(bytes, Judge { trust: &trust(), cluster: Some("c-1"), at: time(at) })
    }

    #[test]
    fn a_grant_says_what_it_allows() {
        let verdict = judged(&signed(&grant(), 1), "2026-11-20T12:00:00Z").unwrap();
        assert!(verdict.is_sound());
        let text = verdict.text();
        for part in ["mendix-operator", "ops@customer.example", "5 snapshots, 1000 bytes"] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert_eq!(verdict.json()["payload"]["ticket_id"], "MX-1");
    }

    #[test]
    fn all_that_is_wrong_with_a_grant_is_said_at_once() {
        let wrong = Grant {
            cluster_uid: "c-2".into(),
            scopes: vec![Scope::DirectEnvironmentAccess],
            min_redaction_policy: u32::MAX,
            ..grant()
        };
        let verdict = judged(&signed(&wrong, 1), "2026-11-22T12:00:00Z").unwrap();
        assert_eq!(verdict.wrong.len(), 4, "{:?}", verdict.wrong);
        assert!(verdict.text().ends_with("it allows nothing\n"));
    }

    #[test]
    fn nothing_is_told_of_what_nobody_signed() {
        let refusal = judged(&signed(&grant(), 9), "2026-11-20T12:00:00Z").unwrap_err();
        let (text, json) = refused(&refusal);
        assert_eq!(json["reason"], "GrantInvalid");
        assert!(!text.contains("ops@customer.example"), "{text}");
    }

    #[test]
    fn a_lease_is_read_with_the_status_keys_alone() {
        let lease = Lease {
            version: 1,
            grant_sha256: "ab".into(),
            cluster_uid: "c-1".into(),
            ticket_id: "MX-1".into(),
            ticket_status: "SOLVED".into(),
            sequence: 4,
            nonce: "00".into(),
            issued_at: time("2026-11-20T12:00:00Z"),
        };
        let bytes = serde_json::to_vec(&lease).unwrap();
        let verdict = judged(&key(2).sign(LEASE_PAYLOAD_TYPE, &bytes), "2026-11-20T12:00:00Z");
        let verdict = verdict.unwrap();
        assert!(!verdict.is_sound() && verdict.text().contains("MX-1 is SOLVED"));
        let refused = judged(&key(1).sign(LEASE_PAYLOAD_TYPE, &bytes), "2026-11-20T12:00:00Z");
        assert_eq!(refused.unwrap_err().code(), "LeaseUnsigned");
    }
}
