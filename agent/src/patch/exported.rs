//! A release in one file, for people who want to look at it or check it away from any cluster:
//! `mendix-agent bundle inspect` and `bundle verify`.
//!
//! The file is a tar of the release repository as agents read it: `metadata/` with the chain of roots
//! and the other roles, `targets/` with one index and its blobs. [`verify`] goes the way of a real
//! release (tough, index, blobs, admission) with the same code, reading from the file in place of the
//! control plane; [`claims`] only reads what the index says and vouches for nothing.

mod view;

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use mendix_agent_core::bundle::{
    admission::{self, ClusterFacts, Reason},
    blob,
    index::{self, IndexError, ReleaseIndex},
    limits::Limits,
    object::Object,
};
use thiserror::Error;
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use super::{
    contents::sha256_hex,
    trust::{self, MAX_METADATA, TrustError, is_repository_file},
};
use crate::errors::describe;
pub use view::{ReleaseView, table};

/// Files in one exported release: the chain of roots (at most 257), three roles, one index, at most
/// 64 blobs.
const MAX_FILES: usize = 512;

/// Why a file is not an exported release.
#[derive(Debug, Error)]
pub enum ExportedError {
    /// The file can't be read.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is no tar, or is cut off.
    #[error("{path} is not a whole tar; make the file with `release export` of the control plane")]
    NotTar {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// An entry that no release repository has.
    #[error(
        "{path}: entry {entry:?} is not part of an exported release; make the file with `release export` of the control plane"
    )]
    Entry {
        /// The file.
        path: String,
        /// The entry.
        entry: String,
    },
    /// An entry over the limit.
    #[error("{path}: entry {entry:?} has {found} bytes; at most {max} are read")]
    TooLarge {
        /// The file.
        path: String,
        /// The entry.
        entry: String,
        /// Its size.
        found: u64,
        /// Largest size.
        max: u64,
    },
    /// More entries than a release has.
    #[error("{path}: more than {MAX_FILES} entries")]
    TooMany {
        /// The file.
        path: String,
    },
    /// None or several indexes.
    #[error(
        "{path} holds {found} release indexes (targets/<sha256>.release-<id>.json); one is wanted"
    )]
    Indexes {
        /// The file.
        path: String,
        /// How many.
        found: usize,
    },
    /// The index can't be read.
    #[error("{path}: the release index")]
    Index {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: IndexError,
    },
}

/// Why a file does not verify.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// Signatures, versions, dates or digests.
    #[error("{path} does not verify")]
    Trust {
        /// The file.
        path: String,
        /// What is wrong.
        #[source]
        source: TrustError,
    },
    /// The index is signed, and not an index.
    #[error("{path}: the signed release index")]
    Index {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: IndexError,
    },
}

/// The files of an exported release, as the repository names them.
#[derive(Clone, Debug)]
pub struct Exported {
    path: String,
    files: BTreeMap<String, Bytes>,
    index: String,
}

impl Exported {
    /// Reads the whole file into memory, at most [`Limits::BUILT_IN`] for each of its entries.
    ///
    /// # Errors
    /// See [`ExportedError`].
    pub fn open(path: &Path) -> Result<Self, ExportedError> {
        let shown = path.display().to_string();
        let read = |source| ExportedError::Read { path: shown.clone(), source };
        let mut archive = tar::Archive::new(File::open(path).map_err(read)?);
        let cut = |source| ExportedError::NotTar { path: shown.clone(), source };
        let mut files = BTreeMap::new();
        for entry in archive.entries().map_err(cut)? {
            let mut entry = entry.map_err(cut)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if entry.header().entry_type().is_dir() {
                continue;
            }
            if !entry.header().entry_type().is_file() || !is_repository_file(&name) {
                return Err(ExportedError::Entry { path: shown, entry: name });
            }
            let metadata = name.starts_with("metadata/");
            let max = if metadata { MAX_METADATA } else { Limits::BUILT_IN.blob_compressed };
            let found = entry.size();
            if found > max {
                return Err(ExportedError::TooLarge { path: shown, entry: name, found, max });
            }
            if files.len() == MAX_FILES {
                return Err(ExportedError::TooMany { path: shown });
            }
            let mut bytes = Vec::new();
            entry.by_ref().take(max).read_to_end(&mut bytes).map_err(cut)?;
            files.insert(name, Bytes::from(bytes));
        }
        let mut indexes = files.keys().filter_map(|name| index_target(name));
        let (index, more) = (indexes.next().map(str::to_owned), indexes.count());
        match (index, more) {
            (Some(index), 0) => Ok(Self { path: shown, files, index }),
            (index, more) => {
                let found = more + usize::from(index.is_some());
                Err(ExportedError::Indexes { path: shown, found })
            }
        }
    }

