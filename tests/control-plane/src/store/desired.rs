//! What each cluster should run and know: sections with revisions, changed under the store's lock and
//! within the limit that agents hold a desired state to.

use mendix_agent_proto::{limits, v1};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{ClusterRecord, Store, StoreError, clusters::refuse_deleted, files, requests, tickets};

/// A value with the revision of its section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revised<T> {
    /// Starts at 1, steps with each change.
    pub revision: u64,
    /// The value.
    pub value: T,
}

impl<T> Revised<T> {
    pub(super) fn first(value: T) -> Self {
        Self { revision: 1, value }
    }

    /// The value, to be changed: a new revision.
    pub(super) fn revise(&mut self) -> &mut T {
        self.revision += 1;
        &mut self.value
    }
}

/// Which release a cluster should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseWish {
    /// Name of the release.
    pub release_id: String,
    /// TUF target of its index.
    pub index_target: String,
    /// Its sequence.
    pub sequence: u64,
}

/// What a session needs to know about its cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    /// The cluster was deleted.
    pub(crate) deleted: bool,
    /// Leaves (SHA-256, hex) that must not be used any more.
    pub(crate) revoked: Vec<String>,
    /// All sections, each with its revision.
    pub(crate) sections: Vec<v1::DesiredSection>,
}

impl ClusterRecord {
    fn sections(&self) -> Vec<v1::DesiredSection> {
        let tickets = tickets::section(&self.tickets, self.consent_keys_sequence);
        vec![self.release_section(), tickets, requests::section(&self.requests)]
    }

    fn release_section(&self) -> v1::DesiredSection {
        let release = match &self.release.value {
            Some(wish) => v1::ReleaseSection {
                index_target: wish.index_target.clone(),
                sequence: wish.sequence,
            },
            None => v1::ReleaseSection::default(),
        };
        v1::DesiredSection {
            section: v1::Section::Release.into(),
            revision: self.release.revision,
            body: Some(v1::desired_section::Body::Release(release)),
        }
    }
}

impl Store {
    /// Changes what a live session has to hear of. Refuses what an agent would have to refuse: a
    /// desired state over the protocol's limit.
    pub(super) fn change_desired<T>(
        &self,
        uid: &str,
        change: impl FnOnce(&mut ClusterRecord) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.change_desired_under(&self.lock()?, uid, change)
    }

    /// [`Store::change_desired`] for a caller that has the lock.
    pub(super) fn change_desired_under<T>(
        &self,
        lock: &files::Lock,
        uid: &str,
        change: impl FnOnce(&mut ClusterRecord) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut cluster = self.cluster(uid)?;
        let result = change(&mut cluster)?;
        let size = v1::DesiredState { sections: cluster.sections() }.encoded_len();
        if size > limits::MAX_DESIRED_STATE {
            return Err(StoreError::Refused(format!(
                "the desired state of cluster {uid} would be {size} bytes, more than the {} an agent \
                 takes; solve old tickets first",
                limits::MAX_DESIRED_STATE
            )));
        }
        files::write_json(&self.cluster_path(uid), &cluster)?;
        self.step_change(lock)?;
        Ok(result)
    }

    /// Asks clusters to run a release: one by UID, or all of its audience.
    /// Returns the UIDs whose wish changed.
    ///
    /// # Errors
    /// When release or cluster do not exist, or the cluster was deleted.
    pub fn push_release(
        &self,
        release_id: &str,
        cluster: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let release = self.release(release_id)?;
        let wish = ReleaseWish {
            release_id: release.release_id.clone(),
            index_target: release.index_target.clone(),
            sequence: release.sequence,
        };
        let lock = self.lock()?;
        let targets = match cluster {
            Some(uid) => vec![self.cluster(uid)?],
            None => self
                .clusters()?
                .into_iter()
                .filter(|cluster| cluster.deleted_at.is_none())
                .filter(|cluster| {
                    release.audience.is_empty() || release.audience.contains(&cluster.ring)
                })
                .collect(),
        };
        let mut changed = Vec::new();
        for mut cluster in targets {
            refuse_deleted(&cluster)?;
            if cluster.release.value.as_ref() == Some(&wish) {
                continue;
            }
            *cluster.release.revise() = Some(wish.clone());
            files::write_json(&self.cluster_path(&cluster.uid), &cluster)?;
            changed.push(cluster.uid);
        }
        self.step_change(&lock)?;
        Ok(changed)
    }

    /// Tells all clusters to look for the portal's keys of this sequence.
    pub(crate) fn hint_consent_keys(&self, sequence: u64) -> Result<(), StoreError> {
        for cluster in self.clusters()?.into_iter().filter(|cluster| cluster.deleted_at.is_none()) {
            self.change_desired(&cluster.uid, |cluster| {
                cluster.tickets.revise();
                cluster.consent_keys_sequence = sequence;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What the cluster is to be told, section by section.
    pub(crate) fn desired(&self, uid: &str) -> Result<Desired, StoreError> {
        let cluster = self.cluster(uid)?;
        let revoked = cluster.issued.iter().filter(|issued| issued.revoked);
        Ok(Desired {
            deleted: cluster.deleted_at.is_some(),
            revoked: revoked.map(|issued| issued.leaf_sha256.clone()).collect(),
            sections: cluster.sections(),
        })
    }
}
