//! What the agent remembers of the release repository: a value, parsed strictly and advanced
//! forwards only.
//!
//! tough reads a stored file that it can't parse as "there is no history", and then accepts a
//! rollback (measured). So nothing reaches tough that was not parsed and verified here first.

use std::{collections::BTreeMap, fmt};

use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::{
    bundle::{
        admission::HighWater,
        canonical,
        floor::{FloorError, KnownFloor, ReleaseFloor},
    },
    ordered,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tough::schema::{Role, Root, Signed, Snapshot, Timestamp as TimestampRole};

/// Entry with the trusted root.
pub(super) const ROOT: &str = "root.json";
/// Entry with the newest verified timestamp role.
pub(super) const TIMESTAMP: &str = "timestamp.json";
/// Entry with the newest verified snapshot role.
pub(super) const SNAPSHOT: &str = "snapshot.json";
/// Entry with what TUF has no file for.
const RECORD: &str = "state.json";
/// Only version of [`Record`] that this build reads and writes.
const SCHEMA: u32 = 1;
/// The clock floor is raised in steps of this length, so that a refresh that learns nothing writes
/// nothing.
const FLOOR_STEP: SignedDuration = SignedDuration::from_mins(10);
/// Levels of nesting in stored metadata.
const DEPTH: usize = 32;

/// Why stored or fetched trust state can't be relied on.
#[derive(Debug, Error)]
pub enum StateError {
    /// An entry that must be there is not.
    #[error("entry {0} is missing")]
    Missing(&'static str),
    /// An entry that must not be there is.
    #[error("entry {0} is there, and state.json doesn't know of it")]
    Unexpected(&'static str),
    /// An entry is cut off or was never JSON.
    #[error("entry {entry} is not JSON")]
    Json {
        /// The entry.
        entry: &'static str,
        /// What is wrong with it.
        #[source]
        source: canonical::JsonError,
    },
    /// An entry is JSON, and not what it should be.
    #[error("entry {entry} is not what its name says")]
    Shape {
        /// The entry.
        entry: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// An entry is not signed as the trusted root demands.
    #[error("entry {entry} is not signed as the trusted root demands")]
    Signature {
        /// The entry.
        entry: &'static str,
        /// What is missing.
        #[source]
        source: Box<tough::schema::Error>,
    },
    /// The state was written by a newer agent.
    #[error("state.json has schema {0}; this build reads {SCHEMA}")]
    Schema(u32),
    /// An entry has another version than the record says.
    #[error("entry {entry} has version {found}; state.json says {recorded}")]
    Version {
        /// The entry.
        entry: &'static str,
        /// Its version.
        found: u64,
        /// Version in the record.
        recorded: u64,
    },
    /// A step that would go back.
    #[error("entry {entry} would go back from version {from} to {to}")]
    Backwards {
        /// The entry.
        entry: &'static str,
        /// Version that is stored.
        from: u64,
        /// Version that was to be stored.
        to: u64,
    },
    /// The root doesn't use consistent snapshots.
    #[error(
        "the root has consistent_snapshot = false; files could change while they are read, so only \
         repositories with consistent snapshots are accepted"
    )]
    Inconsistent,
    /// A floor that goes back.
    #[error("the signed floor of releases")]
    Floor(#[source] FloorError),
    /// A release that is below the mark.
    #[error("sequence {to} is not above {from}, which was accepted before")]
    Sequence {
        /// Sequence of the mark.
        from: u64,
        /// Sequence that was to be accepted.
        to: u64,
    },
    /// The digest in the record is no digest.
    #[error("state.json: high_water.index_sha256 is not a SHA-256 in hex")]
    Digest,
}

/// Trusted root, newest verified timestamp and snapshot, clock floor and high-water mark.
///
/// The targets role is not kept: tough guards it by its version in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrustState {
    files: Files,
    record: Record,
}

/// Metadata as bytes, as tough reads and writes it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Files {
    /// Trusted root.
    pub(super) root: Vec<u8>,
    /// Newest timestamp; none before the first refresh and after its keys were rotated.
    pub(super) timestamp: Option<Vec<u8>>,
    /// Newest snapshot; as above.
    pub(super) snapshot: Option<Vec<u8>>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        f.debug_struct("Files")
            .field("root", &text(&self.root))
            .field("timestamp", &self.timestamp.as_deref().map(text))
            .field("snapshot", &self.snapshot.as_deref().map(text))
            .finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    schema: u32,
    root_version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot_version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clock_floor: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high_water: Option<HighWaterRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    floor: Option<KnownFloor>,
}

/// What is remembered besides the metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Memory {
    clock_floor: Option<Timestamp>,
    high_water: Option<HighWater>,
    floor: Option<KnownFloor>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HighWaterRecord {
    sequence: u64,
    index_sha256: String,
}

impl HighWaterRecord {
    fn read(&self) -> Result<HighWater, StateError> {
        let mut index_sha256 = [0; 32];
        hex::decode_to_slice(&self.index_sha256, &mut index_sha256)
            .map_err(|_| StateError::Digest)?;
        Ok(HighWater { sequence: self.sequence, index_sha256 })
    }
}

impl TrustState {
    /// The state of a cluster that never read the repository, from the root it was installed with.
    pub(super) fn initial(root: Vec<u8>) -> Result<Self, StateError> {
        Self::from_files(Files { root, timestamp: None, snapshot: None }, Memory::default())
    }

    /// Reads stored state. Fails closed: whatever is missing, cut off, unsigned or at odds with the
    /// record is an error and never "no history".
    pub(super) fn from_entries(entries: &BTreeMap<String, Vec<u8>>) -> Result<Self, StateError> {
        let record = entries.get(RECORD).ok_or(StateError::Missing(RECORD))?;
        let record: Record = strict(RECORD, record)?;
        if record.schema != SCHEMA {
            return Err(StateError::Schema(record.schema));
        }
        let optional =
            |entry: &'static str, version: Option<u64>| match (entries.get(entry), version) {
                (Some(bytes), Some(_)) => Ok(Some(bytes.clone())),
                (None, None) => Ok(None),
                (None, Some(_)) => Err(StateError::Missing(entry)),
                (Some(_), None) => Err(StateError::Unexpected(entry)),
            };
        let files = Files {
            root: entries.get(ROOT).ok_or(StateError::Missing(ROOT))?.clone(),
            timestamp: optional(TIMESTAMP, record.timestamp_version)?,
            snapshot: optional(SNAPSHOT, record.snapshot_version)?,
        };
        let high_water = record.high_water.as_ref().map(HighWaterRecord::read).transpose()?;
        let memory = Memory { clock_floor: record.clock_floor, high_water, floor: record.floor };
        let state = Self::from_files(files, memory)?;
        for (entry, found, recorded) in [
            (ROOT, Some(state.record.root_version), Some(record.root_version)),
            (TIMESTAMP, state.record.timestamp_version, record.timestamp_version),
            (SNAPSHOT, state.record.snapshot_version, record.snapshot_version),
        ] {
            if let (Some(found), Some(recorded)) = (found, recorded)
                && found != recorded
            {
                return Err(StateError::Version { entry, found, recorded });
            }
        }
        Ok(state)
    }

    /// What is stored: every entry, whole.
    pub(super) fn to_entries(&self) -> BTreeMap<String, Vec<u8>> {
        #[expect(clippy::expect_used, reason = "a plain struct with string keys always serialises")]
        let record = serde_json::to_vec(&self.record).expect("the record serialises");
        let mut entries =
            ordered::map([(ROOT.to_owned(), self.files.root.clone()), (RECORD.to_owned(), record)]);
        for (name, bytes) in [(TIMESTAMP, &self.files.timestamp), (SNAPSHOT, &self.files.snapshot)]
        {
            if let Some(bytes) = bytes {
                entries.insert(name.to_owned(), bytes.clone());
            }
        }
        entries
    }

    fn from_files(files: Files, memory: Memory) -> Result<Self, StateError> {
        let root: Signed<Root> = strict(ROOT, &files.root)?;
        signed(ROOT, &root.signed, &root)?;
        if !root.signed.consistent_snapshot {
            return Err(StateError::Inconsistent);
        }
        let timestamp_version =
            version::<TimestampRole>(TIMESTAMP, &root.signed, &files.timestamp)?;
        let snapshot_version = version::<Snapshot>(SNAPSHOT, &root.signed, &files.snapshot)?;
        let record = Record {
            schema: SCHEMA,
            root_version: root.signed.version.get(),
            timestamp_version,
            snapshot_version,
            clock_floor: memory.clock_floor,
            high_water: memory.high_water.map(|high| HighWaterRecord {
                sequence: high.sequence,
                index_sha256: hex::encode(high.index_sha256),
            }),
            floor: memory.floor,
        };
        Ok(Self { files, record })
    }

    fn memory(&self) -> Memory {
        let Record { clock_floor, floor, .. } = self.record;
        Memory { clock_floor, high_water: self.high_water(), floor }
    }

    /// The metadata files.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Version of the trusted root.
    pub(super) fn root_version(&self) -> u64 {
        self.record.root_version
    }

    /// The time to judge expiry by: the clock, but never before the newest time at which metadata
    /// was accepted. A clock that was turned back can't make old metadata fresh again.
    ///
    /// A clock that was once ahead does no lasting harm: the floor is raised only by accepted
    /// metadata, so it never passes the expiry of that metadata, and the next that release
    /// engineering publishes lies beyond it.
    pub(super) fn judged_at(&self, now: Timestamp) -> Timestamp {
        self.record.clock_floor.map_or(now, |floor| floor.max(now))
    }

    /// The highest release that was ever accepted.
    pub(super) fn high_water(&self) -> Option<HighWater> {
        self.record.high_water.as_ref().and_then(|record| record.read().ok())
    }

    /// The state with newer metadata. A version may go down only together with a newer root: that
    /// is how TUF recovers from a stolen online key that was used to raise versions.
    pub(super) fn advance(&self, files: Files) -> Result<Self, StateError> {
        let mut next = Self::from_files(files, self.memory())?;
        let (old, new) = (&self.record, &next.record);
        let backwards = |entry, from, to| Err(StateError::Backwards { entry, from, to });
        if new.root_version < old.root_version {
            return backwards(ROOT, old.root_version, new.root_version);
        }
        if new.root_version == old.root_version {
            for (entry, from, to) in [
                (TIMESTAMP, old.timestamp_version, new.timestamp_version),
                (SNAPSHOT, old.snapshot_version, new.snapshot_version),
            ] {
                if to.unwrap_or(0) < from.unwrap_or(0) {
                    return backwards(entry, from.unwrap_or(0), to.unwrap_or(0));
                }
            }
            // tough writes the same metadata in another order of keys each time; what didn't change
            // is not stored again.
            next.files.root.clone_from(&self.files.root);
            if new.timestamp_version == old.timestamp_version {
                next.files.timestamp.clone_from(&self.files.timestamp);
            }
            if new.snapshot_version == old.snapshot_version {
                next.files.snapshot.clone_from(&self.files.snapshot);
            }
        }
        Ok(next)
    }

    /// The state after metadata was accepted at `now`.
    pub(super) fn accepted_at(mut self, now: Timestamp) -> Self {
        let due =
            self.record.clock_floor.is_none_or(|floor| now.duration_since(floor) >= FLOOR_STEP);
        if due {
            self.record.clock_floor = Some(now);
        }
        self
    }

    /// The state after a release was accepted. The same release again changes nothing.
    pub(super) fn raise(&self, to: HighWater) -> Result<Self, StateError> {
        match self.high_water() {
            Some(from) if from == to => Ok(self.clone()),
            Some(from) if to.sequence <= from.sequence => {
                Err(StateError::Sequence { from: from.sequence, to: to.sequence })
            }
            _ => {
                let memory = Memory { high_water: Some(to), ..self.memory() };
                Self::from_files(self.files.clone(), memory)
            }
        }
    }

    /// The newest floor that release engineering signed, as far as it is known here.
    pub(super) fn floor(&self) -> Option<KnownFloor> {
        self.record.floor
    }

    /// The state after a floor was read. Its date is a time that has passed, whatever the clock says.
    pub(super) fn with_floor(&self, floor: &ReleaseFloor) -> Result<Self, StateError> {
        let known = floor.follow(self.record.floor).map_err(StateError::Floor)?;
        if Some(known) == self.record.floor {
            return Ok(self.clone());
        }
        let mut next = self.clone();
        next.record.floor = Some(known);
        next.record.clock_floor = next.record.clock_floor.max(Some(floor.signed_at));
        Ok(next)
    }
}

