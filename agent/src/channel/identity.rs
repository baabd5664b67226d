//! The agent's identity on the channel: a P-256 key made in this process and the certificate issued
//! for it.
//!
//! [`Parts`] are claims. [`Identity::assemble`] binds them together (the certificate is for this
//! key and this cluster), [`Identity::verify`] checks dates and chain at a moment and only then
//! hands out [`Credentials`], which only then can be published to the dialler. The private key
//! leaves the process only into the agent's own Secret.

mod key;
pub(super) mod mounted;
pub mod store;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use mendix_agent_proto::{limits, v1};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, UnixTime},
    server::WebPkiClientVerifier,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use self::key::{Key, KeyError};
use super::dial::tls;

/// How far a certificate's beginning may lie ahead of this node's clock.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);
/// Longest ring name that is kept.
const MAX_RING: usize = 64;

/// Whether the agent can authenticate itself, as everyone who dials sees it.
#[derive(Clone, Debug)]
pub enum Standing {
    /// No usable identity.
    NotEnrolled {
        /// Why not, one line for people.
        reason: String,
    },
    /// A verified one.
    Enrolled(Arc<Credentials>),
}

/// An identity whose dates and chain were verified, ready to dial with.
pub struct Credentials {
    identity: Identity,
    tls: Arc<ClientConfig>,
    /// The control plane did not take the certificate in the handshake.
    refused: CancellationToken,
}

impl Credentials {
    /// The identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Notes that the control plane did not take the certificate, though it is good by its dates: its
    /// CA was replaced, or a clock is wrong.
    pub(crate) fn refuse(&self) {
        self.refused.cancel();
    }

    /// Cancelled once the control plane did not take the certificate.
    pub(crate) fn refused(&self) -> &CancellationToken {
        &self.refused
    }

    /// The TLS configuration of every dial with this identity; one, so that connections resume.
    pub(crate) fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

/// What an identity is made of, before anything about it was checked.
#[derive(Clone)]
pub struct Parts {
    /// The private key.
    pub key: Key,
    /// Certificate chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Trust anchors of the control plane.
    pub anchors: Vec<CertificateDer<'static>>,
    /// Release ring of the cluster.
    pub ring: String,
}

impl Parts {
    /// Takes what the control plane issued for `key`.
    ///
    /// # Errors
    /// [`IdentityError::Missing`], [`IdentityError::TooMuch`].
    pub fn issued(
        key: Key,
        issued: Option<v1::IssuedCertificate>,
        ring: String,
    ) -> Result<Self, IdentityError> {
        let issued = issued.ok_or(IdentityError::Missing("certificate"))?;
        let take = |what, list: Vec<Vec<u8>>, most| {
            let within = list.iter().all(|der| der.len() <= limits::MAX_CERTIFICATE);
            if list.len() > most || !within {
                return Err(IdentityError::TooMuch(what));
            }
            Ok(list.into_iter().map(CertificateDer::from).collect())
        };
        Ok(Self {
            key,
            chain: take("certificate chain", issued.chain_der, limits::MAX_CHAIN)?,
            anchors: take("trust anchors", issued.trust_anchors_der, limits::MAX_TRUST_ANCHORS)?,
            ring,
        })
    }
}

/// A key with a certificate for it and for this cluster.
#[derive(Clone)]
pub struct Identity {
    parts: Parts,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("ring", &self.parts.ring)
            .finish_non_exhaustive()
    }
}

