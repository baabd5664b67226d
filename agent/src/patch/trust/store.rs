//! The Secret that holds the trust state. Thin: what it means is [`super::state`]'s.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ListParams, ObjectList, ObjectMeta, PostParams},
};
use mendix_agent_core::{bundle::admission::HighWater, ordered};

use super::{TrustError, state::TrustState};
use crate::{
    cluster::{ApiError, Cluster, call},
    crd::{managed_component::ManagedComponent, patch_bundle::PatchBundle},
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
    let data = secret.data.unwrap_or_default();
    let entries = ordered::map(data.into_iter().map(|(name, bytes)| (name, bytes.0)));
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

/// Puts the state back where the Secret is gone or another one than was written last; none when it is
/// as it was left. Only a leader writes it, so whatever else stands there, somebody else wrote, and what
/// this process remembers is newer.
pub(super) async fn put_back(
    cluster: &Cluster,
    last: &Stored,
) -> Result<Option<Stored>, TrustError> {
    let found = call("get Secret mendix-agent-tuf", secrets(cluster).get_opt(SECRET)).await?;
    let Some(found) = found else {
        return create(cluster, last.state.clone()).await.map(Some);
    };
    cluster.term().check(&found.metadata)?;
    let resource_version = found.metadata.resource_version.unwrap_or_default();
    if resource_version == last.resource_version {
        return Ok(None);
    }
    let found = Stored { state: last.state.clone(), resource_version };
    replace(cluster, &found, last.state.clone()).await.map(Some)
}

/// The highest release that the agent's records show as accepted; none when they show none. Whoever can
/// write them can raise it and, by deleting them, lower it: not below the signed floor.
pub(super) async fn recorded_mark(cluster: &Cluster) -> Result<Option<HighWater>, TrustError> {
    let bundles: Api<PatchBundle> = cluster.own();
    let components: Api<ManagedComponent> = cluster.own();
    let all = ListParams::default();
    let bundles = or_none(call("list PatchBundles", bundles.list(&all)).await)?;
    let components = or_none(call("list ManagedComponents", components.list(&all)).await)?;
    let of_bundles = bundles.into_iter().filter_map(|bundle| {
        // Before it was preflighted it was not accepted, and what was refused need not be authentic.
        let status = bundle.status?;
        let early = ["Offered", "Receiving", "Verified", "Refused"];
        let accepted = !early.contains(&status.state.as_str());
        mark(bundle.spec.sequence, bundle.spec.index_sha256.filter(|_| accepted))
    });
    let of_components = components.into_iter().filter_map(|component| {
        let status = component.status?;
        mark(status.sequence, status.index_sha256)
    });
    Ok(of_bundles.chain(of_components).max_by_key(|mark| mark.sequence))
}

fn mark(sequence: u64, index_sha256: Option<String>) -> Option<HighWater> {
    let mut digest = [0; 32];
    hex::decode_to_slice(index_sha256?, &mut digest).ok()?;
    Some(HighWater { sequence, index_sha256: digest })
}

/// None of a kind that is not installed.
fn or_none<T: Clone>(listed: Result<ObjectList<T>, ApiError>) -> Result<Vec<T>, ApiError> {
    match listed {
        Ok(list) => Ok(list.items),
        Err(error) if error.is(404) => Ok(vec![]),
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
        labels: Some(ordered::map([(
            "app.kubernetes.io/managed-by".into(),
            "mendix-agent".into(),
        )])),
        ..ObjectMeta::default()
    };
    cluster.term().stamp(&mut metadata);
    Secret {
        metadata,
        data: Some(ordered::map(data.into_iter().map(|(name, bytes)| (name, ByteString(bytes))))),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}

fn stored(state: TrustState, written: Result<Secret, ApiError>) -> Result<Stored, TrustError> {
    match written {
        Ok(secret) => Ok(Stored {
            state,
            resource_version: secret.metadata.resource_version.unwrap_or_default(),
        }),
        Err(error) if error.is(409) => Err(TrustError::Conflict),
        Err(error) => Err(error.into()),
    }
}
