//! What is asked of the control plane, and what an answer must be before it is used.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use mendix_agent_proto::v1;
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::{
    EnrollError, Enrollment, MORE_THAN_A_TOKEN, is_one_word,
    memory::{Clock, Memory},
    secret_file,
};
use crate::{
    channel::{
        dial::{enrollment_client, tls},
        identity::{Credentials, Identity, IdentityError, Key, Parts, store::Stored},
    },
    clock::boot,
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
        if !is_one_word(token.expose_secret()) {
            let path = self.settings.bootstrap_token_file.display().to_string();
            return Err(EnrollError::Content { path, problem: MORE_THAN_A_TOKEN });
        }
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
        let asked = boot();
        let answer = answered(CALL, client.enroll(request)).await?;
        let identity = accept(CALL, key, answer.issued, answer.ring, uid, asked)?;
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
        let asked = boot();
        let answer = answered(CALL, enrollment_client(channel).renew(request)).await?;
        let ring = current.identity().ring().to_owned();
        let renewed = accept(CALL, key, answer.issued, ring, uid, asked)?;
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
        let asked = boot();
        let answer = answered(CALL, client.recover(request)).await?;
        let recovered = accept(CALL, key, answer.issued, expired.ring().into(), uid, asked);
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

/// Validates completely what was issued, after it was asked for at `asked` of the clock since boot.
fn accept(
    call: &'static str,
    key: Key,
    issued: Option<v1::IssuedCertificate>,
    ring: String,
    cluster_uid: &str,
    asked: Duration,
) -> Result<Credentials, EnrollError> {
    let issued = Parts::issued(key, issued, ring)
        .and_then(|parts| Identity::assemble(parts, cluster_uid))
        .map_err(|source| EnrollError::Issued { call, source })?;
    let now = Timestamp::now();
    issued.verify(now).map_err(|source| match source {
        IdentityError::Expired { .. } | IdentityError::NotYetValid { .. } => {
            let validity = (issued.not_before(), issued.not_after());
            not_valid(call, validity, now, boot().saturating_sub(asked))
        }
        source => EnrollError::Issued { call, source },
    })
}

/// Why a certificate that was asked for `waited` ago is not valid now. It was when it was made, by the
/// control plane's clock; so it is this node's that is wrong, unless the certificate has only run out since
/// it was asked for: then the process stood still, or its machine was suspended. No timer tells that: a
/// suspend stops them, and what came meanwhile is read before a deadline is looked at.
fn not_valid(
    call: &'static str,
    (from, until): (Timestamp, Timestamp),
    now: Timestamp,
    waited: Duration,
) -> EnrollError {
    let over = now.duration_since(until);
    let waited = SignedDuration::try_from(waited).unwrap_or(SignedDuration::MAX);
    if !over.is_negative() && over < waited {
        return EnrollError::Late { call };
    }
    EnrollError::Clock { call, from, until, now }
}

#[cfg(test)]
mod tests {
    use mendix_agent_core::session::Schedule;

    use super::*;

    #[test]
    fn what_ran_out_during_a_suspend_says_nothing_of_the_clock() {
        let from: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let until = from + SignedDuration::from_hours(24);
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let judged = |now, waited| not_valid("Recover", (from, until), now, waited);
        // Asked an hour before it ended, read an hour and a second later.
        let late = judged(until + second, hour + second);
        assert!(matches!(late, EnrollError::Late { .. }), "{late}");
        assert_eq!(late.schedule(), Schedule::Outage, "it is asked for again at once");
        for (now, waited) in [
            (until + second, second),  // it had ended when it was asked for
            (until + hour * 24, hour), // and long before
            (from - SignedDuration::from_hours(1), hour * 24),
        ] {
            assert!(matches!(judged(now, waited), EnrollError::Clock { .. }), "{now} {waited:?}");
        }
    }
}
