//! The consent grant: what a customer allowed when a ticket was opened, signed by the consent key.

use jiff::{SignedDuration, Timestamp};
use mendix_agent_proto::limits::MAX_GRANT_ENVELOPE;
use serde::{Deserialize, Serialize};

use super::{keys::Trust, refusal::Refusal};
use crate::{
    envelope::{self, Signed},
    ordered,
    seal::RecipientPublicKey,
};

/// Longest time from `not_before` to `expires_at`.
pub const MAX_VALIDITY: SignedDuration = SignedDuration::from_hours(72);
/// Longest window: seven days back, and ahead as long as a grant may be valid. Logs on the nodes are
/// rotated long before.
pub const MAX_WINDOW: SignedDuration = SignedDuration::from_hours(7 * 24 + 72);
/// Most components in a grant.
pub const MAX_COMPONENTS: usize = 64;
/// How far the portal's clock may be ahead of ours.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// DSSE payload type of a grant.
pub const GRANT_PAYLOAD_TYPE: &str = "application/vnd.mendix.consent-grant.v1+json";

/// Payload of a grant's envelope. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Always 1.
    pub version: u32,
    /// Unique name of this grant (UUID).
    pub grant_id: String,
    /// The cluster it is for; no other may use it.
    pub cluster_uid: String,
    /// The ticket it belongs to.
    pub ticket_id: String,
    /// What was consented to. Only [`Scope::LogSharing`] concerns this agent.
    pub scopes: Vec<Scope>,
    /// Who consented, as the portal knows them.
    pub consented_by: String,
    /// When.
    pub consented_at: Timestamp,
    /// By which act, such as `portal-ticket-form`.
    pub consented_how: String,
    /// Managed components by exact name; no patterns.
    pub components: Vec<String>,
    /// Which kinds of data may leave.
    pub data_classes: Vec<DataClass>,
    /// Records of this span only.
    pub window: Window,
    /// Not valid before.
    pub not_before: Timestamp,
    /// Not valid from then on; at most 72 h after `not_before`.
    pub expires_at: Timestamp,
    /// What may be spent in all.
    pub budget: Budget,
    /// Oldest redaction policy version that is good enough.
    pub min_redaction_policy: u32,
    /// X25519 public key of the ticket, standard base64: the only one who can read the snapshot.
    pub recipient_public_key: String,
    /// Key id of the status key whose leases count for this grant.
    pub status_key_id: String,
}

/// What a customer can consent to; the two are separate acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Scope {
    /// Logs of managed components, redacted.
    LogSharing,
    /// A person may look at the environment. Never implies logs.
    DirectEnvironmentAccess,
}

/// A kind of data in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataClass {
    /// Container logs of managed components.
    ComponentLogs,
    /// Logs of the customer's Mendix apps: off unless named.
    RuntimeLogs,
    /// Kubernetes events of managed components.
    Events,
    /// Status of managed components and nodes.
    Status,
}

impl DataClass {
    /// Its name in a grant.
    pub fn name(self) -> &'static str {
        match self {
            Self::ComponentLogs => "component-logs",
            Self::RuntimeLogs => "runtime-logs",
            Self::Events => "events",
            Self::Status => "status",
        }
    }
}

/// A span of time, from ≤ to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// First instant.
    pub from: Timestamp,
    /// Last instant. May lie ahead while a ticket is worked on.
    pub to: Timestamp,
}

/// What a grant allows to be spent; spent before sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Snapshots.
    pub snapshots: u32,
    /// Sealed bytes over all snapshots.
    pub bytes: u64,
}

