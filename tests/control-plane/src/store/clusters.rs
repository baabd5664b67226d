//! Clusters: registration and identities. What each of them should run is in `desired`, what it was
//! asked for once in `requests`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    DoneRequest, ReleaseWish, RequestRecord, Revised, Store, StoreError, TicketRecord, check_id,
    files,
};
use crate::{attestation::TokenIssuer, crypto, pki::rotation};

/// Certificates an expired identity may get through Recover before a new bootstrap token is needed.
pub const MAX_RECOVERIES: u32 = 5;
/// Expired certificates that are remembered, for Recover.
const EXPIRED_KEPT: usize = 16;

/// A cluster as the control plane knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterRecord {
    /// UID of namespace kube-system.
    pub uid: String,
    /// Its ring; a release index may be limited to some.
    pub ring: String,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When it was deleted; its agent is told `Deregistered`.
    pub deleted_at: Option<Timestamp>,
    /// SHA-256 of the bootstrap token, hex. The token itself is not kept.
    pub token_sha256: String,
    /// SHA-256 of the public key that spent the token, hex.
    pub token_spent_by: Option<String>,
    /// How the cluster signs ServiceAccount tokens; with it, enrolment needs one.
    #[serde(default)]
    pub token_issuer: Option<TokenIssuer>,
    /// Whether certificates count that somebody else had signed by the channel CA, such as a
    /// cert-manager: they are remembered when they are first shown.
    #[serde(default)]
    pub takes_external: bool,
    /// Certificates that were issued: those not expired, and the last expired ones.
    pub issued: Vec<Issued>,
    /// How often Recover was used since the last enrolment.
    pub recoveries: u32,
    /// The release it should run.
    pub release: Revised<Option<ReleaseWish>>,
    /// Sequence of the portal's keys that its agent is to look for; 0: those it is installed with.
    #[serde(default)]
    pub consent_keys_sequence: u64,
    /// The last attempt to initialize that an automatic ticket was asked for.
    #[serde(default)]
    pub ticketed_attempt: u32,
    /// Its support tickets, in the order in which they were opened.
    pub tickets: Revised<Vec<TicketRecord>>,
    /// One-off requests without outcome.
    pub requests: Revised<Vec<RequestRecord>>,
    /// The last requests that ended, oldest first.
    pub done: Vec<DoneRequest>,
}

/// A certificate that was issued to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// SHA-256 of the leaf, DER, hex.
    pub leaf_sha256: String,
    /// SHA-256 of its SubjectPublicKeyInfo, DER, hex.
    pub spki_sha256: String,
    /// When it expires.
    pub not_after: Timestamp,
    /// Name of the CA that issued it.
    #[serde(default = "first_ca")]
    pub ca: String,
    /// Whether it was revoked.
    pub revoked: bool,
}

fn first_ca() -> String {
    rotation::FIRST.to_owned()
}

/// A bootstrap token, shown once.
#[derive(Clone)]
pub struct BootstrapToken(pub String);

/// Without the token: it must not end up in a log.
impl std::fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BootstrapToken(…)")
    }
}

impl BootstrapToken {
    fn new() -> Result<(Self, String), StoreError> {
        let token = format!("mxb-{}", hex::encode(crypto::random::<32>()?));
        let digest = crypto::sha256_hex(token.as_bytes());
        Ok((Self(token), digest))
    }
}

impl ClusterRecord {
    /// The certificate with this leaf, if it was issued to this cluster.
    pub fn issued_leaf(&self, leaf_der: &[u8]) -> Option<&Issued> {
        let digest = crypto::sha256_hex(leaf_der);
        self.issued.iter().find(|issued| issued.leaf_sha256 == digest)
    }

    /// Remembers a certificate and forgets the oldest expired ones.
    pub(crate) fn remember(&mut self, issued: Issued, now: Timestamp) {
        self.issued.push(issued);
        let expired = self.issued.iter().filter(|issued| issued.not_after <= now).count();
        let mut surplus = expired.saturating_sub(EXPIRED_KEPT);
        self.issued.retain(|issued| {
            let drop = surplus > 0 && issued.not_after <= now;
            surplus -= usize::from(drop);
            !drop
        });
    }
}

impl Store {
    pub(super) fn cluster_path(&self, uid: &str) -> std::path::PathBuf {
        self.dir.join("clusters").join(format!("{uid}.json"))
    }

    /// All clusters, by UID.
    ///
    /// # Errors
    /// When state can't be read.
    pub fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError> {
        let mut clusters = Vec::new();
        for uid in files::names(&self.dir.join("clusters"), ".json")? {
            clusters.extend(files::read_json(&self.cluster_path(&uid))?);
        }
        Ok(clusters)
    }

    /// One cluster, deleted ones included; `None` when it was never registered.
    ///
    /// # Errors
    /// When state can't be read, or `uid` can't be a cluster's.
    pub fn find_cluster(&self, uid: &str) -> Result<Option<ClusterRecord>, StoreError> {
        check_id("cluster", uid)?;
        files::read_json(&self.cluster_path(uid))
    }

