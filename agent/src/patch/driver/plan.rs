//! What the steps of a run work from: the stored index and pre-images, what the components own, and
//! the plan that admission allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use kube::ResourceExt;
use mendix_agent_core::bundle::{
    Verified,
    admission::{ClusterFacts, KindScope, Marks, admit},
    foundation::{FOUNDATION_COMPONENT, Part, part},
    index::ReleaseIndex,
    kind,
    object::{Object, ObjectId},
    plan::{Inventory, Plan},
    readiness::judge,
    run::{Event, State},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        contents::Packed,
        failure::{CallCause, CallError, StepError, patiently, promptly, rights_missing},
        gate::Baseline,
        preimage::{self, PreImage},
        records::state_of,
        report::summary,
        steps::Owned,
        stored::{self, StoredError},
        supply::Supply,
    },
    Done, Driver,
};
use crate::crd::patch_bundle::PatchBundle;

/// What the records of the components say, read once for a step: they name every object, and thousands of
/// objects are a megabyte of them.
pub(super) struct Recorded {
    /// What the components own, with UIDs.
    pub(super) owned: Owned,
    /// The same as admission and the plan want it.
    pub(super) inventory: Inventory,
    /// Highest sequence that one of them was released with; 0 before the first.
    sequence: u64,
    /// Version of each component that a release committed.
    versions: BTreeMap<String, String>,
}

/// Why there is no plan.
pub(super) enum NoPlan {
    Stopped,
    Refused(Vec<String>),
}

impl NoPlan {
    /// What comes of it before anything was touched.
    pub(super) fn refused(self) -> Result<Done, StepError> {
        match self {
            Self::Stopped => Err(StepError::Stopped),
            Self::Refused(why) => Ok(Done::refused(why)),
        }
    }

    /// What comes of it once there was a plan that was begun with.
    pub(super) fn failed(self) -> Result<Done, StepError> {
        match self {
            Self::Stopped => Err(StepError::Stopped),
            Self::Refused(why) => Ok(Done::because(Event::Failed, "NoPlan", summary(&why))),
        }
    }
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

    /// The pre-images of the component at a place of the plan.
    pub(super) async fn images(
        &self,
        bundle: &PatchBundle,
        place: u32,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Vec<PreImage>, StepError> {
        let stored = self.stored_images(bundle, paused, cancel).await?;
        let images = preimage::read(stored.reader());
        let of_place = images.filter(|image| image.as_ref().map_or(true, |it| it.place == place));
        Ok(of_place.collect::<io::Result<_>>().map_err(|error| lost(error.to_string()))?)
    }

    /// Health of the objects before the run.
    pub(super) async fn baseline(
        &self,
        bundle: &PatchBundle,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Baseline, StepError> {
        let stored = self.stored_images(bundle, paused, cancel).await?;
        let mut baseline = Baseline::new();
        for image in preimage::read(stored.reader()) {
            let PreImage { id, live, .. } = image.map_err(|error| lost(error.to_string()))?;
            if let Some(live) = live {
                baseline.insert(id, judge(&live));
            }
        }
        Ok(baseline)
    }

    async fn stored_images(
        &self,
        bundle: &PatchBundle,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Packed, StepError> {
        let sha256 = bundle.status.as_ref().and_then(|status| status.pre_images.clone());
        let Some(sha256) = sha256 else {
            return Err(lost("the record names none".into()).into());
        };
        let stored =
            patiently(cancel, paused, || async { self.contents.get_packed(&sha256).await }).await?;
        Ok(stored.ok_or_else(|| lost(format!("{sha256} is not stored")))?)
    }

    /// What the records of the components say.
    pub(super) async fn recorded(
        &self,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Recorded, StepError> {
        let components =
            patiently(cancel, paused, || async { self.records.components().await }).await?;
        let mut recorded = Recorded {
            owned: Owned::new(),
            inventory: Inventory::new(),
            sequence: 0,
            versions: BTreeMap::new(),
        };
        for component in components {
            let name = component.name_any();
            let status = component.status.unwrap_or_default();
            recorded.sequence = recorded.sequence.max(status.sequence);
            if let Some(version) = status.version {
                recorded.versions.insert(name.clone(), version);
            }
            let ids = recorded.inventory.entry(name).or_default();
            for object in status.inventory {
                let (id, uid) = object.into_id();
                ids.push(id.clone());
                recorded.owned.insert(id, uid.unwrap_or_default());
            }
        }
        Ok(recorded)
    }

    pub(super) async fn plan(
        &self,
        bundle: &PatchBundle,
        recorded: &Recorded,
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
        let mut facts = patiently(cancel, paused, || async { self.facts(bundle, recorded).await })
            .await
            .map_err(of_step)?;
        let marks = self.supplied(bundle, cancel, || async { supply.marks().await });
        facts.marks = match marks.await.map_err(of_step)? {
            Ok(marks) => marks,
            Err(error) => return Err(refused(format!("NotAccepted: {error}"))),
        };
        if !facts.has_begun {
            let foundation = self.foundation(&index, &blobs, paused, cancel).await;
            facts.foundation = foundation.map_err(|error| match error {
                StepError::Call(error) if error.lacks_rights() => {
                    refused(rights_missing(FOUNDATION_COMPONENT, &error))
                }
                error => of_step(error),
            })?;
        }
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
            Ok(admitted) => Ok(Plan::new(admitted, &recorded.inventory)),
            Err(refusals) => {
                Err(NoPlan::Refused(refusals.iter().map(ToString::to_string).collect()))
            }
        }
    }

    /// What the agent stands on, as far as the release would change it. A run that has begun is not judged
    /// by what it has changed itself.
    async fn foundation(
        &self,
        index: &ReleaseIndex,
        blobs: &[Verified<Vec<Object>>],
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<ObjectId, Value>, StepError> {
        let mut standing = BTreeMap::new();
        for (entry, objects) in index.components.iter().zip(blobs) {
            if entry.name != FOUNDATION_COMPONENT {
                continue;
            }
            for object in objects.iter() {
                let part = part(&object.id, &self.cluster.namespace);
                if !matches!(part, Some(Part::Definition | Part::Role(_))) {
                    continue;
                }
                let live = promptly(cancel, paused, || self.live.get(&object.id));
                if let Some(live) = live.await? {
                    standing.insert(object.id.clone(), live);
                }
            }
        }
        Ok(standing)
    }

    async fn facts(
        &self,
        bundle: &PatchBundle,
        recorded: &Recorded,
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
        Ok(ClusterFacts {
            agent_version: self.identity.agent_version.clone(),
            kubernetes_version: self.cluster.server_version.clone(),
            agent_namespace: self.cluster.namespace.clone(),
            ring: (self.identity.ring)(),
            marks: Marks::default(),
            committed_sequence: committed.max().max(Some(recorded.sequence)).filter(|s| *s > 0),
            quarantined,
            inventory: recorded.inventory.clone(),
            custom_kinds: Default::default(),
            foundation: Default::default(),
            // A run that has begun is not judged by what it has changed itself.
            versions: match state_of(bundle).is_some_and(|state| state.untouched()) {
                true => recorded.versions.clone(),
                false => Default::default(),
            },
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

fn lost(why: String) -> CallError {
    CallError::about("read", "pre-images".into(), CallCause::Answer(why))
}
