//! The channel CA: who may be connected. It issues the server's certificate and those of agents,
//! and nothing else; it can't sign a release or a consent.
//!
//! It is rotated in three steps ([`rotation`]), between which agents learn of the new one: there are
//! two CAs for a while, of which one issues and both are trusted.

pub mod rotation;

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use mendix_agent_proto::{limits, v1};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    crypto,
    store::{Issued, Store, StoreError, files},
};

/// How long the CA itself is valid.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long the server's certificate is valid; a new one is issued at each start.
const SERVER_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// Certificates are valid from a little earlier, for clocks that are a little behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// Why a certificate could not be issued.
#[derive(Debug, Error)]
pub enum PkiError {
    /// State can't be read or written.
    #[error("the channel CA's files")]
    Store(#[from] StoreError),
    /// A key or certificate of the CA can't be used.
    #[error("{what}")]
    Crypto {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
    /// The PEM file holds no certificate.
    #[error("{} holds no certificate", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
    },
    /// The CSR can't be accepted.
    #[error("certificate request: {0}")]
    Csr(String),
}

fn crypto_error(what: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Crypto { what, source }
}

/// Names under which agents reach the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
}

/// The CA with its key.
pub(crate) struct ChannelCa {
    issuer: Issuer<'static, KeyPair>,
    /// Name of the one that issues, as its files are called.
    name: String,
    /// All that are trusted, the one that issues first.
    anchors: Vec<CertificateDer<'static>>,
    server_key: KeyPair,
}

/// A CSR whose signature and subject were checked.
#[derive(Debug)]
pub(crate) struct CheckedCsr {
    cluster_uid: String,
    public_key: rcgen::PublicKey,
    /// SHA-256 of the SubjectPublicKeyInfo, hex.
    pub(crate) spki_sha256: String,
}

impl ChannelCa {
    /// Makes a CA and the server's key.
    pub(crate) fn create(store: &Store) -> Result<(), PkiError> {
        let dir = store.channel_ca_dir();
        rotation::make(&dir, rotation::FIRST)?;
        let server = KeyPair::generate().map_err(crypto_error("make the server's key"))?;
        let owner = files::Access::Owner;
        files::write(&dir.join("server.key.pem"), server.serialize_pem().as_bytes(), owner)?;
        rotation::publish(store, &rotation::Names::default())
    }

    /// Reads the CA.
    pub(crate) fn load(store: &Store) -> Result<Self, PkiError> {
        let dir = store.channel_ca_dir();
        let names = rotation::Names::read(store)?;
        let anchors = names.all().map(|name| rotation::certificate(&dir, name));
        let anchors = anchors.collect::<Result<Vec<_>, _>>()?;
        let key = load_key(&rotation::key_file(&dir, &names.issuing))?;
        let issuer = Issuer::from_ca_cert_der(&anchors[0], key)
            .map_err(crypto_error("read the CA's certificate"))?;
        let server_key = load_key(&dir.join("server.key.pem"))?;
        Ok(Self { issuer, name: names.issuing, anchors, server_key })
    }

    /// The trust anchors, of agents and of the server: more than one while the CA is rotated.
    pub(crate) fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.anchors
    }

    /// A fresh server certificate for these names. The key stays the same, so that a pin of it
    /// stays good.
    pub(crate) fn server_identity(
        &self,
        names: &ServerNames,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), PkiError> {
        let mut params =
            CertificateParams::new(names.dns.clone()).map_err(crypto_error("name the server"))?;
        params.subject_alt_names.extend(names.ips.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Mendix reference control plane");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_lifetime(&mut params, SERVER_LIFETIME);
        let certificate = params
            .signed_by(&self.server_key, &self.issuer)
            .map_err(crypto_error("sign the server's certificate"))?;
        let key = PrivatePkcs8KeyDer::from(self.server_key.serialize_der());
        Ok((certificate.der().clone(), key.into()))
    }

    /// Issues a certificate for an agent. Of the request only the key and the cluster's UID are
    /// taken; everything else is ours to say.
    pub(crate) fn issue(
        &self,
        csr: &CheckedCsr,
        lifetime: Duration,
    ) -> Result<(v1::IssuedCertificate, Issued), PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, csr.cluster_uid.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let (not_before, not_after) = set_lifetime(&mut params, lifetime);
        let leaf = params
            .signed_by(&csr.public_key, &self.issuer)
            .map_err(crypto_error("sign the agent's certificate"))?;
        let issued = v1::IssuedCertificate {
            chain_der: vec![leaf.der().to_vec()],
            trust_anchors_der: self.anchors.iter().map(|anchor| anchor.to_vec()).collect(),
            not_before: Some(not_before.into()),
            not_after: Some(not_after.into()),
        };
        let record = Issued {
            leaf_sha256: crypto::sha256_hex(leaf.der()),
            spki_sha256: csr.spki_sha256.clone(),
            not_after: timestamp(not_after),
            ca: self.name.clone(),
            revoked: false,
        };
        Ok((issued, record))
    }
}

/// Checks a CSR: size, form, its own signature, and that its subject is this cluster and nothing else.
pub(crate) fn check_csr(csr_der: &[u8], cluster_uid: &str) -> Result<CheckedCsr, PkiError> {
    if csr_der.len() > limits::MAX_CERTIFICATE {
        return Err(PkiError::Csr(format!("over {} bytes", limits::MAX_CERTIFICATE)));
    }
    let csr =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(|error| PkiError::Csr(error.to_string()))?;
    match csr.params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(name)) if name == cluster_uid => {}
        Some(DnValue::PrintableString(name)) if name.as_str() == cluster_uid => {}
        _ => {
            return Err(PkiError::Csr(format!(
                "its subject's CN is not the cluster {cluster_uid}"
            )));
        }
    }
    let spki_sha256 = crypto::sha256_hex(&csr.public_key.subject_public_key_info());
    Ok(CheckedCsr { cluster_uid: cluster_uid.to_owned(), public_key: csr.public_key, spki_sha256 })
}

fn load_key(path: &std::path::Path) -> Result<KeyPair, PkiError> {
    let pem = String::from_utf8_lossy(&files::read(path)?).into_owned();
    KeyPair::from_pem(&pem).map_err(crypto_error("read a key of the channel CA"))
}

fn set_lifetime(params: &mut CertificateParams, lifetime: Duration) -> (SystemTime, SystemTime) {
    // X.509 has whole seconds; what is reported must be what the certificate says.
    let now = std::time::UNIX_EPOCH
        + Duration::from_secs(
            SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs(),
        );
    let (not_before, not_after) = (now - BACKDATED, now + lifetime);
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    (not_before, not_after)
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}
