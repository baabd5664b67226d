//! Gets, renews and regains the agent's identity, and publishes what the dialler may use.
//!
//! ```text
//! no identity ──token──▶ Enroll ─┐
//! expired ─────────────▶ Recover ├─▶ validate ─▶ (renewed: use once) ─▶ store ─▶ publish
//! half of its life ────▶ Renew ──┘
//! ```
//!
//! A new bootstrap token is a person's order to enrol again, whatever identity there is: it is the
//! way back when the certificate was revoked or its recoveries are used up.
//!
//! With an identity folder nothing is asked for: somebody else keeps the identity, and it is taken
//! over from the files as they change. The trust folder is followed in both cases, so that a new
//! channel CA needs no restart.

mod error;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::session::{Backoff, Schedule, renew_at};
use mendix_agent_proto::v1;
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use tokio::{io::AsyncReadExt, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

pub use self::error::EnrollError;
use super::{
    changes::{Changes, Place},
    dial::{Target, describe, enrollment_client, tls},
    identity::{
        Credentials, Identity, IdentityError, Key, Parts, Standing,
        mounted::{self, MountedError},
        store::{Store, Stored},
    },
    random,
};
use crate::leadership::boot;

/// Longest wait for the control plane's answer to a request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How often the token file and the stored identity are looked at when nothing is due. Files are
/// projected volumes, which change without notice; the look costs one read of each.
const LOOK: Duration = Duration::from_secs(60);
/// The same while there is no identity and no token: a person is waiting.
const LOOK_UNENROLLED: Duration = Duration::from_secs(10);
/// A certificate that the control plane did not take is recovered at most this often: it counts
/// recoveries, and may have a reason of its own that no new certificate cures.
const RECOVER_REFUSED: Duration = Duration::from_secs(3600);
/// The node's clock counts as set when it jumped by more than this.
const CLOCK_SET: Duration = Duration::from_secs(60);
/// Largest bootstrap token.
const MAX_TOKEN: u64 = 512;
/// Largest ServiceAccount token.
const MAX_ATTESTATION: u64 = 16 * 1024;

/// What enrolment needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// UID of namespace kube-system.
    pub cluster_uid: String,
    /// SemVer of the agent.
    pub agent_version: String,
    /// One-time bootstrap token; may be absent.
    pub bootstrap_token_file: PathBuf,
    /// ServiceAccount token for attestation; absent outside a pod.
    pub service_account_token_file: Option<PathBuf>,
    /// Trust before there is an identity, as it was when the agent started.
    pub channel_ca: Vec<CertificateDer<'static>>,
    /// Folder with `channel-ca.pem`, which may change.
    pub trust_dir: PathBuf,
    /// Folder with an identity that somebody else keeps.
    pub identity_dir: Option<PathBuf>,
}

/// Keeps the identity alive.
pub struct Enrollment {
    settings: Settings,
    target: Target,
    store: Store,
    standing: watch::Sender<Standing>,
}

/// What the last step left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Something changed; look again at once.
    Again,
    /// Nothing to do for this long.
    Rest(Duration),
}

impl Enrollment {
    /// Nothing happens until [`Enrollment::run`].
    pub fn new(
        settings: Settings,
        target: Target,
        store: Store,
        standing: watch::Sender<Standing>,
    ) -> Self {
        Self { settings, target, store, standing }
    }

