//! The layers between the agent and its control plane, one check each, and its standing there.

use std::{net::SocketAddr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::sync::Mutex;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Check, Verdict, bounded};
use crate::{
    channel::{
        DialError, Target,
        dial::{describe, network::Purpose, tls},
        identity::{Identity, IdentityError, store::Store},
    },
    cluster::Cluster,
    config::Config,
};

const TRUST: &str = "trust";
const DNS: &str = "DNS";
const ADDRESS: &str = "private address";
const TCP: &str = "TCP";
const TLS: &str = "TLS";
const AUTHENTICATION: &str = "authentication";

/// A server certificate that ends sooner than this is worth a warning.
const SERVER_CERTIFICATE_SOON: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Files of the trust folder besides the channel CA.
const TRUST_FILES: [&str; 2] = ["root.json", "consent-keys.json"];

/// Result of the check of the trust folder.
pub(super) struct Trust {
    pub(super) check: Check,
    anchors: Option<Vec<CertificateDer<'static>>>,
}

/// Whether the trust folder holds what it should.
pub(super) fn trust(config: &Config) -> Trust {
    let dir = config.trust_dir.display();
    let remedy = "mount ConfigMap mendix-agent-trust with root.json, consent-keys.json and \
                  channel-ca.pem of the control plane";
    let anchors = match tls::channel_ca(&config.trust_dir) {
        Ok(anchors) => anchors,
        Err(error) => {
            let check = Check::new(TRUST, Verdict::Fail, describe(&error), remedy);
            return Trust { check, anchors: None };
        }
    };
    let missing: Vec<&str> =
        TRUST_FILES.into_iter().filter(|file| !config.trust_dir.join(file).is_file()).collect();
    let check = if missing.is_empty() {
        Check::pass(
            TRUST,
            format!("{dir}: {} channel CA, release root, consent keys", anchors.len()),
        )
    } else {
        let detail = format!("{dir}: no {}", missing.join(", no "));
        Check::new(TRUST, Verdict::Fail, detail, remedy)
    };
    Trust { check, anchors: Some(anchors) }
}

/// Results of the layers.
pub(super) struct Layers {
    pub(super) checks: Vec<Check>,
    target: Option<Target>,
}

fn failed(name: &'static str, error: &DialError) -> Check {
    Check::new(name, Verdict::Fail, describe(error), error.remedy())
}

/// DNS, address policy, TCP, TLS: each only if the one before it passed.
pub(super) async fn layers(config: &Config, trust: &Trust) -> Layers {
    let mut checks = Vec::new();
    let target = match Target::from_config(config) {
        Ok(target) => target,
        Err(error) => {
            checks.push(failed(DNS, &error));
            skip_rest(&mut checks);
            return Layers { checks, target: None };
        }
    };
    let mut addresses = Vec::new();
    checks.push(bounded(DNS, resolve(&target, &mut addresses)).await);
    if addresses.is_empty() {
        skip_rest(&mut checks);
        return Layers { checks, target: None };
    }
    if let Err(error) = target.admit(&addresses) {
        checks.push(failed(ADDRESS, &error));
        skip_rest(&mut checks);
        return Layers { checks, target: None };
    }
    checks.push(Check::pass(ADDRESS, "every address may be dialled"));
    let mut reached = false;
    checks.push(bounded(TCP, tcp(&target, &addresses, &mut reached)).await);
    let check = match (&trust.anchors, reached) {
        (_, false) => Check::skip(TLS, "TCP failed"),
        (None, _) => Check::skip(TLS, "there is no channel CA to check the server against"),
        (Some(anchors), true) => bounded(TLS, handshake(&target, &addresses, anchors)).await,
    };
    let secured = check.result >= Verdict::Pass && check.result < Verdict::Fail;
    checks.push(check);
    Layers { checks, target: secured.then_some(target) }
}

fn skip_rest(checks: &mut Vec<Check>) {
    let because = format!("{} failed", checks.last().map_or("configuration", |check| check.name));
    for name in [ADDRESS, TCP, TLS].into_iter().skip(checks.len() - 1) {
        checks.push(Check::skip(name, &because));
    }
}

async fn resolve(target: &Target, found: &mut Vec<SocketAddr>) -> Check {
    match target.resolve().await {
        Ok(addresses) => {
            let list: Vec<String> = addresses.iter().map(|it| it.ip().to_string()).collect();
            *found = addresses;
            Check::pass(DNS, format!("{} is {}", target.name(), list.join(", ")))
        }
        Err(error) => failed(DNS, &error),
    }
}

async fn tcp(target: &Target, addresses: &[SocketAddr], reached: &mut bool) -> Check {
    match target.tcp(addresses, Purpose::Messages).await {
        Ok((address, _)) => {
            *reached = true;
            Check::pass(TCP, format!("{address} accepts connections"))
        }
        Err(error) => failed(TCP, &error),
    }
}

