//! Managed objects that somebody else changed or deleted, put back within seconds; and the health of
//! the components, kept current by the same watches.
//!
//! Metadata watches over the inventory say that something changed; `managedFields` in them say
//! whether it can be drift, so that a status update costs no call. What has to be done is decided by
//! `mendix_agent_core::bundle::drift` and done by [`super::converge`]. Two writers that fight over an
//! object are slowed down and reported, never looped with.

mod health;
mod inventory;
mod watches;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::Resource;
use mendix_agent_core::bundle::{
    admission::own_deployment,
    drift::{Fight, changed_paths, is_recreated},
    kind::{Stage, stage},
    object::ObjectId,
};
use serde_json::Value;
use tokio::{
    sync::{Mutex, Notify, mpsc},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{
    converge::{Adoption, Outcome, Wanted, converge},
    driver::Driver,
    failure::{CallError, Meaning, StepError, patiently},
    gate,
    live::{in_parallel, text},
    report::cut,
};
use crate::{
    crd::managed_component::{LastDrift, ManagedComponent},
    occasion,
    upgrade::dressed_like,
};
use inventory::{Inventory, Managed};

/// Objects that are put back at once.
const PARALLEL_CORRECTIONS: usize = 8;
/// Changes that may wait between the watches and the correction; beyond it the watches wait, too.
const BACKLOG: usize = 1024;
/// How soon the health of a component is looked at after one of its objects changed.
const HEALTH_DELAY: Duration = Duration::from_secs(1);
/// When an object that could not be put back is tried again: after a failure that passes, and after
/// one that stays.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// A check of everything, whether a watch said something or not.
const FULL_CHECK: Duration = Duration::from_secs(600);

/// Corrects drift of what is committed.
pub struct Drift {
    driver: Driver,
    reload: Notify,
    fights: Mutex<BTreeMap<ObjectId, Fight>>,
}

/// What [`Drift::recover`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Objects that were looked at.
    pub objects: usize,
    /// Objects that differed and were put back.
    pub corrected: usize,
    /// What could not be put back, one line each.
    pub failures: Vec<String>,
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Notice {
    /// It may differ from what is wanted.
    Changed(ObjectId),
    /// Something else about it changed, such as its status.
    Touched(ObjectId),
}

impl Drift {
    /// Drift correction with the driver's access to the cluster.
    pub fn new(driver: &Driver) -> Self {
        Self { driver: driver.clone(), reload: Notify::new(), fights: Mutex::default() }
    }

    /// Says that the inventory changed.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Watches and corrects until cancelled.
    ///
    /// # Errors
    /// When the records can't be read for a reason that stays.
    pub async fn run(&self, cancel: &CancellationToken) -> Result<(), StepError> {
        loop {
            let inventory =
                patiently(cancel, &|_| {}, || async { inventory::load(&self.driver).await });
            let inventory = match inventory.await {
                Err(StepError::Stopped) => return Ok(()),
                result => Arc::new(result?),
            };
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = self.reload.notified() => {}
                () = self.follow(&inventory) => {}
            }
        }
    }

    /// Puts everything back that differs, now.
    ///
    /// # Errors
    /// When the agent stops, or the records can't be read.
    pub async fn recover(&self, cancel: &CancellationToken) -> Result<Recovery, StepError> {
        let inventory =
            patiently(cancel, &|_| {}, || async { inventory::load(&self.driver).await }).await?;
        let corrections = inventory
            .objects
            .keys()
            .map(|id| patiently(cancel, &|_| {}, || self.correct(&inventory, id)).boxed());
        let mut results = in_parallel(corrections);
        let mut recovery = Recovery::default();
        while let Some(result) = results.next().await {
            recovery.objects += 1;
            match result {
                Ok(Checked::Corrected) => recovery.corrected += 1,
                Ok(Checked::Sound) => {}
                Ok(Checked::InRun(component)) => recovery
                    .failures
                    .push(format!("component {component} is in a release run that is not over")),
                Err(StepError::Call(error)) => recovery.failures.push(error.line()),
                Err(StepError::Stopped) => return Err(StepError::Stopped),
            }
        }
        Ok(recovery)
    }

    async fn follow(&self, inventory: &Inventory) {
        let (notices, mut noticed) = mpsc::channel(BACKLOG);
        let mut tasks = JoinSet::new();
        for group in watches::groups(inventory.objects.keys()) {
            tasks.spawn(group.watch(
                self.driver.live.clone(),
                self.driver.cluster.client.clone(),
                notices.clone(),
            ));
        }
        drop(notices);
        let mut due: BTreeMap<ObjectId, Timestamp> = BTreeMap::new();
        let mut running = FuturesUnordered::new();
        let mut busy = BTreeSet::new();
        let mut stale: BTreeSet<Arc<str>> = inventory.components.clone();
        let mut health = tokio::time::interval(HEALTH_DELAY);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut full_check = tokio::time::interval(FULL_CHECK);
        full_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = Timestamp::now();
            let ready: Vec<ObjectId> = (due.iter())
                .filter(|(id, at)| **at <= now && !busy.contains(*id))
                .map(|(id, _)| id.clone())
                .take(PARALLEL_CORRECTIONS.saturating_sub(busy.len()))
                .collect();
            for id in ready {
                due.remove(&id);
                busy.insert(id.clone());
                running.push(self.check(inventory, id).boxed());
            }
            // A full hand of corrections is waited for; else the next one that is due.
            let next = match busy.len() < PARALLEL_CORRECTIONS {
                true => due.iter().filter(|(id, _)| !busy.contains(*id)).map(|(_, at)| *at).min(),
                false => None,
            };
            tokio::select! {
                notice = noticed.recv() => match notice {
                    Some(Notice::Changed(id)) => {
                        if let Some(managed) = inventory.objects.get(&id) {
                            stale.insert(managed.component.clone());
                        }
                        due.insert(id, now);
                    }
                    Some(Notice::Touched(id)) => {
                        if let Some(managed) = inventory.objects.get(&id) {
                            stale.insert(managed.component.clone());
                        }
                    }
                    // Nothing is owned: wait for a reload.
                    None => std::future::pending().await,
                },
                Some((id, again)) = running.next(), if !running.is_empty() => {
                    busy.remove(&id);
                    if let Some(again) = again {
                        due.entry(id).or_insert(again);
                    }
                }
                () = sleep_until(next), if next.is_some() => {}
                _ = full_check.tick() => {
                    due.extend(inventory.objects.keys().map(|id| (id.clone(), now)));
                }
                _ = health.tick(), if !stale.is_empty() => {
                    for component in std::mem::take(&mut stale) {
                        if let Err(error) = self.look_after(inventory, &component).await {
                            tracing::warn!(%component, error = error.line(), "health can't be told");
                            stale.insert(component);
                        }
                    }
                }
            }
        }
    }

    /// Checks one object; says when it has to be looked at again, if it has.
    async fn check(&self, inventory: &Inventory, id: ObjectId) -> (ObjectId, Option<Timestamp>) {
        let now = Timestamp::now();
        let wait = self.fights.lock().await.get(&id).and_then(Fight::not_before);
        if let Some(at) = wait.filter(|at| *at > now) {
            return (id, Some(at));
        }
        let again = match self.correct(inventory, &id).await {
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(error = error.line(), "drift can't be corrected");
                let pause = match error.meaning {
                    Meaning::Outage | Meaning::Blocked => RETRY_AFTER.0,
                    Meaning::Immutable | Meaning::Refused => RETRY_AFTER.1,
                };
                Some(now + pause)
            }
        };
        (id, again)
    }

    /// Makes one object what is wanted, unless a run has its hands on it.
    async fn correct(&self, inventory: &Inventory, id: &ObjectId) -> Result<Checked, CallError> {
        let Some(managed) = inventory.objects.get(id) else { return Ok(Checked::Sound) };
        // What may not be made twice can't be corrected either: its template never changes.
        if !is_recreated(id) {
            return Ok(Checked::Sound);
        }
        let found_at = Timestamp::now();
        // No run begins while an object is being put back. The record is not asked for each object: it
        // names all objects of the component, and thousands of objects would be thousands of such reads.
        let announced = self.driver.corrections.read().await;
        if inventory.is_in_run(&managed.component, &announced) {
            return Ok(Checked::InRun(managed.component.clone()));
        }
        let mut exceptions: Vec<&str> = managed.exceptions.iter().map(String::as_str).collect();
        let mut body = managed.body.value();
        if *id == own_deployment(&self.driver.cluster.namespace) {
            // Its pods are those of the trial that it committed. What the customer's installation says
            // of them beside the release is not drift.
            exceptions.push("spec.template");
            let Some(live) = self.driver.live.get(id).await? else { return Ok(Checked::Sound) };
            body = dressed_like(&body, &live);
        }
        let run = format!("drift-of-{}", managed.release_id);
        let wanted = Wanted {
            id,
            body: &body,
            component: &managed.component,
            run: &run,
            exceptions: &exceptions,
            adoption: Adoption::Any,
        };
        let outcome = converge(&self.driver.live, wanted).await?;
        self.own(managed, id, outcome.live()).await?;
        let (fields, claimants) = match outcome {
            Outcome::Unchanged(_) => return Ok(Checked::Sound),
            Outcome::Created(_) => (vec!["(deleted)".to_owned()], vec![]),
            Outcome::Changed { before, after, claimants } => {
                (changed_paths(&before, &after), claimants)
            }
        };
        let fight = {
            let mut fights = self.fights.lock().await;
            let fight = fights.entry(id.clone()).or_default();
            fight.corrected(Timestamp::now());
            fight.clone()
        };
        let claimed_by = match claimants.is_empty() {
            true => "unknown".to_owned(),
            false => claimants.join(", "),
        };
        tracing::warn!(object = %id, ?fields, claimed_by, "a managed object was changed by somebody else and put back");
        let drift = LastDrift {
            object: id.to_string(),
            fields,
            claimed_by,
            found_at: Some(found_at),
            corrected_at: Some(Timestamp::now()),
        };
        self.driver.reporter.corrected(&drift.object, &drift.fields, &drift.claimed_by);
        if let Err(error) = self.tell(managed, &drift, &fight).await {
            tracing::warn!(error = error.line(), "drift was corrected and can't be recorded");
        }
        Ok(Checked::Corrected)
    }

    /// Keeps the record's UID that of the live object: one that was made again is another object, and
    /// by its UID a later release knows that it may prune it.
    async fn own(&self, managed: &Managed, id: &ObjectId, live: &Value) -> Result<(), CallError> {
        let uid = text(live, "/metadata/uid");
        if managed.uid == uid {
            return Ok(());
        }
        let noted = self.driver.records.update_component(&managed.component, |mut status| {
            let entry = status.inventory.iter_mut().find(|owned| owned.is(id))?;
            entry.uid.clone_from(&uid);
            Some(status)
        });
        noted.await.map(drop)
    }

    async fn tell(
        &self,
        managed: &Managed,
        drift: &LastDrift,
        fight: &Fight,
    ) -> Result<(), CallError> {
        let component = self
            .driver
            .records
            .update_component(&managed.component, |mut status| {
                status.drift_corrected = status.drift_corrected.saturating_add(1);
                status.last_drift = Some(drift.clone());
                Some(status)
            })
            .await?;
        let LastDrift { object, fields, claimed_by, .. } = drift;
        let mut line = format!("{object}: {} put back; claimed by {claimed_by}", fields.join(", "));
        let occasion = match fight.is_on() {
            true => {
                line = format!(
                    "{line}. It was put back {} times lately; the next time waits",
                    fight.corrections()
                );
                occasion::DRIFT_FIGHT
            }
            false => occasion::DRIFT_CORRECTED,
        };
        let about = component.object_ref(&());
        self.driver.reporter.event(&about, occasion, &line).await;
        self.publish().await
    }

    async fn publish(&self) -> Result<(), CallError> {
        self.driver.reporter.components(&self.driver.records.components().await?);
        Ok(())
    }

    /// Looks at the health of a component and records it if it changed.
    async fn look_after(&self, inventory: &Inventory, component: &str) -> Result<(), CallError> {
        let objects = inventory.objects.iter().filter(|(id, managed)| {
            *managed.component == *component && stage(id) != Stage::Configuration
        });
        let ids: Vec<ObjectId> = objects.map(|(id, _)| id.clone()).collect();
        let healths = gate::look(&self.driver.live, &ids).await?;
        let fight = {
            let fights = self.fights.lock().await;
            let of_component = fights.iter().find(|(id, fight)| {
                let is_mine =
                    inventory.objects.get(*id).is_some_and(|m| *m.component == *component);
                let waits = fight.not_before().is_some_and(|at| at > Timestamp::now());
                is_mine && waits
            });
            of_component.map(|(id, fight)| {
                format!("{id} was changed by somebody else {} times lately", fight.corrections())
            })
        };
        let (health, reason) = health::worst(&healths);
        let message = fight.or(reason).map(|message| cut(&message));
        let before = self.driver.records.component(component).await?;
        let changed = before.and_then(|c: ManagedComponent| c.status).is_some_and(|status| {
            status.health.as_deref() != Some(health) || status.message != message
        });
        if changed {
            let updated = self.driver.records.update_component(component, |mut status| {
                status.health = Some(health.to_owned());
                status.message.clone_from(&message);
                Some(status)
            });
            updated.await?;
            tracing::info!(component, health, message, "health of a component");
        }
        self.publish().await
    }
}

/// What a check found.
enum Checked {
    /// All is well, now or before.
    Sound,
    /// It was put back.
    Corrected,
    /// A run has its hands on this component.
    InRun(Arc<str>),
}

async fn sleep_until(at: Option<Timestamp>) {
    let Some(at) = at else { return };
    let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(left).await;
}
