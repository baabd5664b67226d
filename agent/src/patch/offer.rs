//! From an authentic index to a run and its end: opens the record, has the run carried out, settles
//! what it committed, clears away what is no longer needed, and resumes what was interrupted.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::ResourceExt;
use mendix_agent_core::{
    bundle::{
        Authentic, cadence,
        index::{self, ReleaseIndex},
        run::{Offer, State, offer},
    },
    ordered,
};
use tokio_util::sync::CancellationToken;

use super::{
    PatchError,
    contents::sha256_hex,
    driver::Driver,
    failure::{self, StepError},
    records::state_of,
    supply::{StoredOnly, Supply},
};
use crate::crd::patch_bundle::{BundleComponent, PatchBundle, PatchBundleSpec, PatchBundleStatus};

/// Records of ended runs that are kept. More are only kept while they bar a release from being
/// tried again.
const KEPT_RECORDS: usize = 20;
/// Committed releases whose contents are kept besides what the components run.
const KEPT_RELEASES: usize = 2;

/// Why an offer led to no run.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The bytes are authentic, and no index.
    #[error("{0}")]
    NoIndex(String),
    /// The cluster refuses what can't be done without.
    #[error(transparent)]
    Patch(#[from] PatchError),
}

/// Takes an authentic index: opens its record, or finds it, and carries the run on to its end. A
/// release that is committed or quarantined here already is only reported.
///
/// # Errors
/// See [`TakeError`].
pub async fn take(
    driver: &Driver,
    authentic: Authentic,
    supply: &dyn Supply,
    given_up: &CancellationToken,
    cancel: &CancellationToken,
) -> Result<PatchBundle, TakeError> {
    let bytes = authentic.bytes().to_vec();
    let index = index::verify(authentic).map_err(|error| TakeError::NoIndex(chain(&error)))?;
    let sha256 = sha256_hex(&bytes);
    let call = |error: StepError| TakeError::Patch(error.into());
    let all = failure::patiently(cancel, &|_| {}, || async { driver.records.bundles().await });
    let all = all.await.map_err(call)?;
    let same = all.iter().find(|b| b.spec.index_sha256.as_deref() == Some(sha256.as_str()));
    let state = same.and_then(state_of);
    match (offer(state.as_ref()), same) {
        (Offer::Done | Offer::Quarantined, Some(bundle)) => {
            tracing::info!(release = bundle.spec.release_id, state = ?state, "the wanted release has been here");
            driver.reporter.run(bundle, replaced(bundle, &all));
            return Ok(bundle.clone());
        }
        (Offer::New | Offer::Resume | Offer::Done | Offer::Quarantined, _) => {}
    }
    // Contents first: a record never names an index that is not stored.
    let offered_at = Timestamp::now();
    let opened = failure::patiently(cancel, &|_| {}, || async {
        driver.contents.put(&bytes).await?;
        let name = format!("{}-{}", index.release_id, sha256.get(..8).unwrap_or(&sha256));
        driver.records.open(&name, spec_of(&index, &sha256, offered_at)).await
    });
    let mut bundle = opened.await.map_err(call)?;
    if state_of(&bundle).is_some_and(|state| state.is_offered_again()) {
        let offered = PatchBundleStatus {
            state: State::Offered.name().to_owned(),
            changed_at: Some(Timestamp::now()),
            history: bundle.status.clone().map(|status| status.history).unwrap_or_default(),
            ..Default::default()
        };
        let saved = failure::patiently(cancel, &|_| {}, || async {
            driver.records.save(&bundle, offered.clone()).await
        });
        bundle = saved.await.map_err(call)?;
    }
    finish(driver, bundle, supply, given_up, cancel).await.map_err(TakeError::Patch)
}

/// What there is to say of a release that was committed and is wanted again after a newer one: its record
/// tells how its run ended, and nothing of it is applied.
fn replaced(bundle: &PatchBundle, all: &[PatchBundle]) -> Option<String> {
    let committed = |bundle: &&PatchBundle| state_of(bundle) == Some(State::Committed);
    let runs = all.iter().filter(committed).max_by_key(|bundle| bundle.spec.sequence)?;
    let (id, sequence) = (&runs.spec.release_id, runs.spec.sequence);
    (committed(&bundle) && bundle.spec.sequence < sequence).then(|| {
        format!(
            "was committed here, and {id} with sequence {sequence} since; a cluster does not go back: publish the \
             content again under a higher sequence"
        )
    })
}

/// Carries a run on to its end, settles what it committed, and clears away what is no longer needed.
async fn finish(
    driver: &Driver,
    bundle: PatchBundle,
    supply: &dyn Supply,
    given_up: &CancellationToken,
    cancel: &CancellationToken,
) -> Result<PatchBundle, PatchError> {
    let bundle = driver.drive(bundle, supply, given_up, cancel).await?;
    if state_of(&bundle) == Some(State::Committed) {
        driver.settle(&bundle, &StoredOnly, cancel).await?;
    }
    clear_away(driver, cancel).await?;
    Ok(bundle)
}

