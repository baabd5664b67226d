//! The two types that carry "somebody checked this" through the patch path.

use std::ops::Deref;

/// Bytes that the release root (TUF) vouches for.
///
/// The TUF client needs I/O and lives in `mendix-agent`; it is the only caller of
/// [`Authentic::vouched_by_release_root`] (`clippy.toml` refuses any other).
#[derive(Clone, Debug)]
pub struct Authentic {
    target: String,
    sha256: [u8; 32],
    bytes: Vec<u8>,
}

impl Authentic {
    /// States that `bytes` are the TUF target `target`, with the digest that signed metadata gives.
    pub fn vouched_by_release_root(target: String, sha256: [u8; 32], bytes: Vec<u8>) -> Self {
        Self { target, sha256, bytes }
    }

    /// Name of the TUF target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// SHA-256 of the bytes.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The bytes as they were signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A value that was parsed from [`Authentic`] bytes by a strict parser. Only this module's siblings
/// can make one.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    sha256: [u8; 32],
}

impl<T> Verified<T> {
    pub(super) fn new(value: T, sha256: [u8; 32]) -> Self {
        Self { value, sha256 }
    }

    /// The value by itself, for what is made of it next.
    pub(super) fn into_inner(self) -> T {
        self.value
    }

    /// SHA-256 of the signed bytes this was parsed from.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
