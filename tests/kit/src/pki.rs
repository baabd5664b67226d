//! Throwaway certificates: a CA made in memory and what it signs. P-256 keys, made by aws-lc-rs.
//!
//! The same parts serve the Kubernetes of the tests and the channel CA of the control plane under
//! test. Bad certificates (expired, not yet valid, wrong usage, wrong name) are made by saying so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

/// Certificates are valid from this long ago, so that clocks may differ.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);
/// … and for this long, unless a test says otherwise.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate could not be made.
#[derive(Debug, Error)]
#[error("can't make a certificate for {subject}")]
pub struct PkiError {
    subject: String,
    #[source]
    source: rcgen::Error,
}

/// A certificate authority of its own. Clients trust it by [`Ca::cert_pem`].
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca")
    }
}

impl Ca {
    /// A new self-signed CA.
    ///
    /// # Errors
    /// [`PkiError`] when the key can't be made.
    pub fn new(common_name: &str) -> Result<Self, PkiError> {
        let failed = |source| PkiError { subject: common_name.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        set_validity(&mut params, SystemTime::now() - BACKDATED, SystemTime::now() + LIFETIME);
        let cert = params.self_signed(&key).map_err(failed)?;
        Ok(Self { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// The CA's certificate.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.pem
    }

    /// The CA's certificate.
    #[must_use]
    pub fn cert_der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The CA's private key, PKCS#8.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A server certificate for DNS names and IP addresses.
    ///
    /// # Errors
    /// [`PkiError`] when a name is not ASCII.
    pub fn server(&self, names: &[&str]) -> Result<Credential, PkiError> {
        self.issue(Leaf::server(names))
    }

    /// A client certificate for a common name.
    ///
    /// # Errors
    /// [`PkiError`] when the key can't be made.
    pub fn client(&self, common_name: &str) -> Result<Credential, PkiError> {
        self.issue(Leaf::client(common_name))
    }

    /// Makes a key and signs what `leaf` says.
    ///
    /// # Errors
    /// [`PkiError`] when a name can't be put into a certificate.
    pub fn issue(&self, leaf: Leaf) -> Result<Credential, PkiError> {
        let failed = |source| PkiError { subject: leaf.common_name.clone(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(leaf.names.clone()).map_err(failed)?;
        for uri in &leaf.uris {
            let uri = uri.as_str().try_into().map_err(failed)?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
        if let Some(organization) = &leaf.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, leaf.not_before, leaf.not_after);
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Credential { cert_pem: cert.pem(), cert_der: cert.der().clone(), key })
    }

    /// Signs a request (PEM) as it stands, with `life` from now.
    ///
    /// # Errors
    /// [`PkiError`] when the request can't be read or its own signature is wrong.
    pub fn sign_request(&self, request_pem: &str, life: Duration) -> Result<String, PkiError> {
        let failed = |source| PkiError { subject: "a signing request".to_owned(), source };
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(failed)?;
        let now = SystemTime::now();
        set_validity(&mut request.params, now - BACKDATED.min(life), now + life);
        Ok(request.signed_by(&self.issuer).map_err(failed)?.pem())
    }
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Leaf {
    common_name: String,
    organization: Option<String>,
    names: Vec<String>,
    uris: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Leaf {
    /// A server with these DNS names and IP addresses; the first is its common name too.
    #[must_use]
    pub fn server(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(ToString::to_string).collect(),
            ..Self::new(
                names.first().copied().unwrap_or("server"),
                ExtendedKeyUsagePurpose::ServerAuth,
            )
        }
    }

    /// A client with this common name.
    #[must_use]
    pub fn client(common_name: &str) -> Self {
        Self::new(common_name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn new(common_name: &str, usage: ExtendedKeyUsagePurpose) -> Self {
        let now = SystemTime::now();
        Self {
            common_name: common_name.to_owned(),
            organization: None,
            names: Vec::new(),
            uris: Vec::new(),
            usage,
            not_before: now - BACKDATED,
            not_after: now + LIFETIME,
        }
    }

    /// The common name, where it is not the first name.
    #[must_use]
    pub fn common_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.common_name);
        self
    }

    /// The organization; Kubernetes reads it as a group.
    #[must_use]
    pub fn organization(mut self, name: &str) -> Self {
        self.organization = Some(name.to_owned());
        self
    }

    /// A URI among the alternative names.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        self.uris.push(uri.to_owned());
        self
    }

    /// Valid between these times only.
    #[must_use]
    pub fn valid(mut self, from: SystemTime, until: SystemTime) -> Self {
        self.not_before = from;
        self.not_after = until;
        self
    }
}

/// A certificate and its private key.
pub struct Credential {
    cert_pem: String,
    cert_der: CertificateDer<'static>,
    key: KeyPair,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential")
    }
}

impl Credential {
    /// The certificate.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The certificate.
    #[must_use]
    pub fn cert_der(&self) -> &CertificateDer<'static> {
        &self.cert_der
    }

    /// The private key, PKCS#8.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The public key, SPKI.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        self.key.public_key_pem()
    }

    /// The private key, PKCS#8.
    #[must_use]
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

/// X.509 counts whole seconds.
fn set_validity(params: &mut CertificateParams, from: SystemTime, until: SystemTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |time: SystemTime| {
        Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    };
    params.not_before = epoch + since_epoch(from);
    params.not_after = epoch + since_epoch(until);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::{ServerName, UnixTime},
    };

    use super::*;

    fn verify(ca: &Ca, leaf: &Credential, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.cert_der().clone()).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        )
        .build()
        .unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(leaf.cert_der(), &[], &name, &[], UnixTime::now()).map(|_| ())
    }

    #[test]
    fn a_server_is_trusted_by_its_names_and_by_its_own_ca_only() {
        let ca = Ca::new("one").unwrap();
        let server = ca.server(&["localhost", "127.0.0.1"]).unwrap();
        verify(&ca, &server, "localhost").unwrap();
        verify(&ca, &server, "127.0.0.1").unwrap();
        verify(&ca, &server, "example.test").unwrap_err();
        verify(&Ca::new("two").unwrap(), &server, "localhost").unwrap_err();
    }

    #[test]
    fn a_client_certificate_is_no_server_and_an_expired_one_is_refused() {
        let ca = Ca::new("one").unwrap();
        verify(&ca, &ca.client("agent").unwrap(), "localhost").unwrap_err();
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        let expired =
            ca.issue(Leaf::server(&["localhost"]).valid(now - 2 * day, now - day)).unwrap();
        let error = verify(&ca, &expired, "localhost").unwrap_err();
        assert!(format!("{error:?}").contains("Expired"), "{error:?}");
    }

    #[test]
    fn a_signed_request_carries_the_key_of_the_request() {
        let ca = Ca::new("one").unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "agent");
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let signed = ca.sign_request(&request, Duration::from_secs(60)).unwrap();
        assert!(signed.starts_with("-----BEGIN CERTIFICATE-----"));
        ca.sign_request("nonsense", Duration::from_secs(60)).unwrap_err();
    }
}
