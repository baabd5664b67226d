//! The pinned keys of the support portal: which signatures on grants and leases count.
//!
//! Read from `consent-keys.json` in the trust folder, installed with the agent. The control plane's
//! channel has no way to change them.

use serde::{Deserialize, Serialize};

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
