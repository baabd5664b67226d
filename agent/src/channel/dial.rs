//! Opens connections to the control plane: resolve, check the addresses, TCP, TLS, HTTP/2.
//!
//! Each [`Channel`] that [`Dialer::connect`] returns is exactly one TCP connection. It is never
//! re-established behind the caller's back: when it breaks, calls on it fail (UNAVAILABLE, UNKNOWN or
//! CANCELLED, by where it broke), and the caller dials again, by its own backoff. That keeps every failure in one place and with its
//! layer: DNS, private-address policy, TCP, TLS, authentication, stream.
//!
//! HTTP CONNECT proxies are not supported yet.

mod error;
mod first_read;
pub mod network;
pub(crate) mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use mendix_agent_core::session::AddressPolicy;
use mendix_agent_proto::{limits, v1};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{sync::watch, time::timeout};
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use url::{Host, Url};

pub use self::error::{DialError, Layer};
use self::{
    first_read::{FirstRead, Outcome},
    network::{Network, Purpose, System, Wire},
};
use super::identity::Standing;
use crate::config::Config;
pub use crate::errors::describe;

/// Longest wait for name resolution.
pub const DNS_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for one address to accept.
pub const TCP_DEADLINE: Duration = Duration::from_secs(8);
/// Longest wait for the TLS handshake, and again for the first byte of HTTP/2 after it.
pub const TLS_DEADLINE: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried; more are left out.
const ADDRESSES: usize = 8;

/// Where the control plane is, and which addresses are acceptable for it.
#[derive(Clone, Debug)]
pub struct Target {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    policy: AddressPolicy,
    network: Arc<dyn Network>,
}