/// Goes on where the last process left off, with what is stored: runs whose objects may have been
/// touched are carried to their end, the last committed one is settled, and what nothing needs any more
/// is cleared away.
///
/// # Errors
/// When the cluster refuses what can't be done without.
pub async fn resume(driver: &Driver, cancel: &CancellationToken) -> Result<(), PatchError> {
    failure::patiently(cancel, &|_| {}, || async { driver.records.claim().await }).await?;
    let all =
        failure::patiently(cancel, &|_| {}, || async { driver.records.bundles().await }).await?;
    let committed = |bundle: &&PatchBundle| state_of(bundle) == Some(State::Committed);
    let last_committed = all.iter().filter(committed).max_by_key(|bundle| bundle.spec.sequence);
    if let Some(bundle) = last_committed {
        driver.reporter.committed(&bundle.spec.release_id);
        driver.settle(bundle, &StoredOnly, cancel).await?;
    }
    let newest = all.iter().max_by_key(|bundle| bundle.status.as_ref().and_then(|s| s.changed_at));
    if let Some(bundle) = newest {
        driver.reporter.run(bundle, None);
    }
    for bundle in &all {
        let Some(state) = state_of(bundle) else { continue };
        if !state.ended() && !state.untouched() {
            tracing::info!(release = bundle.spec.release_id, %state, "an interrupted run goes on");
            finish(driver, bundle.clone(), &StoredOnly, &CancellationToken::new(), cancel).await?;
        }
    }
    // The last process may have ended between the end of a run and this. What a run that is still to
    // begin has received is not named by its record yet: its end clears away.
    if all.iter().filter_map(state_of).all(|state| state.ended() || !state.untouched()) {
        clear_away(driver, cancel).await?;
    }
    let components =
        failure::patiently(cancel, &|_| {}, || async { driver.records.components().await });
    driver.reporter.components(&components.await?);
    Ok(())
}

/// Deletes contents and records that nothing needs any more.
async fn clear_away(driver: &Driver, cancel: &CancellationToken) -> Result<(), PatchError> {
    failure::patiently(cancel, &|_| {}, || async {
        let mut bundles = driver.records.bundles().await?;
        let components = driver.records.components().await?;
        ordered::sort_by(&mut bundles, |a, b| b.spec.sequence.cmp(&a.spec.sequence));
        let mut keep = BTreeSet::new();
        for status in components.iter().filter_map(|component| component.status.as_ref()) {
            keep.extend([&status.index_sha256, &status.blob_sha256].into_iter().flatten().cloned());
        }
        let mut committed = 0;
        for bundle in &bundles {
            let state = state_of(bundle);
            let open = state.as_ref().is_none_or(|state| !state.ended() || *state == State::Held);
            let recent = state == Some(State::Committed) && committed < KEPT_RELEASES;
            committed += usize::from(state == Some(State::Committed));
            if !(open || recent) {
                continue;
            }
            keep.extend(bundle.spec.index_sha256.clone());
            let status = bundle.status.clone().unwrap_or_default();
            keep.extend(status.blobs);
            keep.extend(status.pre_images.filter(|_| open));
        }
        driver.contents.sweep(&keep).await?;

        let floor = components.iter().filter_map(|c| c.status.as_ref()).map(|s| s.sequence).max();
        for bundle in bundles.iter().skip(KEPT_RECORDS) {
            let Some(state) = state_of(bundle).filter(State::ended) else { continue };
            let bars = state.quarantines() && Some(bundle.spec.sequence) > floor;
            if !bars {
                driver.records.drop_bundle(&bundle.name_any()).await?;
            }
        }
        Ok(())
    })
    .await
    .map_err(PatchError::from)
}

fn spec_of(index: &ReleaseIndex, sha256: &str, offered_at: Timestamp) -> PatchBundleSpec {
    let mut components: Vec<_> = index.components.iter().collect();
    // As `Plan::new` orders them: the record counts places of the plan.
    ordered::sort_by(&mut components, |a, b| (a.phase, &a.name).cmp(&(b.phase, &b.name)));
    PatchBundleSpec {
        release_id: index.release_id.clone(),
        sequence: index.sequence,
        class: Some(index.class.name().to_owned()),
        index_sha256: Some(sha256.to_owned()),
        apply_by: Some(cadence::apply_by(index, offered_at)),
        components: components
            .into_iter()
            .map(|c| BundleComponent { name: c.name.clone(), version: c.version.clone() })
            .collect(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}
