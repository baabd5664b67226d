//! A [`Transport`] around another one that closes what tough leaves open.
//!
//! tough takes any error that `fetch` itself returns for root N+1 as "there is no newer root", also
//! when the connection broke: somebody who can break connections could keep a revoked key alive.
//! It also follows delegations, which this product doesn't use. Here every failure but "no such
//! file" comes through the stream, where tough does see it, and only the files of the four
//! top-level roles and targets without a folder have a name at all.

use bytes::Bytes;
use futures::{StreamExt, stream};
use mendix_agent_proto::limits::MAX_FETCH_NAME;
use thiserror::Error;
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

/// Base of all URLs given to tough; never dialled. The path behind it is the name in a
/// `FetchRequest`.
pub(super) const REPOSITORY: &str = "release://repository/";
/// Largest metadata file. tough's own limits don't hold where signed metadata gives a length.
pub(in crate::patch) const MAX_METADATA: u64 = 4 * 1024 * 1024;

/// What the guard itself refuses: nothing that trying again would cure.
#[derive(Debug, Error)]
pub(super) enum GuardError {
    /// A file that the agent never asks for.
    #[error(
        "{0:?} is not a file of a release repository (only the top-level roles and targets without \
         a folder are: delegations are not used)"
    )]
    NotAFile(String),
    /// A metadata file over the limit.
    #[error("more than {MAX_METADATA} bytes of metadata")]
    MetadataTooLarge,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Guarded<T>(pub(super) T);

#[tough::async_trait]
impl<T: Transport + Clone + 'static> Transport for Guarded<T> {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let Some(name) = file_name(&url) else {
            return Ok(failed(
                &url,
                GuardError::NotAFile(url.as_str().chars().take(MAX_FETCH_NAME).collect()),
            ));
        };
        let is_metadata = name.starts_with("metadata/");
        match self.0.fetch(url.clone()).await {
            Ok(stream) if is_metadata => {
                let mut size = 0_u64;
                Ok(Box::pin(stream.map(move |chunk| {
                    let chunk = chunk?;
                    size += chunk.len() as u64;
                    if size > MAX_METADATA {
                        return Err(TransportError::new_with_cause(
                            TransportErrorKind::Other,
                            url.as_str(),
                            GuardError::MetadataTooLarge,
                        ));
                    }
                    Ok(chunk)
                })))
            }
            Ok(stream) => Ok(stream),
            Err(error) => Ok(Box::pin(stream::iter([Err(error)]))),
        }
    }
}

fn failed(url: &Url, cause: GuardError) -> TransportStream {
    let error = TransportError::new_with_cause(TransportErrorKind::Other, url.as_str(), cause);
    Box::pin(stream::iter([Err::<Bytes, _>(error)]))
}

/// The name of a `FetchRequest` for a URL that tough made, if it is one that the agent asks for.
pub(in crate::patch) fn file_name(url: &Url) -> Option<String> {
    let name = url.as_str().strip_prefix(REPOSITORY)?;
    is_repository_file(name).then(|| name.to_owned())
}

/// Whether the agent ever asks for a file of this name.
pub(in crate::patch) fn is_repository_file(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else { return false };
    let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let known = match folder {
        "metadata" => is_role(file),
        "targets" => !file.is_empty(),
        _ => false,
    };
    known && plain && !file.contains("..") && name.len() <= MAX_FETCH_NAME
}

/// `timestamp.json`, or `<version>.{root,snapshot,targets}.json`.
fn is_role(file: &str) -> bool {
    let Some((version, role)) = file.split_once('.') else { return false };
    file == "timestamp.json"
        || (matches!(role, "root.json" | "snapshot.json" | "targets.json")
            && !version.is_empty()
            && version.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_top_level_roles_and_flat_targets_have_a_name() {
        let name = |path: &str| file_name(&Url::parse(REPOSITORY).unwrap().join(path).unwrap());
        assert_eq!(name("metadata/2.root.json").as_deref(), Some("metadata/2.root.json"));
        assert!(name("metadata/timestamp.json").is_some());
        assert!(name("targets/ab.release-1.json").is_some());
        for path in [
            "metadata/1.delegated.json",
            "metadata/root.json",
            "metadata/x.root.json",
            "metadata/../secrets",
            "targets/folder/file",
            "targets/a%2fb",
            "targets/",
            "other/1.root.json",
        ] {
            assert_eq!(name(path), None, "{path}");
        }
        assert_eq!(file_name(&Url::parse("https://elsewhere/metadata/1.root.json").unwrap()), None);
    }
}
