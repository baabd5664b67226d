//! The pinned keys of the support portal: which signatures on grants and leases count.
//!
//! The first ones are installed with the agent, in `consent-keys.json` of the trust folder. Later
//! ones come as the target of that name in the release repository, so that only the offline release
//! root can change them (ADR 0010). Each file carries a sequence that has to grow. The control plane
//! can at most withhold a newer file.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    bundle::Authentic,
    envelope::{KeyError, KeyRing, sha256},
};

/// Name of the file in the trust folder, and of the target in the release repository.
pub const FILE: &str = "consent-keys.json";
/// Largest file that is read.
pub const MAX_FILE: usize = 64 * 1024;
/// Most keys of each kind: the current one, the next one, and some that are on their way out.
pub const MAX_KEYS: usize = 8;

/// `consent-keys.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentKeys {
    /// Version of the format: always 1.
    pub version: u32,
    /// Grows with each file. A file without one is the first of its portal.
    #[serde(default)]
    pub sequence: u64,
    /// Keys that may sign grants.
    pub consent: Vec<PinnedKey>,
    /// Keys that may sign leases; a grant names the one that counts for it.
    pub status: Vec<PinnedKey>,
}

pub use crate::envelope::PinnedKey;

/// Why `consent-keys.json` can't be used; without it no log leaves.
#[derive(Debug, Error)]
pub enum ConsentKeysError {
    /// Larger than any may be.
    #[error("{FILE} has {size} bytes; at most {MAX_FILE} are read")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Not the JSON this build knows.
    #[error("{FILE} is not valid; it needs version, sequence, consent[] and status[]")]
    Json(#[source] serde_json::Error),
    /// Another version.
    #[error("{FILE} has version {found}; this agent reads version 1")]
    Version {
        /// The one it has.
        found: u32,
    },
    /// None, or too many.
    #[error("{FILE}, list `{list}`: {count} keys; 1 to {MAX_KEYS} are needed")]
    Count {
        /// `consent` or `status`.
        list: &'static str,
        /// How many.
        count: usize,
    },
    /// One of the keys.
    #[error("{FILE}, list `{list}`")]
    Key {
        /// `consent` or `status`.
        list: &'static str,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// One key in both lists: the roles would no longer be held apart.
    #[error("{FILE}: key {keyid} is both a consent key and a status key; use separate keys")]
    SharedKey {
        /// Its name.
        keyid: String,
    },
    /// Vouched for, and another target than the keys.
    #[error("the target {target:?} is not {FILE}")]
    OtherTarget {
        /// The one it is.
        target: String,
    },
    /// Older than what is pinned.
    #[error("{FILE} has sequence {offered}; {pinned} is pinned already, and keys never go back")]
    Backwards {
        /// The one offered.
        offered: u64,
        /// The one pinned.
        pinned: u64,
    },
    /// Another file with the same sequence.
    #[error(
        "{FILE} of sequence {sequence} is not the one that is pinned; release engineering has to sign it with a higher sequence"
    )]
    Fork {
        /// Of both.
        sequence: u64,
    },
}

/// Pinned keys, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    pub(super) consent: KeyRing,
    pub(super) status: KeyRing,
    sequence: u64,
    sha256: [u8; 32],
}

impl Trust {
    /// Reads the content of `consent-keys.json`, as it was installed or stored.
    ///
    /// # Errors
    /// [`ConsentKeysError`] names the list and the key.
    pub fn parse(json: &[u8]) -> Result<Self, ConsentKeysError> {
        if json.len() > MAX_FILE {
            return Err(ConsentKeysError::TooLarge { size: json.len() });
        }
        let keys: ConsentKeys = serde_json::from_slice(json).map_err(ConsentKeysError::Json)?;
        if keys.version != 1 {
            return Err(ConsentKeysError::Version { found: keys.version });
        }
        let ring = |list, keys: &[PinnedKey]| {
            if keys.is_empty() || keys.len() > MAX_KEYS {
                return Err(ConsentKeysError::Count { list, count: keys.len() });
            }
            KeyRing::new(keys).map_err(|source| ConsentKeysError::Key { list, source })
        };
        let trust = Self {
            consent: ring("consent", &keys.consent)?,
            status: ring("status", &keys.status)?,
            sequence: keys.sequence,
            sha256: sha256(json),
        };
        match keys.consent.iter().find(|key| trust.status.only(&key.keyid).is_some()) {
            Some(shared) => Err(ConsentKeysError::SharedKey { keyid: shared.keyid.clone() }),
            None => Ok(trust),
        }
    }

