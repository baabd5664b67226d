//! The last component of a release: the agent itself. What the other components do in apply, gate and
//! soak is a trial here, which whoever leads carries on: the version that began it, or the one that is
//! on trial (`crate::upgrade`).
//!
//! ```text
//! Applying   stable session ─▶ Proposed ─▶ (guard) Trial ─▶ write the Deployment
//! Gating     the new version leads, has its state, holds a session ─▶ Committed ─▶ move the guard
//!            or the guard reverts ─▶ whose fault? ─▶ RollingBack
//! ```

use std::time::Duration;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use mendix_agent_core::{
    bundle::{
        admission::{AGENT_COMPONENT, own_deployment},
        object::Object,
        plan::PlannedComponent,
        run::Event,
    },
    upgrade::{Blame, Cause, GUARD_ANSWERS, Party, Phase, Verdict, agent, blame, rolls_out},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        converge::based_on,
        failure::{CallCause, CallError, StepError, patiently},
        gate::Passage,
        live::{Mode, text},
        preimage::{PreImage, own_as_before},
        report::{cut, summary},
        steps::Steps,
    },
    Done, Driver,
};
use crate::{
    cluster::FIELD_MANAGER,
    crd::{
        patch_bundle::PatchBundle,
        upgrade_trial::{UpgradeTrial, UpgradeTrialSpec, UpgradeTrialStatus},
    },
    occasion::{self, Occasion},
    upgrade::{
        GUARD_CONTAINER, Own, Steady, dressed, dressed_like, guard_deployment, image_of,
        trial_name, trial_of, trials::Trials,
    },
};

/// How often a trial is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How late the guard may be before it is said that it does not act.
const GUARD_IS_LATE: Duration = Duration::from_secs(60);
/// Longest wait for a stable session and a guard once other components of the release have changed.
const READY_PATIENCE: Duration = Duration::from_secs(3600);

/// Reasons of a run that went back through no fault of its release.
const EXCUSED: [&str; 3] = ["NoStableSession", "NoGuard", "NoConnection"];

/// Whether a release upgrades the agent.
pub(super) fn is_agents(bundle: &PatchBundle) -> bool {
    bundle.spec.components.iter().any(|component| component.name == AGENT_COMPONENT)
}

/// What follows when the last component is put back.
pub(super) fn after_restore(bundle: &PatchBundle, place: u32) -> Event {
    let reason = bundle.status.as_ref().and_then(|status| status.reason.as_deref());
    match place == 0 && reason.is_some_and(|reason| EXCUSED.contains(&reason)) {
        true => Event::Excused,
        false => Event::Restored,
    }
}

impl Driver {
    fn trials(&self) -> Trials {
        Trials::new(self.cluster.client.clone(), &self.cluster.namespace, Party::Agent)
    }

    fn own(&self) -> Result<&Own, StepError> {
        self.identity.own.as_ref().ok_or_else(|| {
            let why = "this agent does not run as a Deployment".to_owned();
            CallError::about("upgrade", AGENT_COMPONENT.into(), CallCause::Found(why)).into()
        })
    }

    /// What a trial still lacks, if it lacks something: a session that has been stable, and a guard.
    async fn lacks(&self, own: &Own) -> Result<Option<(&'static str, String)>, CallError> {
        let session = own.session();
        if session.is_none_or(|session| session < own.stable_for) {
            let stable = own.stable_for.as_secs();
            let why = format!("a session that has been stable for {stable} s");
            return Ok(Some(("NoStableSession", why)));
        }
        let id = guard_deployment(&self.cluster.namespace);
        let guard = self.live.get(&id).await?;
        let available = guard.as_ref().and_then(|guard| guard.pointer("/status/availableReplicas"));
        if available.and_then(Value::as_u64).is_none_or(|pods| pods == 0) {
            return Ok(Some(("NoGuard", format!("{id} to be available"))));
        }
        Ok(None)
    }

    /// Waits until a trial could begin; at most for `patience`, after which it is said what lacks.
    pub(super) async fn wait_for_trial(
        &self,
        bundle: &PatchBundle,
        patience: Option<Duration>,
        cancel: &CancellationToken,
    ) -> Result<Option<(&'static str, String)>, StepError> {
        let own = self.own()?;
        let began = Instant::now();
        loop {
            let lacks = patiently(cancel, &|_| {}, || async { self.lacks(own).await }).await?;
            let Some((reason, what)) = lacks else { return Ok(None) };
            if patience.is_some_and(|patience| began.elapsed() >= patience) {
                return Ok(Some((reason, format!("waited in vain for {what}"))));
            }
            self.pause(bundle, &what, cancel).await?;
        }
    }

