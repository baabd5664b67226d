//! Where the identity is kept: Secret `mendix-agent-identity` in the agent's namespace.
//!
//! Every write is a compare-and-swap on the resourceVersion that was read. A key is written before
//! it is sent anywhere ([`Stored::pending`]), so that an answer lost in a crash can be asked for
//! again with the same key; a certificate is written before it is published. The Secret holds the epoch
//! of the leader that wrote it last; an earlier one writes it no more.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Identity, IdentityError, Key, Parts};
use crate::{
    cluster::{CALL_DEADLINE, Cluster},
    term::{Superseded, Term},
};

/// Name of the Secret.
pub const SECRET: &str = "mendix-agent-identity";

const KEY: &str = "tls.key";
const CHAIN: &str = "tls.crt";
const ANCHORS: &str = "ca.crt";
const RING: &str = "ring";
const PENDING_KEY: &str = "pending.key";
const TOKEN_SHA256: &str = "token.sha256";

/// The Secret could not be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No answer in time.
    #[error("Secret {SECRET}: {verb}: no answer from the Kubernetes API within {} s", CALL_DEADLINE.as_secs())]
    Deadline {
        /// The call.
        verb: &'static str,
    },
    /// A later leader wrote it.
    #[error("Secret {SECRET}")]
    Superseded(#[from] Superseded),
    /// Someone else wrote it since it was read; read again.
    #[error("Secret {SECRET}: it changed since it was read")]
    Conflict,
    /// The API server refused or failed.
    #[error("Secret {SECRET}: {verb}")]
    Api {
        /// The call.
        verb: &'static str,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What the Secret holds.
pub struct Stored {
    /// The identity in use; why not, when its parts are there and do not fit together.
    pub identity: Option<Result<Identity, IdentityError>>,
    /// A key that was, or will be, sent in a request whose answer is not stored yet.
    pub pending: Option<Key>,
    /// SHA-256, hex, of the bootstrap token that the identity was made with.
    pub token_sha256: Option<String>,
    secret: Secret,
}

/// Reads and writes the Secret.
#[derive(Clone)]
pub struct Store {
    secrets: Api<Secret>,
    term: Term,
}

impl Store {
    /// The store of this cluster's agent.
    pub fn new(cluster: &Cluster) -> Self {
        Self { secrets: cluster.own(), term: cluster.term().clone() }
    }

    /// Reads what there is; an absent Secret is an empty one.
    ///
    /// # Errors
    /// [`StoreError`]. What is in the Secret and can't be used is not an error here.
    pub async fn load(&self, cluster_uid: &str) -> Result<Stored, StoreError> {
        let secret = call("get", self.secrets.get_opt(SECRET)).await?.unwrap_or_else(|| Secret {
            metadata: ObjectMeta { name: Some(SECRET.into()), ..ObjectMeta::default() },
            type_: Some("Opaque".into()),
            ..Secret::default()
        });
        Ok(read(secret, cluster_uid))
    }

    /// Stores a key that is about to be sent in a request.
    ///
    /// # Errors
    /// [`StoreError`]; on [`StoreError::Conflict`] nothing was written.
    pub async fn save_pending(
        &self,
        stored: Stored,
        key: &Key,
        cluster_uid: &str,
    ) -> Result<Stored, StoreError> {
        let mut secret = stored.secret;
        let data = secret.data.get_or_insert_default();
        data.insert(PENDING_KEY.into(), pem("PRIVATE KEY", key.pkcs8()));
        self.write(secret, cluster_uid).await
    }

    /// Stores an identity in place of the last one, and forgets the pending key. `token_sha256` is
    /// kept when `None`.
    ///
    /// # Errors
    /// [`StoreError`]; on [`StoreError::Conflict`] nothing was written.
    pub async fn save_identity(
        &self,
        stored: Stored,
        identity: &Identity,
        token_sha256: Option<String>,
        cluster_uid: &str,
    ) -> Result<Stored, StoreError> {
        let mut secret = stored.secret;
        let data = secret.data.get_or_insert_default();
        let parts = identity.parts();
        data.insert(KEY.into(), pem("PRIVATE KEY", parts.key.pkcs8()));
        data.insert(CHAIN.into(), certificates(&parts.chain));
        data.insert(ANCHORS.into(), certificates(&parts.anchors));
        data.insert(RING.into(), ByteString(parts.ring.clone().into_bytes()));
        data.remove(PENDING_KEY);
        if let Some(token_sha256) = token_sha256 {
            data.insert(TOKEN_SHA256.into(), ByteString(token_sha256.into_bytes()));
        }
        self.write(secret, cluster_uid).await
    }

    async fn write(&self, mut secret: Secret, cluster_uid: &str) -> Result<Stored, StoreError> {
        self.term.check(&secret.metadata)?;
        self.term.stamp(&mut secret.metadata);
        let params = PostParams::default();
        let written = if secret.metadata.resource_version.is_some() {
            call("update", self.secrets.replace(SECRET, &params, &secret)).await?
        } else {
            call("create", self.secrets.create(&params, &secret)).await?
        };
        Ok(read(written, cluster_uid))
    }
}

async fn call<T>(
    verb: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Err(_) => Err(StoreError::Deadline { verb }),
        // Also "already exists", when two create it at once.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(StoreError::Conflict),
        Ok(Err(source)) => Err(StoreError::Api { verb, source: Box::new(source) }),
        Ok(Ok(value)) => Ok(value),
    }
}

fn read(secret: Secret, cluster_uid: &str) -> Stored {
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let text =
        |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0).trim().to_owned());
    let identity = data.contains_key(KEY).then(|| {
        let parts = Parts {
            key: key(data, KEY)?,
            chain: parse(data, CHAIN, "certificate")?,
            anchors: parse(data, ANCHORS, "trust anchor")?,
            ring: text(RING).unwrap_or_default(),
        };
        Identity::assemble(parts, cluster_uid)
    });
    // A pending key that can't be read is worth nothing: another one is made.
    let pending = key(data, PENDING_KEY).ok();
    Stored { identity, pending, token_sha256: text(TOKEN_SHA256), secret }
}

fn key(data: &BTreeMap<String, ByteString>, name: &str) -> Result<Key, IdentityError> {
    let pem = data.get(name).ok_or(IdentityError::Missing("private key"))?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem.0).map_err(|_| super::KeyError::NotP256)?;
    Ok(Key::from_pkcs8(Zeroizing::new(der.secret_pkcs8_der().to_vec()))?)
}

fn parse(
    data: &BTreeMap<String, ByteString>,
    name: &str,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let pem = data.get(name).ok_or(IdentityError::Missing(what))?;
    CertificateDer::pem_slice_iter(&pem.0)
        .collect::<Result<_, _>>()
        .map_err(|error| IdentityError::Certificate(format!("{name}: {error}")))
}

fn certificates(list: &[CertificateDer<'_>]) -> ByteString {
    ByteString(list.iter().flat_map(|der| pem("CERTIFICATE", der).0).collect())
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> ByteString {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = Vec::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    text.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in body.as_bytes().chunks(64) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    ByteString(text)
}
