//! The release repository: TUF, made with `tough`'s editor.
//!
//! Root and targets are signed offline with a threshold of two, snapshot and timestamp online.
//! Publishing writes target files first, then versioned metadata, and `timestamp.json` last, each by
//! rename: an agent that reads meanwhile sees the old repository or the new one.

pub mod floor;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::bundle::{
    blob,
    floor::FILE as FLOOR,
    foundation::FOUNDATION_COMPONENT,
    index::{self, ReleaseIndex},
    object::Object,
};
use thiserror::Error;
use tough::{
    ExpirationEnforcement, FilesystemTransport, Repository, RepositoryLoader, TargetName,
    editor::{RepositoryEditor, signed::SignedRole},
    key_source::{KeySource, LocalKeySource},
    schema::{Hashes, KeyHolder, RoleKeys, RoleType, Root, Target},
    sign::Sign,
};
use url::Url;

use crate::{
    crypto,
    manifests::{
        self, Notes,
        diff::{self, ComponentDiff},
    },
    store::{ReleaseComponent, ReleaseRecord, Store, StoreError, files},
};

const SPEC_VERSION: &str = "1.0.0";
/// Signatures that root and targets need.
const OFFLINE_THRESHOLD: u64 = 2;
const ROOT_KEYS: [&str; 2] = ["root-1", "root-2"];
const TARGETS_KEYS: [&str; 2] = ["targets-1", "targets-2"];
const SNAPSHOT_KEY: &str = "snapshot";
const TIMESTAMP_KEY: &str = "timestamp";

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

struct Keys<'a> {
    store: &'a Store,
}

impl Keys<'_> {
    fn path(&self, name: &str) -> PathBuf {
        let online = name == SNAPSHOT_KEY || name == TIMESTAMP_KEY;
        let holder = if online { "release-online" } else { "release-root" };
        self.store.dir().join(holder).join(format!("{name}.pk8"))
    }

    fn create(&self, name: &str) -> Result<Ed25519KeyPair, RepositoryError> {
        let error = || RepositoryError::Key { name: name.to_owned() };
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| error())?;
        files::write(&self.path(name), document.as_ref(), files::Access::Owner)?;
        Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| error())
    }

    fn source(&self, name: &str) -> Box<dyn KeySource> {
        Box::new(LocalKeySource { path: self.path(name) })
    }

    /// What signs a publication: the offline targets keys and the online ones.
    fn publishing(&self) -> Vec<Box<dyn KeySource>> {
        let names = TARGETS_KEYS.iter().chain([&SNAPSHOT_KEY, &TIMESTAMP_KEY]);
        names.map(|name| self.source(name)).collect()
    }
}

/// Makes keys, root and an empty repository, and the root an agent is installed with.
pub(crate) async fn create(store: &Store, expiry: Expiry) -> Result<(), RepositoryError> {
    let keys = Keys { store };
    let mut all = HashMap::new();
    let mut roles = HashMap::new();
    for (role, names, threshold) in [
        (RoleType::Root, &ROOT_KEYS[..], OFFLINE_THRESHOLD),
        (RoleType::Targets, &TARGETS_KEYS[..], OFFLINE_THRESHOLD),
        (RoleType::Snapshot, &[SNAPSHOT_KEY][..], 1),
        (RoleType::Timestamp, &[TIMESTAMP_KEY][..], 1),
    ] {
        let mut keyids = Vec::new();
        for name in names {
            let key = keys.create(name)?.tuf_key();
            let keyid = key.key_id().map_err(schema("name a key"))?;
            keyids.push(keyid.clone());
            all.insert(keyid, key);
        }
        let threshold = NonZeroU64::new(threshold).unwrap_or(NonZeroU64::MIN);
        roles.insert(role, RoleKeys { keyids, threshold, _extra: HashMap::new() });
    }
    let root = Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: Timestamp::now() + expiry.root,
        keys: all,
        roles,
        _extra: HashMap::new(),
    };
    let root_keys: Vec<_> = ROOT_KEYS.iter().map(|name| keys.source(name)).collect();
    let holder = KeyHolder::Root(root.clone());
    let signed = SignedRole::new(root, &holder, &root_keys, &SystemRandom::new())
        .await
        .map_err(tuf("sign the root"))?;
    let metadata = store.repository_dir().join("metadata");
    files::create_dir(&store.repository_dir().join("targets"))?;
    files::write(&metadata.join("1.root.json"), signed.buffer(), files::Access::Everyone)?;
    let mut editor = RepositoryEditor::new(metadata.join("1.root.json"))
        .await
        .map_err(tuf("open the repository"))?;
    let first = floor::renewed(None).canonical_bytes();
    add_target(store, &mut editor, FLOOR, &first)?;
    sign(store, editor, NonZeroU64::MIN, expiry).await?;
    // Last: its presence says that the folder is complete.
    files::write(&store.trust_dir().join("root.json"), signed.buffer(), files::Access::Everyone)?;
    Ok(())
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

