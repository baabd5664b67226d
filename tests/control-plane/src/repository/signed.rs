//! The repository as TUF has it: keys, root, metadata signed with one new version and moved into place,
//! and the reading of it.

use std::{
    collections::HashMap,
    fs,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use futures::TryStreamExt;
use jiff::Timestamp;
use mendix_agent_core::bundle::floor::FILE as FLOOR;
use tough::{
    ExpirationEnforcement, FilesystemTransport, Repository, RepositoryLoader, TargetName,
    editor::{RepositoryEditor, signed::SignedRole},
    key_source::{KeySource, LocalKeySource},
    schema::{Hashes, KeyHolder, RoleKeys, RoleType, Root, Target},
    sign::Sign,
};
use url::Url;

use super::{Expiry, RepositoryError, floor, schema, tuf};
use crate::{
    crypto,
    store::{Store, StoreError, files},
};

const SPEC_VERSION: &str = "1.0.0";
/// Signatures that root and targets need.
const OFFLINE_THRESHOLD: u64 = 2;
const ROOT_KEYS: [&str; 2] = ["root-1", "root-2"];
const TARGETS_KEYS: [&str; 2] = ["targets-1", "targets-2"];
const SNAPSHOT_KEY: &str = "snapshot";
const TIMESTAMP_KEY: &str = "timestamp";

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

pub(super) async fn read_target(
    repository: &Repository,
    name: &str,
) -> Result<Vec<u8>, RepositoryError> {
    let missing = || RepositoryError::NoTarget { name: name.to_owned() };
    let target = TargetName::new(name).map_err(tuf("name a target"))?;
    let stream = repository.read_target(&target).await.map_err(tuf("read a target"))?;
    let chunks: Vec<_> =
        stream.ok_or_else(missing)?.try_collect().await.map_err(tuf("read a target"))?;
    Ok(chunks.concat())
}

pub(super) fn add_target(
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
pub(super) async fn sign(
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
pub(super) async fn load(store: &Store) -> Result<Repository, RepositoryError> {
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

pub(super) fn newest_root(store: &Store) -> Result<PathBuf, RepositoryError> {
    let metadata = store.repository_dir().join("metadata");
    let versions = files::names(&metadata, ".root.json")?;
    let newest = versions.iter().filter_map(|version| version.parse::<u64>().ok()).max();
    Ok(root_path(&metadata, newest.unwrap_or(1)))
}

fn root_path(metadata: &Path, version: u64) -> PathBuf {
    metadata.join(format!("{version}.root.json"))
}
