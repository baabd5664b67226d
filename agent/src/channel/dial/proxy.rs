//! HTTP CONNECT: asks a proxy for a tunnel to the control plane (RFC 9110, section 9.3.6).
//!
//! The proxy sees the control plane's name and port, and TLS that is not for it. Its answer is
//! judged strictly: 200 opens the tunnel, anything else is a failure with its own name.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::StatusCode;
use mendix_agent_core::session::{ProxyAnswer, ProxyNonsense};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{network::Wire, tls};
use crate::config::{Proxy, ProxyCredentials};

/// Longest wait for the proxy's answer, its own TLS included.
const PROXY_DEADLINE: Duration = Duration::from_secs(10);
/// What is read of an answer at once, bytes.
const PIECE: usize = 1024;
/// More than the words of a request around its destination and credentials, bytes.
const MAX_REQUEST_WORDS: usize = 64;
/// Largest credentials file, bytes.
const MAX_CREDENTIALS: usize = 4 * 1024;

/// Why the proxy gave no tunnel.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The credentials can't be read.
    #[error("its credentials in {} can't be used", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The CA certificates for an https proxy can't be read.
    #[error("the CA certificates for it in {} can't be used", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS with the proxy itself failed.
    #[error("TLS with the proxy itself failed")]
    Tls(#[source] io::Error),
    /// 407.
    #[error("it asks for authentication (407{}); {}", offered(schemes), if *sent { "it refused the credentials that were sent" } else { "no credentials are configured" })]
    Authentication {
        /// Whether credentials were sent.
        sent: bool,
        /// What it takes.
        schemes: Vec<String>,
    },
    /// Any other answer than 200.
    #[error("it answered {status}{} to CONNECT", reason(*status))]
    Refused {
        /// Status of the answer.
        status: u16,
    },
    /// It ended the connection.
    #[error("it gave no answer to CONNECT that can be read")]
    Broken(#[source] io::Error),
    /// What it said is no answer, or says more than one.
    #[error("it gave no answer to CONNECT that can be read")]
    Nonsense(#[from] ProxyNonsense),
    /// It answered 200, and the connection ended before the control plane said anything.
    #[error("it answered 200 to CONNECT and then ended the connection")]
    ClosedAfterConnect,
    /// It did not answer.
    #[error("no answer to CONNECT within {} s", PROXY_DEADLINE.as_secs())]
    Deadline,
}

/// Asks for a tunnel to `destination` (`host:port`) over a connection to the proxy.
pub(super) async fn tunnel(
    proxy: &Proxy,
    wire: Wire,
    destination: &str,
) -> Result<Wire, ProxyError> {
    let asked = async {
        let authorization = authorization(proxy).await?;
        let wire = match &proxy.ca_bundle {
            Some(bundle) => secured(proxy, bundle, wire).await?,
            None => wire,
        };
        connect(wire, destination, authorization).await
    };
    timeout(PROXY_DEADLINE, asked).await.map_err(|_| ProxyError::Deadline)?
}

async fn connect(
    mut wire: Wire,
    destination: &str,
    authorization: Option<SecretString>,
) -> Result<Wire, ProxyError> {
    let sent = authorization.is_some();
    let request = request(destination, authorization.as_ref());
    wire.write_all(request.as_bytes()).await.map_err(ProxyError::Broken)?;
    wire.flush().await.map_err(ProxyError::Broken)?;
    match answer(&mut wire).await? {
        ProxyAnswer::Open => Ok(wire),
        ProxyAnswer::Authentication { schemes } => {
            Err(ProxyError::Authentication { sent, schemes })
        }
        ProxyAnswer::Refused { status } => Err(ProxyError::Refused { status }),
    }
}

/// `destination` comes out of a URL, as a host and a port: it can't end a line.
fn request(destination: &str, authorization: Option<&SecretString>) -> Zeroizing<String> {
    let secret = authorization.map_or("", |value| value.expose_secret());
    // Room for all of it: a string that grew would leave what it held behind.
    let mut text = Zeroizing::new(String::with_capacity(
        MAX_REQUEST_WORDS + 2 * destination.len() + secret.len(),
    ));
    for part in ["CONNECT ", destination, " HTTP/1.1\r\nHost: ", destination, "\r\n"] {
        text.push_str(part);
    }
    if !secret.is_empty() {
        for part in ["Proxy-Authorization: ", secret, "\r\n"] {
            text.push_str(part);
        }
    }
    text.push_str("\r\n");
    text
}

/// Reads until the answer is complete.
async fn answer(wire: &mut Wire) -> Result<ProxyAnswer, ProxyError> {
    let mut head = Vec::new();
    let mut piece = [0; PIECE];
    loop {
        let read = wire.read(&mut piece).await.map_err(ProxyError::Broken)?;
        if read == 0 {
            return Err(ProxyError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        head.extend_from_slice(&piece[..read]);
        if let Some(answer) = ProxyAnswer::read(&head)? {
            return Ok(answer);
        }
    }
}

/// What the proxy takes, for people: `, Basic`.
fn offered(schemes: &[String]) -> String {
    if schemes.is_empty() { String::new() } else { format!(", {}", schemes.join(" or ")) }
}

/// What the standard calls a status: ` Forbidden`.
fn reason(status: u16) -> String {
    let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    known.map(|reason| format!(" {reason}")).unwrap_or_default()
}

/// The value of `Proxy-Authorization`, read anew for each tunnel: files may be rotated.
async fn authorization(proxy: &Proxy) -> Result<Option<SecretString>, ProxyError> {
    let pair = match &proxy.credentials {
        None => return Ok(None),
        Some(ProxyCredentials::Given(pair)) => pair.clone(),
        Some(ProxyCredentials::File(path)) => read_pair(path)
            .await
            .map_err(|source| ProxyError::Credentials { path: path.clone(), source })?,
    };
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(pair.expose_secret()));
    Ok(Some(SecretString::from(format!("Basic {}", *encoded))))
}

async fn read_pair(path: &std::path::Path) -> io::Result<SecretString> {
    let text = SecretString::from(tokio::fs::read_to_string(path).await?);
    let pair = text.expose_secret().trim_end_matches(['\r', '\n']);
    if pair.len() > MAX_CREDENTIALS || !pair.contains(':') || pair.contains(['\r', '\n']) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it does not hold user:password on one line",
        ));
    }
    Ok(SecretString::from(pair))
}

/// TLS with the proxy itself.
async fn secured(proxy: &Proxy, bundle: &std::path::Path, wire: Wire) -> Result<Wire, ProxyError> {
    let config = trusting(bundle)
        .map_err(|source| ProxyError::Bundle { path: bundle.to_owned(), source })?;
    let name = ServerName::try_from(proxy.host.clone())
        .map_err(|error| ProxyError::Tls(io::Error::other(error)))?;
    let connector = tokio_rustls::TlsConnector::from(config);
    Ok(Box::new(connector.connect(name, wire).await.map_err(ProxyError::Tls)?))
}

fn trusting(bundle: &std::path::Path) -> io::Result<Arc<ClientConfig>> {
    let anchors = CertificateDer::pem_file_iter(bundle)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(io::Error::other)?;
    if anchors.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no CA certificate in it"));
    }
    let roots = tls::roots(&anchors).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