/// Verifies a grant's envelope, and what every grant has to satisfy wherever it is used.
///
/// # Errors
/// [`Refusal::GrantInvalid`] for the envelope, [`Refusal::GrantField`], [`Refusal::RecipientKey`]
/// or [`Refusal::StatusKeyNotPinned`] for a field.
pub fn verify(envelope: &[u8], trust: &Trust) -> Result<Signed<Grant>, Refusal> {
    let grant: Signed<Grant> =
        envelope::verify(envelope, GRANT_PAYLOAD_TYPE, MAX_GRANT_ENVELOPE, &trust.consent)
            .map_err(Refusal::GrantInvalid)?;
    grant.check_fields()?;
    if trust.status.only(&grant.status_key_id).is_none() {
        return Err(Refusal::StatusKeyNotPinned);
    }
    Ok(grant)
}

impl Signed<Grant> {
    /// Whether the keys that it rests on are still pinned: the one that signed it, and the one whose
    /// leases count for it.
    pub fn is_vouched_for(&self, trust: &Trust) -> bool {
        trust.consent.only(self.keyid()).is_some()
            && trust.status.only(&self.status_key_id).is_some()
    }
}

impl Grant {
    /// The ticket's key.
    ///
    /// # Errors
    /// [`Refusal::RecipientKey`] when it can't be sealed to.
    pub fn recipient(&self) -> Result<RecipientPublicKey, Refusal> {
        RecipientPublicKey::from_base64(&self.recipient_public_key)
            .map_err(|_| Refusal::RecipientKey)
    }

    fn check_fields(&self) -> Result<(), Refusal> {
        let field = |field, rule| Err(Refusal::GrantField { field, rule });
        if self.version != 1 {
            return field("version", "must be 1");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if self.grant_id.is_empty() || self.grant_id.len() > 64 || !self.grant_id.bytes().all(plain)
        {
            return field("grant_id", "must be 1 to 64 of [A-Za-z0-9-]");
        }
        for (name, text) in
            [("consented_by", &self.consented_by), ("consented_how", &self.consented_how)]
        {
            if text.trim().is_empty() || text.len() > 256 {
                return field(name, "must say something in at most 256 bytes");
            }
        }
        if self.consented_at > self.expires_at {
            return field("consented_at", "must not lie after the expiry");
        }
        if self.components.is_empty() || self.components.len() > MAX_COMPONENTS {
            return field("components", "must hold 1 to 64 names");
        }
        if !self.components.iter().all(|name| is_dns_label(name)) {
            return field("components", "must be exact names (DNS labels), never patterns");
        }
        if ordered::set(&self.components).len() != self.components.len() {
            return field("components", "must name each component once");
        }
        if self.data_classes.is_empty() {
            return field("data_classes", "must name at least one");
        }
        if self.window.from >= self.window.to {
            return field("window", "must begin before it ends");
        }
        if self.window.to.duration_since(self.window.from) > MAX_WINDOW {
            return field("window", "must not be longer than 240 h");
        }
        if self.not_before >= self.expires_at {
            return field("expires_at", "must lie after not_before");
        }
        if self.expires_at.duration_since(self.not_before) > MAX_VALIDITY {
            return field("expires_at", "must lie within 72 h of not_before");
        }
        if self.budget.snapshots == 0 || self.budget.bytes == 0 {
            return field("budget", "must allow at least one snapshot and one byte");
        }
        self.recipient().map(drop)
    }
}

/// Whether a name is a DNS label: 1 to 63 of `[a-z0-9-]`, no dash at either end.
pub fn is_dns_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{consent::keys::ConsentKeys, envelope::SigningKey};

    pub(in crate::consent) fn consent_key() -> SigningKey {
        SigningKey::from_seed(&[1; 32]).unwrap()
    }

    pub(in crate::consent) fn status_key() -> SigningKey {
        SigningKey::from_seed(&[2; 32]).unwrap()
    }

    pub(in crate::consent) fn trust() -> Trust {
        let other = SigningKey::from_seed(&[3; 32]).unwrap();
        pinned(&consent_key(), &[&status_key(), &other])
    }

    fn pinned(consent: &SigningKey, status: &[&SigningKey]) -> Trust {
        let keys = ConsentKeys {
            version: 1,
            sequence: 0,
            consent: vec![consent.pinned()],
            status: status.iter().map(|key| key.pinned()).collect(),
        };
        Trust::parse(&serde_json::to_vec(&keys).unwrap()).unwrap()
    }

