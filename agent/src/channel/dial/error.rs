//! Why a dial failed: the layer, the cause, and what to do about it.

use std::{fmt, io};

use mendix_agent_core::session::{AddressRefused, Failure, Schedule};
use rustls::AlertDescription;
use thiserror::Error as ThisError;

use super::{KeyPin, ProxyError, Unreached};

/// The layer at which a dial failed, from the bottom up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The endpoint as configured.
    Configuration,
    /// Name resolution.
    Dns,
    /// The rule that only private addresses are dialled.
    AddressPolicy,
    /// The TCP connection.
    Tcp,
    /// The HTTP CONNECT proxy.
    Proxy,
    /// The TLS handshake, the server's certificate, ALPN.
    Tls,
    /// The agent's own certificate.
    Authentication,
    /// HTTP/2 and gRPC.
    Stream,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "configuration",
            Self::Dns => "DNS",
            Self::AddressPolicy => "private-address policy",
            Self::Tcp => "TCP",
            Self::Proxy => "proxy",
            Self::Tls => "TLS",
            Self::Authentication => "authentication",
            Self::Stream => "stream",
        })
    }
}

/// Whose addresses are resolved and connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The control plane, by its host.
    ControlPlane(String),
    /// The proxy on the way to it, as `host:port`.
    Proxy(String),
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlPlane(host) => f.write_str(host),
            Self::Proxy(name) => write!(f, "proxy {name}"),
        }
    }
}

/// Why a dial failed.
#[derive(Debug, ThisError)]
pub enum DialError {
    /// The endpoint is not `https://host[:port]`.
    #[error("configuration: endpoint {endpoint}: {problem}")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A proxy without a pin: it could be the control plane to us.
    #[error(
        "configuration: the way leads through {hop}, and no key of the control plane is pinned"
    )]
    Unpinned {
        /// The proxy.
        hop: Hop,
    },
    /// The name does not resolve.
    #[error("DNS: {hop} does not resolve")]
    Dns {
        /// Whose name.
        hop: Hop,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The resolver did not answer.
    #[error("DNS: no answer about {hop} within {} s", super::DNS_DEADLINE.as_secs())]
    DnsDeadline {
        /// Whose name.
        hop: Hop,
    },
    /// An address is not private.
    #[error("private-address policy: {hop} resolves to an address that may not be dialled")]
    Address {
        /// Whose address.
        hop: Hop,
        /// The addresses.
        #[source]
        source: AddressRefused,
    },
    /// No address accepted.
    #[error("TCP: {hop} can't be reached")]
    Tcp {
        /// Whose addresses.
        hop: Hop,
        /// Each with its failure.
        #[source]
        source: Unreached,
    },
    /// The proxy gave no tunnel.
    #[error("proxy: no way through {hop}")]
    Proxy {
        /// The proxy.
        hop: Hop,
        /// Why not.
        #[source]
        source: ProxyError,
    },
    /// The handshake was refused by one side.
    #[error("TLS: handshake with {host} failed")]
    Tls {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The connection broke during the handshake.
    #[error("TLS: the connection to {host} broke during the handshake")]
    TlsBroken {
        /// The name.
        host: String,
        /// How.
        #[source]
        source: io::Error,
    },
    /// The handshake did not agree on HTTP/2.
    #[error("TLS: {host} did not agree on HTTP/2 (ALPN stripped)")]
    Alpn {
        /// The name.
        host: String,
    },
    /// The server's key is not one of the pinned ones.
    #[error(
        "TLS: {host} has another key than the pinned ones: {}",
        seen.map_or_else(|| "its certificate can't be read".to_owned(), |pin| pin.to_string())
    )]
    Pin {
        /// The name.
        host: String,
        /// Its key's pin.
        seen: Option<KeyPin>,
    },
    /// There is no identity to dial with.
    #[error("authentication: not enrolled: {reason}")]
    NotEnrolled {
        /// Why not.
        reason: String,
    },
    /// The server refused the agent's certificate.
    #[error("authentication: {host} refused the agent's certificate ({alert:?})")]
    Rejected {
        /// The name.
        host: String,
        /// What it said.
        alert: AlertDescription,
    },
    /// HTTP/2 did not begin.
    #[error("stream: HTTP/2 with {host} did not begin: {problem}")]
    Stream {
        /// The name.
        host: String,
        /// How it ended.
        problem: String,
    },
}

impl DialError {
    /// An error of the handshake, sorted by who is to blame.
    pub(super) fn handshake(host: &str, error: io::Error) -> Self {
        let host = host.to_owned();
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            // A server that finds no common protocol says so by this alert (RFC 7301).
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                Self::Alpn { host }
            }
            Some(inner) => Self::Tls { host, source: inner.clone() },
            None => Self::TlsBroken { host, source: error },
        }
    }

    /// The layer that failed.
    pub fn layer(&self) -> Layer {
        match self {
            Self::Endpoint { .. } | Self::Unpinned { .. } => Layer::Configuration,
            Self::Dns { .. } | Self::DnsDeadline { .. } => Layer::Dns,
            Self::Address { .. } => Layer::AddressPolicy,
            Self::Tcp { .. } => Layer::Tcp,
            Self::Proxy { .. } => Layer::Proxy,
            Self::Tls { .. } | Self::TlsBroken { .. } | Self::Alpn { .. } | Self::Pin { .. } => {
                Layer::Tls
            }
            Self::NotEnrolled { .. } | Self::Rejected { .. } => Layer::Authentication,
            Self::Stream { .. } => Layer::Stream,
        }
    }

    /// What the session makes of it: how soon to try again, and one line for people.
    pub fn failure(&self) -> Failure {
        let schedule = match (self, self.layer()) {
            // A proxy locks an account that is tried too often.
            (Self::Proxy { source: ProxyError::Authentication { .. }, .. }, _)
            | (_, Layer::Authentication | Layer::AddressPolicy | Layer::Configuration) => {
                Schedule::Refusal
            }
            _ => Schedule::Outage,
        };
        Failure { schedule, text: crate::errors::describe(self) }
    }
}