    /// Shows what is waited for, and waits a moment.
    async fn pause(
        &self,
        bundle: &PatchBundle,
        what: &str,
        cancel: &CancellationToken,
    ) -> Result<(), StepError> {
        self.reporter.run(bundle, Some(cut(&format!("waits for {what}"))));
        tokio::select! {
            () = cancel.cancelled() => Err(StepError::Stopped),
            () = tokio::time::sleep(LOOK) => Ok(()),
        }
    }

    /// Rolls the new version out, on trial. May be done again by whoever leads then.
    pub(super) async fn roll_out(
        &self,
        bundle: &PatchBundle,
        component: &PlannedComponent,
        steps: &Steps<'_>,
    ) -> Result<Done, StepError> {
        let id = own_deployment(&self.cluster.namespace);
        let wanted = component.objects().find(|object| object.id == id);
        let Some(wanted) = wanted else {
            return Ok(Done::because(Event::Failed, "NoPlan", format!("{id} is not planned")));
        };
        let name = trial_name(bundle);
        let trials = self.trials();
        loop {
            // In this order: what is written below is what was read before the phase was. The guard
            // writes the Deployment whenever it reverts, and so a write after that fails.
            let live = patiently(steps.cancel, steps.paused, || self.live.get(&id)).await?;
            let Some(live) = live else {
                return Ok(Done::because(Event::Failed, "NoDeployment", format!("{id} is gone")));
            };
            let trial = patiently(steps.cancel, steps.paused, || trials.get(&name)).await?;
            let Some(trial) = trial else {
                let lacks = self.wait_for_trial(bundle, Some(READY_PATIENCE), steps.cancel).await?;
                if let Some((reason, why)) = lacks {
                    return Ok(Done::because(Event::Failed, reason, why));
                }
                match self.open(bundle, component, wanted, &live, steps).await? {
                    true => continue,
                    false => return Ok(Done::on(Event::Applied)),
                }
            };
            match trial.phase() {
                Some(Phase::Proposed) => {
                    if is_unanswered(&trial) {
                        self.withdraw_trial(&trial, steps).await?;
                    } else {
                        self.pause(bundle, "the guard", steps.cancel).await?;
                    }
                }
                Some(Phase::Withdrawn) => {
                    let why = "the guard did not take the trial up".to_owned();
                    return Ok(Done::because(Event::Failed, "NoGuard", why));
                }
                Some(phase) if rolls_out(phase) && trial_of(&live) != Some(&name) => {
                    let body = dressed(&wanted.body.value(), &name);
                    let body = based_on(&body, text(&live, "/metadata/resourceVersion"));
                    let applied = patiently(steps.cancel, steps.paused, || async {
                        match self.live.apply(&id, &body, FIELD_MANAGER, true, Mode::Persist).await
                        {
                            Err(error) if error.is_conflict() => Ok(None),
                            result => result.map(Some),
                        }
                    });
                    if applied.await?.is_some() {
                        tracing::info!(trial = name, image = trial.spec.image, "rolled out");
                    }
                }
                // Also where a trial has ended meanwhile: what became of it is found at the gate.
                Some(_) => return Ok(Done::on(Event::Applied)),
                None => return Ok(unknown_phase(&trial)),
            }
        }
    }

    /// Opens the trial; no when the new version's pods would be those that run.
    async fn open(
        &self,
        bundle: &PatchBundle,
        component: &PlannedComponent,
        wanted: &Object,
        live: &Value,
        steps: &Steps<'_>,
    ) -> Result<bool, StepError> {
        let id = &wanted.id;
        let same = dressed_like(&wanted.body.value(), live);
        let answer = patiently(steps.cancel, steps.paused, || {
            self.live.apply(id, &same, FIELD_MANAGER, true, Mode::DryRun)
        });
        let answer = answer.await?;
        if answer.pointer("/spec/template") == live.pointer("/spec/template") {
            let same = based_on(&same, text(live, "/metadata/resourceVersion"));
            let applied = patiently(steps.cancel, steps.paused, || {
                self.live.apply(id, &same, FIELD_MANAGER, true, Mode::Persist)
            });
            return applied.await.map(|_| false);
        }
        let entry = component.entry();
        let spec = UpgradeTrialSpec {
            bundle: bundle.name_any(),
            release_id: bundle.spec.release_id.clone(),
            version: entry.version.clone(),
            image: image_of(&wanted.body.value()).unwrap_or_default().to_owned(),
            pre_image: live["spec"].to_string(),
            lasts_seconds: entry.gates.timeout_seconds,
            hold_seconds: entry.gates.soak_seconds,
        };
        let Some(owner) = bundle.owner_ref(&()) else {
            let why = CallCause::Answer("its record has no UID".into());
            return Err(CallError::about("open a trial of", bundle.name_any(), why).into());
        };
        let name = trial_name(bundle);
        let opened = patiently(steps.cancel, steps.paused, || async {
            self.trials().open(&name, spec.clone(), owner.clone()).await
        });
        let trial = opened.await?;
        let note = format!("mendix-agent {} is to be tried", trial.spec.version);
        self.tell(&trial, occasion::TRIAL_PROPOSED, note).await;
        Ok(true)
    }

