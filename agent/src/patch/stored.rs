//! Releases as they are stored in the cluster: back from the Secrets to verified types, without the
//! network.

use mendix_agent_core::bundle::{
    Authentic, Verified, blob,
    index::{self, BlobRef, ComponentEntry, ReleaseIndex},
    object::Object,
};
use thiserror::Error;

use super::{
    contents::Contents,
    failure::{CallCause, CallError},
};

/// Why a stored release can't be used.
#[derive(Debug, Error)]
pub enum StoredError {
    /// The API server can't be read.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What is stored is not complete, or not what it should be.
    #[error("{0}")]
    Unusable(String),
}

impl StoredError {
    /// As a failed call: what is unusable stays so.
    pub fn into_call(self) -> CallError {
        match self {
            Self::Call(error) => error,
            Self::Unusable(why) => {
                CallError::about("read", "stored release".into(), CallCause::Answer(why))
            }
        }
    }
}

/// The index with this digest.
///
/// # Errors
/// When it is not stored, or is no index.
pub async fn index(
    contents: &Contents,
    release_id: &str,
    sha256: &str,
) -> Result<Verified<ReleaseIndex>, StoredError> {
    let target = ReleaseIndex::target_name(release_id);
    let authentic = authentic(contents, target, sha256).await?;
    index::verify(authentic).map_err(unusable)
}

/// The objects of a component.
///
/// # Errors
/// When the blob is not stored, or is none.
pub async fn objects(
    contents: &Contents,
    entry: &ComponentEntry,
) -> Result<Verified<Vec<Object>>, StoredError> {
    let target = BlobRef::target_name(&entry.blob.sha256);
    let authentic = authentic(contents, target, &entry.blob.sha256).await?;
    blob::verify(entry, authentic).map_err(unusable)
}

async fn authentic(
    contents: &Contents,
    target: String,
    sha256: &str,
) -> Result<Authentic, StoredError> {
    let bytes = contents.get(sha256).await?;
    let bytes = bytes.ok_or_else(|| StoredError::Unusable(format!("{target} is not stored")))?;
    let mut digest = [0; 32];
    hex::decode_to_slice(sha256, &mut digest)
        .map_err(|_| StoredError::Unusable(format!("{sha256:?} is not a digest")))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "only bytes that TUF vouched for are stored under a digest that a record names, and \
                  the store has just compared the digest"
    )]
    let authentic = Authentic::vouched_by_release_root(target, digest, bytes);
    Ok(authentic)
}

fn unusable(error: impl std::error::Error) -> StoredError {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    StoredError::Unusable(message)
}
