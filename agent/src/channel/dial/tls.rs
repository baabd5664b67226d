//! TLS as the channel uses it: 1.3 only, ALPN h2, one crypto provider, trust only in the channel CA.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use thiserror::Error;

/// ALPN name of HTTP/2.
pub(crate) const H2: &[u8] = b"h2";
/// File in the trust folder with the CA certificates of the channel, PEM.
pub(crate) const CHANNEL_CA: &str = "channel-ca.pem";

/// Why trust in the channel could not be set up.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The file can't be read.
    #[error("{path}: can't read the channel's CA certificates")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path}: no CA certificate in it; put the control plane's CA there as PEM")]
    Empty {
        /// The file.
        path: String,
    },
    /// A certificate can't be a trust anchor, or the configuration is impossible.
    #[error("TLS configuration")]
    Tls(
        #[from]
        #[source]
        rustls::Error,
    ),
}

/// The crypto provider of everything the agent does.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Reads the channel CA from the trust folder.
///
/// # Errors
/// When the file can't be read, or holds no certificate that can be a trust anchor.
pub(crate) fn channel_ca(trust_dir: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let file = trust_dir.join(CHANNEL_CA);
    let path = file.display().to_string();
    let anchors = CertificateDer::pem_file_iter(&file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TrustError::Read { path: path.clone(), source })?;
    if anchors.is_empty() {
        return Err(TrustError::Empty { path });
    }
    roots(&anchors)?;
    Ok(anchors)
}

/// Trust anchors as rustls wants them. All must be usable: one that is not is an error, not less
/// trust than was asked for.
pub(crate) fn roots(anchors: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut store = RootCertStore::empty();
    for anchor in anchors {
        store.add(anchor.clone().into_owned())?;
    }
    Ok(Arc::new(store))
}

/// For connections on which only the server proves who it is (enrolment).
pub(crate) fn server_authenticated(
    anchors: &[CertificateDer<'_>],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(anchors)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(Arc::new(config))
}

/// For connections on which both sides do. Keep one per identity: it holds the tickets by which
/// later connections resume.
pub(crate) fn mutual(
    anchors: &[CertificateDer<'_>],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(anchors)?)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(Arc::new(config))
}
