//! A real Prometheus and its `promtool`: what reads the agent's metrics, rules and dashboards.
//!
//! Both on the search path win; otherwise they come from Debian's package `prometheus`, unpacked into
//! the cache folder and not installed. apt verifies it against Debian's archive key.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use thiserror::Error;

use crate::{
    assets::{AssetError, cache_folder},
    port,
    process::{Daemon, Launch, Lifetime, ProcessError, on_path, run},
};

const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// Why there is no Prometheus.
#[derive(Debug, Error)]
pub enum PrometheusError {
    /// No place for the cache.
    #[error(transparent)]
    Cache(#[from] AssetError),
    /// A file can't be read or written.
    #[error("{}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Debian's package can't be had.
    #[error("no prometheus and promtool on the search path, and Debian's package can't be fetched")]
    Fetch(#[source] ProcessError),
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// The programs.
#[derive(Clone, Debug)]
pub struct Prometheus {
    /// Where they are; empty means the search path.
    folder: PathBuf,
}

impl Prometheus {
    /// Finds or fetches them. Blocks while they are fetched (19 MB).
    ///
    /// # Errors
    /// [`PrometheusError`].
    pub fn find() -> Result<Self, PrometheusError> {
        if PROGRAMS.into_iter().all(on_path) {
            return Ok(Self { folder: PathBuf::new() });
        }
        let folder = cache_folder()?.join("prometheus");
        if !PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
            fetch(&folder)?;
        }
        Ok(Self { folder })
    }

    /// Runs `promtool` and returns what it prints.
    ///
    /// # Errors
    /// [`PrometheusError::Process`] with its own words.
    pub fn promtool(&self, arguments: &[&str]) -> Result<String, PrometheusError> {
        Ok(run(Command::new(self.folder.join("promtool")).args(arguments))?)
    }

    /// Starts Prometheus with a configuration file; its data is kept in `state` and goes with it.
    ///
    /// # Errors
    /// [`PrometheusError::Process`] when it can't be started.
    pub fn start(&self, configuration: &Path, state: &Path) -> Result<Server, PrometheusError> {
        let failed = |source| PrometheusError::File { path: state.to_owned(), source };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free().map_err(failed)?));
        let flags = [
            format!("--config.file={}", configuration.display()),
            format!("--storage.tsdb.path={}", state.join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let daemon = Launch {
            name: "prometheus",
            program: &self.folder.join("prometheus"),
            args: flags.into_iter().map(Into::into).collect(),
            env: vec![],
            state,
            lifetime: Lifetime::ThisProcess,
            stdin: Stdio::null(),
        }
        .start()?;
        Ok(Server { address, daemon })
    }
}

/// A Prometheus that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    daemon: Daemon,
}

impl Server {
    /// Where its API is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// [`PrometheusError::Process`] with the end of its log.
    pub fn check(&mut self) -> Result<(), PrometheusError> {
        Ok(self.daemon.check()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.daemon.kill();
    }
}

/// Puts the two programs into `folder`. Each caller works in a folder of its own, and the last step
/// is a rename.
fn fetch(folder: &Path) -> Result<(), PrometheusError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PrometheusError::File { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let work = tempfile::tempdir_in(folder).map_err(failed(folder))?;
    run(Command::new("apt-get").args(["-q", "download", "prometheus"]).current_dir(work.path()))
        .map_err(PrometheusError::Fetch)?;
    let package = fs::read_dir(work.path())
        .map_err(failed(work.path()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let Some(package) = package else {
        let source = io::Error::new(io::ErrorKind::NotFound, "apt-get left no package");
        return Err(PrometheusError::File { path: work.path().to_owned(), source });
    };
    let root = work.path().join("root");
    run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root))?;
    for program in PROGRAMS {
        let from = root.join("usr/bin").join(program);
        fs::rename(&from, folder.join(program)).map_err(failed(&from))?;
    }
    Ok(())
}
