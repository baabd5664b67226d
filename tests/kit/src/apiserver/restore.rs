//! Backups of etcd and restores of them, as an administrator makes them: everything is stopped, the
//! data are put in place, everything is started again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{ApiServer, ServerError, kubeconfig, launch};
use crate::process::Daemon;

/// A copy of all that the API server had stored.
#[derive(Debug)]
pub struct Backup {
    folder: tempfile::TempDir,
}

impl ApiServer {
    /// Copies what is stored. The API server is away for some seconds.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn backup(&mut self) -> Result<Backup, ServerError> {
        self.stop();
        let folder = tempfile::tempdir()
            .map_err(|source| ServerError::State { path: std::env::temp_dir(), source })?;
        copy(&self.data(), folder.path())?;
        self.start_again().await?;
        Ok(Backup { folder })
    }

    /// Puts back what was stored then. The API server is away for some seconds; the versions of objects
    /// go back with them.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn restore(&mut self, backup: &Backup) -> Result<(), ServerError> {
        self.stop();
        let data = self.data();
        fs::remove_dir_all(&data)
            .map_err(|source| ServerError::State { path: data.clone(), source })?;
        copy(backup.folder.path(), &data)?;
        self.start_again().await
    }

    fn data(&self) -> PathBuf {
        self.plane.access.state.join(launch::ETCD_DATA)
    }

    fn stop(&mut self) {
        self.plane.daemons.iter_mut().rev().for_each(Daemon::kill);
    }

    async fn start_again(&mut self) -> Result<(), ServerError> {
        let daemons = &mut self.plane.daemons;
        daemons.iter_mut().try_for_each(Daemon::start_again)?;
        let client = kubeconfig::client(&self.plane.access.kubeconfig).await?;
        launch::until_it_answers(daemons, &client).await
    }
}

/// Copies a folder with what is in it. Etcd wants its own for itself.
fn copy(from: &Path, to: &Path) -> Result<(), ServerError> {
    let copied = || -> io::Result<()> {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, fs::metadata(from)?.permissions())?;
        Ok(())
    };
    let failed = |source| ServerError::State { path: to.to_owned(), source };
    copied().map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => copy(&path, &target)?,
            false => drop(fs::copy(&path, &target).map_err(failed)?),
        }
    }
    Ok(())
}
