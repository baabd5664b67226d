//! Sealing: a snapshot that only the ticket's recipient can read, and only when it is complete.
//!
//! Between [`crate::archive`] and [`crate::transfer`]. The body is AES-256-GCM in STREAM
//! construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): segments of
//! [`SEGMENT_PLAINTEXT`] bytes, each with its tag, so that it can be written and checked in
//! bounded memory and a removed, reordered or repeated segment is found.
//!
//! | part | value |
//! |---|---|
//! | nonce, 12 bytes | 7 × `00`, segment number (u32, big endian, from 0), `01` in the last segment, else `00` |
//! | associated data | the header's canonical bytes ([`Header::to_bytes`]) |
//! | file key | 32 random bytes, made for this snapshot and used for nothing else; hence the fixed nonce prefix |
//! | wrapped key | HPKE base mode (RFC 9180), DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; `info` = SHA-256 of the header's bytes, empty `aad` |
//!
//! The last segment holds 1 to 65,536 bytes of plaintext; it is empty only when the whole body is.
//! The wrapped key travels after the last byte: what was cut short can't be opened by anybody.
//! Vectors: `proto/vectors/seal-v1.json`.

mod header;
mod recipient;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use mendix_agent_proto::limits::{MAX_SNAPSHOT_CHUNK, SEGMENT_PLAINTEXT};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

pub use self::{
    header::{Header, MAX_HEADER},
    recipient::{
        ENCAPSULATED_KEY, RecipientPrivateKey, RecipientPublicKey, WRAPPED_KEY, WrappedKey,
        generate_recipient_keypair, unwrap_key, wrap_key,
    },
};

/// The only format this build writes and reads.
pub const VERSION: u32 = 1;
/// Length of the tag at the end of each segment.
pub const TAG: usize = 16;

/// Why something could not be sealed or opened.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SealError {
    /// A header field holds what it may not.
    #[error("header field {field}: {rule}")]
    Header {
        /// The field.
        field: &'static str,
        /// What it may hold.
        rule: &'static str,
    },
    /// Not a header, or not in its canonical form.
    #[error("the bytes are not a canonical snapshot header of version {VERSION}")]
    HeaderBytes,
    /// Not a usable X25519 public key.
    #[error("the recipient key is not a usable X25519 public key (standard base64 of 32 bytes)")]
    Recipient,
    /// A segment, or the order of segments, is not what was sealed.
    #[error("segment {segment} does not belong here: altered, cut, reordered or another header")]
    Segment {
        /// Its number, from 0.
        segment: u32,
    },
    /// The wrapped key can't be opened with this private key and header.
    #[error("the wrapped key does not open: another recipient, another header, or altered")]
    WrappedKey,
    /// More than 2³² segments.
    #[error("the body is longer than the format can hold")]
    TooLong,
    /// The crypto library refused (no randomness, no memory).
    #[error("the crypto library failed")]
    Crypto,
}

/// Key of one snapshot's body. Wiped when it goes out of scope.
pub struct FileKey(Zeroizing<[u8; 32]>);

impl FileKey {
    /// A new key from the system's randomness (the one input of this module that is not passed in;
    /// a caller that passes bytes is [`FileKey::from_bytes`]).
    ///
    /// # Errors
    /// [`SealError::Crypto`] when there is no randomness.
    pub fn generate() -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(bytes.as_mut()).map_err(|_| SealError::Crypto)?;
        Ok(Self(bytes))
    }

    /// A key with known bytes. Never use one for two bodies: the nonces would repeat.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    fn cipher(&self) -> Result<LessSafeKey, SealError> {
        let key = UnboundKey::new(&AES_256_GCM, self.0.as_ref()).map_err(|_| SealError::Crypto)?;
        Ok(LessSafeKey::new(key))
    }
}

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileKey(..)")
    }
}