/// Version of a root that was read from elsewhere, after its own signatures were verified.
pub(super) fn version_of_root(bytes: &[u8]) -> Result<u64, StateError> {
    TrustState::initial(bytes.to_vec()).map(|state| state.root_version())
}

fn strict<T: serde::de::DeserializeOwned>(
    entry: &'static str,
    bytes: &[u8],
) -> Result<T, StateError> {
    // For its errors only (cut off, a key twice); tough's types are then read from the same bytes.
    canonical::parse(bytes, DEPTH).map_err(|source| StateError::Json { entry, source })?;
    serde_json::from_slice(bytes).map_err(|source| StateError::Shape { entry, source })
}

fn signed<T: Role + Serialize>(
    entry: &'static str,
    root: &Root,
    role: &Signed<T>,
) -> Result<(), StateError> {
    root.verify_role(role)
        .map_err(|source| StateError::Signature { entry, source: Box::new(source) })
}

fn version<T: Role + serde::de::DeserializeOwned>(
    entry: &'static str,
    root: &Root,
    bytes: &Option<Vec<u8>>,
) -> Result<Option<u64>, StateError> {
    let Some(bytes) = bytes else { return Ok(None) };
    let role: Signed<T> = strict(entry, bytes)?;
    signed(entry, root, &role)?;
    Ok(Some(role.signed.version().get()))
}
