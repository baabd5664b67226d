//! A TUF repository in memory, signed with Ed25519 keys made in the test.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU64,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::Ed25519KeyPair,
};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use tough::{
    TargetName, Transport, TransportError, TransportErrorKind, TransportStream,
    schema::{
        DelegatedRole, Delegations, Hashes, Metafile, PathSet, Role, RoleKeys, RoleType, Root,
        Signature, Signed, Snapshot, Target, Targets, Timestamp as TimestampRole,
    },
    sign::Sign,
};
use url::Url;

use crate::patch::trust::guard::REPOSITORY;

const SPEC: &str = "1.0.0";

/// An Ed25519 key.
#[derive(Clone)]
pub(super) struct Key(Arc<Ed25519KeyPair>);

impl Key {
    pub(super) fn generate() -> Self {
        Self(Arc::new(Ed25519KeyPair::generate().unwrap()))
    }

    fn public(&self) -> tough::schema::key::Key {
        self.0.tuf_key()
    }

    fn sign<T: Role>(&self, role: &T) -> Signature {
        Signature {
            keyid: self.public().key_id().unwrap(),
            sig: self.0.as_ref().sign(&role.canonical_form().unwrap()).as_ref().to_vec().into(),
        }
    }
}

fn sign<T: Role>(role: T, keys: &[&Key]) -> Signed<T> {
    let signatures = keys.iter().map(|key| key.sign(&role)).collect();
    Signed { signed: role, signatures }
}

/// Release engineering: keys, roots and targets.
#[derive(Clone)]
pub(super) struct Repo {
    pub(super) root_keys: Vec<Key>,
    pub(super) root_threshold: u64,
    pub(super) targets_key: Key,
    pub(super) online: Key,
    pub(super) consistent_snapshot: bool,
    /// Whether the targets role delegates.
    pub(super) delegate: bool,
    /// Of every role but the root.
    pub(super) expires: Timestamp,
    /// Of timestamp, snapshot and targets; counted up by each publication.
    pub(super) version: u64,
    roots: Vec<Vec<u8>>,
    targets: BTreeMap<String, Vec<u8>>,
}

impl Repo {
    pub(super) fn new(expires: Timestamp) -> Self {
        let mut repo = Self {
            root_keys: vec![Key::generate()],
            root_threshold: 1,
            targets_key: Key::generate(),
            online: Key::generate(),
            consistent_snapshot: true,
            delegate: false,
            expires,
            version: 0,
            roots: Vec::new(),
            targets: BTreeMap::new(),
        };
        repo.resign_first_root();
        repo
    }

    pub(super) fn target(&mut self, name: &str, content: &[u8]) {
        self.targets.insert(name.into(), content.into());
    }

    /// The root of this version, as it is published.
    pub(super) fn root_bytes(&self, version: usize) -> Vec<u8> {
        self.roots[version - 1].clone()
    }

    pub(super) fn resign_first_root(&mut self) {
        let root = self.root(1);
        let keys: Vec<&Key> = self.root_keys.iter().collect();
        self.roots = vec![serde_json::to_vec(&sign(root, &keys)).unwrap()];
    }

    /// Signs the existing first root again, with the keys as they are now.
    pub(super) fn resign_first_root_with_declared_keys_kept(&mut self) {
        let root: Signed<Root> = serde_json::from_slice(&self.roots[0]).unwrap();
        let keys: Vec<&Key> = self.root_keys.iter().collect();
        self.roots = vec![serde_json::to_vec(&sign(root.signed, &keys)).unwrap()];
    }

    /// Publishes the next root, signed by the keys before and after the change.
    pub(super) fn rotate_root(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.root_keys.clone();
        change(self);
        let root = self.root(self.roots.len() as u64 + 1);
        let mut keys: BTreeMap<String, &Key> = BTreeMap::new();
        for key in before.iter().chain(&self.root_keys) {
            keys.insert(hex::encode(key.public().key_id().unwrap()), key);
        }
        let keys: Vec<&Key> = keys.into_values().collect();
        self.roots.push(serde_json::to_vec(&sign(root, &keys)).unwrap());
    }

    fn root(&self, version: u64) -> Root {
        let mut keys = HashMap::new();
        let mut roles = HashMap::new();
        for (role, of_role, threshold) in [
            (RoleType::Root, self.root_keys.iter().collect::<Vec<_>>(), self.root_threshold),
            (RoleType::Targets, vec![&self.targets_key], 1),
            (RoleType::Snapshot, vec![&self.online], 1),
            (RoleType::Timestamp, vec![&self.online], 1),
        ] {
            let mut keyids = Vec::new();
            for key in of_role {
                let id = key.public().key_id().unwrap();
                keys.insert(id.clone(), key.public());
                keyids.push(id);
            }
            let threshold = NonZeroU64::new(threshold).unwrap();
            roles.insert(role, RoleKeys { keyids, threshold, _extra: HashMap::new() });
        }
        Root {
            spec_version: SPEC.into(),
            consistent_snapshot: self.consistent_snapshot,
            version: NonZeroU64::new(version).unwrap(),
            // Roots live for years.
            expires: "2036-01-01T00:00:00Z".parse().unwrap(),
            keys,
            roles,
            _extra: HashMap::new(),
        }
    }