    /// Runs until it is cancelled. Failures are logged, shown in [`Standing`] while there is no
    /// identity, and tried again: slower after a refusal than after an outage.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut memory = Memory::new(self.settings.channel_ca.clone());
        let settings = &self.settings;
        let token = &settings.bootstrap_token_file;
        let folders = [Some(settings.trust_dir.clone()), settings.identity_dir.clone()];
        let mut places: Vec<Place> =
            folders.into_iter().flatten().map(|folder| Place { folder, file: None }).collect();
        places.extend(token.parent().map(|folder| Place {
            folder: folder.to_owned(),
            file: token.file_name().map(ToOwned::to_owned),
        }));
        let changes = Changes::of(places);
        loop {
            let rest = tokio::select! {
                () = cancel.cancelled() => return,
                step = self.step(&mut memory) => match step {
                    Ok(Step::Again) => Duration::ZERO,
                    Ok(Step::Rest(rest)) => {
                        backoff.reset();
                        rest
                    }
                    Err(error) => self.failed(&error, &mut backoff),
                },
            };
            // One that was refused before is not news.
            let refused = match &*self.standing.borrow() {
                Standing::Enrolled(it) if !it.refused().is_cancelled() => it.refused().clone(),
                _ => CancellationToken::new(),
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
                () = changes.next() => tracing::debug!("mounted files changed"),
                () = refused.cancelled() => {}
            }
        }
    }

    fn failed(&self, error: &EnrollError, backoff: &mut Backoff) -> Duration {
        let reason = describe(error);
        let expired = match &*self.standing.borrow() {
            Standing::Enrolled(credentials) => {
                credentials.identity().not_after() <= Timestamp::now()
            }
            Standing::NotEnrolled { .. } => true,
        };
        if expired {
            self.standing.send_replace(Standing::NotEnrolled { reason: reason.clone() });
        }
        if let EnrollError::NoToken { .. } = error {
            tracing::debug!(reason, "waiting for a bootstrap token");
            return LOOK_UNENROLLED;
        }
        let rest = backoff.next(error.schedule(), random());
        tracing::warn!(reason, again_in_seconds = rest.as_secs(), "no new identity");
        rest
    }

    async fn step(&self, memory: &mut Memory) -> Result<Step, EnrollError> {
        let uid = &self.settings.cluster_uid;
        memory.look_at_trust(&self.settings.trust_dir);
        if let Some(folder) = &self.settings.identity_dir {
            return self.take_over(folder, memory).await;
        }
        let mut stored = self.store.load(uid).await?;
        if let Some((token, sha256)) = self.token().await?
            && stored.token_sha256.as_deref() != Some(&sha256)
            && memory.tokens.may_try(&sha256)
        {
            match self.enroll(stored, token, sha256.clone(), &memory.anchors).await {
                Ok(()) => return Ok(Step::Again),
                Err(error) => {
                    stored = self.store.load(uid).await?;
                    if !matches!(stored.identity, Some(Ok(_))) {
                        return Err(error);
                    }
                    // A token that is no good must not stand in the way of an identity that is.
                    tracing::warn!(
                        reason = describe(&error),
                        "could not enrol again with the new bootstrap token"
                    );
                    memory.tokens.failed(sha256, error.schedule());
                }
            }
        }
        self.maintain(stored, memory).await
    }

    /// Uses what somebody else keeps in a folder.
    async fn take_over(&self, folder: &Path, memory: &Memory) -> Result<Step, EnrollError> {
        let of = |source| MountedError::Identity { folder: folder.display().to_string(), source };
        let mut parts = mounted::read(folder).await?;
        if parts.anchors.is_empty() {
            parts.anchors.clone_from(&memory.anchors);
        }
        let identity = Identity::assemble(parts, &self.settings.cluster_uid).map_err(of)?;
        let identity = identity.trusting(&memory.anchors);
        let credentials = Arc::new(identity.verify(Timestamp::now()).map_err(of)?);
        self.publish(&credentials);
        let left = identity.not_after().duration_since(Timestamp::now());
        Ok(Step::Rest(Duration::try_from(left).unwrap_or_default().min(LOOK)))
    }

    /// Uses, renews or recovers what is stored.
    async fn maintain(&self, stored: Stored, memory: &mut Memory) -> Result<Step, EnrollError> {
        let identity = match &stored.identity {
            None => {
                let path = self.settings.bootstrap_token_file.display().to_string();
                return Err(EnrollError::NoToken { path });
            }
            Some(Err(_)) => {
                let problem = stored.identity.and_then(Result::err);
                return Err(EnrollError::Stored(
                    problem.unwrap_or(IdentityError::Missing("certificate")),
                ));
            }
            Some(Ok(identity)) => identity.clone().trusting(&memory.anchors),
        };
        let now = Timestamp::now();
        let credentials = match identity.verify(now) {
            Ok(credentials) => Arc::new(credentials),
            Err(IdentityError::Expired { .. }) => {
                self.recover(stored, &identity, memory).await?;
                return Ok(Step::Again);
            }
            Err(error) => return Err(EnrollError::Stored(error)),
        };
        let due = memory.renewal.due(&identity);
        let credentials = self.publish(&credentials);
        if credentials.refused().is_cancelled() && memory.may_recover_refused() {
            tracing::warn!("the control plane doesn't take the certificate; asking for another");
            self.recover(stored, &identity, memory).await?;
            return Ok(Step::Again);
        }
        if now >= due {
            self.renew(stored, &credentials).await?;
            return Ok(Step::Again);
        }
        let until = Duration::try_from(due.duration_since(now)).unwrap_or_default();
        Ok(Step::Rest(until.min(LOOK)))
    }

    /// Makes credentials the ones to dial with, unless they already are (their TLS configuration
    /// holds the tickets by which connections resume). Returns those that are dialled with.
    fn publish(&self, credentials: &Arc<Credentials>) -> Arc<Credentials> {
        let mut published = Arc::clone(credentials);
        self.standing.send_if_modified(|standing| {
            let identity = credentials.identity();
            if let Standing::Enrolled(current) = standing
                && current.identity().leaf() == identity.leaf()
                && current.identity().anchors() == identity.anchors()
            {
                published = Arc::clone(current);
                return false;
            }
            let anchors = identity.anchors().len();
            tracing::info!(
                not_after = %identity.not_after(),
                ring = identity.ring(),
                anchors,
                "new identity"
            );
            *standing = Standing::Enrolled(Arc::clone(credentials));
            true
        });
        published
    }

    /// The pending key, made and stored if there is none: a key is stored before it is sent.
    async fn pending(&self, stored: Stored) -> Result<(Stored, Key), EnrollError> {
        if let Some(key) = stored.pending.clone() {
            return Ok((stored, key));
        }
        let key = Key::generate()?;
        let stored = self.store.save_pending(stored, &key, &self.settings.cluster_uid).await?;
        Ok((stored, key))
    }

    async fn enroll(
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

    async fn renew(&self, stored: Stored, current: &Credentials) -> Result<(), EnrollError> {
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

    async fn recover(
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

    /// The bootstrap token with its digest, if there is one.
    async fn token(&self) -> Result<Option<(SecretString, String)>, EnrollError> {
        let token = secret_file(&self.settings.bootstrap_token_file, MAX_TOKEN).await?;
        Ok(token.map(|token| {
            let sha256 = digest::digest(&digest::SHA256, token.expose_secret().as_bytes());
            (token, hex::encode(sha256))
        }))
    }
}

/// What is remembered from look to look.
struct Memory {
    renewal: Renewal,
    tokens: Tokens,
    /// The channel CA as it could last be read from disk.
    anchors: Vec<CertificateDer<'static>>,
    /// Why it can't be read now; said once.
    trust_problem: Option<String>,
    clock: Clock,
    recovered_refused: Option<Instant>,
}

impl Memory {
    fn new(anchors: Vec<CertificateDer<'static>>) -> Self {
        Self {
            renewal: Renewal::default(),
            tokens: Tokens::default(),
            anchors,
            trust_problem: None,
            clock: Clock::default(),
            recovered_refused: None,
        }
    }

    /// Takes over a channel CA that changed. One that can't be used changes nothing.
    fn look_at_trust(&mut self, folder: &Path) {
        match tls::channel_ca(folder) {
            Ok(anchors) => {
                if anchors != self.anchors {
                    tracing::info!(anchors = anchors.len(), "the channel CA on disk changed");
                    self.anchors = anchors;
                }
                self.trust_problem = None;
            }
            Err(error) => {
                let problem = Some(describe(&error));
                if problem != self.trust_problem {
                    tracing::warn!(problem, "the channel CA that was read before stays in use");
                    self.trust_problem = problem;
                }
            }
        }
    }

    fn may_recover_refused(&mut self) -> bool {
        let may = self.recovered_refused.is_none_or(|last| last.elapsed() >= RECOVER_REFUSED);
        if may {
            self.recovered_refused = Some(Instant::now());
        }
        may
    }
}

/// The node's clock, as far as a new certificate showed that it is wrong.
#[derive(Default)]
struct Clock {
    /// Wall clock minus time since boot when it was; none while nothing is known to be wrong.
    wrong_at: Option<SignedDuration>,
}

impl Clock {
    fn wrong() -> Self {
        Self { wrong_at: Some(Self::offset()) }
    }

    /// Moves only when the wall clock is set: both count suspend.
    fn offset() -> SignedDuration {
        let boot = SignedDuration::try_from(boot()).unwrap_or_default();
        Timestamp::now().duration_since(Timestamp::UNIX_EPOCH) - boot
    }

    fn still_wrong(&self) -> Result<(), EnrollError> {
        let set = SignedDuration::try_from(CLOCK_SET).unwrap_or_default();
        match self.wrong_at {
            Some(at) if (Self::offset() - at).abs() <= set => Err(EnrollError::ClockNotSet),
            _ => Ok(()),
        }
    }
}

/// A token that failed while there is an identity: when it is tried again.
#[derive(Default)]
struct Tokens {
    failed: Option<(String, Instant)>,
    backoff: Backoff,
}

impl Tokens {
    fn may_try(&self, sha256: &str) -> bool {
        match &self.failed {
            Some((failed, until)) if failed == sha256 => Instant::now() >= *until,
            _ => true,
        }
    }

    fn failed(&mut self, sha256: String, schedule: Schedule) {
        if self.failed.as_ref().is_none_or(|(failed, _)| *failed != sha256) {
            self.backoff.reset();
        }
        self.failed = Some((sha256, Instant::now() + self.backoff.next(schedule, random())));
    }
}

/// When the stored certificate is renewed: drawn once per certificate, not at every look.
#[derive(Default)]
struct Renewal {
    of: Option<(CertificateDer<'static>, Timestamp)>,
}

impl Renewal {
    fn due(&mut self, identity: &Identity) -> Timestamp {
        match &self.of {
            Some((leaf, due)) if leaf == identity.leaf() => *due,
            _ => {
                let due = renew_at(identity.not_before(), identity.not_after(), random());
                self.of = Some((identity.leaf().clone(), due));
                due
            }
        }
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

/// A secret in a file, without white space at its ends; `None` when there is none.
async fn secret_file(
    path: &std::path::Path,
    most: u64,
) -> Result<Option<SecretString>, EnrollError> {
    let name = || path.display().to_string();
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(EnrollError::File { path: name(), source }),
    };
    let mut content = zeroize::Zeroizing::new(Vec::new());
    file.take(most + 1)
        .read_to_end(&mut content)
        .await
        .map_err(|source| EnrollError::File { path: name(), source })?;
    if content.len() as u64 > most {
        return Err(EnrollError::Content { path: name(), problem: "larger than a token may be" });
    }
    let text = std::str::from_utf8(&content)
        .map_err(|_| EnrollError::Content { path: name(), problem: "not text" })?
        .trim();
    Ok((!text.is_empty()).then(|| SecretString::from(text)))
}