fn nonce(segment: u32, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[7..11].copy_from_slice(&segment.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// Turns plaintext into sealed segments.
///
/// Holds at most one segment. It is used up by [`Sealer::finish`]; without that there is no last
/// segment, and what was written can't be opened as a whole.
pub struct Sealer {
    cipher: LessSafeKey,
    header: Vec<u8>,
    buffer: Vec<u8>,
    segment: u32,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("segment", &self.segment).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Begins a body.
    ///
    /// # Errors
    /// [`SealError::Crypto`] when the key can't be set up.
    pub fn new(key: &FileKey, header: &Header) -> Result<Self, SealError> {
        Ok(Self {
            cipher: key.cipher()?,
            header: header.to_bytes(),
            buffer: Vec::with_capacity(MAX_SNAPSHOT_CHUNK),
            segment: 0,
        })
    }

    /// Takes plaintext; full segments are appended to `out`, each at most
    /// [`MAX_SNAPSHOT_CHUNK`] bytes. A full segment is kept back until it is known not to be the
    /// last.
    ///
    /// # Errors
    /// [`SealError::TooLong`] or [`SealError::Crypto`]; the sealer must then be dropped.
    pub fn push(&mut self, mut plaintext: &[u8], out: &mut Vec<Vec<u8>>) -> Result<(), SealError> {
        while !plaintext.is_empty() {
            if self.buffer.len() == SEGMENT_PLAINTEXT {
                out.push(self.seal(false)?);
            }
            let take = plaintext.len().min(SEGMENT_PLAINTEXT - self.buffer.len());
            let (now, later) = plaintext.split_at(take);
            self.buffer.extend_from_slice(now);
            plaintext = later;
        }
        Ok(())
    }

    /// The last segment.
    ///
    /// # Errors
    /// As for [`Sealer::push`].
    pub fn finish(mut self) -> Result<Vec<u8>, SealError> {
        self.seal(true)
    }

    fn seal(&mut self, last: bool) -> Result<Vec<u8>, SealError> {
        let next = if last {
            self.segment
        } else {
            self.segment.checked_add(1).ok_or(SealError::TooLong)?
        };
        let mut data = std::mem::replace(&mut self.buffer, Vec::with_capacity(MAX_SNAPSHOT_CHUNK));
        self.cipher
            .seal_in_place_append_tag(nonce(self.segment, last), Aad::from(&self.header), &mut data)
            .map_err(|_| SealError::Crypto)?;
        self.segment = next;
        Ok(data)
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

/// Turns a sealed body back into plaintext; input may be cut anywhere.
///
/// Plaintext of a segment is authentic when it comes out, but complete only after
/// [`Opener::finish`] said so.
pub struct Opener {
    cipher: LessSafeKey,
    header: Vec<u8>,
    buffer: Vec<u8>,
    segment: u32,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("segment", &self.segment).finish_non_exhaustive()
    }
}

impl Opener {
    /// Begins to read a body.
    ///
    /// # Errors
    /// [`SealError::Crypto`] when the key can't be set up.
    pub fn new(key: &FileKey, header: &Header) -> Result<Self, SealError> {
        Ok(Self {
            cipher: key.cipher()?,
            header: header.to_bytes(),
            buffer: Vec::with_capacity(MAX_SNAPSHOT_CHUNK),
            segment: 0,
        })
    }

    /// Takes sealed bytes and appends plaintext to `out`.
    ///
    /// # Errors
    /// [`SealError::Segment`] at the first one that is not what was sealed.
    pub fn push(&mut self, mut sealed: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        while !sealed.is_empty() {
            if self.buffer.len() == MAX_SNAPSHOT_CHUNK {
                self.open(false, out)?;
            }
            let take = sealed.len().min(MAX_SNAPSHOT_CHUNK - self.buffer.len());
            let (now, later) = sealed.split_at(take);
            self.buffer.extend_from_slice(now);
            sealed = later;
        }
        Ok(())
    }

    /// Opens the last segment: after this the body is known to be complete.
    ///
    /// # Errors
    /// [`SealError::Segment`] when the body was cut short or the last segment altered.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), SealError> {
        // A body has one form: an empty last segment stands for an empty body only.
        if self.segment > 0 && self.buffer.len() <= TAG {
            return Err(SealError::Segment { segment: self.segment });
        }
        self.open(true, out)
    }

    fn open(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), SealError> {
        let segment = self.segment;
        let plaintext = self
            .cipher
            .open_in_place(nonce(segment, last), Aad::from(&self.header), &mut self.buffer)
            .map_err(|_| SealError::Segment { segment })?;
        out.extend_from_slice(plaintext);
        self.buffer.clear();
        if !last {
            self.segment = segment.checked_add(1).ok_or(SealError::TooLong)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
