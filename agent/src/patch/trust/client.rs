//! One update of the trust state through tough, and reading targets by what it found.
//!
//! Knows neither Kubernetes nor gRPC: takes a state, a transport and the time, and gives back the
//! state to store.

use std::path::Path;

use futures::StreamExt;
use jiff::Timestamp;
use mendix_agent_core::bundle::{Authentic, limits::Limits};
use tough::{
    ExpirationEnforcement, Repository, RepositoryLoader, TargetName, Transport,
    schema::{Role, RoleType},
};
use url::Url;

use super::{
    TrustError,
    folder::Folder,
    guard::{Guarded, MAX_METADATA, REPOSITORY},
    state::{Files, ROOT, SNAPSHOT, TIMESTAMP, TrustState},
};

/// Limits while metadata is fetched. Root, timestamp and snapshot are stored in one Secret, which
/// holds 1 MiB.
const LIMITS: tough::Limits = tough::Limits {
    max_root_size: 256 * 1024,
    max_timestamp_size: 64 * 1024,
    max_snapshot_size: 128 * 1024,
    max_targets_size: MAX_METADATA,
    max_root_updates: 256,
};

/// What an update led to.
pub(super) struct Update {
    /// The state to store: also after a failure, since what was verified on the way must not be
    /// forgotten (a newer root revokes keys even if the timestamp after it never arrives).
    pub(super) state: TrustState,
    /// The repository as it is now, to be used once the state is stored.
    pub(super) outcome: Result<Releases, TrustError>,
}

/// Reads and verifies the repository's metadata, starting from `state`.
///
/// `shipped_root` is the version of the root that the agent was installed with: the repository has
/// at least that one, so one that ends before it is withheld.
pub(super) async fn update<T: Transport + Clone + 'static>(
    state: &TrustState,
    transport: T,
    now: Timestamp,
    shipped_root: Option<u64>,
) -> Update {
    let unchanged = |error| Update { state: state.clone(), outcome: Err(error) };
    let directory = match Folder::make(&std::env::temp_dir()) {
        Ok(directory) => directory,
        Err(source) => return unchanged(TrustError::Directory(source)),
    };
    if let Err(source) = lay_out(directory.path(), state.files()).await {
        return unchanged(TrustError::Directory(source));
    }
    let loaded = match base_urls() {
        Ok((metadata, targets)) => {
            // Expiry is judged below, by a clock that has a floor; tough asks the system's.
            let loader = RepositoryLoader::new(&state.files().root, metadata, targets)
                .transport(Guarded(transport))
                .limits(LIMITS)
                .datastore(directory.path())
                .expiration_enforcement(ExpirationEnforcement::Unsafe);
            Box::pin(loader.load()).await.map_err(TrustError::from_tough)
        }
        Err(error) => Err(error),
    };
    let advanced = match collect(directory.path()).await {
        Ok(files) => state.advance(files).map_err(TrustError::Fetched),
        Err(source) => Err(TrustError::Directory(source)),
    };
    match (loaded, advanced) {
        (Ok(repository), Ok(next)) => match accept(&repository, &next, now, shipped_root) {
            Ok(()) => Update {
                state: next.accepted_at(now),
                outcome: Ok(Releases { repository: Box::new(repository) }),
            },
            Err(error) => Update { state: next, outcome: Err(error) },
        },
        (Err(error), Ok(next)) => Update { state: next, outcome: Err(error) },
        // Nothing that can be read back was verified: what is stored stays.
        (Err(error), Err(_)) | (Ok(_), Err(error)) => unchanged(error),
    }
}

fn base_urls() -> Result<(Url, Url), TrustError> {
    let base = Url::parse(REPOSITORY).map_err(TrustError::Url)?;
    let join = |folder| base.join(folder).map_err(TrustError::Url);
    Ok((join("metadata/")?, join("targets/")?))
}

