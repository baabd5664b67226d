//! What the control plane holds of a cluster's audit log: its newest checkpoint, and whether the log
//! was ever rewound.

use jiff::Timestamp;
use mendix_agent_core::audit::Checkpoint;
use mendix_agent_proto::v1;
use serde::{Deserialize, Serialize};

/// A checkpoint that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldCheckpoint {
    /// Number of the record.
    pub sequence: u64,
    /// Its hash, hex.
    pub chain: String,
    /// When it was taken.
    pub taken_at: Timestamp,
}

/// The log of a cluster stopped being what a checkpoint had vouched for. Stays for good: what is gone
/// from a log does not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditAlarm {
    /// `CutOff`: the log ends before the checkpoint. `Rewritten`: it has another record there.
    pub what: String,
    /// The checkpoint that was held, and that an export can still be verified against.
    pub held: HeldCheckpoint,
    /// Number of the newest record as the agent told it then.
    pub told: u64,
    /// When it was seen first.
    pub seen_at: Timestamp,
    /// How often it was seen since.
    pub count: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// The newest checkpoint.
    pub held: Option<HeldCheckpoint>,
    /// The first alarm.
    pub alarm: Option<AuditAlarm>,
}

impl AuditRecord {
    /// Takes what an agent tells, or says what it has to name first. A checkpoint replaces the one
    /// that is held only when the agent names that one with the hash its own log has there: a log
    /// that was rewound and has grown again beyond the old number can't pass for its continuation.
    pub(crate) fn take(&mut self, told: &v1::AuditCheckpoint, now: Timestamp) {
        let chain = hex::encode(&told.chain_sha256);
        let new = HeldCheckpoint { sequence: told.sequence, chain, taken_at: now };
        let Some(held) = &self.held else {
            self.held = Some(new);
            return;
        };
        let same = (held.sequence, &held.chain) == (new.sequence, &new.chain);
        if same || told.after_sequence != held.sequence {
            return;
        }
        let what = if told.after_chain_sha256.is_empty() {
            Some("CutOff")
        } else if hex::encode(&told.after_chain_sha256) != held.chain
            || new.sequence <= held.sequence
        {
            Some("Rewritten")
        } else {
            None
        };
        if let Some(what) = what {
            let first = AuditAlarm {
                what: what.into(),
                held: held.clone(),
                told: new.sequence,
                seen_at: now,
                count: 0,
            };
            self.alarm.get_or_insert(first).count += 1;
        }
        self.held = Some(new);
    }

    /// What is said back.
    pub(crate) fn answer(&self) -> Option<v1::AuditCheckpointAck> {
        let held = self.held.as_ref()?;
        let chain_sha256 = hex::decode(&held.chain).ok()?;
        Some(v1::AuditCheckpointAck { sequence: held.sequence, chain_sha256 })
    }

    /// The checkpoints to verify an export against: the newest, and the one that an alarm is about.
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        let alarm = self.alarm.as_ref().map(|alarm| &alarm.held);
        let all = alarm.into_iter().chain(&self.held);
        all.filter_map(|held| format!("{}:{}", held.sequence, held.chain).parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sequence: u64, seed: u8, after: Option<(u64, Option<u8>)>) -> v1::AuditCheckpoint {
        let (after_sequence, seed_after) = after.unwrap_or((0, None));
        v1::AuditCheckpoint {
            sequence,
            chain_sha256: vec![seed; 32],
            after_sequence,
            after_chain_sha256: seed_after.map(|seed| vec![seed; 32]).unwrap_or_default(),
        }
    }

    fn taken(record: &mut AuditRecord, told: v1::AuditCheckpoint) -> (u64, Option<&str>) {
        record.take(&told, Timestamp::UNIX_EPOCH);
        let alarm = record.alarm.as_ref().map(|alarm| alarm.what.as_str());
        (record.held.as_ref().unwrap().sequence, alarm)
    }

    #[test]
    fn a_log_that_grows_is_followed() {
        let mut record = AuditRecord::default();
        assert_eq!(taken(&mut record, told(5, 5, None)), (5, None));
        assert_eq!(taken(&mut record, told(5, 5, None)), (5, None), "told again");
        assert_eq!(taken(&mut record, told(9, 9, None)), (5, None), "it has to name 5 first");
        assert_eq!(record.answer().unwrap().chain_sha256, [5; 32]);
        assert_eq!(taken(&mut record, told(9, 9, Some((5, Some(5))))), (9, None));
    }

    #[test]
    fn a_message_that_was_overtaken_is_no_alarm() {
        let mut record = AuditRecord::default();
        taken(&mut record, told(5, 5, None));
        taken(&mut record, told(9, 9, Some((5, Some(5)))));
        assert_eq!(taken(&mut record, told(7, 7, Some((5, Some(5))))), (9, None));
    }

    #[test]
    fn a_chain_that_was_rewound_is_an_alarm_that_stays() {
        let mut record = AuditRecord::default();
        taken(&mut record, told(9, 9, None));
        assert_eq!(taken(&mut record, told(4, 4, None)), (9, None));
        assert_eq!(taken(&mut record, told(4, 4, Some((9, None)))), (4, Some("CutOff")));
        assert_eq!(taken(&mut record, told(5, 5, Some((4, Some(4))))), (5, Some("CutOff")));
        assert_eq!(record.alarm.as_ref().unwrap().held.sequence, 9);
        assert_eq!(record.checkpoints().len(), 2);
    }

    #[test]
    fn a_chain_that_was_rewound_and_grew_beyond_is_found_all_the_same() {
        let mut record = AuditRecord::default();
        taken(&mut record, told(9, 9, None));
        assert_eq!(taken(&mut record, told(20, 1, Some((9, Some(8))))), (20, Some("Rewritten")));
    }
}