    /// Ends a trial that no guard has taken up.
    async fn withdraw_trial(
        &self,
        trial: &UpgradeTrial,
        steps: &Steps<'_>,
    ) -> Result<(), StepError> {
        let withdrawn = patiently(steps.cancel, steps.paused, || async {
            let why = "no guard took it up; nothing was changed";
            let change = |status: &mut UpgradeTrialStatus| status.message = Some(why.to_owned());
            self.trials().advance(trial, Phase::Withdrawn, change).await
        });
        if let Some(trial) = withdrawn.await? {
            let note = format!("mendix-agent {}: no guard", trial.spec.version);
            self.tell(&trial, occasion::TRIAL_WITHDRAWN, note).await;
        }
        Ok(())
    }

    /// Carries the trial to its end, as the version on trial or as the one before.
    pub(super) async fn judge(
        &self,
        bundle: &PatchBundle,
        component: &PlannedComponent,
        steps: &Steps<'_>,
    ) -> Result<Done, StepError> {
        let own = self.own()?;
        let name = trial_name(bundle);
        let trials = self.trials();
        let began = Instant::now();
        let mut steady = Steady::begin(own);
        loop {
            let runs = steady.look(own);
            let trial = patiently(steps.cancel, steps.paused, || trials.get(&name)).await?;
            let Some(trial) = trial else {
                return self.judge_without(bundle, component, steps).await;
            };
            let Some(phase) = trial.phase() else { return Ok(unknown_phase(&trial)) };
            let standing = own.standing(&name, runs, trial.hold());
            match agent(phase, &standing, trial.hold()) {
                Verdict::Wait(what) => {
                    let what = waits(&trial, what);
                    self.pause(bundle, &what, steps.cancel).await?;
                }
                Verdict::Commit => {
                    let held = standing.session.unwrap_or_default().as_secs();
                    let message = format!("it leads, has its state and a session for {held} s");
                    let committed = patiently(steps.cancel, steps.paused, || async {
                        let said = Some(message.clone());
                        let change = |status: &mut UpgradeTrialStatus| status.message = said;
                        trials.advance(&trial, Phase::Committed, change).await
                    });
                    if let Some(trial) = committed.await? {
                        let note = format!("mendix-agent {}: {message}", trial.spec.version);
                        self.tell(&trial, occasion::TRIAL_COMMITTED, note).await;
                    }
                }
                Verdict::Passed => return self.move_guard(&trial, steps).await,
                Verdict::Over => {
                    let status = trial.status.clone().unwrap_or_default();
                    let said = status.message.unwrap_or_default();
                    if phase == Phase::Withdrawn {
                        return Ok(Done::because(Event::Failed, "NoGuard", said));
                    }
                    let cause = Cause::parse(status.cause.as_deref().unwrap_or_default());
                    let connected = standing.session.is_some();
                    match blame(cause, connected, began.elapsed(), trial.lasts()) {
                        Blame::Version => {
                            return Ok(Done::because(Event::Failed, "UpgradeReverted", said));
                        }
                        Blame::Network => {
                            let why = format!("{said}; the former version can't connect either");
                            return Ok(Done::because(Event::Failed, "NoConnection", why));
                        }
                        Blame::Open => {
                            let what = "a session, to know whose fault the reverted trial was";
                            self.pause(bundle, what, steps.cancel).await?;
                        }
                    }
                }
            }
        }
    }

    /// No trial: it was not needed, since the pods stay those that run, or somebody deleted it. Then
    /// nobody watches any more, and the version that leads says what it can say of itself.
    async fn judge_without(
        &self,
        bundle: &PatchBundle,
        component: &PlannedComponent,
        steps: &Steps<'_>,
    ) -> Result<Done, StepError> {
        let id = own_deployment(&self.cluster.namespace);
        let name = trial_name(bundle);
        let live = patiently(steps.cancel, steps.paused, || self.live.get(&id)).await?;
        if live.as_ref().and_then(trial_of) == Some(&name) {
            let hold = Duration::from_secs(component.entry().gates.soak_seconds.into());
            let own = self.own()?;
            let runs = Steady::begin(own).look(own);
            let standing = own.standing(&name, runs, Duration::ZERO);
            return Ok(match agent(Phase::Trial, &standing, hold) {
                Verdict::Commit => Done::on(Event::Ready),
                _ => Done::because(
                    Event::Failed,
                    "TrialDeleted",
                    format!("UpgradeTrial {name} was deleted before the new version had committed"),
                ),
            });
        }
        let baseline = self.baseline(bundle, steps.paused, steps.cancel).await?;
        match steps.gate(component, &baseline).await? {
            Passage::Passed(notes) => {
                let mut done = Done::on(Event::Ready);
                done.note.message = (!notes.is_empty()).then(|| summary(&notes));
                Ok(done)
            }
            Passage::Failed(failure) => {
                Ok(Done::because(Event::Failed, "NotReady", failure.line()))
            }
        }
    }

