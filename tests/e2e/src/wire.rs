//! A plain tonic channel to the control plane, for measurements and tests that play the part of an
//! agent without being one.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection that verifies the server against `ca` (PEM) and shows no certificate.
///
/// # Errors
/// When the CA can't be read or the server can't be reached.
pub async fn server_authenticated(address: SocketAddr, ca: &[u8]) -> Result<Channel> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).context("read the channel CA")?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    connect(address, Arc::new(tls)).await
}

/// A connection with this TLS configuration.
///
/// # Errors
/// When the server can't be reached.
pub async fn connect(address: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Result<Channel> {
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tokio_rustls::TlsConnector::from(tls.clone());
        Box::pin(async move {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::IpAddress(address.ip().into());
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        })
    });
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?;
    Channel::connect(connector, endpoint).await.context("connect to the control plane")
}
