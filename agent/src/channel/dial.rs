//! Opens connections to the control plane, layer by layer:
//!
//! ```text
//! DNS ─▶ private addresses only ─▶ TCP, fastest address ─▶ (proxy: CONNECT) ─▶ TLS 1.3, pins ─▶ HTTP/2
//! ```
//!
//! Through a proxy the first three concern the proxy; the control plane's name is resolved by it.
//!
//! Each [`Channel`] that [`Dialer::connect`] returns is exactly one TCP connection. It is never
//! re-established behind the caller's back: when it breaks, calls on it fail (UNAVAILABLE, UNKNOWN or
//! CANCELLED, by where it broke), and the caller dials again, by its own backoff. That keeps every failure in one place and with its
//! layer: DNS, private-address policy, TCP, proxy, TLS, authentication, stream.

mod advice;
mod clients;
mod error;
mod first_read;
pub mod network;
mod pin;
mod proxy;
mod race;
pub(crate) mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::TokioIo;
use mendix_agent_core::session::AddressPolicy;
use mendix_agent_proto::limits;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{sync::watch, time::timeout};
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use url::{Host, Url};

pub(crate) use self::clients::enrollment_client;
pub use self::{
    advice::Advice,
    clients::{bundle_client, control_client, snapshot_client},
    error::{DialError, Hop, Layer},
    pin::KeyPin,
    proxy::ProxyError,
    race::Unreached,
};
use self::{
    first_read::{FirstRead, Outcome},
    network::{Network, Purpose, System, Wire},
};
use super::identity::Standing;
use crate::config::{Config, Proxy};
pub use crate::errors::describe;

/// Longest wait for name resolution.
pub const DNS_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for one address to accept.
pub const TCP_DEADLINE: Duration = Duration::from_secs(8);
/// Longest wait for the TLS handshake, and again for the first byte of HTTP/2 after it.
pub const TLS_DEADLINE: Duration = Duration::from_secs(10);
/// Doublings of the PING interval; 4 min are what Azure's load balancer lets a connection idle.
const MAX_CALM: u32 = 3;
/// Addresses of one name that are tried; more are left out.
const ADDRESSES: usize = 8;