async fn read_target(repository: &Repository, name: &str) -> Result<Vec<u8>, RepositoryError> {
    let missing = || RepositoryError::NoTarget { name: name.to_owned() };
    let target = TargetName::new(name).map_err(tuf("name a target"))?;
    let stream = repository.read_target(&target).await.map_err(tuf("read a target"))?;
    let chunks: Vec<_> =
        stream.ok_or_else(missing)?.try_collect().await.map_err(tuf("read a target"))?;
    Ok(chunks.concat())
}

/// What a draft changes, component by component, each against the newest release that names it.
///
/// # Errors
/// When an earlier release can't be read.
pub async fn changes(store: &Store, draft: &Draft) -> Result<Vec<ComponentDiff>, RepositoryError> {
    let now = draft.index.components.iter().zip(&draft.components);
    let now = now.map(|(entry, component)| {
        (entry.name.as_str(), entry.version.as_str(), component.objects.as_slice())
    });
    compare(store, now.collect(), u64::MAX).await
}

/// What agents would refuse of the draft's definitions and rights, beside those that the newest release left
/// at them; nothing where the draft has none, or there was none before.
///
/// # Errors
/// When an earlier release can't be read.
pub async fn narrowed(store: &Store, draft: &Draft) -> Result<Vec<String>, RepositoryError> {
    let has = |release: &&ReleaseRecord| {
        release.components.iter().any(|component| component.name == FOUNDATION_COMPONENT)
    };
    let brings = draft.index.components.iter().any(|entry| entry.name == FOUNDATION_COMPONENT);
    let releases = store.releases()?;
    let Some(earlier) = releases.iter().rev().find(has).filter(|_| brings) else {
        return Ok(Vec::new());
    };
    let mut components = objects(store, &earlier.release_id).await?;
    let (_, standing) = components.remove(FOUNDATION_COMPONENT).unwrap_or_default();
    Ok(manifests::rehearse(draft, &standing))
}

/// What a published release changed, as [`changes`] tells it of a draft.
///
/// # Errors
/// When the release is unknown, or one can't be read.
pub async fn changes_of(
    store: &Store,
    release_id: &str,
) -> Result<Vec<ComponentDiff>, RepositoryError> {
    let release = store.release(release_id)?;
    let components = objects(store, release_id).await?;
    let now = components
        .iter()
        .map(|(name, (version, objects))| (name.as_str(), version.as_str(), objects.as_slice()));
    compare(store, now.collect(), release.sequence).await
}

