//! Why a dial failed: the layer, the cause, and what to do about it.

use std::{fmt, io, net::SocketAddr};

use mendix_agent_core::session::{AddressRefused, Failure, Schedule};
use rustls::{AlertDescription, CertificateError};
use thiserror::Error as ThisError;

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
            Self::Tls => "TLS",
            Self::Authentication => "authentication",
            Self::Stream => "stream",
        })
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
    /// The name does not resolve.
    #[error("DNS: {host} does not resolve")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The resolver did not answer.
    #[error("DNS: no answer about {host} within {} s", super::DNS_DEADLINE.as_secs())]
    DnsDeadline {
        /// The name.
        host: String,
    },
    /// An address of the endpoint is not private.
    #[error("private-address policy: {host} resolves to an address that may not be dialled")]
    Address {
        /// The name.
        host: String,
        /// The addresses.
        #[source]
        source: AddressRefused,
    },
    /// No address accepted.
    #[error("TCP: {host} ({address}) can't be reached")]
    Tcp {
        /// The name.
        host: String,
        /// The last address that was tried.
        address: SocketAddr,
        /// Its failure.
        #[source]
        source: io::Error,
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
            Self::Endpoint { .. } => Layer::Configuration,
            Self::Dns { .. } | Self::DnsDeadline { .. } => Layer::Dns,
            Self::Address { .. } => Layer::AddressPolicy,
            Self::Tcp { .. } => Layer::Tcp,
            Self::Tls { .. } | Self::TlsBroken { .. } | Self::Alpn { .. } => Layer::Tls,
            Self::NotEnrolled { .. } | Self::Rejected { .. } => Layer::Authentication,
            Self::Stream { .. } => Layer::Stream,
        }
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        use CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext};
        use CertificateError::{NotValidYet, NotValidYetContext, UnknownIssuer};
        match self {
            Self::Endpoint { .. } => "set `endpoint` to https://host:port of the private endpoint",
            Self::Dns { .. } | Self::DnsDeadline { .. } => {
                "check that the private DNS zone of the endpoint is linked to the cluster's network \
                 and that cluster DNS forwards to it"
            }
            Self::Address { .. } => {
                "the name should resolve to the private endpoint: check the private DNS zone; set \
                 `allow_public_endpoint` only if the control plane is meant to be reached publicly"
            }
            Self::Tcp { .. } => {
                "check that the private endpoint is approved and that network policies and network \
                 security groups let the agent's pod reach its port"
            }
            Self::Tls { source: rustls::Error::InvalidCertificate(certificate), .. } => {
                match certificate {
                    UnknownIssuer => {
                        "the server's certificate is not from the CA in channel-ca.pem: exempt the \
                         endpoint from TLS interception, or update channel-ca.pem if the CA changed"
                    }
                    Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
                        "the server's certificate is outside its dates by this node's clock: check \
                         the clock first, then the control plane's certificate"
                    }
                    NotValidForName | NotValidForNameContext { .. } => {
                        "the server's certificate is for another name: check `endpoint`"
                    }
                    _ => "the server's certificate is not acceptable: report it to Mendix support",
                }
            }
            Self::Tls { .. } | Self::TlsBroken { .. } => {
                "the other side is not a control plane that speaks TLS 1.3, or something between \
                 breaks TLS: exempt the endpoint from TLS interception"
            }
            Self::Alpn { .. } => {
                "something between removes HTTP/2: exempt the endpoint from TLS interception"
            }
            Self::NotEnrolled { .. } => {
                "mount a bootstrap token for this cluster; the agent enrols by itself"
            }
            Self::Rejected { .. } => {
                "the certificate was revoked or comes from a CA the control plane no longer trusts: \
                 mount a new bootstrap token for this cluster"
            }
            Self::Stream { .. } => {
                "the server accepted the connection and ended it: its backend may be down; if this \
                 stays, report it to Mendix support"
            }
        }
    }

    /// What the session makes of it: how soon to try again, and one line for people.
    pub fn failure(&self) -> Failure {
        let schedule = match self.layer() {
            Layer::Authentication | Layer::AddressPolicy | Layer::Configuration => {
                Schedule::Refusal
            }
            Layer::Dns | Layer::Tcp | Layer::Tls | Layer::Stream => Schedule::Outage,
        };
        Failure { schedule, text: crate::errors::describe(self) }
    }
}
