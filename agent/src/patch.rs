//! Patch bundles: from the release that the control plane wants to objects in the cluster, and back
//! when they don't work; and managed objects that somebody else changed, put back.
//!
//! ```text
//! Desired.release ─▶ trust (TUF) ─▶ contents (Secrets) ─▶ driver ─▶ steps ─▶ converge ─▶ API server
//!                                                           │                    ▲
//!                                               PatchBundle (record)          drift
//! ```
//!
//! [`run`] decides what there is to do; [`driver`] carries out one run, in the states of
//! `mendix_agent_core::bundle::run`; [`drift`] watches what is committed. Runs and requests are done
//! one at a time; drift correction leaves the components of a run alone while it lasts, and while it
//! is held.

pub mod contents;
pub mod converge;
pub mod drift;
pub mod driver;
pub mod failure;
pub mod gate;
pub mod live;
pub mod preimage;
pub mod records;
pub mod report;
pub mod steps;
pub mod stored;
pub mod supply;
pub mod trust;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use mendix_agent_core::bundle::{
    Authentic,
    index::{self, ReleaseClass, ReleaseIndex},
    run::{Offer, State, offer},
};
use mendix_agent_proto::v1;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    channel::{Handles, Revised},
    cluster::Cluster,
    crd::patch_bundle::{BundleComponent, PatchBundle, PatchBundleSpec, PatchBundleStatus},
    requests::RequestOutcomes,
};
use contents::sha256_hex;
use driver::{DriveError, Driver, Identity};
use failure::{CallError, StepError, pauses};
use records::state_of;
use report::{Reporter, cut};
use supply::{Repository, StoredOnly, Supply, SupplyError};
use trust::{ReleaseTrust, TrustError};

/// Records of ended runs that are kept. More are only kept while they bar a release from being
/// tried again.
const KEPT_RECORDS: usize = 20;
/// Committed releases whose contents are kept besides what the components run.
const KEPT_RELEASES: usize = 2;

type Wanted = Option<Revised<v1::ReleaseSection>>;

/// Why the patch path ended. It is started again.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// A call that stays refused.
    #[error("the records of releases")]
    Call(#[source] CallError),
    /// A run could not go on.
    #[error("carry out a release")]
    Drive(#[from] DriveError),
}

impl From<StepError> for PatchError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Stopped => Self::Drive(DriveError::Stopped),
            StepError::Call(error) => Self::Call(error),
        }
    }
}

/// Carries out what is wanted until cancelled: first what was interrupted, without the network; then
/// each release and `recover` request as it comes. Drift is corrected all the while.
///
/// # Errors
/// When the cluster refuses what can't be done without; the supervisor starts it again.
pub async fn run(
    cluster: Cluster,
    trust_dir: PathBuf,
    identity: Identity,
    handles: Handles,
    outcomes: RequestOutcomes,
    cancel: CancellationToken,
) -> Result<(), PatchError> {
    let reporter = Reporter::new(cluster.clone(), handles.reports.clone());
    let driver = Driver::new(cluster.clone(), reporter.clone(), identity);
    let drift = drift::Drift::new(&driver);
    let controller = Controller { cluster, trust_dir, driver, drift, handles, outcomes };
    match Box::pin(controller.run(&cancel)).await {
        Err(PatchError::Drive(DriveError::Stopped)) => Ok(()),
        result => result,
    }
}

struct Controller {
    cluster: Cluster,
    trust_dir: PathBuf,
    driver: Driver,
    drift: drift::Drift,
    handles: Handles,
    outcomes: RequestOutcomes,
}

impl Controller {
    async fn run(&self, cancel: &CancellationToken) -> Result<(), PatchError> {
        // The trust state is loaded before any record is written: a record without it means that it
        // was lost. Without it no release is accepted; what was accepted goes on.
        let trust = self.load_trust(cancel).await?;
        resume(&self.driver, cancel).await?;
        tokio::select! {
            result = self.drift.run(cancel) => result.map_err(PatchError::from),
            result = self.follow(&trust, cancel) => result,
        }
    }

