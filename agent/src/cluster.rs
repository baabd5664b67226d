//! The cluster the agent runs in: one Kubernetes client, the agent's own namespace, and the UID by
//! which the control plane knows this cluster.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::{
    Api, Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use thiserror::Error;

/// Field manager of everything the agent applies for a release.
pub const FIELD_MANAGER: &str = "mendix-agent";
/// Field manager of the agent's writes to its own status (API servers before 1.22 don't record the
/// subresource, so spec and status need managers of their own).
pub const STATUS_MANAGER: &str = "mendix-agent-status";

/// Longest wait for one API call that is not a watch. kube-rs has no read timeout of its own and
/// retries 429/503/504 by itself; this bounds both.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Handle to the cluster; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    /// Client with the agent's own rights.
    pub client: Client,
    /// The agent's namespace.
    pub namespace: String,
    /// UID of namespace kube-system.
    pub uid: String,
    /// Kubernetes version as the server says it, such as `v1.34.2`.
    pub server_version: String,
    recorder: Recorder,
}

/// Why the cluster could not be read at start-up.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The API server did not answer in time.
    #[error("{what}: no answer from the Kubernetes API within {} s", CALL_DEADLINE.as_secs())]
    Deadline {
        /// The call.
        what: &'static str,
    },
    /// The API server refused or failed.
    #[error("{what}")]
    Api {
        /// The call.
        what: &'static str,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// kube-system has no UID.
    #[error(
        "namespace kube-system has no UID; this is not a Kubernetes API server the agent knows"
    )]
    NoUid,
}

impl Cluster {
    /// Reads the cluster's identity and version.
    ///
    /// # Errors
    /// When the API server can't be reached, or refuses `get namespaces/kube-system` or `/version`.
    pub async fn connect(client: Client, namespace: String) -> Result<Self, ClusterError> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let kube_system =
            deadline("get namespace kube-system", namespaces.get("kube-system")).await?;
        let uid = kube_system.metadata.uid.ok_or(ClusterError::NoUid)?;
        let version = deadline("get /version", client.apiserver_version()).await?;
        let recorder = Recorder::new(
            client.clone(),
            Reporter {
                controller: "mendix-agent".into(),
                instance: std::env::var("HOSTNAME").ok(),
            },
        );
        Ok(Self { client, namespace, uid, server_version: version.git_version, recorder })
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
    pub async fn event(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let event = Event {
            type_: kind,
            reason: reason.into(),
            note: Some(note),
            action: action.into(),
            secondary: None,
        };
        match tokio::time::timeout(CALL_DEADLINE, self.recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason, "could not record a Kubernetes event"),
            Err(_) => tracing::warn!(reason, "recording a Kubernetes event timed out"),
        }
    }
}

async fn deadline<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    tokio::time::timeout(CALL_DEADLINE, call)
        .await
        .map_err(|_| ClusterError::Deadline { what })?
        .map_err(|source| ClusterError::Api { what, source })
}
