//! What was published: a note for people and for `push`; the signed truth is in the repository.

use jiff::Timestamp;
use mendix_agent_core::bundle::index::ReleaseClass;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, files};

/// A published release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRecord {
    /// Its name.
    pub release_id: String,
    /// Its sequence.
    pub sequence: u64,
    /// How urgent it is.
    pub class: ReleaseClass,
    /// TUF target of its index.
    pub index_target: String,
    /// SHA-256 of the index, hex.
    pub index_sha256: String,
    /// When it was published.
    pub published_at: Timestamp,
    /// Rings it is for; empty: all.
    pub audience: Vec<String>,
    /// Its components.
    pub components: Vec<ReleaseComponent>,
}

/// One component of a published release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseComponent {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How many objects it has.
    pub objects: usize,
    /// Size of its blob, bytes.
    pub blob_size: u64,
}

impl Store {
    pub(crate) fn release_path(&self, release_id: &str) -> std::path::PathBuf {
        self.dir.join("releases").join(format!("{release_id}.json"))
    }

    /// All releases, by sequence.
    ///
    /// # Errors
    /// When state can't be read.
    pub fn releases(&self) -> Result<Vec<ReleaseRecord>, StoreError> {
        let mut releases: Vec<ReleaseRecord> = Vec::new();
        for id in files::names(&self.dir.join("releases"), ".json")? {
            releases.extend(files::read_json(&self.release_path(&id))?);
        }
        releases.sort_by_key(|release| release.sequence);
        Ok(releases)
    }

    /// One release.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when nothing of this name was published.
    pub fn release(&self, release_id: &str) -> Result<ReleaseRecord, StoreError> {
        self.releases()?.into_iter().find(|release| release.release_id == release_id).ok_or_else(
            || StoreError::NotFound {
                what: "release",
                name: release_id.to_owned(),
                list: "release list",
            },
        )
    }
}
