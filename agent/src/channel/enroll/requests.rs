//! What is asked of the control plane, and what an answer must be before it is used.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use mendix_agent_proto::v1;
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::{
    EnrollError, Enrollment,
    memory::{Clock, Memory},
    secret_file,
};
use crate::channel::{
    dial::{enrollment_client, tls},
    identity::{Credentials, Identity, IdentityError, Key, Parts, store::Stored},
};

/// Longest wait for the control plane's answer to a request.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Largest ServiceAccount token.
const MAX_ATTESTATION: u64 = 16 * 1024;

impl Enrollment {
    /// The pending key, made and stored if there is none: a key is stored before it is sent.
    async fn pending(&self, stored: Stored) -> Result<(Stored, Key), EnrollError> {
        if let Some(key) = stored.pending.clone() {
            return Ok((stored, key));
        }
        let key = Key::generate()?;
        let stored = self.store.save_pending(stored, &key, &self.settings.cluster_uid).await?;
        Ok((stored, key))
    }

    pub(super) async fn enroll(
        &self,
        stored: Stored,
        token: SecretString,
        token_sha256: String,
        anchors: &[CertificateDer<'static>],
    ) -> Result<(), EnrollError> {
        const CALL: &str = "Enroll";
        let uid = &self.settings.cluster_uid;
        let (stored, key) = self.pending(stored).await?;
        let attestation = match &self.settings.service_account_token_file {
            Some(path) => secret_file(path, MAX_ATTESTATION).await?,
            None => None,
        };
        let request = v1::EnrollRequest {
            cluster_uid: uid.clone(),
            bootstrap_token: token.expose_secret().into(),
            csr_der: key.request(uid)?,
            service_account_token: attestation
                .map(|token| token.expose_secret().into())
                .unwrap_or_default(),
            agent_version: self.settings.agent_version.clone(),
        };
        let tls = tls::server_authenticated(anchors)?;
        let mut client = enrollment_client(self.target.connect(tls).await?);
        let answer = answered(CALL, client.enroll(request)).await?;
        let identity = accept(CALL, key, answer.issued, answer.ring, uid)?;
        self.store.save_identity(stored, identity.identity(), Some(token_sha256), uid).await?;
        Ok(())
    }

    pub(super) async fn renew(
        &self,
        stored: Stored,
        current: &Credentials,
    ) -> Result<(), EnrollError> {
        const CALL: &str = "Renew";
        let uid = &self.settings.cluster_uid;
        let (stored, key) = self.pending(stored).await?;
        let request = v1::RenewRequest { csr_der: key.request(uid)? };
        let channel = self.target.connect(Arc::clone(current.tls())).await?;
        let answer = answered(CALL, enrollment_client(channel).renew(request)).await?;
        let ring = current.identity().ring().to_owned();
        let renewed = accept(CALL, key, answer.issued, ring, uid)?;
        // Used once before the old one is given up: the control plane may have issued something
        // that it does not accept itself, or anchors that don't lead to it.
        self.target.connect(Arc::clone(renewed.tls())).await?;
        self.store.save_identity(stored, renewed.identity(), None, uid).await?;
        Ok(())
    }

    pub(super) async fn recover(
        &self,
        stored: Stored,
        expired: &Identity,
        memory: &mut Memory,
    ) -> Result<(), EnrollError> {
        const CALL: &str = "Recover";
        let uid = &self.settings.cluster_uid;
        // The control plane counts: nothing is asked for that this node's clock would refuse again.
        memory.clock.still_wrong()?;
        let key = expired.key().clone();
        let request = v1::RecoverRequest {
            expired_certificate_der: expired.leaf().to_vec(),
            csr_der: key.request(uid)?,
        };
        // The CA may have been rotated while the agent was away, with the mounted file updated.
        let tls = tls::server_authenticated(expired.anchors())?;
        let mut client = enrollment_client(self.target.connect(tls).await?);
        let answer = answered(CALL, client.recover(request)).await?;
        let recovered = accept(CALL, key, answer.issued, expired.ring().into(), uid);
        if let Err(EnrollError::Clock { .. }) = &recovered {
            memory.clock = Clock::wrong();
        }
        let recovered = recovered?;
        self.store.save_identity(stored, recovered.identity(), None, uid).await?;
        Ok(())
    }
}

async fn answered<T>(
    call: &'static str,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, EnrollError> {
    match timeout(ANSWER_DEADLINE, answer).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(EnrollError::Answer { call, status: Box::new(status) }),
        Err(_) => Err(EnrollError::NoAnswer { call }),
    }
}

/// Validates completely what was issued.
fn accept(
    call: &'static str,
    key: Key,
    issued: Option<v1::IssuedCertificate>,
    ring: String,
    cluster_uid: &str,
) -> Result<Credentials, EnrollError> {
    let issued = Parts::issued(key, issued, ring)
        .and_then(|parts| Identity::assemble(parts, cluster_uid))
        .map_err(|source| EnrollError::Issued { call, source })?;
    let now = Timestamp::now();
    issued.verify(now).map_err(|source| match source {
        // It was made a moment ago: by the control plane's clock it is valid now.
        IdentityError::Expired { .. } | IdentityError::NotYetValid { .. } => {
            let (from, until) = (issued.not_before(), issued.not_after());
            EnrollError::Clock { call, from, until, now }
        }
        source => EnrollError::Issued { call, source },
    })
}
