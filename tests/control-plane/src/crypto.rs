//! Digests and random bytes, both from aws-lc-rs.

use std::io;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};

use crate::store::StoreError;

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// SHA-256, hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}

/// Random bytes of the operating system's quality.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| StoreError::File {
        action: "read",
        path: "the system's random source".into(),
        source: io::Error::other("no random bytes"),
    })?;
    Ok(bytes)
}
