//! Verified indexes, blobs and pre-images, kept in the cluster so that a restart, a rollback and the
//! correction of drift need no network.
//!
//! A content is addressed by the SHA-256 of its bytes and lives in immutable Secrets of at most
//! [`MAX_PART`] bytes each, gzipped unless it is gzip already. Its manifest is written last: a
//! content without manifest is incomplete and is written again. What is read is checked against its
//! digest.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
};

use aws_lc_rs::digest;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, PartialObjectMeta, PostParams},
};
use mendix_agent_core::{bundle::limits::Limits, ordered};
use serde::{Deserialize, Serialize};

use super::failure::{CallCause, CallError};
use crate::cluster::{CALL_DEADLINE, Cluster, FIELD_MANAGER};

/// Bytes in one Secret: an API server takes 1 MiB, and base64 and metadata come on top in transit.
pub const MAX_PART: usize = 768 * 1024;
/// Bytes expanded at a time.
const EXPAND_STEP: usize = 64 * 1024;
/// Label of every Secret here; its value is the first [`SHORT`] hex digits of the digest.
const LABEL: &str = "agent.mendix.com/content";
/// Type of these Secrets.
const SECRET_TYPE: &str = "agent.mendix.com/content";
/// Hex digits of the digest that go into names and labels.
const SHORT: usize = 40;
/// The key of a part's and of a manifest's data.
const PART: &str = "part";
/// Annotation with the length of the data.
const BYTES: &str = "agent.mendix.com/bytes";
/// End of a manifest's name.
const MANIFEST_TAIL: &str = "manifest";
/// See [`PART`].
const MANIFEST: &str = "manifest.json";

/// The store of contents.
#[derive(Clone)]
pub struct Contents {
    secrets: Api<Secret>,
    namespace: String,
}

/// A content on its way into the store, gzipped as it is written: whole it may be many times larger.
pub struct Packer {
    digest: digest::Context,
    gzip: GzEncoder<Vec<u8>>,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            digest: digest::Context::new(&digest::SHA256),
            gzip: GzEncoder::new(Vec::new(), Compression::default()),
        }
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.gzip.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing is read before the end, and a flush would cost bytes.
        Ok(())
    }
}

impl Packer {
    /// The content, whole.
    ///
    /// # Errors
    /// None that a buffer in memory has.
    pub fn finish(self) -> io::Result<Packed> {
        let sha256 = hex::encode(self.digest.finish());
        Ok(Packed { sha256, bytes: self.gzip.finish()?, gzipped: true })
    }
}

/// A content as it is stored.
pub struct Packed {
    sha256: String,
    bytes: Vec<u8>,
    gzipped: bool,
}

impl Packed {
    fn of(bytes: &[u8]) -> io::Result<Self> {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Ok(Self { sha256: sha256_hex(bytes), bytes: bytes.to_vec(), gzipped: false });
        }
        let mut packer = Packer::default();
        packer.write_all(bytes)?;
        packer.finish()
    }

    /// The content, expanded as it is read.
    pub fn reader(&self) -> Box<dyn Read + Send + '_> {
        match self.gzipped {
            // The store is the agent's own, and still a bound costs nothing.
            true => Box::new(GzDecoder::new(&*self.bytes).take(Limits::BUILT_IN.blob_expanded)),
            false => Box::new(&*self.bytes),
        }
    }

    /// Digest of what [`Packed::reader`] gives, hex.
    fn digest(&self) -> io::Result<String> {
        let mut digest = digest::Context::new(&digest::SHA256);
        let mut reader = self.reader();
        let mut step = vec![0; EXPAND_STEP];
        loop {
            match reader.read(&mut step)? {
                0 => return Ok(hex::encode(digest.finish())),
                read => digest.update(step.get(..read).unwrap_or_default()),
            }
        }
    }
}

/// What is known of a stored content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    /// Digest of the content, hex.
    sha256: String,
    /// Bytes over all parts, as stored.
    stored_bytes: u64,
    /// Number of parts.
    parts: u32,
    /// Whether the content was gzipped for storing.
    gzipped: bool,
}

