//! DSSE envelopes: how a statement of the support portal reaches the agent unaltered.
//!
//! First step of the log path: a grant and a lease arrive as envelopes through a channel that is
//! not trusted with them. [`verify`] checks the signature over the exact bytes that were signed and
//! parses the payload only afterwards; only it makes a [`Signed`]. The publishing side uses
//! [`SigningKey::sign`].
//!
//! The form is DSSE version 1 (secure-systems-lab/dsse): a JSON object with `payload`,
//! `payloadType` and `signatures[{keyid, sig}]`; what is signed is the pre-authentication encoding
//! ([`pae`]). Stricter than DSSE asks for: unknown and duplicate fields, trailing bytes, the
//! URL-safe base64 alphabet and more than [`MAX_SIGNATURES`] signatures are refused.

use std::ops::Deref;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use zeroize::Zeroizing;

/// Signatures an envelope may carry; each costs one check at most.
pub const MAX_SIGNATURES: usize = 8;

/// Why an envelope was not accepted.
#[derive(Debug, Error)]
pub enum EnvelopeError {
    /// Larger than its kind may be.
    #[error("the envelope has {size} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit of its kind.
        limit: usize,
    },
    /// Not a DSSE envelope, or not exactly one.
    #[error("the bytes are not a DSSE envelope")]
    Malformed(#[source] serde_json::Error),
    /// A base64 field is not standard base64.
    #[error("field {field} of the envelope is not standard base64")]
    Base64 {
        /// The field.
        field: &'static str,
    },
    /// Signed, perhaps, but for another purpose.
    #[error("the envelope holds {found:?}; {expected:?} was expected")]
    PayloadType {
        /// What the envelope says.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// None, or more than [`MAX_SIGNATURES`].
    #[error("the envelope has {count} signatures; 1 to {MAX_SIGNATURES} are accepted")]
    SignatureCount {
        /// How many.
        count: usize,
    },
    /// No signature by a key that is pinned for this purpose.
    #[error("no valid signature by a pinned key; the envelope names {keyids:?}")]
    NotSigned {
        /// Key ids in the envelope (at most [`MAX_SIGNATURES`]).
        keyids: Vec<String>,
    },
    /// Correctly signed, but not what this build understands.
    #[error("the signed payload is not a {expected} this agent understands")]
    Payload {
        /// Payload type.
        expected: &'static str,
        /// Where parsing stopped.
        #[source]
        source: serde_json::Error,
    },
}

/// Why a pinned key can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Not base64 of 32 bytes.
    #[error("key {keyid}: `ed25519` must be the standard base64 of 32 bytes")]
    Encoding {
        /// Its name.
        keyid: String,
    },
    /// The name is not derived from the key.
    #[error("key {keyid}: its name should be {expected}, from the SHA-256 of the public key")]
    Name {
        /// The name it has.
        keyid: String,
        /// The name it should have.
        expected: String,
    },
    /// Pinned twice.
    #[error("key {keyid} is listed twice")]
    Duplicate {
        /// Its name.
        keyid: String,
    },
    /// Not an Ed25519 private key in PKCS#8.
    #[error("the bytes are not an Ed25519 private key in PKCS#8")]
    Private,
}

/// A value that was parsed from bytes a pinned key signed. Only [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct Signed<T> {
    value: T,
    keyid: String,
    envelope_sha256: [u8; 32],
}

impl<T> Signed<T> {
    /// Name of the key whose signature was valid.
    pub fn keyid(&self) -> &str {
        &self.keyid
    }

    /// SHA-256 of the envelope as it was received.
    pub fn envelope_sha256(&self) -> &[u8; 32] {
        &self.envelope_sha256
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
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

/// The keys whose signatures count for one purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRing {
    keys: Vec<(String, [u8; 32])>,
}

impl KeyRing {
    /// Reads pinned keys.
    ///
    /// # Errors
    /// When a key is not 32 bytes of base64, its name does not follow from it ([`keyid`]), or it is
    /// listed twice.
    pub fn new(pinned: &[PinnedKey]) -> Result<Self, KeyError> {
        let mut keys: Vec<(String, [u8; 32])> = Vec::with_capacity(pinned.len());
        for key in pinned {
            let public: [u8; 32] = STANDARD
                .decode(&key.ed25519)
                .ok()
                .and_then(|raw| raw.try_into().ok())
                .ok_or_else(|| KeyError::Encoding { keyid: key.keyid.clone() })?;
            let expected = keyid(&public);
            if key.keyid != expected {
                return Err(KeyError::Name { keyid: key.keyid.clone(), expected });
            }
            if keys.iter().any(|(known, _)| *known == expected) {
                return Err(KeyError::Duplicate { keyid: expected });
            }
            keys.push((expected, public));
        }
        Ok(Self { keys })
    }

