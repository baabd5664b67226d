//! One record: a line of canonical JSON that names the hash of the line before it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::Event;
use crate::{
    bundle::canonical::{self, JsonError},
    envelope::sha256,
};

/// SHA-256 of a line, without its line end.
pub type Hash = [u8; 32];

/// Longest line.
pub const MAX_RECORD: usize = 64 * 1024;
/// Levels of nesting in a line.
const DEPTH: usize = 16;
/// Only version this build writes and reads.
const VERSION: u32 = 1;

/// Why a line is not a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Not JSON that everybody reads alike.
    #[error("it is not JSON: {0}")]
    Json(JsonError),
    /// JSON, and not a record.
    #[error("it is not a record: {0}")]
    Shape(String),
    /// Written by a newer agent.
    #[error("it has version {0}; this build reads version {VERSION}")]
    Version(u32),
    /// `previous` is no hash.
    #[error("its field `previous` is not a SHA-256 in hex")]
    Previous,
}

/// A decision with its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// Counts from 1 over all segments.
    pub sequence: u64,
    /// UID of the cluster.
    pub cluster: String,
    /// When it was decided, by the agent's clock.
    pub at: Timestamp,
    /// Hash of the record before it, hex; [`genesis`] for the first.
    previous: String,
    /// What was decided: an [`Event`], or one of a newer agent.
    pub event: Value,
}

impl Record {
    /// The record after one with hash `previous`.
    pub fn new(
        sequence: u64,
        cluster: &str,
        at: Timestamp,
        previous: &Hash,
        event: &Event,
    ) -> Self {
        Self {
            version: VERSION,
            sequence,
            cluster: cluster.into(),
            at,
            previous: hex::encode(previous),
            event: event.to_value(),
        }
    }

    /// Its line, without a line end.
    pub fn line(&self) -> String {
        // A struct with string keys: serialisation has no way to fail. Canonical JSON is UTF-8.
        let value = serde_json::to_value(self).unwrap_or_default();
        String::from_utf8_lossy(&canonical::bytes(&value)).into_owned()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`RecordError`] says what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, RecordError> {
        let value = canonical::parse(line.as_bytes(), DEPTH).map_err(RecordError::Json)?;
        let version = value["version"].as_u64().unwrap_or(0);
        if version > u64::from(VERSION) {
            return Err(RecordError::Version(u32::try_from(version).unwrap_or(u32::MAX)));
        }
        let record: Self =
            serde_json::from_value(value).map_err(|error| RecordError::Shape(error.to_string()))?;
        record.previous().map(|_| record)
    }

    /// Hash of the record before it.
    ///
    /// # Errors
    /// [`RecordError::Previous`]; never for one that was parsed.
    pub fn previous(&self) -> Result<Hash, RecordError> {
        parse_hash(&self.previous).ok_or(RecordError::Previous)
    }
}

/// A hash from its 64 hex digits.
pub fn parse_hash(hex: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(hex, &mut hash).ok()?;
    // One spelling only: the text is compared by people and scripts.
    (hex::encode(hash) == hex).then_some(hash)
}

/// Hash of a line.
pub fn hash(line: &str) -> Hash {
    sha256(line.as_bytes())
}

/// What the first record of a cluster's log names as its predecessor.
pub fn genesis(cluster: &str) -> Hash {
    sha256(format!("mendix-agent audit log, version 1, cluster {cluster}").as_bytes())
}

/// The newest record of a log at some time, and with its hash all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of the record.
    pub sequence: u64,
    /// Its hash.
    pub chain: Hash,
}

impl std::fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.sequence, hex::encode(self.chain))
    }
}

/// Not `SEQUENCE:HASH`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a checkpoint is written SEQUENCE:HASH, with the 64 hex digits of a SHA-256")]
pub struct CheckpointError;

impl std::str::FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let (sequence, chain) = text.trim().split_once(':').ok_or(CheckpointError)?;
        Ok(Self {
            sequence: sequence.parse().map_err(|_| CheckpointError)?,
            chain: parse_hash(&chain.to_ascii_lowercase()).ok_or(CheckpointError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let at = "2026-11-22T10:00:00Z".parse().unwrap();
        Record::new(1, "c-1", at, &genesis("c-1"), &Event::Deregistered {})
    }

    #[test]
    fn a_line_is_canonical_and_comes_back() {
        let line = record().line();
        assert!(line.starts_with("{\"at\":\"2026-11-22T10:00:00Z\",\"cluster\":\"c-1\""), "{line}");
        assert_eq!(Record::parse(&line).unwrap(), record());
        assert!(line.len() < MAX_RECORD);
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
        let line = record().line();
        assert!(matches!(Record::parse(&line[..40]), Err(RecordError::Json(_))));
        assert!(matches!(
            Record::parse(&line.replace("\"version\":1", "\"version\":2")),
            Err(RecordError::Version(2))
        ));
        let more = line.replacen('{', "{\"also\":1,", 1);
        assert!(matches!(Record::parse(&more), Err(RecordError::Shape(_))));
        let twice = line.replacen('{', "{\"sequence\":9,", 1);
        assert!(matches!(Record::parse(&twice), Err(RecordError::Json(_))));
    }

    #[test]
    fn two_clusters_begin_with_different_hashes() {
        assert_ne!(genesis("c-1"), genesis("c-2"));
    }

    #[test]
    fn a_checkpoint_is_written_and_read() {
        let checkpoint = Checkpoint { sequence: 7, chain: [0xab; 32] };
        assert_eq!(checkpoint.to_string().parse::<Checkpoint>().unwrap(), checkpoint);
        for bad in ["", "7", "7:", ":ab", "x:ab", "7:zz"] {
            assert!(bad.parse::<Checkpoint>().is_err(), "{bad}");
        }
    }
}