    /// The keys of a file that the release root vouches for, if they are newer; none when they are
    /// the pinned ones.
    ///
    /// # Errors
    /// [`ConsentKeysError`]; the pinned keys stay then.
    pub fn rotate(&self, file: &Authentic) -> Result<Option<Self>, ConsentKeysError> {
        if file.target() != FILE {
            let target = file.target().chars().take(64).collect();
            return Err(ConsentKeysError::OtherTarget { target });
        }
        self.succeed(Self::parse(file.bytes())?)
    }

    /// Which of two files of the same portal counts: the one with the higher sequence.
    ///
    /// # Errors
    /// [`ConsentKeysError::Backwards`] and [`ConsentKeysError::Fork`].
    pub fn succeed(&self, next: Self) -> Result<Option<Self>, ConsentKeysError> {
        match next.sequence.cmp(&self.sequence) {
            std::cmp::Ordering::Greater => Ok(Some(next)),
            std::cmp::Ordering::Equal if next.sha256 == self.sha256 => Ok(None),
            std::cmp::Ordering::Equal => Err(ConsentKeysError::Fork { sequence: self.sequence }),
            std::cmp::Ordering::Less => {
                Err(ConsentKeysError::Backwards { offered: next.sequence, pinned: self.sequence })
            }
        }
    }

    /// Sequence of the file.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Names of the consent keys.
    pub fn consent_keys(&self) -> impl Iterator<Item = &str> {
        self.consent.names()
    }

    /// Names of the status keys.
    pub fn status_keys(&self) -> impl Iterator<Item = &str> {
        self.status.names()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::SigningKey;

    fn file(consent: &[PinnedKey], status: &[PinnedKey]) -> Vec<u8> {
        numbered(0, consent, status)
    }

    fn numbered(sequence: u64, consent: &[PinnedKey], status: &[PinnedKey]) -> Vec<u8> {
        let keys =
            ConsentKeys { version: 1, sequence, consent: consent.into(), status: status.into() };
        serde_json::to_vec(&keys).unwrap()
    }

    fn key(seed: u8) -> PinnedKey {
        SigningKey::from_seed(&[seed; 32]).unwrap().pinned()
    }

    #[expect(clippy::disallowed_methods, reason = "stands in for the TUF client")]
    fn vouched(target: &str, bytes: Vec<u8>) -> Authentic {
        Authentic::vouched_by_release_root(target.into(), sha256(&bytes), bytes)
    }

    #[test]
    fn separate_keys_are_read() {
        assert!(Trust::parse(&file(&[key(1)], &[key(2), key(3)])).is_ok());
        // Files from before there were sequences.
        let first = String::from_utf8(file(&[key(1)], &[key(2)])).unwrap();
        let first = first.replace("\"sequence\":0,", "");
        assert_eq!(Trust::parse(first.as_bytes()).unwrap().sequence(), 0);
    }

    #[test]
    fn one_key_in_both_roles_is_refused() {
        let refused = Trust::parse(&file(&[key(1)], &[key(2), key(1)])).unwrap_err();
        assert!(matches!(refused, ConsentKeysError::SharedKey { .. }), "{refused}");
    }

    #[test]
    fn unknown_fields_and_versions_are_refused() {
        let text = String::from_utf8(file(&[key(1)], &[key(2)])).unwrap();
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert!(matches!(
            Trust::parse(newer.as_bytes()),
            Err(ConsentKeysError::Version { found: 2 })
        ));
        let more = text.replacen('{', "{\"countersign\":[],", 1);
        assert!(matches!(Trust::parse(more.as_bytes()), Err(ConsentKeysError::Json(_))));
        let none = Trust::parse(&file(&[], &[key(2)]));
        assert!(matches!(none, Err(ConsentKeysError::Count { list: "consent", count: 0 })));
    }

    #[test]
    fn keys_are_rotated_upwards_only_and_by_the_release_root_only() {
        let pinned = Trust::parse(&numbered(3, &[key(1)], &[key(2)])).unwrap();
        let rotate = |sequence, seed| {
            pinned.rotate(&vouched(FILE, numbered(sequence, &[key(seed)], &[key(2)])))
        };
        let next = rotate(4, 9).unwrap().unwrap();
        assert_eq!(next.sequence(), 4);
        assert_eq!(next.consent_keys().collect::<Vec<_>>(), [key(9).keyid]);
        assert!(rotate(3, 1).unwrap().is_none(), "the same file is no news");
        assert!(matches!(rotate(3, 9), Err(ConsentKeysError::Fork { sequence: 3 })));
        assert!(matches!(rotate(2, 9), Err(ConsentKeysError::Backwards { offered: 2, pinned: 3 })));
        let other = vouched("release-1.json", numbered(4, &[key(9)], &[key(2)]));
        assert!(matches!(pinned.rotate(&other), Err(ConsentKeysError::OtherTarget { .. })));
    }
}
