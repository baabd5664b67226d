//! An identity that others keep: `tls.crt`, `tls.key` and `ca.crt` in a folder, as cert-manager or an
//! operator mounts them.
//!
//! The kubelet replaces the files of a volume together, by one swap of the link `..data`. So they are
//! read through that link, once resolved: never half of the old and half of the new.

use std::{io, path::Path};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{IdentityError, Key, KeyError, Parts};

/// Largest file that is read.
const MAX_FILE: u64 = 256 * 1024;
/// The link that the kubelet swaps.
const DATA: &str = "..data";

/// Why there is no identity in the folder.
#[derive(Debug, Error)]
pub enum MountedError {
    /// A file can't be read.
    #[error("{path} can't be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files are there and can't be used.
    #[error("the identity in {folder}")]
    Identity {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: IdentityError,
    },
}

/// Reads the files. Whether they fit together is for [`Identity::assemble`](super::Identity::assemble).
/// `ca.crt` and `ring` may be absent.
///
/// # Errors
/// [`MountedError`].
pub(in crate::channel) async fn read(folder: &Path) -> Result<Parts, MountedError> {
    let data = tokio::fs::canonicalize(folder.join(DATA)).await;
    let data = data.unwrap_or_else(|_| folder.to_path_buf());
    let of = |source: IdentityError| MountedError::Identity {
        folder: folder.display().to_string(),
        source,
    };
    let missing = |what| of(IdentityError::Missing(what));
    let key = file(&data.join("tls.key")).await?.ok_or_else(|| missing("private key (tls.key)"))?;
    let chain =
        file(&data.join("tls.crt")).await?.ok_or_else(|| missing("certificate (tls.crt)"))?;
    let anchors = file(&data.join("ca.crt")).await?;
    let ring = file(&data.join("ring")).await?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| KeyError::NotP256)
        .and_then(|key| Key::from_der(key.secret_der()))
        .map_err(|error| of(error.into()))?;
    Ok(Parts {
        key,
        chain: certificates(&chain, "tls.crt").map_err(of)?,
        anchors: match anchors {
            Some(anchors) => certificates(&anchors, "ca.crt").map_err(of)?,
            None => Vec::new(),
        },
        ring: ring.map(|ring| String::from_utf8_lossy(&ring).trim().to_owned()).unwrap_or_default(),
    })
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| IdentityError::Certificate(format!("{name}: {error}")))
}

async fn file(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, MountedError> {
    let name = || path.display().to_string();
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(MountedError::File { path: name(), source }),
    };
    let mut content = Zeroizing::new(Vec::new());
    file.take(MAX_FILE)
        .read_to_end(&mut content)
        .await
        .map_err(|source| MountedError::File { path: name(), source })?;
    Ok(Some(content))
}
