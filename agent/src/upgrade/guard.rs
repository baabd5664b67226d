//! `mendix-agent guard`: watches trials of new agents and puts the former version back when one
//! does not prove itself. Needs the API server and nothing else: no control plane, no state of its
//! own, no configuration but its namespace.
//!
//! Decided by `mendix_agent_core::upgrade::guard`; every write is a compare-and-swap, so that two
//! guards, as there are for a moment while one is replaced, do no more than one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
    runtime::{
        WatchStreamExt,
        events::{Recorder, Reporter},
        watcher::{self, watcher},
    },
};
use mendix_agent_core::{
    bundle::admission::AGENT_DEPLOYMENT,
    upgrade::{Cause, Look, Move, Party, Phase, Restoration, guard, restoration},
};
use serde_json::Value;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    GUARD, REVERTED_TRIAL,
    sight::{Sight, transitions},
    trial_of,
    trials::Trials,
};
use crate::{
    cluster::CALL_DEADLINE,
    crd::upgrade_trial::UpgradeTrial,
    occasion::{self, Occasion},
    patch::{
        failure::{CallCause, CallError},
        records::{deadline, is_status},
    },
    pods::Pod,
};

/// How often an open trial is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Steps of one trial in one look; more are taken in the next.
const STEPS: usize = 6;

/// What the guard shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Whether it has seen the trials, if any.
    pub watches: bool,
    /// What keeps it from its work now.
    pub problem: Option<String>,
    /// Trials that have not ended.
    pub open: u64,
    /// Trials it has reverted since its start.
    pub reverted: u64,
}

/// Why the guard ended early; it is started again.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The watch is over, which it never is.
    #[error("the watch of UpgradeTrials ended")]
    WatchEnded,
}

/// Guards until cancelled.
///
/// # Errors
/// See [`GuardError`]. What the API server refuses is shown and tried again.
pub async fn run(
    client: Client,
    namespace: String,
    shown: watch::Sender<Shown>,
    cancel: CancellationToken,
) -> Result<(), GuardError> {
    let mut guard = Guard::new(client, &namespace, shown);
    let work = guard.work();
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        result = work => result,
    }
}

struct Guard {
    trials: Trials,
    deployments: Api<DynamicObject>,
    pods: Api<Pod>,
    leases: Api<Lease>,
    recorder: Recorder,
    shown: watch::Sender<Shown>,
    open: BTreeSet<String>,
    /// Since when this process has watched trials.
    since: BTreeMap<String, Instant>,
}

impl Guard {
    fn new(client: Client, namespace: &str, shown: watch::Sender<Shown>) -> Self {
        let reporter =
            Reporter { controller: GUARD.into(), instance: std::env::var("HOSTNAME").ok() };
        let kind = ApiResource::erase::<Deployment>(&());
        Self {
            trials: Trials::new(client.clone(), namespace, Party::Guard),
            deployments: Api::namespaced_with(client.clone(), namespace, &kind),
            pods: Api::namespaced(client.clone(), namespace),
            leases: Api::namespaced(client.clone(), namespace),
            recorder: Recorder::new(client, reporter),
            shown,
            open: BTreeSet::new(),
            since: BTreeMap::new(),
        }
    }

