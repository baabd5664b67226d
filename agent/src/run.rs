//! Wires the three paths together and keeps them going until the agent is told to stop.

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    agent_status,
    cli::{Exit, Output},
    cluster::{Cluster, ClusterError},
    config::Config,
    health,
    http::{self, Pages},
    metrics::Metrics,
    supervise::{Supervisor, chain},
};

/// Pauses between attempts to reach the Kubernetes API at start-up: a service mesh or the API
/// server itself may come up after the agent.
const CLUSTER_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why the agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither a pod's service account nor a kubeconfig was found.
    #[error("no access to Kubernetes: run in a pod, or point KUBECONFIG at a kubeconfig")]
    Kubeconfig(#[source] kube::config::InferConfigError),
    /// The client can't be made from the configuration.
    #[error("make a Kubernetes client")]
    Client(#[source] kube::Error),
    /// The cluster could not be read.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Signals can't be received.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
}

impl RunError {
    /// The exit code that says so.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Kubeconfig(_) | Self::Client(_) | Self::Cluster(_) => Exit::Cluster,
            Self::Signals(_) => Exit::Failed,
        }
    }
}

async fn client() -> Result<Client, RunError> {
    let config = kube::Config::infer().await.map_err(RunError::Kubeconfig)?;
    Client::try_from(config).map_err(RunError::Client)
}