impl Target {
    /// Reads `https://host[:port]`, to be dialled over the system's network.
    ///
    /// # Errors
    /// [`DialError::Endpoint`] when the URL is of another form.
    pub fn new(endpoint: &Url, policy: AddressPolicy) -> Result<Self, DialError> {
        // Someone may have put a password into it.
        let shown =
            format!("{}://{}", endpoint.scheme(), endpoint.host_str().unwrap_or("(no host)"));
        let refuse = |problem| DialError::Endpoint { endpoint: shown.clone(), problem };
        if endpoint.scheme() != "https" {
            return Err(refuse("its scheme is not https"));
        }
        if !matches!(endpoint.path(), "" | "/")
            || endpoint.query().is_some()
            || !endpoint.username().is_empty()
            || endpoint.password().is_some()
        {
            return Err(refuse("it has more than a host and a port"));
        }
        let host = match endpoint.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(refuse("it has no host")),
        };
        let server_name = ServerName::try_from(host.clone())
            .map_err(|_| refuse("its host is neither a DNS name nor an IP address"))?;
        let port = endpoint.port_or_known_default().unwrap_or(443);
        Ok(Self { host, port, server_name, policy, network: Arc::new(System) })
    }

    /// The same over another network.
    #[must_use]
    pub fn over(self, network: Arc<dyn Network>) -> Self {
        Self { network, ..self }
    }

    /// Reads the endpoint and its permissions from the configuration.
    ///
    /// # Errors
    /// See [`Target::new`].
    pub fn from_config(config: &Config) -> Result<Self, DialError> {
        let policy = AddressPolicy {
            allow_public: config.allow_public_endpoint,
            allow_loopback: config.allow_loopback_endpoint,
        };
        Self::new(&config.endpoint, policy)
    }

    /// `host:port`, for people.
    pub fn name(&self) -> String {
        match self.server_name {
            ServerName::IpAddress(_) if self.host.contains(':') => {
                format!("[{}]:{}", self.host, self.port)
            }
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// Layer 1: the addresses of the host, asked anew every time (a private endpoint may move).
    ///
    /// # Errors
    /// [`DialError::Dns`], [`DialError::DnsDeadline`].
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let host = || self.host.clone();
        let found = timeout(DNS_DEADLINE, self.network.resolve(&self.host, self.port))
            .await
            .map_err(|_| DialError::DnsDeadline { host: host() })?
            .map_err(|source| DialError::Dns { host: host(), source })?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            let source = std::io::Error::other("the name has no addresses");
            return Err(DialError::Dns { host: host(), source });
        }
        Ok(addresses)
    }

    /// Layer 2: whether all of them may be dialled.
    ///
    /// # Errors
    /// [`DialError::Address`].
    pub fn admit(&self, addresses: &[SocketAddr]) -> Result<(), DialError> {
        let addresses: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
        self.policy
            .check(&addresses)
            .map_err(|source| DialError::Address { host: self.host.clone(), source })
    }

    /// Layer 3: the first address that accepts, and the connection to it.
    ///
    /// # Errors
    /// [`DialError::Tcp`] with the last address's failure.
    pub async fn tcp(
        &self,
        addresses: &[SocketAddr],
        purpose: Purpose,
    ) -> Result<(SocketAddr, Wire), DialError> {
        let mut last = None;
        for address in addresses.iter().take(ADDRESSES) {
            match timeout(TCP_DEADLINE, self.network.connect(*address, purpose)).await {
                Ok(Ok(stream)) => return Ok((*address, stream)),
                Ok(Err(source)) => last = Some((*address, source)),
                Err(_) => last = Some((*address, std::io::ErrorKind::TimedOut.into())),
            }
        }
        let (address, source) = last.unwrap_or_else(|| {
            (SocketAddr::from(([0, 0, 0, 0], 0)), std::io::ErrorKind::NotFound.into())
        });
        Err(DialError::Tcp { host: self.host.clone(), address, source })
    }

    /// Layer 4: TLS 1.3 with the right server and HTTP/2.
    ///
    /// # Errors
    /// [`DialError::Tls`], [`DialError::TlsBroken`], [`DialError::Alpn`].
    pub async fn tls(
        &self,
        stream: Wire,
        config: Arc<ClientConfig>,
    ) -> Result<TlsStream<Wire>, DialError> {
        let connector = tokio_rustls::TlsConnector::from(config);
        let handshake = connector.connect(self.server_name.clone(), stream);
        let stream = match timeout(TLS_DEADLINE, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(DialError::handshake(&self.host, error)),
            Err(_) => {
                let source = std::io::ErrorKind::TimedOut.into();
                return Err(DialError::TlsBroken { host: self.host.clone(), source });
            }
        };
        if stream.get_ref().1.alpn_protocol() != Some(tls::H2) {
            return Err(DialError::Alpn { host: self.host.clone() });
        }
        Ok(stream)
    }

    /// All layers, down to HTTP/2 that the server answers: with TLS 1.3 a client learns only from
    /// the first byte after the handshake whether its certificate was accepted.
    ///
    /// # Errors
    /// Any [`DialError`]; it names its layer.
    pub async fn connect(&self, config: Arc<ClientConfig>) -> Result<Channel, DialError> {
        self.connect_for(Purpose::Messages, config).await
    }

    async fn connect_for(
        &self,
        purpose: Purpose,
        config: Arc<ClientConfig>,
    ) -> Result<Channel, DialError> {
        let addresses = self.resolve().await?;
        self.admit(&addresses)?;
        let (_, stream) = self.tcp(&addresses, purpose).await?;
        let stream = self.tls(stream, config).await?;
        self.http2(stream).await
    }

    /// Layers 5 and 6: authentication and HTTP/2.
    ///
    /// # Errors
    /// [`DialError::Rejected`], [`DialError::Stream`].
    pub async fn http2(&self, stream: TlsStream<Wire>) -> Result<Channel, DialError> {
        let broken = |problem: String| DialError::Stream { host: self.host.clone(), problem };
        let (stream, first) = FirstRead::new(stream);
        // One stream, taken once: a second connection is the caller's to dial.
        let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            std::future::ready(stream.ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::NotConnected, "the connection has ended")
            }))
        });
        let endpoint = Endpoint::from_shared(format!("https://{}", self.name()))
            .map_err(|error| broken(error.to_string()))?
            .http2_keep_alive_interval(limits::HTTP2_PING.0)
            .keep_alive_timeout(limits::HTTP2_PING.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW);
        let ready = async {
            let channel = Channel::connect(connector, endpoint)
                .await
                .map_err(|error| broken(describe(&error)))?;
            match first.await {
                Ok(Outcome::Bytes) => Ok(channel),
                Ok(Outcome::Refused(alert)) => {
                    Err(DialError::Rejected { host: self.host.clone(), alert })
                }
                Ok(Outcome::Broken(problem)) => Err(broken(problem)),
                Err(_) => Err(broken("the connection ended before HTTP/2 began".into())),
            }
        };
        timeout(TLS_DEADLINE, ready)
            .await
            .map_err(|_| broken("the server did not begin HTTP/2 in time".into()))?
    }
}

