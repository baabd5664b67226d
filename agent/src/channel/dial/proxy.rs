//! HTTP CONNECT: asks a proxy for a tunnel to the control plane (RFC 9110, section 9.3.6).
//!
//! The proxy sees the control plane's name and port, and TLS that is not for it. Its answer is
//! judged strictly: 200 opens the tunnel, anything else is a failure with its own name.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tokio::{task::JoinSet, time::timeout};

use super::{network::Wire, tls};
use crate::config::{Proxy, ProxyCredentials};

/// Longest wait for the proxy's answer, its own TLS included.
const PROXY_DEADLINE: Duration = Duration::from_secs(10);
/// Largest head of an answer, bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Most headers of an answer.
const MAX_HEADERS: usize = 64;
/// Largest credentials file, bytes.
const MAX_CREDENTIALS: usize = 4 * 1024;
/// Longest authentication scheme that is repeated to people.
const MAX_SCHEME: usize = 32;

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
    #[error("it asks for authentication (407{scheme}); {}", if *sent { "it refused the credentials that were sent" } else { "no credentials are configured" })]
    Authentication {
        /// Whether credentials were sent.
        sent: bool,
        /// What it asks for: `, Basic`, or empty.
        scheme: String,
    },
    /// Any other answer than 200.
    #[error("it answered {status} to CONNECT")]
    Refused {
        /// The answer.
        status: StatusCode,
    },
    /// It ended the connection, or what it said is no HTTP.
    #[error("it gave no answer to CONNECT that can be read")]
    Broken(#[source] hyper::Error),
    /// It said something before the control plane could.
    #[error("it sent {0} bytes of its own into the tunnel")]
    Early(usize),
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
    wire: Wire,
    destination: &str,
    authorization: Option<HeaderValue>,
) -> Result<Wire, ProxyError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(wire))
        .await
        .map_err(ProxyError::Broken)?;
    // Ends with the upgrade; dropped with this future if there is none.
    let mut driven = JoinSet::new();
    driven.spawn(connection.with_upgrades());
    let sent = authorization.is_some();
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    // Only text that is a host and a port comes here; a target that is none is refused by the proxy.
    *request.uri_mut() = destination.parse().unwrap_or_default();
    if let Ok(host) = HeaderValue::from_str(destination) {
        request.headers_mut().insert(header::HOST, host);
    }
    if let Some(value) = authorization {
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
    }
    let answer = sender.send_request(request).await.map_err(ProxyError::Broken)?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            return Err(ProxyError::Authentication { sent, scheme: scheme(answer.headers()) });
        }
        status => return Err(ProxyError::Refused { status }),
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(ProxyError::Broken)?;
    match upgraded.downcast::<TokioIo<Wire>>() {
        Ok(parts) if parts.read_buf.is_empty() => Ok(parts.io.into_inner()),
        Ok(parts) => Err(ProxyError::Early(parts.read_buf.len())),
        // Nothing else was put in above; it would work as it is.
        Err(upgraded) => Ok(Box::new(TokioIo::new(upgraded))),
    }
}

/// What the proxy asks for, for people: `, Basic`.
fn scheme(headers: &HeaderMap) -> String {
    let schemes: Vec<&str> = headers
        .get_all(header::PROXY_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok()?.split_whitespace().next())
        .filter(|scheme| scheme.len() <= MAX_SCHEME)
        .take(4)
        .collect();
    if schemes.is_empty() { String::new() } else { format!(", {}", schemes.join(" or ")) }
}

/// The value of `Proxy-Authorization`, read anew for each tunnel: files may be rotated.
async fn authorization(proxy: &Proxy) -> Result<Option<HeaderValue>, ProxyError> {
    let pair = match &proxy.credentials {
        None => return Ok(None),
        Some(ProxyCredentials::Given(pair)) => pair.clone(),
        Some(ProxyCredentials::File(path)) => read_pair(path)
            .await
            .map_err(|source| ProxyError::Credentials { path: path.clone(), source })?,
    };
    let text = format!("Basic {}", BASE64_STANDARD.encode(pair.expose_secret()));
    // Base64 is always a valid value.
    Ok(HeaderValue::from_str(&text).ok().map(|mut value| {
        value.set_sensitive(true);
        value
    }))
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
