//! A real API server: etcd and kube-apiserver on free loopback ports, without nodes.
//!
//! Objects are stored, validated, authorised and watched as in any cluster, but nothing runs: no
//! pods start, and without [`ApiServerOptions::controllers`] no Deployment gets pods. Several can
//! run side by side; tests normally share one ([`ApiServer::shared`]) and keep apart by namespace.

mod access;
mod kubeconfig;
mod launch;
mod restore;

use std::{io, net::Ipv4Addr, ops::Deref, path::PathBuf, time::Duration};

use thiserror::Error;
use tokio::sync::OnceCell;

pub use self::{
    access::{Access, AuditLog},
    restore::Backup,
};
pub(crate) use self::{
    kubeconfig::for_certificate,
    launch::{Plane, Settings, until, write},
};
use crate::{
    assets::{AssetError, Assets},
    pki::PkiError,
    process::{Daemon, Janitor, Lifetime, ProcessError},
    progress::Progress,
};

/// Times a start is repeated when another program took one of the ports that were free.
const PORT_TRIES: usize = 3;

/// Why there is no Kubernetes, or why it didn't do what it was asked.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The programs are missing.
    #[error("no Kubernetes programs")]
    Assets(#[from] AssetError),
    /// The controllers are not part of an envtest folder.
    #[error(
        "controllers were asked for, but KUBEBUILDER_ASSETS has none; unset it to use those that the kit builds"
    )]
    NoControllers,
    /// A file of its state can't be written.
    #[error("can't write {}", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No free port.
    #[error("no free port on loopback")]
    NoPort(#[source] io::Error),
    /// No certificates.
    #[error("no certificates for Kubernetes")]
    Pki(#[from] PkiError),
    /// A program could not be started, or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It runs but does not get ready.
    #[error("not true within {} s: {what}", deadline.as_secs())]
    NotReady {
        /// The condition.
        what: &'static str,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// A kubeconfig can't be used.
    #[error("can't use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server refused.
    #[error("the API server refused")]
    Api(#[from] kube::Error),
    /// A token request was answered without a token.
    #[error("no token for service account {namespace}/{name}")]
    NoToken {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The audit log can't be read.
    #[error("can't read the audit log {}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What kind of API server to start.
#[derive(Clone, Debug, Default)]
pub struct ApiServerOptions {
    /// Write every request to an audit log (level Metadata), see [`Access::audit_log`].
    pub audit: bool,
    /// Also run kube-controller-manager: namespaces really go away, Deployments get ReplicaSets and
    /// (pending) Pods, garbage is collected, service accounts exist.
    pub controllers: bool,
    /// More flags for kube-apiserver, such as `--feature-gates=…`.
    pub extra_flags: Vec<String>,
    /// Where to say what is going on.
    pub progress: Progress,
}

/// A running API server. It ends, with its data, when this is dropped or the process ends.
#[derive(Debug)]
pub struct ApiServer {
    plane: Plane,
    /// After the daemons: it removes their folder.
    _janitor: Janitor,
}

impl ApiServer {
    /// Starts one and waits until it is ready (about 10 s on two idle cores).
    ///
    /// # Errors
    /// [`ServerError`]; a program that ended is reported with the end of its log.
    pub async fn start(options: ApiServerOptions) -> Result<Self, ServerError> {
        let progress = options.progress.clone();
        // Building takes minutes and blocks.
        let assets = tokio::task::spawn_blocking(move || Assets::for_api_server(&progress))
            .await
            .map_err(|panicked| io::Error::other(panicked.to_string()))
            .map_err(|source| ServerError::State { path: PathBuf::from("cache"), source })??;
        if options.controllers && assets.node_folder().is_none() {
            return Err(ServerError::NoControllers);
        }
        let mut tries = 1;
        loop {
            match Self::try_start(&assets, &options).await {
                Err(ServerError::Process(ProcessError::Ended { tail, .. }))
                    if tries < PORT_TRIES && tail.contains("address already in use") =>
                {
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_start(assets: &Assets, options: &ApiServerOptions) -> Result<Self, ServerError> {
        let state = tempfile::Builder::new()
            .prefix("mendix-agent-kube-")
            .tempdir()
            .map_err(|source| ServerError::State { path: std::env::temp_dir(), source })?
            // From here on the janitor removes it.
            .keep();
        let janitor = Janitor::start(&state, None)?;
        let plane = Settings {
            assets,
            state: &state,
            lifetime: Lifetime::ThisProcess,
            address: Ipv4Addr::LOCALHOST,
            port: None,
            service_range: "10.0.0.0/24",
            names: &[],
            controllers: options.controllers,
            scheduler: false,
            audit: options.audit,
            extra_flags: &options.extra_flags,
            held: None,
        }
        .start(&options.progress)
        .await?;
        Ok(Self { plane, _janitor: janitor })
    }

    /// The one that all tests of this process share, with the audit log on. It is started by the
    /// first that asks, and ends with the process.
    ///
    /// # Errors
    /// As [`ApiServer::start`]; the next caller tries again.
    pub async fn shared() -> Result<&'static Self, ServerError> {
        static SHARED: OnceCell<ApiServer> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| {
                Self::start(ApiServerOptions { audit: true, ..ApiServerOptions::default() })
            })
            .await
    }
}

impl Deref for ApiServer {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.plane.access
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.plane.daemons.iter_mut().rev().for_each(Daemon::kill);
    }
}
