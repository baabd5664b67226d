//! Verified indexes, blobs and pre-images, kept in the cluster so that a restart, a rollback and the
//! correction of drift need no network.
//!
//! A content is addressed by the SHA-256 of its bytes and lives in immutable Secrets of at most
//! [`MAX_PART`] bytes each, gzipped unless it is gzip already. Its manifest is written last: a
//! content without manifest is incomplete and is written again. What is read is checked against its
//! digest.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, PartialObjectMeta, PostParams},
};
use mendix_agent_core::bundle::limits::Limits;
use serde::{Deserialize, Serialize};

use super::failure::{CallCause, CallError};
use crate::cluster::{CALL_DEADLINE, Cluster, FIELD_MANAGER};

/// Bytes in one Secret: an API server takes 1 MiB, and base64 and metadata come on top in transit.
pub const MAX_PART: usize = 768 * 1024;
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
        let sha256 = sha256_hex(bytes);
        if self.contains(&sha256).await? {
            return Ok(sha256);
        }
        let gzipped = !bytes.starts_with(&[0x1f, 0x8b]);
        let packed = if gzipped {
            gzip(bytes).map_err(|e| self.broken(&sha256, e))?
        } else {
            bytes.to_vec()
        };
        let mut parts = 0;
        for part in packed.chunks(MAX_PART) {
            self.create(&sha256, &parts.to_string(), PART, part.to_vec()).await?;
            parts += 1;
        }
        let manifest =
            Manifest { sha256: sha256.clone(), stored_bytes: packed.len() as u64, parts, gzipped };
        let manifest = serde_json::to_vec(&manifest).map_err(|e| self.broken(&sha256, e))?;
        self.create(&sha256, MANIFEST_TAIL, MANIFEST, manifest).await?;
        Ok(sha256)
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
        let Some(manifest) = self.manifest(sha256).await? else { return Ok(None) };
        let mut packed = Vec::new();
        for part in 0..manifest.parts {
            let Some(bytes) = self.read(sha256, &part.to_string(), PART).await? else {
                return Ok(None);
            };
            packed.extend_from_slice(&bytes);
        }
        let bytes = if manifest.gzipped {
            gunzip(&packed).map_err(|e| self.broken(sha256, e))?
        } else {
            packed
        };
        if sha256_hex(&bytes) != sha256 {
            return Err(self.broken(sha256, "its digest is another; delete these Secrets"));
        }
        Ok(Some(bytes))
    }

    /// Bytes that all contents take, but for those with the digests in `except` (hex).
    ///
    /// # Errors
    /// When the API server can't be reached.
    pub async fn stored_bytes(&self, except: &[String]) -> Result<u64, CallError> {
        let except: BTreeSet<&str> = except.iter().map(|sha256| short(sha256)).collect();
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
        let keep: BTreeSet<&str> = keep.iter().map(|sha256| short(sha256)).collect();
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
        doomed.sort();
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

/// SHA-256 as lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    // The store is the agent's own, and still a bound costs nothing.
    let limit = Limits::BUILT_IN.blob_expanded;
    let mut expanded = Vec::new();
    GzDecoder::new(bytes).take(limit).read_to_end(&mut expanded)?;
    Ok(expanded)
}
