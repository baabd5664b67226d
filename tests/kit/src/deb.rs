//! The agent's Debian package, as `packaging/deb/build.sh` makes it, from a development build.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use thiserror::Error;

use crate::{
    assets::{AssetError, cache_folder},
    process::{self, ProcessError},
};

/// Why there is no package.
#[derive(Debug, Error)]
pub enum DebError {
    /// Compiling it takes minutes: not something that a test does unasked.
    #[error("cargo-deb is not in the cache; packaging/deb/build.sh puts it there")]
    NoBuilder,
    /// There is no cache.
    #[error(transparent)]
    Cache(#[from] AssetError),
    /// Building failed.
    #[error(transparent)]
    Build(#[from] ProcessError),
}

/// Builds it and returns its path. Blocks.
///
/// # Errors
/// See [`DebError`].
pub fn build() -> Result<PathBuf, DebError> {
    if !cache_folder()?.join("tools/bin/cargo-deb").is_file() {
        return Err(DebError::NoBuilder);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/deb/build.sh");
    Ok(process::run(Command::new(script).args(["--profile", "dev"]))?.trim().into())
}
