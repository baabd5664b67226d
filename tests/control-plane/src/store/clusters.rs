//! Clusters: registration, identities, what each of them should run, and one-off requests.

use jiff::Timestamp;
use mendix_agent_proto::{limits, v1};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, TicketRecord, check_id, files, tickets};
use crate::{attestation::TokenIssuer, crypto, pki::rotation};

/// Certificates an expired identity may get through Recover before a new bootstrap token is needed.
pub const MAX_RECOVERIES: u32 = 5;
/// Expired certificates that are remembered, for Recover.
const EXPIRED_KEPT: usize = 16;
/// Finished requests that are remembered, for people.
const DONE_KEPT: usize = 64;

/// A value with the revision of its section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revised<T> {
    /// Starts at 1, steps with each change.
    pub revision: u64,
    /// The value.
    pub value: T,
}

impl<T> Revised<T> {
    fn first(value: T) -> Self {
        Self { revision: 1, value }
    }

    /// The value, to be changed: a new revision.
    pub(super) fn revise(&mut self) -> &mut T {
        self.revision += 1;
        &mut self.value
    }
}

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

/// Which release a cluster should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseWish {
    /// Name of the release.
    pub release_id: String,
    /// TUF target of its index.
    pub index_target: String,
    /// Its sequence.
    pub sequence: u64,
}

/// A one-off request that waits for its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRecord {
    /// Its id.
    pub request_id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What is asked for.
    pub kind: RequestKind,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum RequestKind {
    /// One log snapshot under a ticket's grant.
    Snapshot {
        /// The ticket.
        ticket_id: String,
        /// Components by name; empty: all of the grant's scope.
        components: Vec<String>,
    },
    /// The last committed release once more.
    Recover,
    /// Another attempt at an initialization that failed.
    RerunInitialization,
}

/// A request that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoneRequest {
    /// The request.
    pub request: RequestRecord,
    /// `Succeeded`, `Refused`, `Failed`, `Revoked` or `Unsupported`.
    pub outcome: String,
    /// Reason code; empty on success.
    pub reason: String,
    /// One sentence for a person.
    pub message: String,
    /// The snapshot it led to; empty otherwise.
    pub snapshot_id: String,
    /// When the outcome arrived.
    pub received_at: Timestamp,
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

    fn sections(&self) -> Vec<v1::DesiredSection> {
        let tickets = tickets::section(&self.tickets, self.consent_keys_sequence);
        vec![self.release_section(), tickets, self.requests_section()]
    }

    fn release_section(&self) -> v1::DesiredSection {
        let release = match &self.release.value {
            Some(wish) => v1::ReleaseSection {
                index_target: wish.index_target.clone(),
                sequence: wish.sequence,
            },
            None => v1::ReleaseSection::default(),
        };
        v1::DesiredSection {
            section: v1::Section::Release.into(),
            revision: self.release.revision,
            body: Some(v1::desired_section::Body::Release(release)),
        }
    }

    fn requests_section(&self) -> v1::DesiredSection {
        let requests = self.requests.value.iter().map(RequestRecord::to_proto).collect();
        v1::DesiredSection {
            section: v1::Section::Requests.into(),
            revision: self.requests.revision,
            body: Some(v1::desired_section::Body::Requests(v1::RequestsSection { requests })),
        }
    }
}

impl RequestRecord {
    pub(super) fn new(kind: RequestKind) -> Result<Self, StoreError> {
        let request_id = format!("req-{}", hex::encode(crypto::random::<8>()?));
        Ok(Self { request_id, created_at: Timestamp::now(), kind })
    }

    fn to_proto(&self) -> v1::Request {
        let kind = match &self.kind {
            RequestKind::Snapshot { ticket_id, components } => {
                v1::request::Kind::Snapshot(v1::SnapshotRequest {
                    ticket_id: ticket_id.clone(),
                    components: components.clone(),
                })
            }
            RequestKind::Recover => v1::request::Kind::Recover(v1::RecoverComponentsRequest {}),
            RequestKind::RerunInitialization => {
                v1::request::Kind::RerunInitialization(v1::RerunInitializationRequest {})
            }
        };
        v1::Request { request_id: self.request_id.clone(), kind: Some(kind) }
    }
}