    async fn work(&mut self) -> Result<(), GuardError> {
        let events = watcher(self.trials.api().clone(), watcher::Config::default());
        let mut events = events.default_backoff().boxed();
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.hear(event),
                    None => return Err(GuardError::WatchEnded),
                },
                _ = tick.tick(), if !self.open.is_empty() => self.round().await,
            }
        }
    }

    fn hear(&mut self, event: watcher::Result<watcher::Event<UpgradeTrial>>) {
        match event {
            Ok(watcher::Event::Init) => {}
            Ok(watcher::Event::InitApply(trial) | watcher::Event::Apply(trial)) => {
                if !trial.phase().is_some_and(Phase::ended) {
                    self.open.insert(trial.name_any());
                }
            }
            Ok(watcher::Event::Delete(trial)) => self.forget(&trial.name_any()),
            Ok(watcher::Event::InitDone) => self.show(|shown| {
                (shown.watches, shown.problem) = (true, None);
            }),
            Err(error) => {
                let why = crate::errors::describe(&error);
                tracing::warn!(why, "trials can't be watched");
                self.show(|shown| shown.problem = Some(why));
            }
        }
    }

    fn show(&self, change: impl FnOnce(&mut Shown)) {
        let open = u64::try_from(self.open.len()).unwrap_or(u64::MAX);
        self.shown.send_modify(|shown| {
            change(shown);
            shown.open = open;
        });
    }

    fn forget(&mut self, trial: &str) {
        self.open.remove(trial);
        self.since.remove(trial);
    }

    /// Looks at every open trial.
    async fn round(&mut self) {
        let mut problem = None;
        for name in self.open.clone() {
            if let Err(error) = self.attend(&name).await {
                let why = error.line();
                tracing::warn!(trial = name, why, "the trial is looked at again");
                problem = Some(why);
            }
        }
        self.show(|shown| shown.problem = problem);
    }

    async fn attend(&mut self, name: &str) -> Result<(), CallError> {
        for _ in 0..STEPS {
            let Some(trial) = self.trials.get(name).await? else {
                self.forget(name);
                return Ok(());
            };
            let Some(phase) = trial.phase() else {
                let why = "it is in a phase that this guard doesn't know".to_owned();
                return Err(CallError::about("guard", name.to_owned(), CallCause::Found(why)));
            };
            if phase.ended() {
                self.forget(name);
                return Ok(());
            }
            let lease = self.leases.get_opt(AGENT_DEPLOYMENT);
            let lease = self.seen(deadline("read", "Lease".into(), lease).await).flatten();
            let sight = match phase {
                Phase::Trial => self.sight(&trial, lease.as_ref()).await,
                _ => Sight::default(),
            };
            match guard(&self.look(&trial, phase, &sight, lease.as_ref())) {
                Move::Rest => return Ok(()),
                Move::Begin => self.begin(&trial, lease.as_ref()).await?,
                Move::Revert(cause) => self.revert(&trial, cause, &sight).await?,
                Move::Restore => self.restore(&trial).await?,
            }
        }
        Ok(())
    }

    /// What can't be read does not keep the deadline from being kept.
    fn seen<T>(&self, read: Result<T, CallError>) -> Option<T> {
        read.inspect_err(|error| tracing::warn!(why = error.line(), "not seen")).ok()
    }

    async fn sight(&self, trial: &UpgradeTrial, lease: Option<&Lease>) -> Sight {
        let selector = format!("app.kubernetes.io/name={AGENT_DEPLOYMENT}");
        let params = ListParams::default().labels(&selector);
        let pods = deadline("list", "pods of the agent".into(), self.pods.list(&params)).await;
        let pods = self.seen(pods).map(|list| list.items).unwrap_or_default();
        Sight::of(&trial.name_any(), &pods, lease)
    }

    fn look(
        &mut self,
        trial: &UpgradeTrial,
        phase: Phase,
        sight: &Sight,
        lease: Option<&Lease>,
    ) -> Look {
        let watched = match phase {
            Phase::Trial => {
                self.since.entry(trial.name_any()).or_insert_with(Instant::now).elapsed()
            }
            _ => Duration::ZERO,
        };
        let status = trial.status.as_ref();
        let at_start = status.and_then(|status| status.lease_transitions);
        let handovers = match (at_start, lease) {
            (Some(before), Some(_)) => transitions(lease).saturating_sub(before),
            _ => 0,
        };
        Look {
            phase,
            now: Timestamp::now(),
            deadline: status.and_then(|status| status.deadline),
            lasts: trial.lasts(),
            watched,
            restarts: sight.restarts,
            handovers: u32::try_from(handovers).unwrap_or(u32::MAX),
        }
    }

    async fn begin(&self, trial: &UpgradeTrial, lease: Option<&Lease>) -> Result<(), CallError> {
        let now = Timestamp::now();
        let begun = self.trials.advance(trial, Phase::Trial, |status| {
            status.began_at = Some(now);
            status.deadline = now.checked_add(trial.lasts()).ok();
            status.lease_transitions = Some(transitions(lease));
            status.message = Some("the guard watches".into());
        });
        if let Some(trial) = begun.await? {
            let until = trial.status.as_ref().and_then(|status| status.deadline);
            let until = until.map(|until| until.to_string()).unwrap_or_default();
            let version = &trial.spec.version;
            let note = format!("mendix-agent {version} has to commit until {until}");
            self.tell(&trial, occasion::TRIAL_BEGUN, note).await;
        }
        Ok(())
    }

    async fn revert(
        &self,
        trial: &UpgradeTrial,
        cause: Cause,
        sight: &Sight,
    ) -> Result<(), CallError> {
        let said = match cause {
            Cause::DeadlinePassed => "it has not committed in time",
            Cause::CrashLoop => "its process ends again and again",
            Cause::Flapping => "the Lease wanders between its replicas",
        };
        let message = format!("{said}: {}", sight.words());
        let reverting = self.trials.advance(trial, Phase::Reverting, |status| {
            status.cause = Some(cause.name().to_owned());
            status.message = Some(message.clone());
        });
        if let Some(trial) = reverting.await? {
            let note = format!("mendix-agent {} is put back: {message}", trial.spec.version);
            self.tell(&trial, occasion::TRIAL_REVERTING, note).await;
        }
        Ok(())
    }

    async fn restore(&self, trial: &UpgradeTrial) -> Result<(), CallError> {
        let name = trial.name_any();
        let about = || format!("Deployment {AGENT_DEPLOYMENT}");
        let found = self.deployments.get_opt(AGENT_DEPLOYMENT);
        let found = deadline("read", about(), found).await?;
        let Some(mut deployment) = found else {
            return self.finish(trial, "the Deployment is gone; nothing was put back").await;
        };
        let marked = reverted_trial_of(&deployment) == Some(&name);
        match restoration(trial_of(&deployment.data) == Some(&name), marked) {
            Restoration::Done => {
                return self.finish(trial, "the former version is back").await;
            }
            Restoration::PutBack => deployment.data["spec"] = pre_image(trial)?,
            Restoration::Mark => {}
        }
        deployment.annotations_mut().insert(REVERTED_TRIAL.into(), name);
        let params = PostParams { field_manager: Some(GUARD.into()), ..Default::default() };
        let written = self.deployments.replace(AGENT_DEPLOYMENT, &params, &deployment);
        match deadline("put back", about(), written).await {
            // Somebody wrote in between: look again.
            Err(error) if is_status(&error, 409) => Ok(()),
            result => result.map(drop),
        }
    }

    async fn finish(&self, trial: &UpgradeTrial, what: &str) -> Result<(), CallError> {
        let reverted = self.trials.advance(trial, Phase::Reverted, |status| {
            let why = status.message.take().unwrap_or_default();
            status.message = Some(format!("{why}; {what}"));
        });
        if let Some(trial) = reverted.await? {
            let note = format!("mendix-agent {}: {what}", trial.spec.version);
            self.shown.send_modify(|shown| shown.reverted += 1);
            self.tell(&trial, occasion::TRIAL_REVERTED, note).await;
        }
        Ok(())
    }

    /// In the log and as an Event.
    async fn tell(&self, trial: &UpgradeTrial, occasion: Occasion, note: String) {
        let reason = occasion.reason;
        let name = trial.name_any();
        tracing::info!(trial = name, release = trial.spec.release_id, reason, note, "trial");
        let event = occasion.event(note);
        let about = trial.object_ref(&());
        let published = self.recorder.publish(&event, &about);
        match tokio::time::timeout(CALL_DEADLINE, published).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason, "could not record a Kubernetes event"),
            Err(_) => tracing::warn!(reason, "recording a Kubernetes event timed out"),
        }
    }
}

fn reverted_trial_of(deployment: &DynamicObject) -> Option<&String> {
    deployment.annotations().get(REVERTED_TRIAL)
}

fn pre_image(trial: &UpgradeTrial) -> Result<Value, CallError> {
    serde_json::from_str(&trial.spec.pre_image).map_err(|error| {
        let why = format!("its pre-image can't be read: {error}");
        CallError::about("restore", trial.name_any(), CallCause::Found(why))
    })
}
