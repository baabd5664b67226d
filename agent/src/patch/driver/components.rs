//! What a run records on the components it changes: the announcement before, its withdrawal on the
//! way back, and the new inventory once it is committed.

use futures::{FutureExt, TryStreamExt};
use kube::ResourceExt;
use mendix_agent_core::bundle::plan::Plan;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        contents::sha256_hex,
        failure::{CallCause, CallError, StepError, patiently},
        live::{in_parallel, text},
        report::summary,
        supply::Supply,
    },
    Driver,
    plan::NoPlan,
};
use crate::crd::{
    managed_component::{ComponentRun, ManagedComponent, OwnedObject},
    patch_bundle::PatchBundle,
};

impl Driver {
    /// Records on the components what is about to happen to them, before it does.
    pub(super) async fn announce(
        &self,
        plan: &Plan,
        run: &str,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), StepError> {
        let mut announced = self.corrections.write().await;
        for component in plan.components() {
            let entry = component.entry();
            // Before it is recorded: an announcement that fails halfway is one, too.
            *announced.entry(entry.name.clone()).or_default() += 1;
            let intent = ComponentRun {
                bundle: run.to_owned(),
                version: entry.version.clone(),
                objects: count(component.objects().count()),
            };
            let announced = patiently(cancel, paused, || async {
                self.records
                    .update_component(&entry.name, |mut status| {
                        status.run = Some(intent.clone());
                        Some(status)
                    })
                    .await
            });
            announced.await?;
        }
        Ok(())
    }

    /// Takes the announcement back. The inventory was never changed; a component that no release ever
    /// brought here is gone again.
    pub(super) async fn withdraw(
        &self,
        component: &str,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), StepError> {
        patiently(cancel, paused, || async {
            let withdrawn = self.records.update_component(component, |mut status| {
                status.run = None;
                Some(status)
            });
            let withdrawn = withdrawn.await?;
            match withdrawn.status.is_none_or(|status| status.sequence == 0) {
                true => self.records.drop_component(component).await,
                false => Ok(()),
            }
        })
        .await
    }

    /// Makes the inventories those of a committed run. May be done again; does nothing where a component
    /// has come further.
    ///
    /// # Errors
    /// When the agent stops or a component's record can't be written.
    pub async fn settle(
        &self,
        bundle: &PatchBundle,
        supply: &dyn Supply,
        cancel: &CancellationToken,
    ) -> Result<(), StepError> {
        let paused = |error: Option<&CallError>| {
            if let Some(error) = error {
                tracing::warn!(error = error.line(), "the end of the run waits");
            }
        };
        let components =
            patiently(cancel, &paused, || async { self.records.components().await }).await?;
        if is_settled(bundle, &components) {
            return Ok(());
        }
        drop(components);
        let recorded = self.recorded(&paused, cancel).await?;
        let plan = match self.plan(bundle, &recorded, supply, &paused, cancel).await {
            Ok(plan) => plan,
            Err(NoPlan::Stopped) => return Err(StepError::Stopped),
            Err(NoPlan::Refused(why)) => {
                let cause = CallCause::Answer(summary(&why));
                return Err(CallError::about("settle", bundle.name_any(), cause).into());
            }
        };
        for component in plan.components() {
            let entry = component.entry();
            let entries = component.objects().map(|object| {
                async {
                    let live = patiently(cancel, &paused, || self.live.get(&object.id)).await?;
                    let uid = live.as_ref().and_then(|live| text(live, "/metadata/uid"));
                    let hash = sha256_hex(object.body.bytes());
                    let hash = hash.get(..16).unwrap_or(&hash).to_owned();
                    Ok::<_, StepError>(OwnedObject::new(&object.id, uid, Some(hash)))
                }
                .boxed()
            });
            let mut objects: Vec<OwnedObject> = in_parallel(entries).try_collect().await?;
            // What had to go and is still there is tried again by the next release.
            for id in component.kept().iter().chain(component.prune()) {
                let live = patiently(cancel, &paused, || async { self.live.get(id).await }).await?;
                let Some(live) = live else { continue };
                let uid = text(&live, "/metadata/uid");
                let going = live.pointer("/metadata/deletionTimestamp").is_some();
                if !going && uid.as_deref() == recorded.owned.get(id).map(String::as_str) {
                    objects.push(OwnedObject::new(id, uid, None));
                }
            }
            let sha256 = hex::encode(plan.index_sha256());
            let settled = patiently(cancel, &paused, || async {
                self.records
                    .update_component(&entry.name, |mut status| {
                        if status.sequence > bundle.spec.sequence {
                            return None;
                        }
                        status.version = Some(entry.version.clone());
                        status.release_id = Some(bundle.spec.release_id.clone());
                        status.sequence = bundle.spec.sequence;
                        status.index_sha256 = Some(sha256.clone());
                        status.blob_sha256 = Some(entry.blob.sha256.clone());
                        status.objects = count(objects.len());
                        status.inventory.clone_from(&objects);
                        status.run = None;
                        Some(status)
                    })
                    .await
            });
            settled.await?;
        }
        Ok(())
    }
}

/// Whether every component of a committed run says so.
fn is_settled(bundle: &PatchBundle, components: &[ManagedComponent]) -> bool {
    bundle.spec.components.iter().all(|wanted| {
        let found = components.iter().find(|component| component.name_any() == wanted.name);
        found.and_then(|component| component.status.as_ref()).is_some_and(|status| {
            status.sequence >= bundle.spec.sequence
                && status.run.as_ref().is_none_or(|run| run.bundle != bundle.name_any())
        })
    })
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