    fn index_bytes(&self) -> &[u8] {
        let index = self.files.iter().find(|(name, _)| index_target(name) == Some(&self.index));
        index.map(|(_, bytes)| bytes.as_ref()).unwrap_or_default()
    }
}

/// `release-1.json` of `targets/<sha256>.release-1.json`.
fn index_target(name: &str) -> Option<&str> {
    let (_, target) = name.strip_prefix("targets/")?.split_once('.')?;
    (target.starts_with("release-") && target.ends_with(".json")).then_some(target)
}

#[tough::async_trait]
impl Transport for Exported {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let file = trust::file_name(&url).and_then(|name| self.files.get(&name).cloned());
        match file {
            Some(bytes) => Ok(Box::pin(stream::iter([Ok(bytes)]))),
            None => Err(TransportError::new(TransportErrorKind::FileNotFound, url.as_str())),
        }
    }
}

/// What the index says, by its own word: nothing is verified.
///
/// # Errors
/// When it is not an index.
pub fn claims(exported: &Exported) -> Result<ReleaseView, ExportedError> {
    let index = index::read(exported.index_bytes())
        .map_err(|source| ExportedError::Index { path: exported.path.clone(), source })?;
    Ok(ReleaseView::claimed(&index, sha256_hex(exported.index_bytes())))
}

/// Of which cluster it is to be said whether it would admit the release. What is absent is not judged.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Its release ring.
    pub ring: Option<String>,
    /// Its Kubernetes version.
    pub kubernetes_version: Option<String>,
}

/// Verifies the file against a release root that the caller trusts (its file and content), at `now`, and judges it as an
/// agent of this version would that has received nothing yet.
///
/// # Errors
/// When signatures, dates or digests don't hold. What admission would refuse is in the view.
pub async fn verify(
    exported: &Exported,
    root: (&Path, Vec<u8>),
    cluster: &Cluster,
    now: Timestamp,
) -> Result<ReleaseView, VerifyError> {
    let path = || exported.path.clone();
    let untrusted = |source| VerifyError::Trust { path: path(), source };
    let releases =
        trust::offline(root.0, root.1, exported.clone(), now).await.map_err(untrusted)?;
    let authentic = releases.fetch_target(&exported.index).await.map_err(untrusted)?;
    let index =
        index::verify(authentic).map_err(|source| VerifyError::Index { path: path(), source })?;
    let (mut blobs, mut objects) = (Vec::new(), BTreeMap::new());
    let mut problems = Vec::new();
    for entry in &index.components {
        let bytes = releases.fetch_target(&entry.blob.target).await.map_err(untrusted)?;
        match blob::verify(entry, bytes) {
            Ok(blob) => {
                objects.insert(entry.name.clone(), names(&blob));
                blobs.push(blob);
            }
            Err(error) => problems.push(format!("{}: {}", entry.name, describe(&error))),
        }
    }
    let sha256 = *index.sha256();
    let release = ReleaseIndex::clone(&index);
    let facts = facts(&release, cluster);
    if let Err(refusals) = admission::admit(index, blobs, &facts) {
        let judged = refusals.iter().filter(|refusal| match refusal.reason {
            // Said above, with its cause.
            Reason::BlobMissing => false,
            Reason::KubernetesVersion => cluster.kubernetes_version.is_some(),
            Reason::Audience => cluster.ring.is_some(),
            // Of clusters that run something.
            Reason::NotReachable => false,
            _ => true,
        });
        problems.extend(judged.map(ToString::to_string));
    }
    Ok(ReleaseView::verified(&release, hex::encode(sha256), objects, problems))
}

fn names(objects: &[Object]) -> Vec<String> {
    objects.iter().map(|object| object.id.to_string()).collect()
}

fn facts(index: &ReleaseIndex, cluster: &Cluster) -> ClusterFacts {
    ClusterFacts {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kubernetes_version: cluster.kubernetes_version.clone().unwrap_or_default(),
        agent_namespace: crate::config::DEFAULT_NAMESPACE.to_owned(),
        ring: cluster.ring.clone().or(index.audience.first().cloned()).unwrap_or_default(),
        agent_is_deployment: true,
        ..ClusterFacts::default()
    }
}
