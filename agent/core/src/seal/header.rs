//! What a sealed body belongs to, in the one form of bytes that it is bound to.

use serde::{Deserialize, Serialize};

use super::{SealError, VERSION};
use crate::envelope::sha256;

/// Largest encoded header.
pub const MAX_HEADER: usize = 1024;

/// What a sealed body belongs to; bound to every segment and to the wrapped key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    cluster_uid: String,
    ticket_id: String,
    grant_sha256: [u8; 32],
    snapshot_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderWire {
    version: u32,
    cluster_uid: String,
    ticket_id: String,
    grant_sha256: String,
    snapshot_id: String,
}

impl Header {
    /// A header.
    ///
    /// # Errors
    /// When an id is empty, longer than 128 bytes, or holds other characters than
    /// `[A-Za-z0-9._-]`.
    pub fn new(
        cluster_uid: &str,
        ticket_id: &str,
        grant_sha256: [u8; 32],
        snapshot_id: &str,
    ) -> Result<Self, SealError> {
        let ids =
            [("cluster_uid", cluster_uid), ("ticket_id", ticket_id), ("snapshot_id", snapshot_id)];
        for (field, id) in ids {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if id.is_empty() || id.len() > 128 || !id.bytes().all(plain) {
                return Err(SealError::Header { field, rule: "1 to 128 of [A-Za-z0-9._-]" });
            }
        }
        Ok(Self {
            cluster_uid: cluster_uid.into(),
            ticket_id: ticket_id.into(),
            grant_sha256,
            snapshot_id: snapshot_id.into(),
        })
    }

    /// The canonical form: compact JSON with the fields in the order `version`, `cluster_uid`,
    /// `ticket_id`, `grant_sha256` (lower-case hex), `snapshot_id`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = HeaderWire {
            version: VERSION,
            cluster_uid: self.cluster_uid.clone(),
            ticket_id: self.ticket_id.clone(),
            grant_sha256: hex::encode(self.grant_sha256),
            snapshot_id: self.snapshot_id.clone(),
        };
        // A number and strings: serialisation has no way to fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// Reads the canonical form; any other spelling of the same content is refused.
    ///
    /// # Errors
    /// [`SealError::HeaderBytes`], or [`SealError::Header`] for a field.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() > MAX_HEADER {
            return Err(SealError::HeaderBytes);
        }
        let wire: HeaderWire = serde_json::from_slice(bytes).map_err(|_| SealError::HeaderBytes)?;
        let grant: [u8; 32] = hex::decode(&wire.grant_sha256)
            .ok()
            .and_then(|raw| raw.try_into().ok())
            .ok_or(SealError::HeaderBytes)?;
        let header = Self::new(&wire.cluster_uid, &wire.ticket_id, grant, &wire.snapshot_id)?;
        if header.to_bytes() == bytes { Ok(header) } else { Err(SealError::HeaderBytes) }
    }

    /// The cluster it came from.
    pub fn cluster_uid(&self) -> &str {
        &self.cluster_uid
    }

    /// The ticket it was taken for.
    pub fn ticket_id(&self) -> &str {
        &self.ticket_id
    }

    /// SHA-256 of the grant's envelope.
    pub fn grant_sha256(&self) -> &[u8; 32] {
        &self.grant_sha256
    }

    /// The snapshot.
    pub fn snapshot_id(&self) -> &str {
        &self.snapshot_id
    }

    /// What the wrapped key is bound to.
    pub(super) fn info(&self) -> [u8; 32] {
        sha256(&self.to_bytes())
    }
}
