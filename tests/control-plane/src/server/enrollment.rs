//! EnrollmentService: how an agent gets, renews and regains its certificate.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use jiff::Timestamp;
use mendix_agent_proto::{
    limits::MAX_CERTIFICATE,
    v1::{
        EnrollRequest, EnrollResponse, IssuedCertificate, RecoverRequest, RecoverResponse,
        RenewRequest, RenewResponse, enrollment_service_server::EnrollmentService,
    },
};
use tonic::{Request, Response, Status};

use super::{
    Shared,
    peer::{authenticate, common_name},
    shared::blocking,
};
use crate::{
    crypto,
    pki::{self, CheckedCsr, PkiError},
    store::{ClusterRecord, MAX_RECOVERIES, StoreError},
};

/// Longest bootstrap token.
const MAX_TOKEN: usize = 512;
/// Said for every wrong token or cluster, so that nobody learns which of them was wrong.
const NOT_ADMITTED: &str =
    "the bootstrap token is unknown, spent, or for another cluster; ask for a new one";

pub(super) struct Enrollment {
    shared: Arc<Shared>,
}

impl Enrollment {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Issues a certificate to a cluster that `admit` lets pass; the certificate is remembered
    /// before it is given out.
    async fn issue(
        &self,
        uid: String,
        csr: CheckedCsr,
        admit: impl FnOnce(&mut ClusterRecord, &CheckedCsr) -> Result<(), Status> + Send + 'static,
    ) -> Result<(IssuedCertificate, String), Status> {
        let shared = self.shared.clone();
        let outcome = blocking(move || {
            let outcome = shared.store.update_cluster(&uid, |cluster| {
                admit(cluster, &csr)?;
                let lifetime = shared.options.certificate_lifetime;
                let (certificate, issued) = shared.ca.issue(&csr, lifetime)?;
                cluster.remember(issued, Timestamp::now());
                Ok((certificate, cluster.ring.clone()))
            });
            match outcome {
                Ok(issued) => Ok(Ok(issued)),
                Err(Refusal::Caller(status)) => Ok(Err(status)),
                Err(Refusal::State(error)) => Err(error),
            }
        });
        let issued = outcome.await??;
        self.shared.count.certificates.fetch_add(1, Relaxed);
        Ok(issued)
    }

    async fn cluster(&self, uid: String) -> Result<Option<ClusterRecord>, Status> {
        let store = self.shared.store.clone();
        blocking(move || match store.find_cluster(&uid) {
            // A name that can't be is a name that is not registered.
            Err(StoreError::Name { .. }) => Ok(None),
            found => found,
        })
        .await
        .map(|cluster| cluster.filter(|cluster| cluster.deleted_at.is_none()))
    }
}

/// Why nothing was issued: the caller's fault, or ours.
enum Refusal {
    Caller(Status),
    State(PkiError),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Caller(status)
    }
}

impl From<PkiError> for Refusal {
    fn from(error: PkiError) -> Self {
        Self::State(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::State(error.into())
    }
}

fn csr(der: &[u8], uid: &str) -> Result<CheckedCsr, Status> {
    pki::check_csr(der, uid).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        self.shared.admit_enrolment()?;
        let request = request.into_inner();
        let not_admitted = || Status::unauthenticated(NOT_ADMITTED);
        if request.bootstrap_token.len() > MAX_TOKEN {
            return Err(not_admitted());
        }
        let uid = request.cluster_uid;
        let token_sha256 = crypto::sha256_hex(request.bootstrap_token.as_bytes());
        let cluster = self.cluster(uid.clone()).await?.ok_or_else(not_admitted)?;
        if cluster.token_sha256 != token_sha256 {
            return Err(not_admitted());
        }
        // Before the token is spent: a pod that can't prove itself must not use it up.
        let pod = match &cluster.token_issuer {
            Some(issuer) => {
                let attested = issuer.verify(&request.service_account_token, Timestamp::now());
                let attested = attested.map_err(|error| {
                    tracing::warn!(uid, %error, "an enrolment was not attested");
                    Status::unauthenticated(error.to_string())
                })?;
                Some(attested.pod)
            }
            None => None,
        };
        let csr = csr(&request.csr_der, &uid)?;
        let (issued, ring) = self
            .issue(uid.clone(), csr, move |cluster, csr| {
                // The same key may come again: an agent that crashed before it kept the answer.
                let spent = cluster.token_spent_by.as_ref();
                if cluster.token_sha256 != token_sha256
                    || cluster.deleted_at.is_some()
                    || spent.is_some_and(|key| *key != csr.spki_sha256)
                {
                    return Err(Status::unauthenticated(NOT_ADMITTED));
                }
                cluster.token_spent_by = Some(csr.spki_sha256.clone());
                Ok(())
            })
            .await?;
        // A person's order: the cluster may have been restored, and its Lease count from lower again.
        let (shared, name) = (self.shared.clone(), uid.clone());
        blocking(move || shared.load_agent(&name)).await?;
        self.shared.observe(&uid, |agent, _| agent.lease_epoch = 0);
        tracing::info!(
            uid,
            agent_version = request.agent_version,
            attested = pod.is_some(),
            pod,
            "enrolled"
        );
        Ok(Response::new(EnrollResponse { issued: Some(issued), ring }))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        self.shared.admit_enrolment()?;
        let peer = authenticate(&self.shared, request.extensions()).await?.present()?;
        let uid = peer.uid().to_owned();
        let csr = csr(&request.into_inner().csr_der, &uid)?;
        let leaf = peer.leaf_sha256;
        let (issued, _) = self
            .issue(uid, csr, move |cluster, _| {
                let held = cluster.issued.iter().find(|issued| issued.leaf_sha256 == leaf);
                match held {
                    Some(issued) if !issued.revoked => Ok(()),
                    _ => Err(Status::unauthenticated("the client certificate was revoked")),
                }
            })
            .await?;
        Ok(Response::new(RenewResponse { issued: Some(issued) }))
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverResponse>, Status> {
        self.shared.admit_enrolment()?;
        let request = request.into_inner();
        let unknown = || {
            Status::unauthenticated(
                "the certificate was not issued here, was revoked, or is for another key",
            )
        };
        let leaf = request.expired_certificate_der;
        if leaf.len() > MAX_CERTIFICATE {
            return Err(unknown());
        }
        let uid = common_name(&leaf).ok_or_else(unknown)?;
        let cluster = self.cluster(uid.clone()).await?.ok_or_else(unknown)?;
        // Known by its digest: what we issued needs no check of its signature.
        let issued = cluster.issued_leaf(&leaf).cloned().ok_or_else(unknown)?;
        let csr = csr(&request.csr_der, &uid)?;
        if issued.revoked || csr.spki_sha256 != issued.spki_sha256 {
            return Err(unknown());
        }
        let (issued, _) = self
            .issue(uid, csr, move |cluster, csr| {
                let held =
                    cluster.issued.iter().find(|held| held.leaf_sha256 == issued.leaf_sha256);
                if held.is_none_or(|held| held.revoked || held.spki_sha256 != csr.spki_sha256) {
                    return Err(Status::unauthenticated("the certificate was revoked"));
                }
                if cluster.recoveries >= MAX_RECOVERIES {
                    return Err(Status::resource_exhausted(format!(
                        "this identity was recovered {MAX_RECOVERIES} times; enrol with a new \
                         bootstrap token"
                    )));
                }
                cluster.recoveries += 1;
                Ok(())
            })
            .await?;
        Ok(Response::new(RecoverResponse { issued: Some(issued) }))
    }
}