/// Why an identity can't be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A part is absent.
    #[error("identity: no {0}")]
    Missing(&'static str),
    /// A part is larger than the limits allow.
    #[error("identity: {0} over the limit")]
    TooMuch(&'static str),
    /// The private key can't be used.
    #[error("identity: the private key")]
    Key(
        #[from]
        #[source]
        KeyError,
    ),
    /// The certificate can't be read.
    #[error("identity: the certificate can't be read: {0}")]
    Certificate(String),
    /// The certificate is for another key.
    #[error("identity: the certificate is for another key")]
    OtherKey,
    /// The certificate is for another cluster.
    #[error("identity: the certificate names {found:?}, this cluster is {cluster_uid}")]
    OtherCluster {
        /// Common name in the certificate.
        found: String,
        /// This cluster.
        cluster_uid: String,
    },
    /// It has expired.
    #[error("identity: the certificate expired at {not_after}")]
    Expired {
        /// When.
        not_after: Timestamp,
    },
    /// It is not valid yet, by more than clocks may differ.
    #[error("identity: the certificate is not valid before {not_before}; check this node's clock")]
    NotYetValid {
        /// From when on it is.
        not_before: Timestamp,
    },
    /// The chain does not lead to a trust anchor.
    #[error("identity: the certificate chain does not verify")]
    Chain(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Identity {
    /// Checks that the parts belong together and to this cluster. Dates and chain are
    /// [`Identity::verify`]'s, since an expired identity is still worth something: it can recover.
    ///
    /// # Errors
    /// [`IdentityError`]; it says what does not fit.
    pub fn assemble(parts: Parts, cluster_uid: &str) -> Result<Self, IdentityError> {
        let leaf = parts.chain.first().ok_or(IdentityError::Missing("certificate"))?;
        if parts.anchors.is_empty() {
            return Err(IdentityError::Missing("trust anchor"));
        }
        if parts.chain.len() > limits::MAX_CHAIN {
            return Err(IdentityError::TooMuch("certificate chain"));
        }
        if parts.anchors.len() > limits::MAX_TRUST_ANCHORS {
            return Err(IdentityError::TooMuch("trust anchors"));
        }
        if parts.ring.len() > MAX_RING {
            return Err(IdentityError::TooMuch("ring name"));
        }
        let unreadable = |problem: String| IdentityError::Certificate(problem);
        let (rest, certificate) =
            X509Certificate::from_der(leaf).map_err(|error| unreadable(error.to_string()))?;
        if !rest.is_empty() {
            return Err(unreadable("bytes after its end".into()));
        }
        if *certificate.public_key().subject_public_key.data != *parts.key.public_point() {
            return Err(IdentityError::OtherKey);
        }
        let names: Vec<&str> = certificate
            .subject()
            .iter_common_name()
            .map(|name| name.as_str().unwrap_or_default())
            .collect();
        if names != [cluster_uid] {
            let found = names.join(", ");
            return Err(IdentityError::OtherCluster { found, cluster_uid: cluster_uid.into() });
        }
        let date = |at: i64| {
            Timestamp::from_second(at).map_err(|_| unreadable("a date out of range".into()))
        };
        let not_before = date(certificate.validity().not_before.timestamp())?;
        let not_after = date(certificate.validity().not_after.timestamp())?;
        Ok(Self { parts, not_before, not_after })
    }

    /// Checks the dates and the chain as of `now`, the way the control plane does.
    ///
    /// # Errors
    /// [`IdentityError::Expired`], [`IdentityError::NotYetValid`], [`IdentityError::Chain`].
    pub fn verify(&self, now: Timestamp) -> Result<Credentials, IdentityError> {
        if now >= self.not_after {
            return Err(IdentityError::Expired { not_after: self.not_after });
        }
        let ahead = self.not_before.duration_since(now);
        if ahead > jiff::SignedDuration::try_from(CLOCK_TOLERANCE).unwrap_or_default() {
            return Err(IdentityError::NotYetValid { not_before: self.not_before });
        }
        let chain = |source| IdentityError::Chain(Box::new(source));
        let roots = tls::roots(&self.parts.anchors).map_err(chain)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider())
            .build()
            .map_err(|source| IdentityError::Chain(Box::new(source)))?;
        let at = u64::try_from(now.max(self.not_before).as_second()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let (leaf, intermediates) =
            self.parts.chain.split_first().ok_or(IdentityError::Missing("certificate"))?;
        verifier.verify_client_cert(leaf, intermediates, at).map_err(chain)?;
        let tls =
            tls::mutual(&self.parts.anchors, self.parts.chain.clone(), self.parts.key.to_tls())
                .map_err(chain)?;
        Ok(Credentials { identity: self.clone(), tls, refused: CancellationToken::new() })
    }

    /// The same, which also trusts a control plane that one of these vouches for: those on disk may be
    /// newer than those that came with the certificate.
    #[must_use]
    pub fn trusting(mut self, anchors: &[CertificateDer<'static>]) -> Self {
        for anchor in anchors {
            if !self.parts.anchors.contains(anchor) {
                self.parts.anchors.push(anchor.clone());
            }
        }
        self
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.parts.key
    }

    /// The leaf certificate.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.parts.chain[0]
    }

    /// Trust anchors of the control plane.
    pub fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.parts.anchors
    }

    /// Release ring of the cluster; empty when it has none.
    pub fn ring(&self) -> &str {
        &self.parts.ring
    }

    /// When the certificate becomes valid.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }
}
