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
pub mod exported;
pub mod failure;
pub mod gate;
pub mod live;
mod offer;
pub mod portal_keys;
pub mod preimage;
pub mod records;
pub mod report;
pub mod steps;
pub mod stored;
pub mod supply;
pub mod trust;

use std::{path::PathBuf, sync::atomic::Ordering::SeqCst, time::Duration};

use jiff::Timestamp;
use mendix_agent_core::bundle::{Authentic, run::State};
use mendix_agent_proto::v1;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::Audit,
    channel::{Handles, Revised},
    cluster::Cluster,
    crd::patch_bundle::{PatchBundleSpec, PatchBundleStatus},
    requests::RequestOutcomes,
};
use driver::{DriveError, Driver, Identity};
use failure::{CallError, StepError, pauses};
pub use offer::{TakeError, resume, take};
use report::{Reporter, cut};
use supply::{Repository, SupplyError};
use trust::{ReleaseTrust, TrustError};

/// When a release that was postponed is tried again, while it is wanted.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

type Wanted = Option<Revised<v1::ReleaseSection>>;

/// What is trusted from the start, and where later keys go.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The trust folder, with the release root.
    pub trust_dir: PathBuf,
    /// Takes keys of the support portal that the release root vouches for.
    pub portal_keys: portal_keys::Found,
}

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
    roots: Roots,
    identity: Identity,
    handles: Handles,
    outcomes: RequestOutcomes,
    audit: Audit,
    cancel: CancellationToken,
) -> Result<(), PatchError> {
    let reporter = Reporter::new(cluster.clone(), handles.reports.clone(), audit);
    let driver = Driver::new(cluster.clone(), reporter.clone(), identity);
    let drift = drift::Drift::new(&driver);
    let controller = Controller { cluster, roots, driver, drift, handles, outcomes };
    match Box::pin(controller.run(&cancel)).await {
        Err(PatchError::Drive(DriveError::Stopped)) => Ok(()),
        result => result,
    }
}

struct Controller {
    cluster: Cluster,
    roots: Roots,
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
        if let Some(own) = &self.driver.identity.own {
            own.has_trust.store(trust.is_ok(), SeqCst);
        }
        let work = async {
            resume(&self.driver, cancel).await?;
            tokio::select! {
                result = self.drift.run(cancel) => result.map_err(PatchError::from),
                result = self.follow(&trust, cancel) => result,
                () = self.driver.reporter.watch_deadline(cancel) => Ok(()),
            }
        };
        tokio::select! {
            result = Box::pin(work) => result,
            () = self.look_for_portal_keys(&trust) => Ok(()),
        }
    }

    async fn look_for_portal_keys(&self, trust: &Result<Mutex<ReleaseTrust>, TrustError>) {
        match trust {
            Ok(trust) => {
                let found = &self.roots.portal_keys;
                portal_keys::follow(&self.cluster, &self.handles, trust, found).await;
            }
            // Without trust state nobody can say what the keys are; those that are pinned stay.
            Err(_) => std::future::pending().await,
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
                loaded = ReleaseTrust::load(&self.cluster, &self.roots.trust_dir) => loaded,
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
        let mut again: Option<Instant> = None;
        loop {
            let due = again.unwrap_or_else(Instant::now);
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                changed = releases.changed() => if changed.is_err() {
                    cancel.cancelled().await;
                    return Ok(());
                },
                () = tokio::time::sleep_until(due), if again.is_some() => {}
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
            let ended = result?;
            again = (ended == Some(State::Postponed)).then(|| Instant::now() + AGAIN_AFTER);
        }
    }

    /// Takes one wish as far as it goes, and says where its run ended, if there was one.
    async fn fulfil(
        &self,
        wanted: &v1::ReleaseSection,
        trust: &Result<Mutex<ReleaseTrust>, TrustError>,
        given_up: &CancellationToken,
        cancel: &CancellationToken,
    ) -> Result<Option<State>, PatchError> {
        let trust = match trust {
            Ok(trust) => trust,
            Err(error) => {
                let why = SupplyError::of_trust(error).message;
                return self.refuse(wanted, why, cancel).await.map(|()| None);
            }
        };
        let (releases, authentic) = match self.look_up(wanted, trust, given_up).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => return self.refuse(wanted, error.message, cancel).await.map(|()| None),
        };
        let supply = Repository { cluster: &self.cluster, trust, releases: &releases };
        let ended = take(&self.driver, authentic, &supply, given_up, cancel).await;
        match ended {
            Err(TakeError::NoIndex(why)) => self.refuse(wanted, why, cancel).await.map(|()| None),
            Err(TakeError::Patch(error)) => Err(error),
            Ok(bundle) => {
                self.drift.reload();
                Ok(records::state_of(&bundle))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The supervisor moves it between threads.
    #[expect(dead_code, reason = "compiling it is the test")]
    fn the_path_can_be_supervised(
        cluster: Cluster,
        handles: Handles,
        outcomes: RequestOutcomes,
        audit: Audit,
    ) {
        fn supervised(_: impl Future + Send) {}
        let identity = Identity {
            agent_version: String::new(),
            ring: std::sync::Arc::new(String::new),
            own: None,
        };
        let cancel = CancellationToken::new();
        let roots = Roots { trust_dir: PathBuf::new(), portal_keys: watch::channel(None).0 };
        supervised(run(cluster, roots, identity, handles, outcomes, audit, cancel));
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
