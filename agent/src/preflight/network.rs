//! The layers between the agent and its control plane, one check each, from the bottom up. The
//! dialler's own code climbs them, so what passes here is what the agent does.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Check, Verdict};
use crate::channel::{
    DialError, Target,
    dial::{Hop, KeyPin, Layer, network::Purpose, tls},
};

const DNS: &str = "DNS";
const ADDRESS: &str = "private address";
const TCP: &str = "TCP";
const PROXY: &str = "proxy";
const TLS: &str = "TLS";
const ISSUER: &str = "TLS issuer";
const DATES: &str = "TLS name and dates";
const PIN: &str = "TLS pin";
const ALPN: &str = "TLS ALPN";

/// Every layer, in the order in which a dial climbs them.
const LAYERS: [&str; 9] = [DNS, ADDRESS, TCP, PROXY, TLS, ISSUER, DATES, PIN, ALPN];

/// A server certificate that ends sooner than this is worth a warning.
const SERVER_CERTIFICATE_SOON: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Results of the layers.
pub(super) struct Layers {
    pub(super) checks: Vec<Check>,
    /// Whether the top was reached.
    pub(super) secured: bool,
}

/// Climbs as far as it goes; what is above is skipped, with the reason.
pub(super) async fn layers(
    target: Option<&Target>,
    anchors: Option<&[CertificateDer<'static>]>,
) -> Layers {
    let mut checks = Vec::new();
    let secured = match target {
        Some(target) => climb(target, anchors, &mut checks).await.is_some(),
        None => false,
    };
    let because = match checks.iter().find(|check| check.result == Verdict::Fail) {
        Some(failed) => format!("{} failed", failed.name),
        None if target.is_none() => "configuration failed".to_owned(),
        None => "there is no channel CA to check the server against".to_owned(),
    };
    let rest = LAYERS.iter().skip(checks.len());
    let rest: Vec<Check> = rest.map(|name| Check::skip(name, &because)).collect();
    checks.extend(rest);
    Layers { checks, secured }
}

async fn climb(
    target: &Target,
    anchors: Option<&[CertificateDer<'static>]>,
    checks: &mut Vec<Check>,
) -> Option<()> {
    let hop = target.hop();
    let addresses = keep(checks, DNS, target.resolve().await)?;
    let list: Vec<String> = addresses.iter().map(|it| it.ip().to_string()).collect();
    checks.push(Check::pass(DNS, format!("{hop} is {}", list.join(", "))));

    keep(checks, ADDRESS, target.admit(&addresses))?;
    checks.push(Check::pass(ADDRESS, "every address may be dialled"));

    let (address, wire) = keep(checks, TCP, target.tcp(&addresses, Purpose::Messages).await)?;
    checks.push(Check::pass(TCP, format!("{address} accepts connections")));

    let wire = keep(checks, PROXY, target.tunnel(wire).await)?;
    checks.push(match hop {
        Hop::Proxy(_) => Check::pass(PROXY, format!("{hop} opened a tunnel to {}", target.name())),
        Hop::ControlPlane(_) => Check::pass(PROXY, "none is used"),
    });

    let config = match tls::server_authenticated(anchors?) {
        Ok(config) => config,
        Err(source) => {
            let error = DialError::Tls { host: target.name(), source };
            return keep(checks, TLS, Err(error));
        }
    };
    match target.tls(wire, config).await {
        Ok(stream) => {
            let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            checks.extend(facts(leaf, target.is_pinned(), Timestamp::now()));
            Some(())
        }
        Err(error) => {
            fall(target, &addresses, &error, checks).await;
            None
        }
    }
}

/// The value, or a failed check.
fn keep<T>(checks: &mut Vec<Check>, name: &'static str, result: Result<T, DialError>) -> Option<T> {
    result.map_err(|error| checks.push(Check::of_dial(name, &error))).ok()
}

/// Puts a failed handshake into the line that it belongs to.
async fn fall(
    target: &Target,
    addresses: &[SocketAddr],
    error: &DialError,
    checks: &mut Vec<Check>,
) {
    let name = line(error);
    if error.layer() == Layer::Proxy {
        // It had opened the tunnel, and then ended it.
        checks.pop();
    } else {
        let before = LAYERS.iter().skip(checks.len()).take_while(|layer| **layer != name);
        let because = format!("the handshake ended at {name}");
        let before: Vec<Check> = before.map(|layer| Check::skip(layer, &because)).collect();
        checks.extend(before);
    }
    let mut check = Check::of_dial(name, error);
    if name == ISSUER
        && let Some(issuer) = issuer_of_stranger(target, addresses).await
    {
        check.detail.push_str(&format!("; the certificate was issued by {issuer}"));
    }
    checks.push(check);
}

fn line(error: &DialError) -> &'static str {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    use rustls::Error::InvalidCertificate;
    match error {
        DialError::Proxy { .. } => PROXY,
        DialError::Tls { source: InvalidCertificate(UnknownIssuer), .. } => ISSUER,
        DialError::Tls {
            source:
                InvalidCertificate(
                    Expired
                    | ExpiredContext { .. }
                    | NotValidYet
                    | NotValidYetContext { .. }
                    | NotValidForName
                    | NotValidForNameContext { .. },
                ),
            ..
        } => DATES,
        DialError::Pin { .. } => PIN,
        DialError::Alpn { .. } => ALPN,
        _ => TLS,
    }
}

/// What a handshake that passed has shown.
fn facts(leaf: Option<&CertificateDer<'_>>, pinned: bool, now: Timestamp) -> Vec<Check> {
    let read = leaf.and_then(|leaf| {
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        Some((certificate, KeyPin::of(leaf)?))
    });
    let Some((certificate, pin)) = read else {
        let (cause, remedy) = ("it is damaged", "report it to Mendix support");
        let detail = "the server's certificate can't be read";
        return vec![Check::new(TLS, Verdict::Fail, detail, cause, remedy)];
    };
    let until =
        Timestamp::from_second(certificate.validity().not_after.timestamp()).unwrap_or_default();
    let pin = if pinned { format!("{pin}, as pinned") } else { format!("{pin}, none is pinned") };
    vec![
        Check::pass(TLS, "TLS 1.3"),
        Check::pass(ISSUER, certificate.issuer().to_string()),
        dates(until, now),
        Check::pass(PIN, pin),
        Check::pass(ALPN, "HTTP/2"),
    ]
}

fn dates(until: Timestamp, now: Timestamp) -> Check {
    let detail = format!("the name fits, valid until {until}");
    if until.duration_since(now) < SERVER_CERTIFICATE_SOON {
        let cause = "the control plane has not renewed its certificate yet";
        let remedy = "report it to Mendix support";
        return Check::new(DATES, Verdict::Warn, detail, cause, remedy);
    }
    Check::pass(DATES, detail)
}

/// Who issued the certificate of a server that is not trusted: the name of an interception CA is
/// what its administrator needs to hear. The handshake is refused all the same.
async fn issuer_of_stranger(target: &Target, addresses: &[SocketAddr]) -> Option<String> {
    let witness = Arc::new(Witness::default());
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let (_, wire) = target.tcp(addresses, Purpose::Messages).await.ok()?;
    let wire = target.tunnel(wire).await.ok()?;
    let _refused = target.tls(wire, Arc::new(config)).await;
    witness.issuer.lock().ok()?.take()
}
/// Writes down who issued a certificate, and accepts none.
#[derive(Debug, Default)]
struct Witness {
    issuer: Mutex<Option<String>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let (Ok((_, leaf)), Ok(mut issuer)) =
            (X509Certificate::from_der(leaf), self.issuer.lock())
        {
            *issuer = Some(leaf.issuer().to_string());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}