    /// Signs everything again under the next version.
    pub(super) fn publish(&mut self) -> Memory {
        self.version += 1;
        let version = NonZeroU64::new(self.version).unwrap();
        let mut files = BTreeMap::new();
        for (n, root) in self.roots.iter().enumerate() {
            files.insert(format!("metadata/{}.root.json", n + 1), root.clone());
        }
        let mut targets = Targets::new(SPEC.into(), version, self.expires);
        if self.delegate {
            targets.delegations = Some(self.delegations());
        }
        for (name, content) in &self.targets {
            let sha256 = digest(&SHA256, content).as_ref().to_vec();
            files.insert(format!("targets/{}.{name}", hex::encode(&sha256)), content.clone());
            let target = Target {
                length: content.len() as u64,
                hashes: Hashes { sha256: sha256.into(), _extra: HashMap::new() },
                custom: HashMap::new(),
                _extra: HashMap::new(),
            };
            targets.add_target(TargetName::new(name).unwrap(), target);
        }
        let targets = serde_json::to_vec(&sign(targets, &[&self.targets_key])).unwrap();
        let mut snapshot = Snapshot::new(SPEC.into(), version, self.expires);
        snapshot.meta.insert("targets.json".into(), meta(&targets, version));
        if self.delegate {
            snapshot.meta.insert("other.json".into(), meta(b"", version));
        }
        let snapshot = serde_json::to_vec(&sign(snapshot, &[&self.online])).unwrap();
        let mut timestamp = TimestampRole::new(SPEC.into(), version, self.expires);
        timestamp.meta.insert("snapshot.json".into(), meta(&snapshot, version));
        let timestamp = serde_json::to_vec(&sign(timestamp, &[&self.online])).unwrap();
        files.insert(format!("metadata/{version}.targets.json"), targets);
        files.insert(format!("metadata/{version}.snapshot.json"), snapshot);
        files.insert("metadata/timestamp.json".into(), timestamp);
        Memory { files: Arc::new(Mutex::new(files)), broken: Arc::default() }
    }

    fn delegations(&self) -> Delegations {
        let id = self.online.public().key_id().unwrap();
        let mut delegations = Delegations::new();
        delegations.keys.insert(id.clone(), self.online.public());
        delegations.roles.push(DelegatedRole {
            name: "other".into(),
            keyids: vec![id],
            threshold: NonZeroU64::MIN,
            paths: PathSet::Paths(Vec::new()),
            terminating: false,
            targets: None,
        });
        delegations
    }
}

fn meta(bytes: &[u8], version: NonZeroU64) -> Metafile {
    let sha256 = digest(&SHA256, bytes).as_ref().to_vec();
    Metafile {
        length: Some(bytes.len() as u64),
        hashes: Some(Hashes { sha256: sha256.into(), _extra: HashMap::new() }),
        version,
        _extra: HashMap::new(),
    }
}

/// A published repository, by the names of `FetchRequest`.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    broken: Arc<Mutex<BTreeSet<String>>>,
}

impl Memory {
    /// From now on reading this file fails as a broken connection does.
    pub(super) fn break_file(&self, name: &str) {
        self.broken.lock().unwrap().insert(name.into());
    }

    pub(super) fn mend(&self) {
        self.broken.lock().unwrap().clear();
    }

    pub(super) fn insert(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(name.into(), bytes);
    }

    /// Changes every file whose name begins with `prefix`; there must be one.
    pub(super) fn change(&self, prefix: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut files = self.files.lock().unwrap();
        let names: Vec<_> = files.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        assert!(!names.is_empty(), "no file begins with {prefix}");
        for name in names {
            change(files.get_mut(&name).unwrap());
        }
    }
}

#[tough::async_trait]
impl Transport for Memory {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let name = url.as_str().strip_prefix(REPOSITORY).unwrap();
        if self.broken.lock().unwrap().contains(name) {
            return Err(TransportError::new(TransportErrorKind::Other, url.as_str()));
        }
        match self.files.lock().unwrap().get(name) {
            Some(bytes) => {
                let bytes = Bytes::from(bytes.clone());
                Ok(Box::pin(stream::iter([Ok(bytes)])))
            }
            None => Err(TransportError::new(TransportErrorKind::FileNotFound, url.as_str())),
        }
    }
}
