//! The pinned keys of the support portal: which signatures on grants and leases count.
//!
//! Read from `consent-keys.json` in the trust folder, installed with the agent. The control plane's
//! channel has no way to change them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::envelope::{KeyError, KeyRing};

/// Name of the file in the trust folder.
pub const FILE: &str = "consent-keys.json";

/// `consent-keys.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentKeys {
    /// Always 1.
    pub version: u32,
    /// Keys that may sign grants.
    pub consent: Vec<PinnedKey>,
    /// Keys that may sign leases; a grant names the one that counts for it.
    pub status: Vec<PinnedKey>,
}

/// One Ed25519 public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedKey {
    /// Name of the key in envelopes: the first 16 hex digits of the SHA-256 of the raw public key.
    pub keyid: String,
    /// Raw 32 bytes, standard base64.
    pub ed25519: String,
}

/// Why `consent-keys.json` can't be used; without it no log leaves.
#[derive(Debug, Error)]
pub enum ConsentKeysError {
    /// Not the JSON this build knows.
    #[error("{FILE} is not valid; it needs version, consent[] and status[]")]
    Json(#[source] serde_json::Error),
    /// Another version.
    #[error("{FILE} has version {found}; this agent reads version 1")]
    Version {
        /// The one it has.
        found: u32,
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
}

/// Pinned keys, checked.
#[derive(Clone, Debug)]
pub struct Trust {
    pub(super) consent: KeyRing,
    pub(super) status: KeyRing,
}

impl Trust {
    /// Reads the content of `consent-keys.json`.
    ///
    /// # Errors
    /// [`ConsentKeysError`] names the list and the key.
    pub fn parse(json: &[u8]) -> Result<Self, ConsentKeysError> {
        let keys: ConsentKeys = serde_json::from_slice(json).map_err(ConsentKeysError::Json)?;
        if keys.version != 1 {
            return Err(ConsentKeysError::Version { found: keys.version });
        }
        let ring = |list, keys: &[PinnedKey]| {
            KeyRing::new(keys).map_err(|source| ConsentKeysError::Key { list, source })
        };
        let trust = Self {
            consent: ring("consent", &keys.consent)?,
            status: ring("status", &keys.status)?,
        };
        match keys.consent.iter().find(|key| trust.status.only(&key.keyid).is_some()) {
            Some(shared) => Err(ConsentKeysError::SharedKey { keyid: shared.keyid.clone() }),
            None => Ok(trust),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::SigningKey;

    fn file(consent: &[PinnedKey], status: &[PinnedKey]) -> Vec<u8> {
        let keys = ConsentKeys { version: 1, consent: consent.into(), status: status.into() };
        serde_json::to_vec(&keys).unwrap()
    }

    fn key(seed: u8) -> PinnedKey {
        SigningKey::from_seed(&[seed; 32]).unwrap().pinned()
    }

    #[test]
    fn separate_keys_are_read() {
        assert!(Trust::parse(&file(&[key(1)], &[key(2), key(3)])).is_ok());
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
    }
}