impl Contents {
    /// The store in the agent's namespace.
    pub fn new(cluster: &Cluster) -> Self {
        Self { secrets: cluster.own(), namespace: cluster.namespace.clone() }
    }

    /// Stores bytes and returns their digest, hex. Does nothing when they are stored already.
    ///
    /// # Errors
    /// When the API server refuses or can't be reached.
    pub async fn put(&self, bytes: &[u8]) -> Result<String, CallError> {
        let packed = Packed::of(bytes).map_err(|e| self.broken(&sha256_hex(bytes), e))?;
        self.put_packed(&packed).await
    }

    /// As [`Contents::put`], of what is packed already.
    ///
    /// # Errors
    /// When the API server refuses or can't be reached.
    pub async fn put_packed(&self, packed: &Packed) -> Result<String, CallError> {
        let Packed { sha256, bytes, gzipped } = packed;
        if self.contains(sha256).await? {
            return Ok(sha256.clone());
        }
        let mut parts = 0;
        for part in bytes.chunks(MAX_PART) {
            self.create(sha256, &parts.to_string(), PART, part.to_vec()).await?;
            parts += 1;
        }
        let manifest = Manifest {
            sha256: sha256.clone(),
            stored_bytes: bytes.len() as u64,
            parts,
            gzipped: *gzipped,
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|e| self.broken(sha256, e))?;
        self.create(sha256, MANIFEST_TAIL, MANIFEST, manifest).await?;
        Ok(sha256.clone())
    }

    /// Whether a content is stored completely.
    ///
    /// # Errors
    /// When the API server can't say.
    pub async fn contains(&self, sha256: &str) -> Result<bool, CallError> {
        Ok(self.manifest(sha256).await?.is_some())
    }

    /// The bytes with this digest; none if they are not stored, or not completely.
    ///
    /// # Errors
    /// When the API server can't be reached, or what is stored is not what its digest says.
    pub async fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>, CallError> {
        let Some(packed) = self.get_packed(sha256).await? else { return Ok(None) };
        if !packed.gzipped {
            return Ok(Some(packed.bytes));
        }
        let mut bytes = Vec::new();
        packed.reader().read_to_end(&mut bytes).map_err(|e| self.broken(sha256, e))?;
        Ok(Some(bytes))
    }

    /// As [`Contents::get`], for what is read piece by piece.
    ///
    /// # Errors
    /// As [`Contents::get`].
    pub async fn get_packed(&self, sha256: &str) -> Result<Option<Packed>, CallError> {
        let Some(manifest) = self.manifest(sha256).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        for part in 0..manifest.parts {
            let Some(part) = self.read(sha256, &part.to_string(), PART).await? else {
                return Ok(None);
            };
            bytes.extend_from_slice(&part);
        }
        let packed = Packed { sha256: sha256.to_owned(), bytes, gzipped: manifest.gzipped };
        if packed.digest().map_err(|e| self.broken(sha256, e))? != sha256 {
            return Err(self.broken(sha256, "its digest is another; delete these Secrets"));
        }
        Ok(Some(packed))
    }

