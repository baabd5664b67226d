//! The release repository: TUF, made with `tough`'s editor.
//!
//! Root and targets are signed offline with a threshold of two, snapshot and timestamp online.
//! Publishing writes target files first, then versioned metadata, and `timestamp.json` last, each by
//! rename: an agent that reads meanwhile sees the old repository or the new one.

mod compared;
pub mod floor;
mod signed;

use std::{collections::BTreeMap, fs, num::NonZeroU64, path::Path};

use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::bundle::{
    blob,
    floor::FILE as FLOOR,
    index::{self, ReleaseIndex},
    object::Object,
};
use thiserror::Error;
use tough::editor::RepositoryEditor;

pub use self::compared::{changes, changes_of, narrowed};
pub(crate) use self::signed::create;
use self::signed::{add_target, load, newest_root, read_target, sign};
use crate::{
    crypto,
    manifests::{self, Notes},
    store::{ReleaseComponent, ReleaseRecord, Store, StoreError, files},
};

/// How long metadata stays acceptable, from its signing. Expiry gates acceptance of new releases
/// only.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// Root.
    pub root: SignedDuration,
    /// Targets.
    pub targets: SignedDuration,
    /// Snapshot.
    pub snapshot: SignedDuration,
    /// Timestamp.
    pub timestamp: SignedDuration,
}

impl Default for Expiry {
    fn default() -> Self {
        let days = |days: i64| SignedDuration::from_hours(24 * days);
        Self { root: days(365), targets: days(270), snapshot: days(180), timestamp: days(90) }
    }
}

/// Why the repository could not be made or changed.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// State can't be read or written.
    #[error("the release repository's files")]
    Store(#[from] StoreError),
    /// TUF refused.
    #[error("{what}")]
    Tuf {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<tough::error::Error>,
    },
    /// A value can't be written as TUF metadata.
    #[error("{what}")]
    Schema {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A key can't be made or read.
    #[error("the signing key {name}")]
    Key {
        /// Its name.
        name: String,
    },
    /// A release of this name is there already.
    #[error(
        "release {release_id} was published with sequence {sequence}; a release never changes: publish another id"
    )]
    Published {
        /// Its name.
        release_id: String,
        /// Its sequence.
        sequence: u64,
    },
    /// A target that the index names is not in the repository.
    #[error("the repository has no target {name}")]
    NoTarget {
        /// The target.
        name: String,
    },
    /// The floor does not sink.
    #[error("the floor is at sequence {floor} and never sinks; {sequence} is below it")]
    Floor {
        /// The one asked for.
        sequence: u64,
        /// The floor.
        floor: u64,
    },
    /// The sequence does not grow.
    #[error(
        "sequence {sequence} is not above {newest}, that of release {newest_id}; clusters never go back"
    )]
    Sequence {
        /// The one asked for.
        sequence: u64,
        /// The highest so far.
        newest: u64,
        /// Its release.
        newest_id: String,
    },
}

fn tuf(what: &'static str) -> impl FnOnce(tough::error::Error) -> RepositoryError {
    move |source| RepositoryError::Tuf { what, source: Box::new(source) }
}

fn schema<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> RepositoryError {
    move |source| RepositoryError::Schema { what, source: Box::new(source) }
}

/// A release that is ready to be signed: its index and the blobs it names.
#[derive(Clone, Debug)]
pub struct Draft {
    pub(crate) index: ReleaseIndex,
    pub(crate) components: Vec<DraftComponent>,
}

impl Draft {
    /// What was changed in the manifests to make them fit, component by component; those in which
    /// nothing was are left out.
    pub fn notes(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        let names = self.index.components.iter().map(|entry| entry.name.as_str());
        let notes = self.components.iter().map(|component| component.notes.lines());
        names.zip(notes).filter(|(_, notes)| !notes.is_empty())
    }
}

/// One component of a [`Draft`].
#[derive(Clone, Debug)]
pub struct DraftComponent {
    /// Its objects.
    pub(crate) objects: Vec<Object>,
    /// What was changed in its manifests to make them fit.
    pub(crate) notes: Notes,
    /// Its blob, compressed.
    pub(crate) blob: Vec<u8>,
}

