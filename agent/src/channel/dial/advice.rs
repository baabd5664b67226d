//! What a failed dial most likely means, and what a person can do about it.

use rustls::{
    CertificateError::{
        self, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    },
    Error::InvalidCertificate,
};

use super::{DialError, Hop, ProxyError};

/// Two sentences for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What it most likely is.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

const fn advice(cause: &'static str, remedy: &'static str) -> Advice {
    Advice { cause, remedy }
}

impl DialError {
    /// Likely cause and remedy.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Endpoint { .. } => advice(
                "the endpoint is not the URL of a control plane",
                "set `endpoint` to https://host:port of the private endpoint",
            ),
            Self::Unpinned { .. } => advice(
                "a proxy is configured, or HTTPS_PROXY is set in the agent's environment, and behind \
                 a proxy only a pin tells the control plane from a stranger",
                "set `serverSpkiPins` to the pin that came with the agent's installation, or take \
                 the proxy away: `proxy: direct`, or the endpoint in `noProxy`",
            ),
            Self::Dns { hop, .. } | Self::DnsDeadline { hop } => dns(hop),
            Self::Address { hop: Hop::Proxy(_), .. } => advice(
                "the proxy's name leads out of the private network",
                "a proxy outside the private network is not used: check the name in `proxy`",
            ),
            Self::Address { .. } => advice(
                "the private DNS zone is not seen from here, so the name resolves as on the Internet",
                "link the private DNS zone to the cluster's network; set `allowPublicEndpoint` only if \
                 the control plane is meant to be reached publicly",
            ),
            Self::Tcp { hop: Hop::Proxy(_), .. } => advice(
                "the proxy is down, or something keeps the agent's pod from it",
                "check host and port in `proxy`, and that network policies let the agent's pod reach \
                 it",
            ),
            Self::Tcp { source, .. } if source.is_refused() => advice(
                "nothing listens there: the control plane is down, or the port is another one; some \
                 firewalls answer so, too",
                "check the port in `endpoint`; the agent goes on trying, and comes back by itself when \
                 the control plane does",
            ),
            Self::Tcp { .. } => advice(
                "the private endpoint is not approved, or a network policy, a network security group \
                 or a firewall is in the way",
                "approve the private endpoint and let the agent's pod reach its port; if only a proxy \
                 leads out, set `proxy`",
            ),
            Self::Proxy { source, .. } => source.advice(),
            Self::Tls { source: InvalidCertificate(certificate), .. } => refused(certificate),
            Self::TlsBroken { source, .. } if source.kind() == std::io::ErrorKind::TimedOut => {
                advice(
                    "something accepts the connection and then says nothing: the control plane hangs, a load \
                 balancer has no backend, or large packets are lost on the way",
                    "try again in some minutes; if this stays, report it to Mendix support, and check the MTU \
                 of the way to the endpoint",
                )
            }
            Self::Tls { .. } | Self::TlsBroken { .. } => advice(
                "the other side is not a control plane that speaks TLS 1.3, or something between \
                 breaks TLS",
                "check `endpoint`; exempt it from TLS interception",
            ),
            Self::Alpn { .. } => advice(
                "something between ends TLS and does not speak HTTP/2",
                "exempt the endpoint from TLS interception",
            ),
            Self::Pin { .. } => advice(
                "something between ends TLS with a key of its own, or the control plane has a new key",
                "exempt the endpoint from TLS interception; ask Mendix for the current pin and compare",
            ),
            Self::NotEnrolled { .. } => advice(
                "the agent has no certificate yet",
                "mount a bootstrap token for this cluster; the agent enrols by itself",
            ),
            Self::Rejected { .. } => advice(
                "the certificate was revoked, or comes from a CA the control plane no longer trusts",
                "mount a new bootstrap token for this cluster",
            ),
            Self::Stream { .. } => advice(
                "the server accepted the connection and ended it: its backend may be down, or a load \
                 balancer answers for it",
                "try again in some minutes; if this stays, report it to Mendix support",
            ),
        }
    }
}

fn dns(hop: &Hop) -> Advice {
    match hop {
        Hop::Proxy(_) => advice(
            "the proxy's name is wrong, or cluster DNS does not know it",
            "check the name in `proxy` (or HTTPS_PROXY) and that cluster DNS knows it",
        ),
        Hop::ControlPlane(_) => advice(
            "the private DNS zone of the endpoint is not linked to the cluster's network, or cluster \
             DNS does not forward to it",
            "link the zone, or give cluster DNS a forwarder for it",
        ),
    }
}

fn refused(certificate: &CertificateError) -> Advice {
    match certificate {
        UnknownIssuer => advice(
            "TLS interception: a proxy or firewall answers with a certificate of its own; or the \
             control plane's CA has changed",
            "exempt the endpoint from TLS interception, or update channel-ca.pem if the CA changed",
        ),
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => advice(
            "this node's clock is off, or the control plane's certificate was not renewed",
            "check the clock first, then report the certificate to Mendix support",
        ),
        NotValidForName | NotValidForNameContext { .. } => advice(
            "the endpoint leads to another server, which has a certificate for another name",
            "check `endpoint` and what its name resolves to",
        ),
        _ => advice("the server's certificate is not acceptable", "report it to Mendix support"),
    }
}

impl ProxyError {
    fn advice(&self) -> Advice {
        match self {
            Self::Credentials { .. } => advice(
                "the file is not mounted, or holds something else",
                "mount a file that holds user:password on one line, and name it in \
                 `proxyCredentialsFile`",
            ),
            Self::Bundle { .. } | Self::Tls(_) => advice(
                "the proxy's certificate is from a CA that is not in the bundle, or its port speaks no \
                 TLS",
                "put the CA certificates of the proxy as PEM into the file that `caBundleFile` names, \
                 or use the proxy's http port",
            ),
            Self::Authentication { sent: false, .. } => advice(
                "the proxy lets only known users through",
                "give the agent a user of the proxy: `proxyCredentialsFile`; only Basic is spoken",
            ),
            Self::Authentication { sent: true, .. } => advice(
                "user or password are wrong, or the proxy does not accept Basic",
                "check the pair in `proxyCredentialsFile`, and that the proxy accepts Basic",
            ),
            Self::Refused { status: 500..=599 } => advice(
                "the proxy does not know the endpoint's name, or has no route to it",
                "check the proxy's DNS for the endpoint's name and its route to the private endpoint",
            ),
            Self::Refused { .. } => advice(
                "the proxy's rules do not allow this destination",
                "let the proxy allow CONNECT to the endpoint's name and port",
            ),
            Self::Broken(_) | Self::Nonsense(_) => advice(
                "what answers is no HTTP CONNECT proxy",
                "check `proxy`, scheme and port included",
            ),
            Self::ClosedAfterConnect => advice(
                "the proxy inspects what follows CONNECT and stops it, or does not reach the control \
                 plane",
                "exempt the endpoint from inspection, and check that the proxy itself reaches it",
            ),
            Self::Deadline => advice(
                "the proxy waits for a control plane that does not answer it, or is no CONNECT proxy",
                "check that the proxy reaches the endpoint, and that `proxy` names a CONNECT proxy",
            ),
        }
    }
}