    /// A ring with the key of that name alone; none if it is not pinned.
    pub fn only(&self, keyid: &str) -> Option<Self> {
        let key = self.keys.iter().find(|(known, _)| known == keyid)?;
        Some(Self { keys: vec![key.clone()] })
    }

    /// Names of the keys.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(keyid, _)| keyid.as_str())
    }

    fn find(&self, keyid: &str) -> Option<&[u8; 32]> {
        self.keys.iter().find(|(known, _)| known == keyid).map(|(_, key)| key)
    }
}

/// Name of a key in envelopes: the first 16 hex digits of the SHA-256 of the raw public key.
pub fn keyid(public: &[u8; 32]) -> String {
    hex::encode(&digest(&SHA256, public).as_ref()[..8])
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    keyid: String,
    sig: String,
}

/// Checks an envelope and parses what it carries.
///
/// One valid signature by one key of `keys` is needed; the first wins, and the same signature twice
/// is still one. The payload is parsed only after that, from the bytes that were signed; `T` has to
/// deny unknown fields (serde refuses duplicate ones by itself).
///
/// # Errors
/// [`EnvelopeError`] says which step refused; nothing of the payload is in it before the signature
/// was valid.
pub fn verify<T: DeserializeOwned>(
    envelope: &[u8],
    payload_type: &'static str,
    limit: usize,
    keys: &KeyRing,
) -> Result<Signed<T>, EnvelopeError> {
    if envelope.len() > limit {
        return Err(EnvelopeError::TooLarge { size: envelope.len(), limit });
    }
    let wire: Wire = serde_json::from_slice(envelope).map_err(EnvelopeError::Malformed)?;
    if wire.payload_type != payload_type {
        return Err(EnvelopeError::PayloadType {
            found: wire.payload_type,
            expected: payload_type,
        });
    }
    if wire.signatures.is_empty() || wire.signatures.len() > MAX_SIGNATURES {
        return Err(EnvelopeError::SignatureCount { count: wire.signatures.len() });
    }
    let payload =
        STANDARD.decode(&wire.payload).map_err(|_| EnvelopeError::Base64 { field: "payload" })?;
    let message = pae(payload_type, &payload);
    let mut signer = None;
    for signature in &wire.signatures {
        let Some(public) = keys.find(&signature.keyid) else { continue };
        let sig =
            STANDARD.decode(&signature.sig).map_err(|_| EnvelopeError::Base64 { field: "sig" })?;
        if UnparsedPublicKey::new(&ED25519, public).verify(&message, &sig).is_ok() {
            signer = Some(signature.keyid.clone());
            break;
        }
    }
    let Some(keyid) = signer else {
        let keyids = wire.signatures.into_iter().map(|signature| signature.keyid).collect();
        return Err(EnvelopeError::NotSigned { keyids });
    };
    let value = serde_json::from_slice(&payload)
        .map_err(|source| EnvelopeError::Payload { expected: payload_type, source })?;
    Ok(Signed { value, keyid, envelope_sha256: sha256(envelope) })
}

/// DSSE's pre-authentication encoding: what is signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// SHA-256 of some bytes; how an envelope is named by leases, headers and receipts.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// A private key of the publishing side.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("keyid", &self.keyid()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key as PKCS#8 (version 2), to be kept by its owner.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate_pkcs8() -> Result<Zeroizing<Vec<u8>>, aws_lc_rs::error::Unspecified> {
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map(|document| Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Reads a key from PKCS#8.
    ///
    /// # Errors
    /// [`KeyError::Private`] when it is none, or the public half does not belong to it.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| KeyError::Private)?;
        Self::new(pair)
    }

    /// A key from its 32-byte seed (RFC 8032); for keys that are derived, and for tests.
    ///
    /// # Errors
    /// [`KeyError::Private`] when the seed can't be used.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Private)?;
        Self::new(pair)
    }

    fn new(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Private)?;
        Ok(Self { pair, public })
    }

    /// Name of the key.
    pub fn keyid(&self) -> String {
        keyid(&self.public)
    }

    /// The public half, as an agent pins it.
    pub fn pinned(&self) -> PinnedKey {
        PinnedKey { keyid: self.keyid(), ed25519: STANDARD.encode(self.public) }
    }

    /// An envelope around `payload`, with this key's signature. The payload is signed as it is.
    pub fn sign(&self, payload_type: &str, payload: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&pae(payload_type, payload));
        let wire = Wire {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.into(),
            signatures: vec![WireSignature {
                keyid: self.keyid(),
                sig: STANDARD.encode(signature.as_ref()),
            }],
        };
        // Strings and a vector of strings: serialisation has no way to fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
