//! Says of objects that hold up a gate what their pods are up to. A message without it is still a
//! message, so nothing here is tried again.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams},
    core::Selector,
};
use mendix_agent_core::bundle::{
    object::ObjectId,
    readiness::{Telling, telling_pod},
};
use serde_json::Value;

use super::super::{
    failure::{CallCause, CallError},
    live::Live,
    report::MAX_LINES,
};
use crate::cluster::CALL_DEADLINE;

/// Pods of one workload that are looked at.
const MAX_PODS: u32 = 200;

/// One line for each object: which one, why it is not ready, and what its pods say. Pods are asked
/// only for the lines that a message shows.
pub(super) async fn lines(live: &Live, unready: Vec<(ObjectId, String)>) -> Vec<String> {
    let mut lines = vec![];
    for (id, reason) in unready {
        let mut line = format!("{id}: {reason}");
        if lines.len() < MAX_LINES
            && let Some(pod) = ask(live, &id).await
        {
            line = format!("{line}; {}", pod.says);
        }
        lines.push(line);
    }
    lines
}

/// What the pod of an object says that tells most; none when there is none, or it can't be read.
pub(super) async fn ask(live: &Live, id: &ObjectId) -> Option<Telling> {
    if !runs_pods(id) {
        return None;
    }
    match telling(live, id).await {
        Ok(pod) => pod,
        Err(error) => {
            tracing::debug!(error = error.line(), "the pods of {id} can't be asked");
            None
        }
    }
}

/// Kinds that select their pods by labels.
fn runs_pods(id: &ObjectId) -> bool {
    matches!(
        (id.group.as_str(), id.kind.as_str()),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job")
    )
}

async fn telling(live: &Live, id: &ObjectId) -> Result<Option<Telling>, CallError> {
    let failed = |cause| CallError::new("list the pods of", id, cause);
    let Some(workload) = live.get(id).await? else { return Ok(None) };
    let selector = workload.pointer("/spec/selector").cloned().unwrap_or_default();
    let selector = serde_json::from_value::<LabelSelector>(selector)
        .map_err(|error| failed(CallCause::Answer(error.to_string())))?;
    let selector = Selector::try_from(selector)
        .map_err(|error| failed(CallCause::Answer(error.to_string())))?;
    let namespace = id.namespace.as_deref().unwrap_or_default();
    let kind = ApiResource::erase::<Pod>(&());
    let pods: Api<DynamicObject> = Api::namespaced_with(live.client().clone(), namespace, &kind);
    let params = ListParams::default().labels_from(&selector).limit(MAX_PODS);
    let pods = match tokio::time::timeout(CALL_DEADLINE, pods.list(&params)).await {
        Ok(pods) => pods.map_err(|error| failed(CallCause::Api(error)))?,
        Err(_) => return Err(failed(CallCause::Deadline)),
    };
    let pods: Vec<Value> = pods.items.iter().filter_map(|p| serde_json::to_value(p).ok()).collect();
    Ok(telling_pod(&workload, &pods))
}