async fn compare(
    store: &Store,
    now: Vec<(&str, &str, &[Object])>,
    below: u64,
) -> Result<Vec<ComponentDiff>, RepositoryError> {
    let earlier: Vec<_> =
        store.releases()?.into_iter().filter(|release| release.sequence < below).collect();
    let mut read: BTreeMap<String, BTreeMap<String, (String, Vec<Object>)>> = BTreeMap::new();
    let mut all = Vec::new();
    for (name, version, objects_now) in now {
        let names = |release: &&ReleaseRecord| release.components.iter().any(|c| c.name == name);
        let against = earlier.iter().rev().find(names).map(|release| release.release_id.clone());
        if let Some(id) = &against
            && !read.contains_key(id)
        {
            read.insert(id.clone(), objects(store, id).await?);
        }
        let before = against.as_ref().and_then(|id| {
            let (version, objects) = read.get(id)?.get(name)?;
            Some((id.as_str(), version.as_str(), objects.as_slice()))
        });
        all.push(diff::compare((name, version), before, objects_now));
    }
    Ok(all)
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

fn add_target(
    store: &Store,
    editor: &mut RepositoryEditor,
    name: &str,
    bytes: &[u8],
) -> Result<(), RepositoryError> {
    let digest = crypto::sha256(bytes);
    let path =
        store.repository_dir().join("targets").join(format!("{}.{name}", hex::encode(digest)));
    files::write(&path, bytes, files::Access::Everyone)?;
    let target = Target {
        length: bytes.len() as u64,
        hashes: Hashes { sha256: digest.to_vec().into(), _extra: HashMap::new() },
        custom: HashMap::new(),
        _extra: HashMap::new(),
    };
    let name = TargetName::new(name).map_err(tuf("name a target"))?;
    editor.add_target(name, target).map_err(tuf("add a target"))?;
    Ok(())
}

/// Signs everything with one new version and moves it into place, `timestamp.json` last.
async fn sign(
    store: &Store,
    mut editor: RepositoryEditor,
    version: NonZeroU64,
    expiry: Expiry,
) -> Result<(), RepositoryError> {
    let now = Timestamp::now();
    editor.targets_version(version).map_err(tuf("set the version of targets"))?;
    editor.targets_expires(now + expiry.targets).map_err(tuf("set the expiry of targets"))?;
    editor
        .snapshot_version(version)
        .snapshot_expires(now + expiry.snapshot)
        .timestamp_version(version)
        .timestamp_expires(now + expiry.timestamp);
    let signed = editor
        .sign(&Keys { store }.publishing())
        .await
        .map_err(tuf("sign the repository; are the keys in release-root and release-online?"))?;
    let staging = tempfile::tempdir_in(store.repository_dir())
        .map_err(|source| StoreError::file("create", &store.repository_dir(), source))?;
    signed.write(staging.path()).await.map_err(tuf("write the metadata"))?;
    let metadata = store.repository_dir().join("metadata");
    let mut names = files::names(staging.path(), "")?;
    names.sort_by_key(|name| name == "timestamp.json");
    for name in names {
        let bytes = files::read(&staging.path().join(&name))?;
        files::write(&metadata.join(&name), &bytes, files::Access::Everyone)?;
    }
    Ok(())
}

/// Loads the repository as its own first client, from the root that agents are installed with.
async fn load(store: &Store) -> Result<Repository, RepositoryError> {
    let root = files::read(&store.trust_dir().join("root.json"))?;
    let base = |folder: &str| {
        let path = fs::canonicalize(store.repository_dir().join(folder))
            .map_err(|source| StoreError::file("open", &store.repository_dir(), source))?;
        Url::from_directory_path(&path)
            .map_err(|()| StoreError::Refused(format!("{} is not a URL", path.display())))
    };
    RepositoryLoader::new(&root, base("metadata")?, base("targets")?)
        .transport(FilesystemTransport)
        // The publisher replaces what has expired; its clients are the ones who must not accept it.
        .expiration_enforcement(ExpirationEnforcement::Unsafe)
        .load()
        .await
        .map_err(tuf("load the repository"))
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

fn newest_root(store: &Store) -> Result<PathBuf, RepositoryError> {
    let metadata = store.repository_dir().join("metadata");
    let versions = files::names(&metadata, ".root.json")?;
    let newest = versions.iter().filter_map(|version| version.parse::<u64>().ok()).max();
    Ok(root_path(&metadata, newest.unwrap_or(1)))
}

fn root_path(metadata: &Path, version: u64) -> PathBuf {
    metadata.join(format!("{version}.root.json"))
}