    /// Gives the guard the version that has committed itself. What keeps it from that is said and no
    /// reason to go back: the guard that runs has just done its work.
    async fn move_guard(&self, trial: &UpgradeTrial, steps: &Steps<'_>) -> Result<Done, StepError> {
        let id = guard_deployment(&self.cluster.namespace);
        let body = json!({
            "apiVersion": id.api_version(),
            "kind": id.kind,
            "metadata": {"name": id.name, "namespace": id.namespace},
            "spec": {"template": {"spec": {"containers": [
                {"name": GUARD_CONTAINER, "image": trial.spec.image},
            ]}}},
        });
        let moved = patiently(steps.cancel, steps.paused, || {
            self.live.apply(&id, &body, FIELD_MANAGER, true, Mode::Persist)
        });
        let mut done = Done::on(Event::Ready);
        match moved.await {
            Ok(_) => {}
            Err(StepError::Stopped) => return Err(StepError::Stopped),
            Err(StepError::Call(error)) => {
                let line = error.line();
                done.note.message = Some(cut(&format!("the guard keeps its version: {line}")));
            }
        }
        Ok(done)
    }

    /// Makes the agent's Deployment what it was: waits for the guard where a trial is open, and then
    /// gives its fields the owners of before.
    pub(super) async fn come_back(
        &self,
        bundle: &PatchBundle,
        images: &[PreImage],
        steps: &Steps<'_>,
    ) -> Result<Vec<String>, StepError> {
        let name = trial_name(bundle);
        let trials = self.trials();
        loop {
            let trial = patiently(steps.cancel, steps.paused, || trials.get(&name)).await?;
            // Never opened, or deleted: nobody else puts it back.
            let Some(trial) = trial else { return steps.restore(images).await };
            match trial.phase() {
                Some(Phase::Proposed) => self.withdraw_trial(&trial, steps).await?,
                Some(Phase::Trial | Phase::Reverting) | None => {
                    let what = waits(&trial, "the guard to put the former version back");
                    self.pause(bundle, &what, steps.cancel).await?;
                }
                Some(Phase::Committed) => {
                    let why = "the new version has committed itself and stays".to_owned();
                    let error = CallError::about("put back", name, CallCause::Found(why));
                    return Err(error.into());
                }
                Some(Phase::Reverted | Phase::Withdrawn) => break,
            }
        }
        for image in images {
            patiently(steps.cancel, steps.paused, || own_as_before(&self.live, image)).await?;
        }
        Ok(vec![])
    }

    async fn tell(&self, trial: &UpgradeTrial, occasion: Occasion, note: String) {
        let reason = occasion.reason;
        tracing::info!(trial = trial.name_any(), reason, note, "trial");
        self.reporter.event(&trial.object_ref(&()), occasion, &note).await;
    }
}

/// What is waited for, and whether the guard should have acted by now.
fn waits(trial: &UpgradeTrial, what: &str) -> String {
    let deadline = trial.status.as_ref().and_then(|status| status.deadline);
    let late = deadline.and_then(|deadline| deadline.checked_add(GUARD_IS_LATE).ok());
    match (deadline, late) {
        (Some(deadline), Some(late)) if Timestamp::now() >= late => format!(
            "{what}; the guard should have ended the trial at {deadline} and has not: look at its \
             Deployment"
        ),
        (Some(deadline), _) => format!("{what}; the trial ends at {deadline}"),
        _ => what.to_owned(),
    }
}

/// Whether the guard has had its time to take a proposal up.
fn is_unanswered(trial: &UpgradeTrial) -> bool {
    let made = trial.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let waited = made.map(|made| Timestamp::now().duration_since(made));
    waited.and_then(|waited| Duration::try_from(waited).ok())
        >= Some(GUARD_ANSWERS.min(trial.lasts()))
}

fn unknown_phase(trial: &UpgradeTrial) -> Done {
    let name = trial.name_any();
    let why = format!("UpgradeTrial {name} is in a phase that this agent doesn't know");
    Done::because(Event::Failed, "UnknownPhase", why)
}
