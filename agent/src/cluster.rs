//! The cluster the agent runs in: the agent's own namespace, the UID by which the control plane knows
//! this cluster, and a Kubernetes client.
//!
//! A replica that doesn't lead has a [`Site`]; with a [`Term`] it becomes a [`Cluster`], which is what
//! everything takes that writes.

mod call;
mod connections;
mod recorders;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::{Api, Client, Resource, runtime::events::Reporter};
use thiserror::Error;

pub(crate) use self::call::{call, within};
use self::recorders::Recorders;
pub use self::{
    call::{ApiError, CALL_DEADLINE},
    connections::Connections,
};
use crate::{denials::Denials, occasion::Occasion, term::Term};

/// Field manager of everything the agent applies for a release.
pub const FIELD_MANAGER: &str = "mendix-agent";
/// Field manager of the agent's writes to its own status (API servers before 1.22 don't record the
/// subresource, so spec and status need managers of their own).
pub const STATUS_MANAGER: &str = "mendix-agent-status";

/// The cluster as any replica sees it.
#[derive(Clone)]
pub struct Site {
    connections: Arc<Connections>,
    pub(crate) namespace: String,
    uid: String,
    server_version: String,
    pub(crate) denials: Denials,
}

/// Handle to the cluster for a replica that leads; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    /// Client with the agent's own rights. Its writes pass while the term lasts.
    pub client: Client,
    /// The same for answers whose reader may stop reading: logs.
    pub apart: Arc<Client>,
    /// The agent's namespace.
    pub namespace: String,
    /// UID of namespace kube-system.
    pub uid: String,
    /// Kubernetes version as the server says it, such as `v1.34.2`.
    pub server_version: String,
    pub(crate) denials: Denials,
    term: Term,
    recorders: Recorders,
}

/// Why the cluster could not be read at start-up.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// A call did not succeed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// kube-system has no UID.
    #[error(
        "namespace kube-system has no UID; this is not a Kubernetes API server the agent knows"
    )]
    NoUid,
}

impl ClusterError {
    /// Whether the API server answered that the agent may not ask.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Api(error) if error.is(403))
    }
}

impl Site {
    /// Reads the cluster's identity and version.
    ///
    /// # Errors
    /// When the API server can't be reached, or refuses `get namespaces/kube-system` or `/version`.
    pub async fn connect(
        connections: impl Into<Connections>,
        namespace: String,
    ) -> Result<Self, ClusterError> {
        let connections = Arc::new(connections.into());
        let client = &connections.shared;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let kube_system = call("get namespace kube-system", namespaces.get("kube-system")).await?;
        let uid = kube_system.metadata.uid.ok_or(ClusterError::NoUid)?;
        let version = call("get /version", client.apiserver_version()).await?;
        Ok(Self {
            connections,
            namespace,
            uid,
            server_version: version.git_version,
            denials: Denials::default(),
        })
    }

    /// For the Lease alone: what else writes, does so under a term.
    pub(crate) fn for_the_lease(&self) -> &Client {
        &self.connections.apart
    }

    /// The cluster for what works under `term`.
    pub fn lead(&self, term: &Term) -> Cluster {
        let fence = |client: &Client| term.fence(client.clone(), &self.namespace, &self.denials);
        let client = fence(&self.connections.shared);
        let recorders = Recorders::new(
            client.clone(),
            Reporter {
                controller: "mendix-agent".into(),
                instance: std::env::var("HOSTNAME").ok(),
            },
        );
        Cluster {
            client,
            apart: Arc::new(fence(&self.connections.apart)),
            namespace: self.namespace.clone(),
            uid: self.uid.clone(),
            server_version: self.server_version.clone(),
            denials: self.denials.clone(),
            term: term.clone(),
            recorders,
        }
    }
}

impl Cluster {
    /// The cluster of an agent that has no rival: for commands that a person runs, and for tests.
    ///
    /// # Errors
    /// As [`Site::connect`].
    pub async fn connect(
        connections: impl Into<Connections>,
        namespace: String,
    ) -> Result<Self, ClusterError> {
        Ok(Site::connect(connections, namespace).await?.lead(&Term::sole()))
    }

    /// The term under which it is written to.
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// Api of a namespaced kind in the agent's own namespace.
    pub fn own<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Records a Kubernetes Event about one of the agent's objects. An event that can't be written
    /// is logged and otherwise ignored: events inform, objects decide.
    pub async fn event(&self, about: &ObjectReference, occasion: Occasion, note: String) {
        let recorder = self.recorders.of(&note);
        let (reason, event) = (occasion.reason, occasion.event(note));
        match tokio::time::timeout(CALL_DEADLINE, recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason, "could not record a Kubernetes event"),
            Err(_) => tracing::warn!(reason, "recording a Kubernetes event timed out"),
        }
    }
}
