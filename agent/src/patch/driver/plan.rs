//! What the steps of a run work from: the stored index and pre-images, what the components own, and
//! the plan that admission allows.

use std::collections::BTreeSet;

use kube::ResourceExt;
use mendix_agent_core::bundle::{
    admission::{ClusterFacts, KindScope, admit},
    index::ReleaseIndex,
    kind,
    plan::{Inventory, Plan},
    run::State,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        failure::{CallCause, CallError, StepError, patiently},
        preimage::{self, PreImage},
        records::state_of,
        steps::Owned,
        stored::{self, StoredError},
        supply::Supply,
    },
    Driver,
};
use crate::crd::patch_bundle::PatchBundle;

/// Why there is no plan.
pub(super) enum NoPlan {
    Stopped,
    Refused(Vec<String>),
}

impl Driver {
    pub(super) async fn index(
        &self,
        bundle: &PatchBundle,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<ReleaseIndex, StepError> {
        let sha256 = bundle.spec.index_sha256.clone().unwrap_or_default();
        let index = patiently(cancel, paused, || async {
            stored::index(&self.contents, &bundle.spec.release_id, &sha256)
                .await
                .map_err(StoredError::into_call)
        });
        Ok(ReleaseIndex::clone(&*index.await?))
    }

    pub(super) async fn images(
        &self,
        bundle: &PatchBundle,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Vec<PreImage>, StepError> {
        let lost =
            |why: String| CallError::about("read", "pre-images".into(), CallCause::Answer(why));
        let sha256 = bundle.status.as_ref().and_then(|status| status.pre_images.clone());
        let Some(sha256) = sha256 else {
            return Err(lost("the record names none".into()).into());
        };
        let bytes =
            patiently(cancel, paused, || async { self.contents.get(&sha256).await }).await?;
        let bytes = bytes.ok_or_else(|| lost(format!("{sha256} is not stored")))?;
        Ok(preimage::decode(&bytes).map_err(|error| lost(error.to_string()))?)
    }

    /// What the components own: with UIDs for the steps, and as admission and the plan want it.
    pub(super) async fn inventories(
        &self,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(Owned, Inventory), StepError> {
        let components =
            patiently(cancel, paused, || async { self.records.components().await }).await?;
        let mut owned = Owned::new();
        let mut inventory = Inventory::new();
        for component in components {
            let name = component.name_any();
            let objects = component.status.map(|status| status.inventory).unwrap_or_default();
            let ids = inventory.entry(name).or_default();
            for object in objects {
                let id = object.id();
                ids.push(id.clone());
                owned.insert(id, object.uid.unwrap_or_default());
            }
        }
        Ok((owned, inventory))
    }

    pub(super) async fn plan(
        &self,
        bundle: &PatchBundle,
        inventory: &Inventory,
        supply: &dyn Supply,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Plan, NoPlan> {
        let refused = |why: String| NoPlan::Refused(vec![why]);
        let of_step = |error: StepError| match error {
            StepError::Stopped => NoPlan::Stopped,
            StepError::Call(error) => refused(error.line()),
        };
        let sha256 = bundle.spec.index_sha256.clone().unwrap_or_default();
        let loaded = patiently(cancel, paused, || async {
            let index = stored::index(&self.contents, &bundle.spec.release_id, &sha256).await;
            let index = index.map_err(StoredError::into_call)?;
            let mut blobs = vec![];
            for entry in &index.components {
                let objects = stored::objects(&self.contents, entry).await;
                blobs.push(objects.map_err(StoredError::into_call)?);
            }
            Ok((index, blobs))
        });
        let (index, blobs) = loaded.await.map_err(of_step)?;
        let mut facts = patiently(cancel, paused, || async { self.facts(bundle, inventory).await })
            .await
            .map_err(of_step)?;
        facts.high_water = supply.high_water().await;
        for object in blobs.iter().flat_map(|blob| blob.iter()) {
            if kind::is_built_in_group(&object.id.group) {
                continue;
            }
            if let Ok((_, scope)) = self.live.kind(&object.id).await {
                let scope = match scope {
                    kube::discovery::Scope::Namespaced => KindScope::Namespaced,
                    kube::discovery::Scope::Cluster => KindScope::Cluster,
                };
                facts.custom_kinds.insert(object.id.group_kind(), scope);
            }
        }
        match admit(index, blobs, &facts) {
            Ok(admitted) => Ok(Plan::new(admitted, inventory)),
            Err(refusals) => {
                Err(NoPlan::Refused(refusals.iter().map(ToString::to_string).collect()))
            }
        }
    }

    async fn facts(
        &self,
        bundle: &PatchBundle,
        inventory: &Inventory,
    ) -> Result<ClusterFacts, CallError> {
        let bundles = self.records.bundles().await?;
        let others = bundles.iter().filter(|other| other.name_any() != bundle.name_any());
        let quarantined: BTreeSet<[u8; 32]> = others
            .filter(|other| state_of(other).is_some_and(|state| state.quarantines()))
            .filter_map(|other| {
                let mut digest = [0; 32];
                hex::decode_to_slice(other.spec.index_sha256.as_deref()?, &mut digest).ok()?;
                Some(digest)
            })
            .collect();
        let committed = bundles
            .iter()
            .filter(|other| state_of(other) == Some(State::Committed))
            .map(|other| other.spec.sequence);
        let components = self.records.components().await?;
        let of_components = components
            .iter()
            .filter_map(|component| component.status.as_ref().map(|status| status.sequence));
        Ok(ClusterFacts {
            agent_version: self.identity.agent_version.clone(),
            kubernetes_version: self.cluster.server_version.clone(),
            agent_namespace: self.cluster.namespace.clone(),
            ring: (self.identity.ring)(),
            high_water: None,
            committed_sequence: committed.chain(of_components).max().filter(|s| *s > 0),
            quarantined,
            inventory: inventory.clone(),
            custom_kinds: Default::default(),
            state_bytes: self.state_bytes(bundle).await?,
            has_begun: state_of(bundle).is_some_and(|state| !state.untouched()),
            agent_is_deployment: self.identity.own.is_some(),
        })
    }

    /// What is kept besides this release's own blobs, which admission counts itself.
    async fn state_bytes(&self, bundle: &PatchBundle) -> Result<u64, CallError> {
        let mine = bundle.status.as_ref().map(|status| status.blobs.clone()).unwrap_or_default();
        self.contents.stored_bytes(&mine).await
    }
}