    async fn load_trust(
        &self,
        cancel: &CancellationToken,
    ) -> Result<Result<Mutex<ReleaseTrust>, TrustError>, PatchError> {
        let mut pauses = pauses();
        loop {
            let loaded = tokio::select! {
                () = cancel.cancelled() => return Err(DriveError::Stopped.into()),
                loaded = ReleaseTrust::load(&self.cluster, &self.trust_dir) => loaded,
            };
            match loaded {
                Ok(trust) => return Ok(Ok(Mutex::new(trust))),
                Err(error) if !error.is_transient() => {
                    tracing::error!(
                        error = SupplyError::of_trust(&error).message,
                        "no release is accepted"
                    );
                    return Ok(Err(error));
                }
                Err(error) => {
                    tracing::warn!(
                        error = SupplyError::of_trust(&error).message,
                        "the trust state is waited for"
                    );
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(DriveError::Stopped.into()),
                () = tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(30))) => {}
            }
        }
    }

    /// Follows what is wanted.
    async fn follow(
        &self,
        trust: &Result<Mutex<ReleaseTrust>, TrustError>,
        cancel: &CancellationToken,
    ) -> Result<(), PatchError> {
        let mut releases = self.handles.desired.release.clone();
        let mut requests = self.handles.desired.requests.clone();
        releases.mark_changed();
        requests.mark_changed();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                changed = releases.changed() => if changed.is_err() {
                    cancel.cancelled().await;
                    return Ok(());
                },
                changed = requests.changed() => {
                    if changed.is_err() {
                        cancel.cancelled().await;
                        return Ok(());
                    }
                    self.recover(&mut requests, cancel).await?;
                    continue;
                }
            }
            let wanted = releases.borrow_and_update().clone();
            let Some(wanted) = wanted.filter(|wanted| !wanted.value.index_target.is_empty()) else {
                continue;
            };
            // Ends the work on this wish as soon as there is another.
            let given_up = cancel.child_token();
            let watcher = watch_for_another(releases.clone(), wanted.clone(), given_up.clone());
            let work = self.fulfil(&wanted.value, trust, &given_up, cancel);
            tokio::pin!(work);
            let result = tokio::select! {
                result = &mut work => result,
                () = watcher => work.await,
            };
            given_up.cancel();
            result?;
        }
    }

    /// Takes one wish as far as it goes.
    async fn fulfil(
        &self,
        wanted: &v1::ReleaseSection,
        trust: &Result<Mutex<ReleaseTrust>, TrustError>,
        given_up: &CancellationToken,
        cancel: &CancellationToken,
    ) -> Result<(), PatchError> {
        let trust = match trust {
            Ok(trust) => trust,
            Err(error) => {
                let why = SupplyError::of_trust(error).message;
                return self.refuse(wanted, why, cancel).await;
            }
        };
        let (releases, authentic) = match self.look_up(wanted, trust, given_up).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(error) => return self.refuse(wanted, error.message, cancel).await,
        };
        let supply = Repository { cluster: &self.cluster, trust, releases: &releases };
        let ended = take(&self.driver, authentic, &supply, given_up, cancel).await;
        match ended {
            Err(TakeError::NoIndex(why)) => self.refuse(wanted, why, cancel).await,
            Err(TakeError::Patch(error)) => Err(error),
            Ok(_) => {
                self.drift.reload();
                Ok(())
            }
        }
    }

    /// The wanted index as the release repository has it; none when the wish was given up meanwhile.
    async fn look_up(
        &self,
        wanted: &v1::ReleaseSection,
        trust: &Mutex<ReleaseTrust>,
        given_up: &CancellationToken,
    ) -> Result<Option<(trust::Releases, Authentic)>, SupplyError> {
        let mut pauses = pauses();
        loop {
            let attempt = async {
                let channel = self.handles.dialer.connect().await.map_err(|error| SupplyError {
                    is_transient: true,
                    message: error.to_string(),
                })?;
                let of_trust = |error: TrustError| SupplyError::of_trust(&error);
                let releases = trust.lock().await.refresh(&self.cluster, channel).await;
                let releases = releases.map_err(of_trust)?;
                let index = releases.fetch_target(&wanted.index_target).await.map_err(of_trust)?;
                Ok((releases, index))
            };
            let result: Result<_, SupplyError> = tokio::select! {
                () = given_up.cancelled() => return Ok(None),
                result = attempt => result,
            };
            match result {
                Ok(found) => return Ok(Some(found)),
                Err(error) if !error.is_transient => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, target = wanted.index_target, "the release repository is waited for")
                }
            }
            tokio::select! {
                () = given_up.cancelled() => return Ok(None),
                () = tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(30))) => {}
            }
        }
    }

    /// Records that something was wanted that can't be vouched for.
    async fn refuse(
        &self,
        wanted: &v1::ReleaseSection,
        why: String,
        cancel: &CancellationToken,
    ) -> Result<(), PatchError> {
        let release_id = release_id_of(&wanted.index_target);
        tracing::error!(release_id, why, "the wanted release is refused");
        let spec = PatchBundleSpec {
            release_id: release_id.clone(),
            sequence: wanted.sequence,
            class: None,
            index_sha256: None,
            apply_by: None,
            components: vec![],
        };
        let now = Some(Timestamp::now());
        let status = PatchBundleStatus {
            state: State::Refused.name().to_owned(),
            reason: Some("NotAuthentic".into()),
            message: Some(cut(&why)),
            refusals: vec![cut(&format!("NotAuthentic: {why}"))],
            changed_at: now,
            finished_at: now,
            ..Default::default()
        };
        let records = &self.driver.records;
        let saved = failure::patiently(cancel, &|_| {}, || async {
            let bundle = records.open(&format!("{release_id}-unverified"), spec.clone()).await?;
            records.save(&bundle, status.clone()).await
        });
        let bundle = saved.await?;
        self.driver.reporter.run(&bundle, None);
        self.driver.reporter.transition(&bundle, &State::Refused, Some(&why)).await;
        Ok(())
    }

    /// Answers `recover`: applies again what is committed.
    async fn recover(
        &self,
        requests: &mut watch::Receiver<Option<Revised<v1::RequestsSection>>>,
        cancel: &CancellationToken,
    ) -> Result<(), PatchError> {
        let wanted: Vec<String> = match &*requests.borrow_and_update() {
            Some(section) => (section.value.requests.iter())
                .filter(|r| matches!(r.kind, Some(v1::request::Kind::Recover(_))))
                .map(|request| request.request_id.clone())
                .filter(|id| !self.outcomes.is_finished(id))
                .collect(),
            None => return Ok(()),
        };
        for id in wanted {
            let recovery = self.drift.recover(cancel).await?;
            let (outcome, reason) = match recovery.failures.is_empty() {
                true => (v1::Outcome::Succeeded, ""),
                false => (v1::Outcome::Failed, "NotRecovered"),
            };
            let message = match recovery.failures.is_empty() {
                true => format!(
                    "{} objects are as the last committed release wants them; {} were put back",
                    recovery.objects, recovery.corrected
                ),
                false => report::summary(&recovery.failures),
            };
            self.outcomes.finish(&id, outcome, reason, &message, None);
        }
        Ok(())
    }
}

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
            driver.reporter.run(bundle, None);
            return Ok(bundle.clone());
        }
        (Offer::New | Offer::Resume | Offer::Done | Offer::Quarantined, _) => {}
    }
    // Contents first: a record never names an index that is not stored.
    let opened = failure::patiently(cancel, &|_| {}, || async {
        driver.contents.put(&bytes).await?;
        let name = format!("{}-{}", index.release_id, sha256.get(..8).unwrap_or(&sha256));
        driver.records.open(&name, spec_of(&index, &sha256)).await
    });
    let mut bundle = opened.await.map_err(call)?;
    if state_of(&bundle) == Some(State::Refused) {
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
/// touched are carried to their end, and the last committed one is settled.
///
/// # Errors
/// When the cluster refuses what can't be done without.
pub async fn resume(driver: &Driver, cancel: &CancellationToken) -> Result<(), PatchError> {
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
        bundles.sort_by_key(|bundle| std::cmp::Reverse(bundle.spec.sequence));
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

async fn watch_for_another(
    mut releases: watch::Receiver<Wanted>,
    wanted: Revised<v1::ReleaseSection>,
    given_up: CancellationToken,
) {
    let another = releases.wait_for(|now| {
        now.as_ref().is_some_and(|now| now.value.index_target != wanted.value.index_target)
    });
    if another.await.is_ok() {
        given_up.cancel();
    } else {
        std::future::pending::<()>().await;
    }
}

fn spec_of(index: &ReleaseIndex, sha256: &str) -> PatchBundleSpec {
    let mut components: Vec<_> = index.components.iter().collect();
    // As `Plan::new` orders them: the record counts places of the plan.
    components.sort_by(|a, b| (a.phase, &a.name).cmp(&(b.phase, &b.name)));
    let class = match index.class {
        ReleaseClass::Quarterly => "quarterly",
        ReleaseClass::Weekly => "weekly",
        ReleaseClass::Critical => "critical",
    };
    PatchBundleSpec {
        release_id: index.release_id.clone(),
        sequence: index.sequence,
        class: Some(class.to_owned()),
        index_sha256: Some(sha256.to_owned()),
        apply_by: index.apply_by,
        components: components
            .into_iter()
            .map(|c| BundleComponent { name: c.name.clone(), version: c.version.clone() })
            .collect(),
    }
}

/// The release that a target claims to be, fit for a name: `release-2026.11.3.json` is `2026.11.3`.
fn release_id_of(target: &str) -> String {
    let id = target.strip_prefix("release-").unwrap_or(target);
    let id = id.strip_suffix(".json").unwrap_or(id);
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
    let id: String = id.chars().map(|c| if fit(c) { c } else { '-' }).take(63).collect();
    let id = id.split('.').map(|label| label.trim_matches('-')).filter(|label| !label.is_empty());
    let id = id.collect::<Vec<_>>().join(".");
    if id.is_empty() { "unnamed".to_owned() } else { id }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The supervisor moves it between threads.
    #[expect(dead_code, reason = "compiling it is the test")]
    fn the_path_can_be_supervised(cluster: Cluster, handles: Handles, outcomes: RequestOutcomes) {
        fn supervised(_: impl Future + Send) {}
        let identity =
            Identity { agent_version: String::new(), ring: std::sync::Arc::new(String::new) };
        let cancel = CancellationToken::new();
        supervised(run(cluster, PathBuf::new(), identity, handles, outcomes, cancel));
    }

    #[test]
    fn a_target_of_any_shape_gives_a_name_that_an_object_can_have() {
        assert_eq!(release_id_of("release-2026.11.3.json"), "2026.11.3");
        assert_eq!(release_id_of("../../Etc/Passwd"), "tc--asswd");
        assert_eq!(release_id_of("...---..."), "unnamed");
        assert_eq!(release_id_of(""), "unnamed");
        assert!(release_id_of(&"x".repeat(500)).len() <= 63);
    }
}