async fn handshake(
    target: &Target,
    addresses: &[SocketAddr],
    anchors: &[CertificateDer<'static>],
) -> Check {
    let config = match tls::server_authenticated(anchors) {
        Ok(config) => config,
        Err(error) => return Check::new(TLS, Verdict::Fail, error.to_string(), ""),
    };
    let tried = async {
        let (_, stream) = target.tcp(addresses, Purpose::Messages).await?;
        target.tls(stream, config).await
    }
    .await;
    match tried {
        Ok(stream) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            certificate(chain, Timestamp::now())
        }
        Err(error) => {
            let unknown = matches!(
                &error,
                DialError::Tls {
                    source: rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer),
                    ..
                }
            );
            let mut check = failed(TLS, &error);
            if unknown && let Some(issuer) = issuer_of_stranger(target, addresses).await {
                check.detail.push_str(&format!("; the certificate was issued by {issuer}"));
            }
            check
        }
    }
}

/// What the server's certificate says.
fn certificate(chain: &[CertificateDer<'_>], now: Timestamp) -> Check {
    let Some(Ok((_, leaf))) = chain.first().map(|leaf| X509Certificate::from_der(leaf)) else {
        return Check::new(TLS, Verdict::Fail, "the server's certificate can't be read", "");
    };
    let issuer = leaf.issuer().to_string();
    let until = Timestamp::from_second(leaf.validity().not_after.timestamp()).unwrap_or_default();
    let detail = format!("TLS 1.3, HTTP/2, certificate of {issuer} until {until}");
    if until.duration_since(now) < SERVER_CERTIFICATE_SOON {
        let remedy = "the control plane should renew its certificate: report it to Mendix support";
        return Check::new(TLS, Verdict::Warn, detail, remedy);
    }
    Check::pass(TLS, detail)
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
    let (_, stream) = target.tcp(addresses, Purpose::Messages).await.ok()?;
    let _refused = target.tls(stream, Arc::new(config)).await;
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

/// Whether the agent has an identity that the control plane accepts, or can get one.
pub(super) async fn authentication(
    config: &Config,
    layers: &Layers,
    cluster: Option<Cluster>,
) -> Check {
    let Some(cluster) = cluster else {
        return Check::skip(AUTHENTICATION, "the identity is kept in Kubernetes");
    };
    bounded(AUTHENTICATION, async {
        let stored = match Store::new(&cluster).load(&cluster.uid).await {
            Ok(stored) => stored,
            Err(error) => {
                let remedy = "let the agent read Secrets in its own namespace";
                return Check::new(AUTHENTICATION, Verdict::Fail, describe(&error), remedy);
            }
        };
        match stored.identity {
            None => unenrolled(config, "not enrolled yet"),
            Some(Err(error)) => unenrolled(config, &describe(&error)),
            Some(Ok(identity)) => enrolled(layers.target.as_ref(), &identity).await,
        }
    })
    .await
}

fn unenrolled(config: &Config, why: &str) -> Check {
    let file = &config.bootstrap_token_file;
    match std::fs::metadata(file) {
        Ok(token) if token.len() > 0 => {
            let detail = format!("{why}; the agent enrols with the token in {}", file.display());
            Check::pass(AUTHENTICATION, detail)
        }
        _ => {
            let detail = format!("{why}, and there is no bootstrap token in {}", file.display());
            let remedy = "get a bootstrap token for this cluster and put it into Secret \
                          mendix-agent-bootstrap";
            Check::new(AUTHENTICATION, Verdict::Fail, detail, remedy)
        }
    }
}

async fn enrolled(target: Option<&Target>, identity: &Identity) -> Check {
    let until = identity.not_after();
    let credentials = match identity.verify(Timestamp::now()) {
        Ok(credentials) => credentials,
        Err(IdentityError::Expired { .. }) => {
            let detail =
                format!("the certificate expired at {until}; the agent asks to recover it");
            let remedy = "if the agent does not recover by itself, mount a new bootstrap token";
            return Check::new(AUTHENTICATION, Verdict::Warn, detail, remedy);
        }
        Err(error) => {
            let remedy = "check this node's clock; otherwise mount a new bootstrap token";
            return Check::new(AUTHENTICATION, Verdict::Fail, describe(&error), remedy);
        }
    };
    let Some(target) = target else {
        return Check::skip(AUTHENTICATION, "the control plane was not reached");
    };
    match target.connect(Arc::clone(credentials.tls())).await {
        Ok(_) => Check::pass(AUTHENTICATION, format!("certificate accepted, valid until {until}")),
        Err(error) => failed(AUTHENTICATION, &error),
    }
}