/// Signs a release into the repository and notes it down.
///
/// # Errors
/// When the id was published before, the sequence does not grow, or TUF refuses.
pub async fn publish(
    store: &Store,
    mut draft: Draft,
    sequence: Option<u64>,
    expiry: Expiry,
) -> Result<ReleaseRecord, RepositoryError> {
    let lock_store = store.clone();
    let _lock = tokio::task::spawn_blocking(move || lock_store.lock())
        .await
        .map_err(schema("take the lock"))??;
    let releases = store.releases()?;
    if let Some(same) = releases.iter().find(|release| release.release_id == draft.index.release_id)
    {
        return Err(RepositoryError::Published {
            release_id: same.release_id.clone(),
            sequence: same.sequence,
        });
    }
    let newest = releases.last();
    let sequence = sequence.unwrap_or_else(|| newest.map_or(1, |release| release.sequence + 1));
    if let Some(newest) = newest.filter(|newest| sequence <= newest.sequence) {
        return Err(RepositoryError::Sequence {
            sequence,
            newest: newest.sequence,
            newest_id: newest.release_id.clone(),
        });
    }
    draft.index.sequence = sequence;

    let loaded = load(store).await?;
    let floor = floor::renewed(floor::of(&loaded).await?).canonical_bytes();
    let version = loaded.targets().signed.version.checked_add(1).unwrap_or(NonZeroU64::MAX);
    let mut editor = RepositoryEditor::from_repo(newest_root(store)?, loaded)
        .await
        .map_err(tuf("open the repository"))?;
    let index_target = ReleaseIndex::target_name(&draft.index.release_id);
    let index = draft.index.canonical_bytes();
    index::read(&index).map_err(schema("check the index with its sequence"))?;
    let blobs = draft.index.components.iter().map(|entry| entry.blob.target.clone());
    let blobs = blobs.zip(draft.components.iter().map(|component| component.blob.as_slice()));
    let others = [(index_target.clone(), index.as_slice()), (FLOOR.to_owned(), floor.as_slice())];
    for (name, bytes) in blobs.chain(others) {
        add_target(store, &mut editor, &name, bytes)?;
    }
    sign(store, editor, version, expiry).await?;

    let record = ReleaseRecord {
        release_id: draft.index.release_id.clone(),
        sequence,
        class: draft.index.class,
        index_target,
        index_sha256: crypto::sha256_hex(&index),
        published_at: Timestamp::now(),
        audience: draft.index.audience.clone(),
        components: draft
            .index
            .components
            .iter()
            .zip(&draft.components)
            .map(|(entry, component)| ReleaseComponent {
                name: entry.name.clone(),
                version: entry.version.clone(),
                objects: component.objects.len(),
                blob_size: entry.blob.size,
            })
            .collect(),
    };
    files::write_json(&store.release_path(&record.release_id), &record)?;
    Ok(record)
}

/// Components of a published release with version and objects.
///
/// # Errors
/// When the release is unknown, or the repository does not hold together.
pub async fn objects(
    store: &Store,
    release_id: &str,
) -> Result<BTreeMap<String, (String, Vec<Object>)>, RepositoryError> {
    let release = store.release(release_id)?;
    let repository = load(store).await?;
    let index = read_target(&repository, &release.index_target).await?;
    let index = index::read(&index).map_err(schema("read the index"))?;
    let mut components = BTreeMap::new();
    for entry in &index.components {
        let bytes = read_target(&repository, &entry.blob.target).await?;
        let bytes = manifests::vouched_by_publisher(entry.blob.target.clone(), &bytes);
        let objects = blob::verify(entry, bytes).map_err(schema("read a blob"))?;
        components.insert(entry.name.clone(), (entry.version.clone(), objects.to_vec()));
    }
    Ok(components)
}

/// Signs one file into the repository under its own name, in the place of an older one.
///
/// # Errors
/// When TUF refuses, or the files can't be written.
pub async fn publish_file(
    store: &Store,
    name: &str,
    bytes: &[u8],
    expiry: Expiry,
) -> Result<(), RepositoryError> {
    let lock_store = store.clone();
    let _lock = tokio::task::spawn_blocking(move || lock_store.lock())
        .await
        .map_err(schema("take the lock"))??;
    let loaded = load(store).await?;
    let version = loaded.targets().signed.version.checked_add(1).unwrap_or(NonZeroU64::MAX);
    let mut editor = RepositoryEditor::from_repo(newest_root(store)?, loaded)
        .await
        .map_err(tuf("open the repository"))?;
    add_target(store, &mut editor, name, bytes)?;
    sign(store, editor, version, expiry).await
}

/// Writes a release into one tar, for `mendix-agent bundle verify` away from any cluster: the chain of
/// roots, the newest metadata, the index and its blobs. The same release and metadata give the same
/// bytes.
///
/// # Errors
/// When the release is unknown, or a file can't be read or written.
pub async fn export(store: &Store, release_id: &str, out: &Path) -> Result<(), RepositoryError> {
    let release = store.release(release_id)?;
    let repository = load(store).await?;
    let mut names: Vec<String> =
        files::names(&store.repository_dir().join("metadata"), ".root.json")?
            .iter()
            .map(|version| format!("metadata/{version}.root.json"))
            .collect();
    names.push("metadata/timestamp.json".to_owned());
    names.push(format!("metadata/{}.snapshot.json", repository.snapshot().signed.version));
    names.push(format!("metadata/{}.targets.json", repository.targets().signed.version));
    let index_file = format!("targets/{}.{}", release.index_sha256, release.index_target);
    let index = files::read(&store.repository_dir().join(&index_file))?;
    let index = index::read(&index).map_err(schema("read the index"))?;
    names.push(index_file);
    let blobs = index.components.iter().map(|entry| &entry.blob);
    names.extend(blobs.map(|blob| format!("targets/{}.{}", blob.sha256, blob.target)));
    names.sort();
    names.dedup();
    let mut archive = tar::Builder::new(Vec::new());
    let written = |source| StoreError::file("write", out, source);
    for name in names {
        let bytes = files::read(&store.repository_dir().join(&name))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Target names hold two digests, more than an old header has room for.
        archive.append_data(&mut header, &name, bytes.as_slice()).map_err(written)?;
    }
    let bytes = archive.into_inner().map_err(written)?;
    fs::write(out, bytes).map_err(written)?;
    Ok(())
}
