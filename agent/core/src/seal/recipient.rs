//! Who can read a snapshot: the ticket's key pair, and the body's key wrapped for it.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as HPKE,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};
use zeroize::Zeroizing;

use super::{FileKey, Header, SealError, TAG};

/// Length of an encapsulated X25519 key.
pub const ENCAPSULATED_KEY: usize = 32;
/// Length of the wrapped file key (key and tag).
pub const WRAPPED_KEY: usize = 32 + TAG;

/// Public key of a ticket's recipient, known to be usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientPublicKey([u8; 32]);

impl RecipientPublicKey {
    /// Reads the form a grant carries (standard base64) and tries it once: keys of low order, with
    /// which anybody could read the snapshot, are refused here and not after collecting.
    ///
    /// # Errors
    /// [`SealError::Recipient`].
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let raw: [u8; 32] = STANDARD
            .decode(text)
            .ok()
            .and_then(|raw| raw.try_into().ok())
            .ok_or(SealError::Recipient)?;
        HPKE.setup_sealer(&[], &HpkePublicKey(raw.to_vec())).map_err(|_| SealError::Recipient)?;
        Ok(Self(raw))
    }

    /// The form a grant carries.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }
}

/// Private key of a ticket's recipient; wiped when dropped.
pub struct RecipientPrivateKey(HpkePrivateKey);

impl RecipientPrivateKey {
    /// From its 32 raw bytes.
    pub fn from_bytes(raw: &[u8; 32]) -> Self {
        Self(HpkePrivateKey::from(raw.to_vec()))
    }

    /// The 32 raw bytes, for whoever keeps it.
    pub fn secret_bytes(&self) -> &[u8] {
        self.0.secret_bytes()
    }
}

impl std::fmt::Debug for RecipientPrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecipientPrivateKey(..)")
    }
}

/// A new key pair for a ticket; the public half goes into its grant.
///
/// # Errors
/// [`SealError::Crypto`] when there is no randomness.
pub fn generate_recipient_keypair() -> Result<(RecipientPublicKey, RecipientPrivateKey), SealError>
{
    let (public, private) = HPKE.generate_key_pair().map_err(|_| SealError::Crypto)?;
    let public = public.0.try_into().map_err(|_| SealError::Crypto)?;
    Ok((RecipientPublicKey(public), RecipientPrivateKey(private)))
}

/// A file key that only the recipient can unwrap, for one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// HPKE's encapsulated key, [`ENCAPSULATED_KEY`] bytes.
    pub encapsulated_key: Vec<u8>,
    /// The sealed file key, [`WRAPPED_KEY`] bytes.
    pub wrapped_key: Vec<u8>,
}

/// Wraps a file key for the recipient. To be called last, when everything has been acknowledged.
///
/// # Errors
/// [`SealError::Recipient`] when the key can't be used.
pub fn wrap_key(
    key: &FileKey,
    header: &Header,
    recipient: &RecipientPublicKey,
) -> Result<WrappedKey, SealError> {
    let (EncapsulatedSecret(encapsulated_key), wrapped_key) = HPKE
        .seal(&header.info(), &[], key.0.as_ref(), &HpkePublicKey(recipient.0.to_vec()))
        .map_err(|_| SealError::Recipient)?;
    Ok(WrappedKey { encapsulated_key, wrapped_key })
}

/// Unwraps a file key.
///
/// # Errors
/// [`SealError::WrappedKey`] when it was made for another recipient or header, or altered.
pub fn unwrap_key(
    wrapped: &WrappedKey,
    header: &Header,
    recipient: &RecipientPrivateKey,
) -> Result<FileKey, SealError> {
    let encapsulated = EncapsulatedSecret(wrapped.encapsulated_key.clone());
    let raw = HPKE
        .open(&encapsulated, &header.info(), &[], &wrapped.wrapped_key, &recipient.0)
        .map_err(|_| SealError::WrappedKey)?;
    let raw = Zeroizing::new(raw);
    <[u8; 32]>::try_from(raw.as_slice()).map(FileKey::from_bytes).map_err(|_| SealError::WrappedKey)
}