/// Where the control plane is, how to get there, and what it must prove.
#[derive(Clone, Debug)]
pub struct Target {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    policy: AddressPolicy,
    proxy: Option<Proxy>,
    pins: Vec<KeyPin>,
    network: Arc<dyn Network>,
    /// How often a server asked for fewer PINGs.
    calmed: Arc<AtomicU32>,
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
        let network = Arc::new(System::default());
        Ok(Self {
            host,
            port,
            server_name,
            policy,
            proxy: None,
            pins: Vec::new(),
            network,
            calmed: Arc::default(),
        })
    }

    /// The same through a proxy.
    #[must_use]
    pub fn through(self, proxy: Proxy) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    /// The same, and the server's key must be one of these.
    #[must_use]
    pub fn pinned(self, pins: Vec<KeyPin>) -> Self {
        Self { pins, ..self }
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
        let target = Self::new(&config.endpoint, policy)?.pinned(config.route.pins.clone());
        Ok(match &config.route.proxy {
            Some(proxy) if !config.route.no_proxy.matches(&target.host, target.port) => {
                target.through(proxy.clone())
            }
            _ => target,
        })
    }

    /// `host:port` of the control plane.
    pub fn name(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Whether the server's key must be one of some.
    pub fn is_pinned(&self) -> bool {
        !self.pins.is_empty()
    }

    /// Whose addresses are dialled: the control plane's, or its proxy's.
    pub fn hop(&self) -> Hop {
        match &self.proxy {
            None => Hop::ControlPlane(self.host.clone()),
            Some(proxy) => Hop::Proxy(authority(&proxy.host, proxy.port)),
        }
    }

    /// Layer 1: the addresses of the hop, asked anew every time (a private endpoint may move).
    ///
    /// # Errors
    /// [`DialError::Dns`], [`DialError::DnsDeadline`]; [`DialError::Unpinned`] before anything is
    /// asked.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let (host, port) = match &self.proxy {
            None => (&self.host, self.port),
            Some(_) if self.pins.is_empty() => return Err(DialError::Unpinned { hop: self.hop() }),
            Some(proxy) => (&proxy.host, proxy.port),
        };
        let found = timeout(DNS_DEADLINE, self.network.resolve(host, port))
            .await
            .map_err(|_| DialError::DnsDeadline { hop: self.hop() })?
            .map_err(|source| DialError::Dns { hop: self.hop(), source })?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            let source = std::io::Error::other("the name has no addresses");
            return Err(DialError::Dns { hop: self.hop(), source });
        }
        Ok(addresses)
    }

    /// Layer 2: whether all of them may be dialled. A proxy is always inside: a permission to dial a
    /// public endpoint is none for a public proxy.
    ///
    /// # Errors
    /// [`DialError::Address`].
    pub fn admit(&self, addresses: &[SocketAddr]) -> Result<(), DialError> {
        let addresses: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
        let allow_public = self.policy.allow_public && self.proxy.is_none();
        AddressPolicy { allow_public, ..self.policy }
            .check(&addresses)
            .map_err(|source| DialError::Address { hop: self.hop(), source })
    }

    /// Layer 3: the first address that accepts, and the connection to it.
    ///
    /// # Errors
    /// [`DialError::Tcp`] with the failure of each address.
    pub async fn tcp(
        &self,
        addresses: &[SocketAddr],
        purpose: Purpose,
    ) -> Result<(SocketAddr, Wire), DialError> {
        let attempt = async |address| {
            timeout(TCP_DEADLINE, self.network.connect(address, purpose))
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        };
        race::first(&addresses[..addresses.len().min(ADDRESSES)], attempt)
            .await
            .map_err(|source| DialError::Tcp { hop: self.hop(), source })
    }

    /// The layer of the proxy, if there is one: the tunnel through it.
    ///
    /// # Errors
    /// [`DialError::Proxy`].
    pub async fn tunnel(&self, wire: Wire) -> Result<Wire, DialError> {
        match &self.proxy {
            None => Ok(wire),
            Some(proxy) => proxy::tunnel(proxy, wire, &self.name())
                .await
                .map_err(|source| DialError::Proxy { hop: self.hop(), source }),
        }
    }

    /// Layer 4: TLS 1.3 with the right server, its pinned key, and HTTP/2. Nothing of the session has
    /// been sent when a pin does not match.
    ///
    /// # Errors
    /// [`DialError::Tls`], [`DialError::TlsBroken`], [`DialError::Alpn`], [`DialError::Pin`]; through
    /// a proxy also [`DialError::Proxy`], when it opened the tunnel and ended it.
    pub async fn tls(
        &self,
        wire: Wire,
        config: Arc<ClientConfig>,
    ) -> Result<TlsStream<Wire>, DialError> {
        let connector = tokio_rustls::TlsConnector::from(config);
        let handshake = connector.connect(self.server_name.clone(), wire);
        let stream = match timeout(TLS_DEADLINE, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if self.proxy.is_some() && ended(&error) => {
                let source = ProxyError::ClosedAfterConnect;
                return Err(DialError::Proxy { hop: self.hop(), source });
            }
            Ok(Err(error)) => return Err(DialError::handshake(&self.host, error)),
            Err(_) => {
                let source = std::io::ErrorKind::TimedOut.into();
                return Err(DialError::TlsBroken { host: self.host.clone(), source });
            }
        };
        let session = stream.get_ref().1;
        if !self.pins.is_empty() {
            let leaf = session.peer_certificates().and_then(<[_]>::first);
            let seen = leaf.and_then(KeyPin::of);
            if !seen.is_some_and(|seen| self.pins.contains(&seen)) {
                return Err(DialError::Pin { host: self.host.clone(), seen });
            }
        }
        if session.alpn_protocol() != Some(tls::H2) {
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
        let (_, wire) = self.tcp(&addresses, purpose).await?;
        let wire = self.tunnel(wire).await?;
        let stream = self.tls(wire, config).await?;
        self.http2(stream).await
    }

    /// A server, or a gateway in front of it, said that it gets too many PINGs
    /// (ENHANCE_YOUR_CALM): later connections send half as many. Heartbeats are not touched by this.
    pub fn calm_down(&self) {
        self.calmed.fetch_add(1, Ordering::Relaxed);
    }

    fn ping_interval(&self) -> Duration {
        let doublings = self.calmed.load(Ordering::Relaxed).min(MAX_CALM);
        limits::HTTP2_PING.0 * (1 << doublings)
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
            .http2_keep_alive_interval(self.ping_interval())
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

/// `host:port`, an IPv6 address in brackets.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether the other side ended the connection, rather than saying why not.
fn ended(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
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
                let dialled = self.target.connect_for(purpose, Arc::clone(credentials.tls())).await;
                if let Err(DialError::Rejected { .. }) = &dialled {
                    credentials.refuse();
                }
                dialled
            }
            Standing::NotEnrolled { reason } => Err(DialError::NotEnrolled { reason }),
        }
    }
}