    /// Bytes that all contents take, but for those with the digests in `except` (hex).
    ///
    /// # Errors
    /// When the API server can't be reached.
    pub async fn stored_bytes(&self, except: &[String]) -> Result<u64, CallError> {
        let except = ordered::set(except.iter().map(|sha256| short(sha256)));
        let counted = self.list().await?.into_iter().filter(|meta| {
            let label = meta.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL));
            label.is_none_or(|label| !except.contains(label.as_str()))
        });
        let bytes = counted.filter_map(|meta| meta.metadata.annotations?.get(BYTES)?.parse().ok());
        Ok(bytes.fold(0, u64::saturating_add))
    }

    /// Deletes every content that is not in `keep` (digests, hex).
    ///
    /// # Errors
    /// When the API server refuses or can't be reached.
    pub async fn sweep(&self, keep: &BTreeSet<String>) -> Result<(), CallError> {
        let keep = ordered::set(keep.iter().map(|sha256| short(sha256)));
        let mut doomed: Vec<(bool, String)> = vec![];
        for secret in self.list().await? {
            let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL));
            if let (Some(label), Some(name)) = (label, secret.metadata.name)
                && !keep.contains(label.as_str())
            {
                doomed.push((!name.ends_with(MANIFEST_TAIL), name));
            }
        }
        // Manifests first: what is left of an interrupted sweep is not taken for complete.
        ordered::sort_by(&mut doomed, Ord::cmp);
        let params = DeleteParams::default();
        for (_, name) in doomed {
            let call = self.secrets.delete(&name, &params);
            match self.deadline("delete", &name, call).await {
                Err(error) if !is_status(&error, 404) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Without their data: all of it together may be large.
    async fn list(&self) -> Result<Vec<PartialObjectMeta<Secret>>, CallError> {
        let params = ListParams::default().labels(LABEL);
        let call = self.secrets.list_metadata(&params);
        Ok(self.deadline("list", "release contents", call).await?.items)
    }

    async fn manifest(&self, sha256: &str) -> Result<Option<Manifest>, CallError> {
        let Some(bytes) = self.read(sha256, MANIFEST_TAIL, MANIFEST).await? else {
            return Ok(None);
        };
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| self.broken(sha256, e))?;
        if manifest.sha256 != sha256 {
            return Err(self.broken(sha256, "its manifest is of another content"));
        }
        Ok(Some(manifest))
    }

    async fn read(
        &self,
        sha256: &str,
        tail: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, CallError> {
        let name = name(sha256, tail);
        let secret = self.deadline("read", &name, self.secrets.get_opt(&name)).await?;
        Ok(secret.and_then(|secret| secret.data?.remove(key)).map(|bytes| bytes.0))
    }

    async fn create(
        &self,
        sha256: &str,
        tail: &str,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<(), CallError> {
        let name = name(sha256, tail);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(self.namespace.clone()),
                annotations: Some([(BYTES.to_owned(), bytes.len().to_string())].into()),
                labels: Some([(LABEL.to_owned(), short(sha256).to_owned())].into()),
                ..Default::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            immutable: Some(true),
            data: Some([(key.to_owned(), ByteString(bytes))].into()),
            ..Default::default()
        };
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        match self.deadline("create", &name, self.secrets.create(&params, &secret)).await {
            // A part of an interrupted attempt: the same bytes, since the name holds their digest.
            Err(error) if is_status(&error, 409) => Ok(()),
            result => result.map(drop),
        }
    }

    async fn deadline<T>(
        &self,
        action: &'static str,
        name: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CallError> {
        let cause = match tokio::time::timeout(CALL_DEADLINE, call).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => CallCause::Api(error),
            Err(_) => CallCause::Deadline,
        };
        Err(CallError::about(action, format!("Secret {}/{name}", self.namespace), cause))
    }

    fn broken(&self, sha256: &str, why: impl ToString) -> CallError {
        let object = format!("Secret {}/{}", self.namespace, name(sha256, "*"));
        CallError::about("read the content of", object, CallCause::Answer(why.to_string()))
    }
}

fn name(sha256: &str, tail: &str) -> String {
    format!("release-{}-{tail}", short(sha256))
}

fn short(sha256: &str) -> &str {
    sha256.get(..SHORT).unwrap_or(sha256)
}

fn is_status(error: &CallError, code: u16) -> bool {
    matches!(&error.cause, CallCause::Api(kube::Error::Api(status)) if status.code == code)
}

/// A SHA-256.
pub type Sha256 = [u8; digest::SHA256_OUTPUT_LEN];

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut sum = Sha256::default();
    let found = digest::digest(&digest::SHA256, bytes);
    sum.copy_from_slice(found.as_ref());
    sum
}

/// SHA-256 as lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}
