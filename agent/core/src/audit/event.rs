//! What is recorded: decisions, each with what is needed to judge it later. Names, codes, digests
//! and counts; never a value out of a log, a Secret or an object.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest text in a record, bytes; the rest is cut.
pub const MAX_TEXT: usize = 256;
/// Longest list in a record; the rest is cut.
pub const MAX_ITEMS: usize = 64;

/// A decision. The variant is field `kind` of the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event {
    /// What a ticket allows has changed.
    Consent {
        /// The ticket.
        ticket: String,
        /// `Active` or `Inactive`.
        consent: String,
        /// Code of the gate that refuses; absent while active.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The grant, if there is one that verifies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grant: Option<GrantName>,
    },
    /// Grants were voided for good.
    GrantsVoided {
        /// Why, such as `TicketSolved`.
        reason: String,
        /// The tickets they belonged to.
        tickets: Vec<String>,
    },
    /// A snapshot was asked for, and refused.
    SnapshotRefused {
        /// The request.
        request: String,
        /// The ticket it named.
        ticket: String,
        /// Code of the gate.
        reason: String,
    },
    /// A snapshot may begin: everything that it may hold. Written before anything is read.
    SnapshotAllowed {
        /// Its id.
        snapshot: String,
        /// The request it answers.
        request: String,
        /// The ticket.
        ticket: String,
        /// The grant.
        grant: GrantName,
        /// Components that will be read.
        components: Vec<String>,
        /// Kinds of data.
        data_classes: Vec<String>,
        /// First instant of the records.
        window_from: Timestamp,
        /// Last instant of the records.
        window_to: Timestamp,
        /// Version of the redaction rules.
        redaction_policy: u32,
        /// Patterns of the customer's own that are applied besides.
        extra_patterns: u32,
        /// SHA-256 of the public key it is sealed to, hex.
        recipient_sha256: String,
    },
    /// A snapshot that was allowed has ended.
    SnapshotEnded {
        /// Its id.
        snapshot: String,
        /// `Succeeded`, `Revoked` or `Failed`.
        phase: String,
        /// Code of why it did not succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Sealed bytes that were handed to the connection.
        sealed_bytes: u64,
        /// SHA-256 of the sealed stream, hex; on success.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// Values that redaction replaced, by class.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        replaced: BTreeMap<String, u64>,
    },
    /// The pinned keys of the support portal are these from now on.
    ConsentKeys {
        /// Their sequence.
        sequence: u64,
        /// SHA-256 of the file, hex.
        sha256: String,
        /// `installed` or `rotated`.
        source: String,
        /// Names of the consent keys.
        consent: Vec<String>,
        /// Names of the status keys.
        status: Vec<String>,
    },
    /// A release run reached a state.
    Release {
        /// Name of the release.
        release: String,
        /// Its sequence.
        sequence: u64,
        /// SHA-256 of its index, hex; absent when it could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index_sha256: Option<String>,
        /// The state.
        state: String,
        /// The component it is at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        component: Option<String>,
        /// Code of why, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Objects that somebody else changed were put back; one record per object and minute.
    Drift {
        /// `Kind namespace/name`.
        object: String,
        /// Field paths that differed.
        fields: Vec<String>,
        /// The field manager that claims the change: a claim, not a proof.
        claimed_by: String,
        /// How often within that minute.
        times: u32,
    },
    /// The agent has an identity on the channel.
    Identity {
        /// SHA-256 of its certificate, hex.
        certificate_sha256: String,
        /// When it expires.
        expires_at: Timestamp,
        /// Release ring of the cluster.
        ring: String,
    },
    /// The cluster was deleted in the portal.
    Deregistered {},
    /// The control plane holds a checkpoint that this log does not have: one of them was rewound.
    CheckpointMismatch {
        /// Record it is about.
        sequence: u64,
        /// Hash that the control plane holds, hex.
        held: String,
        /// Hash that this log has there, hex; absent when it has no such record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        own: Option<String>,
    },
    /// Decisions that could not be written when they were made, and were given up.
    Lost {
        /// How many.
        records: u64,
    },
}

/// Names a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantName {
    /// Its id.
    pub id: String,
    /// SHA-256 of its envelope, hex.
    pub sha256: String,
    /// Name of the key that signed it.
    pub keyid: String,
    /// Who consented, as the portal knows them.
    pub consented_by: String,
}

impl Event {
    /// The JSON that is recorded: texts and lists within bounds, nothing in them that could disturb
    /// a terminal.
    pub fn to_value(&self) -> Value {
        // An enum of strings, numbers, times and lists of them: serialisation has no way to fail.
        let value = serde_json::to_value(self).unwrap_or_default();
        tidy(value)
    }
}

fn tidy(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(one_line(&text, MAX_TEXT)),
        Value::Array(items) => items.into_iter().take(MAX_ITEMS).map(tidy).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, tidy(value))).collect(),
        other => other,
    }
}

/// A text as one line of at most `max` bytes, without characters that could disturb a terminal.
pub fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for c in text.chars() {
        // Control characters and the marks that reorder text.
        let odd = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let c = if odd { ' ' } else { c };
        if line.len() + c.len_utf8() > max {
            break;
        }
        line.push(c);
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_lists_are_bounded_and_harmless() {
        let event = Event::Drift {
            object: format!("Deployment a/\u{1b}[31m{}", "x".repeat(1000)),
            fields: vec!["spec\nreplicas".into(); 100],
            claimed_by: "kubectl\u{202e}".into(),
            times: 1,
        };
        let value = event.to_value();
        assert_eq!(value["kind"], "drift");
        assert_eq!(value["claimedBy"], "kubectl");
        assert_eq!(value["fields"].as_array().unwrap().len(), MAX_ITEMS);
        assert_eq!(value["fields"][0], "spec replicas");
        assert!(value["object"].as_str().unwrap().len() <= MAX_TEXT);
    }
}