impl Store {
    fn cluster_path(&self, uid: &str) -> std::path::PathBuf {
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

    /// Changes what a live session has to hear of. Refuses what an agent would have to refuse: a
    /// desired state over the protocol's limit.
    pub(super) fn change_desired<T>(
        &self,
        uid: &str,
        change: impl FnOnce(&mut ClusterRecord) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.change_desired_under(&self.lock()?, uid, change)
    }

    /// [`Store::change_desired`] for a caller that has the lock.
    pub(super) fn change_desired_under<T>(
        &self,
        lock: &files::Lock,
        uid: &str,
        change: impl FnOnce(&mut ClusterRecord) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut cluster = self.cluster(uid)?;
        let result = change(&mut cluster)?;
        let size = v1::DesiredState { sections: cluster.sections() }.encoded_len();
        if size > limits::MAX_DESIRED_STATE {
            return Err(StoreError::Refused(format!(
                "the desired state of cluster {uid} would be {size} bytes, more than the {} an agent \
                 takes; solve old tickets first",
                limits::MAX_DESIRED_STATE
            )));
        }
        files::write_json(&self.cluster_path(uid), &cluster)?;
        self.step_change(lock)?;
        Ok(result)
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

    /// Asks clusters to run a release: one by UID, or all of its audience.
    /// Returns the UIDs whose wish changed.
    ///
    /// # Errors
    /// When release or cluster do not exist, or the cluster was deleted.
    pub fn push_release(
        &self,
        release_id: &str,
        cluster: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let release = self.release(release_id)?;
        let wish = ReleaseWish {
            release_id: release.release_id.clone(),
            index_target: release.index_target.clone(),
            sequence: release.sequence,
        };
        let lock = self.lock()?;
        let targets = match cluster {
            Some(uid) => vec![self.cluster(uid)?],
            None => self
                .clusters()?
                .into_iter()
                .filter(|cluster| cluster.deleted_at.is_none())
                .filter(|cluster| {
                    release.audience.is_empty() || release.audience.contains(&cluster.ring)
                })
                .collect(),
        };
        let mut changed = Vec::new();
        for mut cluster in targets {
            refuse_deleted(&cluster)?;
            if cluster.release.value.as_ref() == Some(&wish) {
                continue;
            }
            *cluster.release.revise() = Some(wish.clone());
            files::write_json(&self.cluster_path(&cluster.uid), &cluster)?;
            changed.push(cluster.uid);
        }
        self.step_change(&lock)?;
        Ok(changed)
    }

    /// Tells all clusters to look for the portal's keys of this sequence.
    pub(crate) fn hint_consent_keys(&self, sequence: u64) -> Result<(), StoreError> {
        for cluster in self.clusters()?.into_iter().filter(|cluster| cluster.deleted_at.is_none()) {
            self.change_desired(&cluster.uid, |cluster| {
                cluster.tickets.revise();
                cluster.consent_keys_sequence = sequence;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Places a request; it stays until the agent reports its outcome.
    ///
    /// # Errors
    /// When the cluster does not exist or was deleted, or its desired state would grow over the
    /// limit of the protocol.
    pub fn place_request(&self, uid: &str, kind: RequestKind) -> Result<RequestRecord, StoreError> {
        let request = RequestRecord::new(kind)?;
        self.change_desired(uid, |cluster| {
            refuse_deleted(cluster)?;
            cluster.requests.revise().push(request.clone());
            Ok(())
        })?;
        Ok(request)
    }

    /// Takes the requests that have a terminal outcome out of the desired state.
    pub(crate) fn complete_requests(
        &self,
        uid: &str,
        outcomes: &[v1::RequestOutcome],
    ) -> Result<(), StoreError> {
        let waiting = |cluster: &ClusterRecord, outcome: &v1::RequestOutcome| {
            let waits = |request: &RequestRecord| request.request_id == outcome.request_id;
            outcome_word(outcome.outcome()).zip(cluster.requests.value.iter().position(waits))
        };
        // Agents repeat outcomes until the request is gone: only a new one is worth the lock.
        let known = self.cluster(uid)?;
        if !outcomes.iter().any(|outcome| waiting(&known, outcome).is_some()) {
            return Ok(());
        }
        self.change_desired(uid, |cluster| {
            for outcome in outcomes {
                let Some((word, at)) = waiting(cluster, outcome) else { continue };
                let request = cluster.requests.revise().remove(at);
                cluster.done.push(DoneRequest {
                    request,
                    outcome: word.to_owned(),
                    reason: outcome.reason.clone(),
                    message: outcome.message.clone(),
                    snapshot_id: outcome.snapshot_id.clone(),
                    received_at: Timestamp::now(),
                });
            }
            let surplus = cluster.done.len().saturating_sub(DONE_KEPT);
            cluster.done.drain(..surplus);
            Ok(())
        })
    }

    /// What the cluster is to be told, section by section.
    pub(crate) fn desired(&self, uid: &str) -> Result<Desired, StoreError> {
        let cluster = self.cluster(uid)?;
        let revoked = cluster.issued.iter().filter(|issued| issued.revoked);
        Ok(Desired {
            deleted: cluster.deleted_at.is_some(),
            revoked: revoked.map(|issued| issued.leaf_sha256.clone()).collect(),
            sections: cluster.sections(),
        })
    }
}

/// What a session needs to know about its cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    /// The cluster was deleted.
    pub(crate) deleted: bool,
    /// Leaves (SHA-256, hex) that must not be used any more.
    pub(crate) revoked: Vec<String>,
    /// All sections, each with its revision.
    pub(crate) sections: Vec<v1::DesiredSection>,
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

fn outcome_word(outcome: v1::Outcome) -> Option<&'static str> {
    match outcome {
        v1::Outcome::Unspecified => None,
        v1::Outcome::Succeeded => Some("Succeeded"),
        v1::Outcome::Refused => Some("Refused"),
        v1::Outcome::Failed => Some("Failed"),
        v1::Outcome::Revoked => Some("Revoked"),
        v1::Outcome::Unsupported => Some("Unsupported"),
    }
}
