//! Makes a control plane: every root of trust, and the folder an agent is installed with.

use std::path::Path;

use thiserror::Error;

use crate::{
    pki::{ChannelCa, PkiError, ServerNames},
    portal::{self, PortalError},
    repository::{self, Expiry, RepositoryError},
    store::{Store, StoreError, files},
};

/// Why no control plane could be made.
#[derive(Debug, Error)]
pub enum InitError {
    /// The folder can't be written, or is in use.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The channel CA can't be made.
    #[error("can't make the channel CA")]
    Pki(#[from] PkiError),
    /// The release repository can't be made.
    #[error("can't make the release repository")]
    Repository(#[from] RepositoryError),
    /// The portal's keys can't be made.
    #[error("can't make the portal's keys")]
    Portal(#[from] PortalError),
}

/// Makes a control plane in `dir`, for a server that is reached under `names`.
///
/// # Errors
/// [`StoreError::AlreadyInitialized`] when there is one; what an interrupted attempt left behind is
/// overwritten.
pub async fn init(dir: &Path, names: &ServerNames, expiry: Expiry) -> Result<Store, InitError> {
    let store = Store::unchecked(dir.to_path_buf());
    files::create_dir(dir)?;
    let _lock = store.lock()?;
    if Store::open(dir).is_ok() {
        return Err(StoreError::AlreadyInitialized { path: dir.to_path_buf() }.into());
    }
    ChannelCa::create(&store)?;
    store.write_server_names(names)?;
    portal::create(&store)?;
    // Last: it writes trust/root.json, whose presence says that the folder is complete.
    repository::create(&store, expiry).await?;
    Ok(store)
}
