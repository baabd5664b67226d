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
mod memory;
mod requests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;
use jiff::Timestamp;
use mendix_agent_core::session::Backoff;
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use tokio::{io::AsyncReadExt, sync::watch};
use tokio_util::sync::CancellationToken;

pub use self::error::EnrollError;
use self::memory::Memory;
use super::{
    changes::{Changes, Place},
    dial::{Target, describe},
    identity::{
        Credentials, Identity, IdentityError, Standing,
        mounted::{self, MountedError},
        store::{Store, Stored},
    },
    random,
};

/// How often the token file and the stored identity are looked at when nothing is due. Files are
/// projected volumes, which change without notice; the look costs one read of each.
const LOOK: Duration = Duration::from_secs(60);
/// The same while there is no identity and no token: a person is waiting.
const LOOK_UNENROLLED: Duration = Duration::from_secs(10);
/// What is wrong with a file of which [`is_one_word`] says so, and what to do.
pub(crate) const MORE_THAN_A_TOKEN: &str =
    "holds more than a bootstrap token; leave nothing in it but the token, which is one word";
/// Largest bootstrap token.
const MAX_TOKEN: u64 = 512;

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

    /// The bootstrap token with its digest, if there is one.
    async fn token(&self) -> Result<Option<(SecretString, String)>, EnrollError> {
        let token = secret_file(&self.settings.bootstrap_token_file, MAX_TOKEN).await?;
        Ok(token.map(|token| {
            let sha256 = digest::digest(&digest::SHA256, token.expose_secret().as_bytes());
            (token, hex::encode(sha256))
        }))
    }
}

/// Whether a text can be a bootstrap token. A file with the sentence that it was handed out with can't.
pub(crate) fn is_one_word(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control())
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
