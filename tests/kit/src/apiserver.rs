//! A real API server: etcd and kube-apiserver on free loopback ports, without nodes.
//!
//! Objects are stored, validated, authorised and watched as in any cluster, but nothing runs: no
//! pods start, and without [`ApiServerOptions::controllers`] no Deployment gets pods. Several can
//! run side by side; tests normally share one ([`ApiServer::shared`]) and keep apart by namespace.

mod kubeconfig;
mod launch;

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use thiserror::Error;
use tokio::sync::OnceCell;

pub(crate) use self::{
    kubeconfig::{client as client_of, for_certificate},
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
/// Life of the tokens that [`ApiServer::kubeconfig_for`] asks for.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

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
    /// Write every request to an audit log (level Metadata), see [`ApiServer::audit_log`].
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
    state: PathBuf,
    audit: bool,
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
        Ok(Self { plane, state, audit: options.audit, _janitor: janitor })
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

    /// A client that may do everything. Make one in each test: its connections belong to the
    /// runtime of the test.
    ///
    /// # Errors
    /// [`ServerError::Kubeconfig`].
    pub async fn client(&self) -> Result<Client, ServerError> {
        kubeconfig::client(&self.plane.kubeconfig).await
    }

    /// The kubeconfig of that client; complete in itself, so that it can be copied.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.plane.kubeconfig
    }

    /// Where the API server listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.plane.url
    }

    /// Makes a namespace that nobody else has, `<prefix>-<random>`, and returns its name.
    ///
    /// # Errors
    /// [`ServerError::Api`].
    pub async fn namespace(&self, prefix: &str) -> Result<String, ServerError> {
        new_namespace(self.client().await?, prefix).await
    }

    /// A kubeconfig with the rights of a service account, which must exist.
    ///
    /// # Errors
    /// [`ServerError::Api`] when it does not exist.
    pub async fn kubeconfig_for(
        &self,
        namespace: &str,
        account: &str,
    ) -> Result<PathBuf, ServerError> {
        let token = token(self.client().await?, namespace, account).await?;
        let path = self.state.join(format!("{namespace}.{account}.kubeconfig"));
        write(&path, &kubeconfig::for_token(&self.plane.url, &self.plane.ca, &token))?;
        Ok(path)
    }

    /// A client with the rights of a service account, which must exist.
    ///
    /// # Errors
    /// [`ServerError::Api`] when it does not exist.
    pub async fn client_for(&self, namespace: &str, account: &str) -> Result<Client, ServerError> {
        kubeconfig::client(&self.kubeconfig_for(namespace, account).await?).await
    }

    /// The audit log (one JSON object a line), when it was asked for. The server writes a line
    /// before it answers the request.
    #[must_use]
    pub fn audit_log(&self) -> Option<AuditLog> {
        self.audit.then(|| AuditLog { path: self.state.join("audit.log") })
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.plane.daemons.iter_mut().rev().for_each(Daemon::kill);
    }
}

/// What an API server was asked, by whom.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

impl AuditLog {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All events so far, as `audit.k8s.io/v1` objects. A line that is being written is left out.
    ///
    /// # Errors
    /// [`ServerError::Audit`] when the file can't be read.
    pub fn events(&self) -> Result<Vec<serde_json::Value>, ServerError> {
        let text = std::fs::read_to_string(&self.path)
            .map_err(|source| ServerError::Audit { path: self.path.clone(), source })?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The events of requests for a subresource of a resource, such as `pods` and `log`, in a
    /// namespace.
    ///
    /// # Errors
    /// [`ServerError::Audit`] when the file can't be read.
    pub fn requests_for(
        &self,
        namespace: &str,
        resource: &str,
        subresource: &str,
    ) -> Result<Vec<serde_json::Value>, ServerError> {
        let mut events = self.events()?;
        events.retain(|event| {
            let object = &event["objectRef"];
            object["namespace"] == namespace
                && object["resource"] == resource
                && object["subresource"].as_str().unwrap_or("") == subresource
        });
        Ok(events)
    }
}

pub(crate) async fn new_namespace(client: Client, prefix: &str) -> Result<String, ServerError> {
    let wanted = Namespace {
        metadata: ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    let made = Api::<Namespace>::all(client).create(&PostParams::default(), &wanted).await?;
    Ok(made.metadata.name.unwrap_or_default())
}

async fn token(client: Client, namespace: &str, name: &str) -> Result<String, ServerError> {
    let request = TokenRequest {
        // No audience: the server's own.
        spec: Some(TokenRequestSpec {
            expiration_seconds: i64::try_from(TOKEN_LIFE.as_secs()).ok(),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = Api::<ServiceAccount>::namespaced(client, namespace)
        .create_token_request(name, &PostParams::default(), &request)
        .await?;
    answer.status.and_then(|status| status.token).ok_or_else(|| ServerError::NoToken {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}
