//! The signed floor: the lowest sequence that any cluster accepts, whatever it remembers. Signed anew with
//! every release, so that its date is a time that clusters know to be past; raised by people only.

use jiff::Timestamp;
use mendix_agent_core::bundle::floor::{self, FILE, ReleaseFloor, SCHEMA};
use tough::{Repository, TargetName};

use super::{
    Expiry, RepositoryError, publish_file, schema,
    signed::{load, read_target},
    tuf,
};
use crate::store::Store;

/// The published floor.
///
/// # Errors
/// When the repository does not hold together, or has none: it was made before there were floors, and
/// gets one with its next release.
pub async fn published(store: &Store) -> Result<ReleaseFloor, RepositoryError> {
    let missing = || RepositoryError::NoTarget { name: FILE.to_owned() };
    of(&load(store).await?).await?.ok_or_else(missing)
}

/// Raises the floor to the sequence of a published release: no cluster accepts an older one from then on.
///
/// # Errors
/// When the release is unknown or below the floor, or TUF refuses.
pub async fn raise(
    store: &Store,
    release_id: &str,
    expiry: Expiry,
) -> Result<ReleaseFloor, RepositoryError> {
    let sequence = store.release(release_id)?.sequence;
    let known = of(&load(store).await?).await?;
    if let Some(known) = known.filter(|known| sequence < known.sequence) {
        return Err(RepositoryError::Floor { sequence, floor: known.sequence });
    }
    let raised = ReleaseFloor { sequence, ..renewed(known) };
    publish_file(store, FILE, &raised.canonical_bytes(), expiry).await?;
    Ok(raised)
}

/// The floor of a repository; none in one that was made before there were floors.
pub(super) async fn of(repository: &Repository) -> Result<Option<ReleaseFloor>, RepositoryError> {
    let name = TargetName::new(FILE).map_err(tuf("name a target"))?;
    if !repository.targets().signed.targets.contains_key(&name) {
        return Ok(None);
    }
    let bytes = read_target(repository, FILE).await?;
    floor::read(&bytes).map(Some).map_err(schema("read the floor"))
}

/// The same floor, to be signed now; the lowest there is where there was none.
pub(super) fn renewed(known: Option<ReleaseFloor>) -> ReleaseFloor {
    ReleaseFloor {
        schema: SCHEMA,
        serial: known.map_or(1, |known| known.serial + 1),
        signed_at: Timestamp::now(),
        sequence: known.map_or(1, |known| known.sequence),
    }
}
