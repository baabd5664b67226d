//! The Secret that holds the trust state. Thin: what it means is [`super::state`]'s.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, PostParams},
};

use super::{TrustError, state::TrustState};
use crate::{
    cluster::{CALL_DEADLINE, Cluster},
    crd,
};

/// Name of the Secret in the agent's namespace.
pub const SECRET: &str = "mendix-agent-tuf";

/// A state together with the revision of the Secret it was read from or written to.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) state: TrustState,
    resource_version: String,
}

/// Reads the state; none when the Secret doesn't exist.
pub(super) async fn read(cluster: &Cluster) -> Result<Option<Stored>, TrustError> {
    let secret = call("get Secret mendix-agent-tuf", secrets(cluster).get_opt(SECRET)).await?;
    let Some(secret) = secret else { return Ok(None) };
    cluster.term().check(&secret.metadata)?;
    let entries: BTreeMap<String, Vec<u8>> =
        secret.data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, bytes.0)).collect();
    let state = TrustState::from_entries(&entries).map_err(TrustError::Stored)?;
    let resource_version = secret.metadata.resource_version.unwrap_or_default();
    Ok(Some(Stored { state, resource_version }))
}

/// Writes the first state. Fails when the Secret exists: somebody else was first.
pub(super) async fn create(cluster: &Cluster, state: TrustState) -> Result<Stored, TrustError> {
    let secret = secret(cluster, &state, None);
    let what = "create Secret mendix-agent-tuf";
    let created = call(what, secrets(cluster).create(&PostParams::default(), &secret)).await;
    stored(state, created)
}

/// Replaces `from` by `state`, if nobody wrote in between.
pub(super) async fn replace(
    cluster: &Cluster,
    from: &Stored,
    state: TrustState,
) -> Result<Stored, TrustError> {
    let secret = secret(cluster, &state, Some(from.resource_version.clone()));
    let what = "replace Secret mendix-agent-tuf";
    let parameters = PostParams::default();
    let replaced = call(what, secrets(cluster).replace(SECRET, &parameters, &secret)).await;
    stored(state, replaced)
}

/// Whether this cluster ever received a release: then the state must have existed.
pub(super) async fn has_history(cluster: &Cluster) -> Result<bool, TrustError> {
    let kind = GroupVersionKind::gvk(crd::GROUP, "v1alpha1", "PatchBundle");
    let resource = ApiResource::from_gvk_with_plural(&kind, "patchbundles");
    let bundles: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
    match call("list PatchBundles", bundles.list(&ListParams::default().limit(1))).await {
        Ok(bundles) => Ok(!bundles.items.is_empty()),
        // The kind is not installed, so nothing of it exists.
        Err(TrustError::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn secrets(cluster: &Cluster) -> Api<Secret> {
    cluster.own()
}

fn secret(cluster: &Cluster, state: &TrustState, resource_version: Option<String>) -> Secret {
    let data = state.to_entries();
    let mut metadata = ObjectMeta {
        name: Some(SECRET.into()),
        namespace: Some(cluster.namespace.clone()),
        resource_version,
        labels: Some(BTreeMap::from([(
            "app.kubernetes.io/managed-by".into(),
            "mendix-agent".into(),
        )])),
        ..ObjectMeta::default()
    };
    cluster.term().stamp(&mut metadata);
    Secret {
        metadata,
        data: Some(data.into_iter().map(|(name, bytes)| (name, ByteString(bytes))).collect()),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}

fn stored(state: TrustState, written: Result<Secret, TrustError>) -> Result<Stored, TrustError> {
    match written {
        Ok(secret) => Ok(Stored {
            state,
            resource_version: secret.metadata.resource_version.unwrap_or_default(),
        }),
        Err(TrustError::Api { source: kube::Error::Api(status), .. }) if status.code == 409 => {
            Err(TrustError::Conflict)
        }
        Err(error) => Err(error),
    }
}

async fn call<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, TrustError> {
    tokio::time::timeout(CALL_DEADLINE, call)
        .await
        .map_err(|_| TrustError::ApiDeadline { what })?
        .map_err(|source| TrustError::Api { what, source })
}