    /// Valid on 2026-11-20, 12:00.
    pub(in crate::consent) fn grant() -> Grant {
        Grant {
            version: 1,
            grant_id: "6f9c2a52-1d3e-4c5b-9a70-000000000001".into(),
            cluster_uid: "cluster-1".into(),
            ticket_id: "MX-1001".into(),
            scopes: vec![Scope::LogSharing],
            consented_by: "ops@customer.example".into(),
            consented_at: "2026-11-20T08:59:00Z".parse().unwrap(),
            consented_how: "portal-ticket-form".into(),
            components: vec!["mendix-operator".into(), "ingress".into()],
            data_classes: vec![DataClass::ComponentLogs, DataClass::Events],
            window: Window {
                from: "2026-11-20T06:00:00Z".parse().unwrap(),
                to: "2026-11-21T09:00:00Z".parse().unwrap(),
            },
            not_before: "2026-11-20T09:00:00Z".parse().unwrap(),
            expires_at: "2026-11-21T09:00:00Z".parse().unwrap(),
            budget: Budget { snapshots: 5, bytes: 64 * 1024 * 1024 },
            min_redaction_policy: 1,
            recipient_public_key: "B6r/Pp/BZydVRPTDpqF82Dfy7G54zYpXsePfs8wDWnY=".into(),
            status_key_id: status_key().keyid(),
        }
    }

    pub(in crate::consent) fn signed(grant: &Grant) -> Vec<u8> {
        consent_key().sign(GRANT_PAYLOAD_TYPE, &serde_json::to_vec(grant).unwrap())
    }

    #[test]
    fn a_grant_signed_by_the_status_key_is_no_grant() {
        let envelope =
            status_key().sign(GRANT_PAYLOAD_TYPE, &serde_json::to_vec(&grant()).unwrap());
        assert_eq!(verify(&envelope, &trust()).unwrap_err().code(), "GrantInvalid");
    }

    #[test]
    fn verifying_alone_finds_keys_that_cannot_be_used() {
        let unpinned = Grant { status_key_id: consent_key().keyid(), ..grant() };
        assert_eq!(verify(&signed(&unpinned), &trust()).unwrap_err().code(), "StatusKeyNotPinned");
        let keyless = Grant { recipient_public_key: "a2V5".into(), ..grant() };
        assert_eq!(verify(&signed(&keyless), &trust()).unwrap_err().code(), "RecipientKey");
    }

    #[test]
    fn a_grant_of_a_rotated_key_is_vouched_for_no_more() {
        let grant = verify(&signed(&grant()), &trust()).unwrap();
        assert!(grant.is_vouched_for(&trust()));
        let next = SigningKey::from_seed(&[9; 32]).unwrap();
        for rotated in [pinned(&next, &[&status_key()]), pinned(&consent_key(), &[&next])] {
            assert!(!grant.is_vouched_for(&rotated));
        }
    }

    #[test]
    fn component_names_are_exact() {
        for name in ["*", "mendix-*", "Mendix", "a.b", "-a", "a-", "", "a/b", &"a".repeat(64)] {
            let bad = Grant { components: vec![name.into()], ..grant() };
            assert_eq!(verify(&signed(&bad), &trust()).unwrap_err().code(), "GrantField", "{name}");
        }
        assert!(verify(&signed(&grant()), &trust()).is_ok());
    }

    #[test]
    fn a_payload_with_a_field_this_build_does_not_know_is_refused() {
        let mut payload = serde_json::to_value(grant()).unwrap();
        payload["unlimited"] = true.into();
        let envelope = consent_key().sign(GRANT_PAYLOAD_TYPE, payload.to_string().as_bytes());
        assert_eq!(verify(&envelope, &trust()).unwrap_err().code(), "GrantInvalid");
    }
}