/// Opens mTLS connections to the control plane with the agent's current identity. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    target: Arc<Target>,
    standing: watch::Receiver<Standing>,
}

impl Dialer {
    /// A dialler that uses whatever identity `standing` holds at the moment of the dial.
    pub fn new(target: Target, standing: watch::Receiver<Standing>) -> Self {
        Self { target: Arc::new(target), standing }
    }

    /// Where it dials.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A new TCP connection with the current identity: one for the session, one for each fetch.
    /// It does not reconnect by itself; see the module's head. All its waits have deadlines.
    ///
    /// # Errors
    /// [`DialError`]; it names the layer that failed and what to do.
    pub async fn connect(&self) -> Result<Channel, DialError> {
        self.open(Purpose::Messages).await
    }

    /// As [`Dialer::connect`], for an upload: what is handed to the connection is sent or still the
    /// caller's, but for [`limits::UPLOAD_UNSENT`].
    ///
    /// # Errors
    /// See [`Dialer::connect`].
    pub async fn connect_for_upload(&self) -> Result<Channel, DialError> {
        self.open(Purpose::Upload).await
    }

    async fn open(&self, purpose: Purpose) -> Result<Channel, DialError> {
        let standing = self.standing.borrow().clone();
        match standing {
            Standing::Enrolled(credentials) => {
                self.target.connect_for(purpose, Arc::clone(credentials.tls())).await
            }
            Standing::NotEnrolled { reason } => Err(DialError::NotEnrolled { reason }),
        }
    }
}

/// A client of the session's service with its message limits.
pub fn control_client(
    channel: Channel,
) -> v1::control_service_client::ControlServiceClient<Channel> {
    v1::control_service_client::ControlServiceClient::new(channel)
        .max_decoding_message_size(limits::MAX_CONTROL_MESSAGE)
        .max_encoding_message_size(limits::MAX_AGENT_MESSAGE)
}

/// Room for the fields around the payload of a chunk or a certificate.
const FRAME: usize = 4 * 1024;

/// A client of the release repository with its message limits.
pub fn bundle_client(channel: Channel) -> v1::bundle_service_client::BundleServiceClient<Channel> {
    v1::bundle_service_client::BundleServiceClient::new(channel)
        .max_decoding_message_size(limits::MAX_FETCH_CHUNK + FRAME)
        .max_encoding_message_size(FRAME)
}

/// A client of the snapshot store with its message limits.
pub fn snapshot_client(
    channel: Channel,
) -> v1::snapshot_service_client::SnapshotServiceClient<Channel> {
    v1::snapshot_service_client::SnapshotServiceClient::new(channel)
        .max_decoding_message_size(FRAME)
        .max_encoding_message_size(limits::MAX_SNAPSHOT_CHUNK + FRAME)
}

/// A client of the enrolment service with its message limits.
pub(crate) fn enrollment_client(
    channel: Channel,
) -> v1::enrollment_service_client::EnrollmentServiceClient<Channel> {
    let certificates = limits::MAX_CHAIN + limits::MAX_TRUST_ANCHORS;
    v1::enrollment_service_client::EnrollmentServiceClient::new(channel)
        .max_decoding_message_size(certificates * limits::MAX_CERTIFICATE + FRAME)
        .max_encoding_message_size(3 * limits::MAX_CERTIFICATE + FRAME)
}
