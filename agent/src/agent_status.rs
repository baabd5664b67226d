//! Keeps the AgentStatus object equal to what the agent observes: the link, the release, the
//! components, and the first thing that needs attention.

mod summary;

use std::time::Duration;

use kube::{
    Api, Resource as _,
    api::{Patch, PatchParams},
};
use mendix_agent_proto::v1::report::Body;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::summary::in_one_line;
use crate::{
    channel::{Link, Reports},
    cluster::{CALL_DEADLINE, Cluster, STATUS_MANAGER},
    config::Config,
    crd::agent_status::{AgentStatus, AgentStatusStatus, NAME},
};

/// Writes are at least this far apart, however fast the state changes.
const MIN_GAP: Duration = Duration::from_secs(1);

/// Why AgentStatus can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The API server refused or failed.
    #[error("write AgentStatus {namespace}/{NAME}")]
    Write {
        /// Where.
        namespace: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer in time.
    #[error("write AgentStatus {namespace}/{NAME}: no answer within {} s", CALL_DEADLINE.as_secs())]
    Deadline {
        /// Where.
        namespace: String,
    },
}

/// Writes AgentStatus whenever the observed state changed, until shutdown.
///
/// # Errors
/// When it can't be written; the supervisor tries again.
pub async fn run(
    cluster: Cluster,
    config: Config,
    mut link: watch::Receiver<Link>,
    reports: Reports,
    shutdown: CancellationToken,
) -> Result<(), StatusError> {
    let mut observed = reports.subscribe();
    let mut written = None;
    let mut warned = None;
    loop {
        let status = {
            let link = link.borrow_and_update().clone();
            let sections: Vec<Body> = observed.borrow_and_update().values().cloned().collect();
            summarize(&cluster, &config, &link, &sections)
        };
        if written.as_ref() != Some(&status) {
            let object = write(&cluster, &status).await?;
            written = Some(status);
            let warning = summary::warning(&link.borrow());
            if warning != warned {
                if let Some((occasion, note)) = &warning {
                    cluster.event(&object.object_ref(&()), *occasion, note.clone()).await;
                }
                warned = warning;
            }
        }
        tokio::select! {
            changed = link.changed() => if changed.is_err() { return Ok(()) },
            changed = observed.changed() => if changed.is_err() { return Ok(()) },
            () = shutdown.cancelled() => return Ok(()),
        }
        tokio::select! {
            () = tokio::time::sleep(MIN_GAP) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn write(cluster: &Cluster, status: &AgentStatusStatus) -> Result<AgentStatus, StatusError> {
    let api: Api<AgentStatus> = cluster.own();
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let head = json!({
        "apiVersion": "agent.mendix.com/v1alpha1",
        "kind": "AgentStatus",
        "metadata": { "name": NAME },
    });
    let (mut object, mut body) = (head.clone(), head);
    object["spec"] = json!({});
    body["status"] = json!(status);
    let calls = async {
        api.patch(
            NAME,
            &PatchParams::apply(crate::cluster::FIELD_MANAGER).force(),
            &Patch::Apply(object),
        )
        .await?;
        api.patch_status(NAME, &params, &Patch::Apply(body)).await
    };
    let namespace = || cluster.namespace.clone();
    tokio::time::timeout(CALL_DEADLINE, calls)
        .await
        .map_err(|_| StatusError::Deadline { namespace: namespace() })?
        .map_err(|source| StatusError::Write { namespace: namespace(), source })
}

fn summarize(
    cluster: &Cluster,
    config: &Config,
    link: &Link,
    sections: &[Body],
) -> AgentStatusStatus {
    let mut status = AgentStatusStatus {
        endpoint: config.endpoint.as_str().trim_end_matches('/').to_owned(),
        cluster_uid: cluster.uid.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kubernetes_version: cluster.server_version.clone(),
        leader: Some(cluster.term().holder().to_owned()),
        epoch: Some(cluster.term().epoch()),
        ..AgentStatusStatus::default()
    };
    summary::describe_link(&mut status, link);
    summary::describe_sections(&mut status, sections);
    status
}
