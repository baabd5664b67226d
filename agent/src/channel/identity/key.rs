//! The private key: ECDSA P-256, made here, wiped when it is dropped.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SignatureAlgorithm, SigningKey,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

/// A private key. Cloning shares it; the last one wipes it.
#[derive(Clone)]
pub struct Key(Arc<Material>);

struct Material {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// What can go wrong with a key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// No key could be made.
    #[error("no key could be made: the system's source of randomness failed")]
    Generate,
    /// The bytes are not a P-256 key in PKCS#8.
    #[error("not a P-256 private key in PKCS#8")]
    NotP256,
    /// The certificate request could not be made.
    #[error("the certificate request could not be made")]
    Request(#[source] rcgen::Error),
}

impl Key {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`KeyError::Generate`].
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| KeyError::Generate)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok(Self(Arc::new(Material { pkcs8, pair })))
    }

    /// Reads a key as [`Key::pkcs8`] gave it.
    ///
    /// # Errors
    /// [`KeyError::NotP256`].
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8)
            .map_err(|_| KeyError::NotP256)?;
        Ok(Self(Arc::new(Material { pkcs8, pair })))
    }

    /// Reads a P-256 key as others write it: PKCS#8 or SEC 1, DER.
    ///
    /// # Errors
    /// [`KeyError::NotP256`].
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map_err(|_| KeyError::NotP256)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::NotP256)?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok(Self(Arc::new(Material { pkcs8, pair })))
    }

    /// The key, PKCS#8, DER. For the agent's own Secret, and nothing else.
    pub(in crate::channel) fn pkcs8(&self) -> &[u8] {
        &self.0.pkcs8
    }

    /// The key for TLS.
    pub(super) fn to_tls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8().to_vec()))
    }

    /// The public key, an uncompressed point.
    pub fn public_point(&self) -> &[u8] {
        self.0.pair.public_key().as_ref()
    }

    /// A PKCS#10 request, DER, whose common name is the cluster's UID.
    ///
    /// # Errors
    /// [`KeyError::Request`].
    pub fn request(&self, cluster_uid: &str) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, cluster_uid);
        let request = params.serialize_request(self).map_err(KeyError::Request)?;
        Ok(request.der().to_vec())
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.public_point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0
            .pair
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| rcgen::Error::RingUnspecified)
    }
}