/// Expiry, and what this product asks of a repository beyond TUF.
fn accept(
    repository: &Repository,
    next: &TrustState,
    now: Timestamp,
    shipped_root: Option<u64>,
) -> Result<(), TrustError> {
    let reached = next.root_version();
    if let Some(shipped) = shipped_root.filter(|shipped| *shipped > reached) {
        return Err(TrustError::RootWithheld { reached, shipped });
    }
    let delegations = repository.targets().signed.delegations.as_ref();
    if delegations.is_some_and(|delegations| !delegations.roles.is_empty()) {
        return Err(TrustError::Delegations);
    }
    let judged_at = next.judged_at(now);
    for (role, expires) in [
        (RoleType::Root, repository.root().signed.expires()),
        (RoleType::Targets, repository.targets().signed.expires()),
        (RoleType::Snapshot, repository.snapshot().signed.expires()),
        (RoleType::Timestamp, repository.timestamp().signed.expires()),
    ] {
        if expires <= judged_at {
            return Err(TrustError::Expired { role, expires, judged_at });
        }
    }
    Ok(())
}

/// Gives tough the history it compares with. The clock file that it would keep there is left out:
/// a clock that was once ahead would end every later update (measured); the floor is in the state.
async fn lay_out(directory: &Path, files: &Files) -> std::io::Result<()> {
    for (name, bytes) in [(TIMESTAMP, &files.timestamp), (SNAPSHOT, &files.snapshot)] {
        if let Some(bytes) = bytes {
            tokio::fs::write(directory.join(name), bytes).await?;
        }
    }
    // tough writes the root there once it has one; until then this is the one to keep.
    tokio::fs::write(directory.join(ROOT), &files.root).await
}

async fn collect(directory: &Path) -> std::io::Result<Files> {
    let optional = async |name: &str| match tokio::fs::read(directory.join(name)).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    Ok(Files {
        root: tokio::fs::read(directory.join(ROOT)).await?,
        timestamp: optional(TIMESTAMP).await?,
        snapshot: optional(SNAPSHOT).await?,
    })
}

/// The repository as it was verified at one moment. Reading from it needs no fresh metadata:
/// expiry gates acceptance only, so a timestamp that expires during a run doesn't stop it.
#[derive(Debug)]
pub struct Releases {
    repository: Box<Repository>,
}

impl Releases {
    /// Reads a target, such as the `release-<id>.json` of an index or the blob of a component.
    ///
    /// # Errors
    /// When the repository doesn't name it, when it is larger than any target may be, when it can't
    /// be fetched, or when its bytes are not those that were signed.
    pub async fn fetch_target(&self, name: &str) -> Result<Authentic, TrustError> {
        let refused = || TrustError::NoSuchTarget(name.chars().take(128).collect());
        let target_name = TargetName::new(name).map_err(|_| refused())?;
        // Names with a folder or `..` resolve to something else; the agent has none of them.
        if target_name.resolved() != name || name.contains('/') {
            return Err(refused());
        }
        let target = self.repository.targets().signed.targets.get(&target_name);
        let target = target.ok_or_else(refused)?;
        let max = Limits::BUILT_IN.blob_compressed;
        if target.length > max {
            return Err(TrustError::TargetTooLarge {
                name: name.into(),
                length: target.length,
                max,
            });
        }
        let sha256: [u8; 32] = target.hashes.sha256[..].try_into().map_err(|_| refused())?;
        let stream = Box::pin(self.repository.read_target(&target_name)).await;
        let mut stream = stream.map_err(TrustError::from_tough)?.ok_or_else(refused)?;
        let mut bytes = Vec::with_capacity(usize::try_from(target.length).unwrap_or(0));
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(TrustError::from_tough)?);
        }
        // tough compared the digest when the stream ended.
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where TUF has just verified these bytes"
        )]
        let authentic = Authentic::vouched_by_release_root(name.into(), sha256, bytes);
        Ok(authentic)
    }
}