    /// One cluster, deleted ones included.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it was never registered.
    pub fn cluster(&self, uid: &str) -> Result<ClusterRecord, StoreError> {
        self.find_cluster(uid)?.ok_or_else(|| no_cluster(uid))
    }

    /// Registers a cluster and makes its one-time bootstrap token.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when it is registered and not deleted.
    pub fn register_cluster(&self, uid: &str, ring: &str) -> Result<BootstrapToken, StoreError> {
        check_id("cluster", uid)?;
        check_id("ring", ring)?;
        let _lock = self.lock()?;
        if self.find_cluster(uid)?.is_some() {
            return Err(StoreError::Exists {
                what: "cluster",
                name: uid.to_owned(),
                hint: "; `cluster token` makes a new bootstrap token for it",
            });
        }
        let (token, token_sha256) = BootstrapToken::new()?;
        let record = ClusterRecord {
            uid: uid.to_owned(),
            ring: ring.to_owned(),
            registered_at: Timestamp::now(),
            deleted_at: None,
            token_sha256,
            token_spent_by: None,
            token_issuer: None,
            takes_external: false,
            issued: Vec::new(),
            recoveries: 0,
            release: Revised::first(None),
            consent_keys_sequence: 0,
            ticketed_attempt: 0,
            tickets: Revised::first(Vec::new()),
            requests: Revised::first(Vec::new()),
            done: Vec::new(),
        };
        files::write_json(&self.cluster_path(uid), &record)?;
        Ok(token)
    }

    /// Registers how a cluster signs ServiceAccount tokens; from then on its enrolment needs one.
    /// Again when its keys were rotated.
    ///
    /// # Errors
    /// When there is no such cluster, or it was deleted.
    pub fn register_issuer(&self, uid: &str, issuer: TokenIssuer) -> Result<(), StoreError> {
        self.update_cluster(uid, |cluster| {
            refuse_deleted(cluster)?;
            cluster.token_issuer = Some(issuer);
            Ok(())
        })
    }

    /// Accepts certificates of a cluster that somebody else had signed by the channel CA, until they
    /// are revoked.
    ///
    /// # Errors
    /// When there is no such cluster, or it was deleted.
    pub fn take_external(&self, uid: &str) -> Result<(), StoreError> {
        self.update_cluster(uid, |cluster| {
            refuse_deleted(cluster)?;
            cluster.takes_external = true;
            Ok(())
        })
    }

    /// A new bootstrap token for a cluster whose agent lost its identity; the old one is void.
    ///
    /// # Errors
    /// When there is no such cluster, or it was deleted.
    pub fn renew_token(&self, uid: &str) -> Result<BootstrapToken, StoreError> {
        let (token, token_sha256) = BootstrapToken::new()?;
        self.update_cluster::<_, StoreError>(uid, |cluster| {
            refuse_deleted(cluster)?;
            cluster.token_sha256 = token_sha256;
            cluster.token_spent_by = None;
            cluster.recoveries = 0;
            Ok(())
        })?;
        Ok(token)
    }

    /// Deletes a cluster: its agent is deregistered, its tickets and with them its grants are gone.
    /// Doing it twice is harmless.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn delete_cluster(&self, uid: &str) -> Result<(), StoreError> {
        self.change_desired(uid, |cluster| {
            if cluster.deleted_at.is_none() {
                cluster.deleted_at = Some(Timestamp::now());
                cluster.tickets.revise().clear();
                cluster.requests.revise().clear();
            }
            Ok(())
        })
    }

    /// Revokes every certificate issued to a cluster so far, and takes none of others any more; its
    /// agent needs a new bootstrap token.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn revoke_cluster(&self, uid: &str) -> Result<(), StoreError> {
        self.change_desired(uid, |cluster| {
            cluster.issued.iter_mut().for_each(|issued| issued.revoked = true);
            cluster.takes_external = false;
            Ok(())
        })
    }

    /// Changes what is kept about identities and leases; not for what a session is told.
    /// Nothing is written when `change` refuses.
    pub(crate) fn update_cluster<T, E: From<StoreError>>(
        &self,
        uid: &str,
        change: impl FnOnce(&mut ClusterRecord) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.lock()?;
        let mut cluster = self.cluster(uid)?;
        let result = change(&mut cluster)?;
        files::write_json(&self.cluster_path(uid), &cluster)?;
        Ok(result)
    }
}

pub(super) fn refuse_deleted(cluster: &ClusterRecord) -> Result<(), StoreError> {
    match cluster.deleted_at {
        Some(at) => {
            Err(StoreError::Refused(format!("cluster {} was deleted at {at}", cluster.uid)))
        }
        None => Ok(()),
    }
}

fn no_cluster(uid: &str) -> StoreError {
    StoreError::NotFound { what: "cluster", name: uid.to_owned(), list: "cluster list" }
}
