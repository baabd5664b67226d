//! Carries out a run: does the step of its state, asks the state machine where that leads, persists
//! the answer, and goes on. A restarted process finds the record and does the same.
//!
//! The state is persisted before its step is done, and every step starts from live state, so it
//! makes no difference at which instant a process dies.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use mendix_agent_core::bundle::{
    admission::{ClusterFacts, HighWater, KindScope, admit},
    kind,
    plan::{Inventory, Plan},
    run::{Event, IllegalEvent, State, Step, due, next},
};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::{
    contents::{Contents, sha256_hex},
    failure::{CallError, StepError, patiently, pauses},
    gate::Passage,
    live::{Live, text},
    preimage::{self, PreImage},
    records::{Records, state_of},
    report::{Reporter, cut, summary},
    steps::{Owned, Steps, baseline},
    stored::{self, StoredError},
    supply::{Supply, SupplyError},
};
use crate::{
    cluster::Cluster,
    crd::{
        managed_component::{ComponentRun, ManagedComponent, OwnedObject},
        patch_bundle::{
            BundleTransition, MAX_HISTORY, MAX_REFUSALS, PatchBundle, PatchBundleStatus,
        },
    },
};

/// Longest sleep while a release waits for its time: the wall clock may be set meanwhile.
const LONGEST_NAP: Duration = Duration::from_secs(60);

/// What admission is told about this agent.
#[derive(Clone)]
pub struct Identity {
    /// Version of the running agent.
    pub agent_version: String,
    /// Tells the release ring that was set at enrolment; empty: none. Asked at each admission, since
    /// drift is put back before there is an identity and enrolment may set another ring.
    pub ring: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Why a run was left where it is.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The agent is stopping; the next process goes on.
    #[error("the agent is stopping")]
    Stopped,
    /// The record can't be read or written as it has to be.
    #[error("the record of release {release}")]
    Record {
        /// The release.
        release: String,
        /// The cause.
        #[source]
        source: Box<CallError>,
    },
    /// The record holds a state that this build does not know.
    #[error("the record of release {release} is in state {state:?}, which this agent doesn't know")]
    UnknownState {
        /// The release.
        release: String,
        /// What the record says.
        state: String,
    },
    /// A defect.
    #[error("release {release}")]
    Illegal {
        /// The release.
        release: String,
        /// The cause.
        #[source]
        source: IllegalEvent,
    },
}

/// Carries out runs, one at a time.
#[derive(Clone)]
pub struct Driver {
    pub(super) cluster: Cluster,
    pub(super) live: Live,
    pub(super) contents: Contents,
    pub(super) records: Records,
    pub(super) reporter: Reporter,
    /// Held for reading while an object is put back, for writing while a run announces itself: after
    /// that, drift correction leaves the run's components alone.
    pub(super) corrections: Arc<RwLock<()>>,
    identity: Identity,
}

/// What a step led to.
struct Done {
    event: Event,
    note: Note,
}

/// What is recorded along with a transition.
#[derive(Default)]
struct Note {
    reason: Option<&'static str>,
    message: Option<String>,
    refusals: Vec<String>,
    due_at: Option<Timestamp>,
    pre_images: Option<String>,
    blobs: Option<Vec<String>>,
}

impl Done {
    fn on(event: Event) -> Self {
        Self { event, note: Note::default() }
    }

    fn because(event: Event, reason: &'static str, message: String) -> Self {
        let message = Some(cut(&message));
        Self { event, note: Note { reason: Some(reason), message, ..Default::default() } }
    }

    fn refused(refusals: Vec<String>) -> Self {
        let mut done = Self::because(Event::Refused, "Refused", summary(&refusals));
        done.note.refusals = refusals;
        done
    }
}

/// Why there is no plan.
enum NoPlan {
    Stopped,
    Refused(Vec<String>),
}

impl Driver {
    /// A driver for this cluster.
    pub fn new(cluster: Cluster, reporter: Reporter, identity: Identity) -> Self {
        Self {
            live: Live::new(&cluster),
            contents: Contents::new(&cluster),
            records: Records::new(&cluster),
            cluster,
            reporter,
            corrections: Arc::default(),
            identity,
        }
    }

    /// Carries a run on to its end. `given_up` is cancelled when another release is wanted; that
    /// ends the run as long as nothing was touched.
    ///
    /// # Errors
    /// See [`DriveError`]; the record then says where to go on.
    pub async fn drive(
        &self,
        mut bundle: PatchBundle,
        supply: &dyn Supply,
        given_up: &CancellationToken,
        cancel: &CancellationToken,
    ) -> Result<PatchBundle, DriveError> {
        let components = u32::try_from(bundle.spec.components.len()).unwrap_or(u32::MAX);
        loop {
            let state = self.state(&bundle)?;
            if state.ended() {
                return Ok(bundle);
            }
            self.reporter.run(&bundle, None);
            let paused = |error: Option<&CallError>| {
                if let Some(error) = error {
                    tracing::warn!(error = error.line(), "the run waits");
                }
                self.reporter
                    .run(&bundle, error.map(|error| cut(&format!("waits: {}", error.line()))));
            };
            let step = self.step(&bundle, state.step(components), supply, &paused, cancel);
            let done = if state.untouched() {
                tokio::select! {
                    done = step => done,
                    () = given_up.cancelled() => Ok(Done::because(
                        Event::Refused,
                        "Superseded",
                        "another release is wanted".into(),
                    )),
                }
            } else {
                step.await
            };
            let done = match done {
                Ok(done) => done,
                Err(StepError::Stopped) => return Err(DriveError::Stopped),
                Err(StepError::Call(error)) => failed(&state, &error),
            };
            bundle = self.enter(bundle, &state, components, done, cancel).await?;
        }
    }

    fn state(&self, bundle: &PatchBundle) -> Result<State, DriveError> {
        state_of(bundle).ok_or_else(|| DriveError::UnknownState {
            release: bundle.spec.release_id.clone(),
            state: bundle.status.as_ref().map(|s| s.state.clone()).unwrap_or_default(),
        })
    }

    /// Persists where an event leads, then tells about it.
    async fn enter(
        &self,
        bundle: PatchBundle,
        from: &State,
        components: u32,
        done: Done,
        cancel: &CancellationToken,
    ) -> Result<PatchBundle, DriveError> {
        let release = bundle.spec.release_id.clone();
        let to = match next(from, components, done.event) {
            Ok(transition) => transition.to,
            Err(source) => return Err(DriveError::Illegal { release, source }),
        };
        let message = done.note.message.clone();
        let status = self.described(&bundle, from, &to, done.note);
        let saved = patiently(cancel, &|_| {}, || async {
            self.records.save(&bundle, status.clone()).await
        });
        let bundle = match saved.await {
            Ok(bundle) => bundle,
            Err(StepError::Stopped) => return Err(DriveError::Stopped),
            Err(StepError::Call(source)) => {
                return Err(DriveError::Record { release, source: Box::new(source) });
            }
        };
        tracing::info!(release, state = %to, message, "release run");
        if to == State::Committed {
            self.reporter.committed(&release);
        }
        self.reporter.run(&bundle, None);
        self.reporter.transition(&bundle, &to, message.as_deref()).await;
        Ok(bundle)
    }

    fn described(
        &self,
        bundle: &PatchBundle,
        from: &State,
        to: &State,
        note: Note,
    ) -> PatchBundleStatus {
        let now = Timestamp::now();
        let mut status = bundle.status.clone().unwrap_or_default();
        status.state = to.name().to_owned();
        status.component_index = to.component();
        status.component = to.component().and_then(|place| self.name_of(bundle, place));
        // Why it goes back stays on the record while it does.
        let keeps = matches!(
            (from, to),
            (State::RollingBack(_), State::RollingBack(_) | State::RolledBack)
        );
        if !keeps || note.message.is_some() {
            let earlier = status.message.take().filter(|_| keeps);
            status.message = match (earlier, note.message.clone()) {
                (Some(earlier), Some(message)) => Some(cut(&format!("{earlier}; {message}"))),
                (earlier, message) => message.or(earlier),
            };
        }
        if !keeps {
            status.reason = note.reason.map(str::to_owned);
        }
        status.refusals = note.refusals;
        if status.refusals.len() > MAX_REFUSALS {
            let more = status.refusals.len() - MAX_REFUSALS;
            status.refusals.truncate(MAX_REFUSALS);
            status.refusals.push(format!("and {more} more"));
        }
        status.due_at = note.due_at.or(status.due_at);
        status.pre_images = note.pre_images.or(status.pre_images);
        status.blobs = note.blobs.unwrap_or(status.blobs);
        status.changed_at = Some(now);
        if matches!(to, State::Applying(0)) {
            status.started_at = Some(now);
        }
        status.finished_at = to.ended().then_some(now);
        status.history.push(BundleTransition {
            state: to.name().to_owned(),
            component: status.component.clone(),
            at: Some(now),
            message: note.message,
        });
        let excess = status.history.len().saturating_sub(MAX_HISTORY);
        status.history.drain(..excess);
        status
    }

    /// The component at a place of the plan; the record lists them in that order.
    fn name_of(&self, bundle: &PatchBundle, place: u32) -> Option<String> {
        let place = usize::try_from(place).ok()?;
        bundle.spec.components.get(place).map(|component| component.name.clone())
    }

    async fn step(
        &self,
        bundle: &PatchBundle,
        step: Step,
        supply: &dyn Supply,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Done, StepError> {
        let run = bundle.name_any();
        let (owned, inventory) = self.inventories(paused, cancel).await?;
        let steps = Steps {
            live: &self.live,
            client: &self.cluster.client,
            run: &run,
            owned: &owned,
            cancel,
            paused,
        };
        match step {
            Step::Start => Ok(Done::on(Event::Started)),
            Step::Receive => self.receive(bundle, supply, paused, cancel).await,
            Step::Preflight => {
                let plan = match self.plan(bundle, &inventory, supply, paused, cancel).await {
                    Ok(plan) => plan,
                    Err(NoPlan::Stopped) => return Err(StepError::Stopped),
                    Err(NoPlan::Refused(why)) => return Ok(Done::refused(why)),
                };
                let refusals = steps.preview(&plan).await?;
                if !refusals.is_empty() {
                    return Ok(Done::refused(refusals));
                }
                let mark = HighWater {
                    sequence: plan.release().sequence,
                    index_sha256: *plan.index_sha256(),
                };
                let accepted =
                    self.supplied(bundle, cancel, || async { supply.accept(mark).await });
                match accepted.await? {
                    Ok(()) => Ok(Done::on(Event::PreflightPassed)),
                    Err(error) => Ok(Done::refused(vec![format!("NotAccepted: {error}")])),
                }
            }
            Step::Time => {
                let index = self.index(bundle, paused, cancel).await?;
                let seed = self.seed(&index.release_id);
                let due_at = due(&index, seed, Timestamp::now());
                let mut done = Done::on(Event::Timed);
                done.note.due_at = Some(due_at);
                Ok(done)
            }
            Step::Snapshot => {
                self.wait_until_due(bundle, cancel).await?;
                let plan = match self.plan(bundle, &inventory, supply, paused, cancel).await {
                    Ok(plan) => plan,
                    Err(NoPlan::Stopped) => return Err(StepError::Stopped),
                    Err(NoPlan::Refused(why)) => return Ok(Done::refused(why)),
                };
                let images = steps.pre_images(&plan).await?;
                let bytes = preimage::encode(&images).map_err(|error| {
                    let cause = super::failure::CallCause::Answer(error.to_string());
                    CallError::about("write", "pre-images".into(), cause)
                })?;
                let stored =
                    patiently(cancel, paused, || async { self.contents.put(&bytes).await });
                let mut done = Done::on(Event::PreImagesStored);
                done.note.pre_images = Some(stored.await?);
                Ok(done)
            }
            Step::Begin => {
                let plan = match self.plan(bundle, &inventory, supply, paused, cancel).await {
                    Ok(plan) => plan,
                    Err(NoPlan::Stopped) => return Err(StepError::Stopped),
                    Err(NoPlan::Refused(why)) => {
                        return Ok(Done::because(Event::Failed, "NoPlan", summary(&why)));
                    }
                };
                self.announce(&plan, &run, paused, cancel).await?;
                Ok(Done::on(Event::Begun))
            }
            Step::Apply(_) | Step::Gate(_) | Step::Soak { .. } => {
                let plan = match self.plan(bundle, &inventory, supply, paused, cancel).await {
                    Ok(plan) => plan,
                    Err(NoPlan::Stopped) => return Err(StepError::Stopped),
                    Err(NoPlan::Refused(why)) => {
                        return Ok(Done::because(Event::Failed, "NoPlan", summary(&why)));
                    }
                };
                self.advance(bundle, &plan, step, &steps).await
            }
            Step::Restore(place) => {
                let images = self.images(bundle, paused, cancel).await?;
                let of_component: Vec<PreImage> =
                    images.into_iter().filter(|image| image.place == place).collect();
                let left = steps.restore(&of_component).await?;
                if place == 0 {
                    for component in &bundle.spec.components {
                        self.withdraw(&component.name, paused, cancel).await?;
                    }
                }
                let mut done = Done::on(Event::Restored);
                if !left.is_empty() {
                    done.note.message = Some(format!("left in place: {}", summary(&left)));
                }
                Ok(done)
            }
            Step::None => Err(StepError::Stopped),
        }
    }

    async fn advance(
        &self,
        bundle: &PatchBundle,
        plan: &Plan,
        step: Step,
        steps: &Steps<'_>,
    ) -> Result<Done, StepError> {
        let (Step::Apply(place) | Step::Gate(place) | Step::Soak { component: place, .. }) = step
        else {
            return Err(StepError::Stopped);
        };
        let component = usize::try_from(place).ok().and_then(|at| plan.components().get(at));
        let Some(component) = component else {
            let why = format!("the plan has no component {place}");
            return Ok(Done::because(Event::Failed, "NoPlan", why));
        };
        if let Step::Apply(_) = step {
            steps.apply(component).await?;
            return Ok(Done::on(Event::Applied));
        }
        let images = self.images(bundle, steps.paused, steps.cancel).await?;
        let baseline = baseline(&images);
        let (passage, event) = match step {
            Step::Gate(_) => (steps.gate(component, &baseline).await?, Event::Ready),
            _ => (steps.soak(component, &baseline).await?, Event::Soaked),
        };
        let mut notes = match passage {
            Passage::Passed(tolerated) => tolerated,
            Passage::Failed(why) => {
                return Ok(Done::because(Event::Failed, "NotReady", summary(&why)));
            }
        };
        if let Step::Soak { last: true, .. } = step {
            notes.extend(steps.prune(plan).await?);
        }
        let mut done = Done::on(event);
        if !notes.is_empty() {
            done.note.message = Some(summary(&notes));
        }
        Ok(done)
    }

    async fn receive(
        &self,
        bundle: &PatchBundle,
        supply: &dyn Supply,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Done, StepError> {
        let index = self.index(bundle, paused, cancel).await?;
        let mut blobs = vec![];
        for entry in &index.components {
            let stored = patiently(cancel, paused, || async {
                self.contents.contains(&entry.blob.sha256).await
            });
            if !stored.await? {
                let fetched = self
                    .supplied(bundle, cancel, || async { supply.fetch(&entry.blob.target).await })
                    .await?;
                let authentic = match fetched {
                    Ok(authentic) => authentic,
                    Err(error) => {
                        let why = format!("NotAuthentic: {}: {error}", entry.name);
                        return Ok(Done::refused(vec![why]));
                    }
                };
                // The signed index names the blob by digest; TUF names it by target. Both have to
                // say the same.
                if sha256_hex(authentic.bytes()) != entry.blob.sha256 {
                    let why = format!("OtherBlob: {}: its digest is not the index's", entry.name);
                    return Ok(Done::refused(vec![why]));
                }
                patiently(cancel, paused, || async { self.contents.put(authentic.bytes()).await })
                    .await?;
            }
            blobs.push(entry.blob.sha256.clone());
        }
        for entry in &index.components {
            let parsed = patiently(cancel, paused, || async {
                match stored::objects(&self.contents, entry).await {
                    Ok(_) => Ok(Ok(())),
                    Err(StoredError::Call(error)) => Err(error),
                    Err(StoredError::Unusable(why)) => Ok(Err(why)),
                }
            });
            if let Err(why) = parsed.await? {
                return Ok(Done::refused(vec![format!("BadBlob: {}: {why}", entry.name)]));
            }
        }
        let mut done = Done::on(Event::Received);
        done.note.blobs = Some(blobs);
        Ok(done)
    }

    /// Waits out failures of the supply that pass by themselves.
    async fn supplied<T, F>(
        &self,
        bundle: &PatchBundle,
        cancel: &CancellationToken,
        mut call: impl FnMut() -> F,
    ) -> Result<Result<T, SupplyError>, StepError>
    where
        F: Future<Output = Result<T, SupplyError>>,
    {
        let mut pauses = pauses();
        loop {
            let result = tokio::select! {
                () = cancel.cancelled() => return Err(StepError::Stopped),
                result = call() => result,
            };
            match result {
                Err(error) if error.is_transient => {
                    tracing::warn!(%error, "the release repository is waited for");
                    self.reporter.run(bundle, Some(cut(&format!("waits: {error}"))));
                }
                result => return Ok(result),
            }
            let pause = pauses.next().unwrap_or(LONGEST_NAP);
            tokio::select! {
                () = cancel.cancelled() => return Err(StepError::Stopped),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn wait_until_due(
        &self,
        bundle: &PatchBundle,
        cancel: &CancellationToken,
    ) -> Result<(), StepError> {
        let due_at = bundle.status.as_ref().and_then(|status| status.due_at);
        while let Some(due_at) = due_at {
            let left = due_at.duration_since(Timestamp::now());
            let Ok(left) = Duration::try_from(left) else { break };
            if left.is_zero() {
                break;
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(StepError::Stopped),
                () = tokio::time::sleep(left.min(LONGEST_NAP)) => {}
            }
        }
        Ok(())
    }

    /// A number that is this cluster's own for a release, so that clusters don't all start at once.
    fn seed(&self, release_id: &str) -> u64 {
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            format!("{}/{release_id}", self.cluster.uid).as_bytes(),
        );
        digest.as_ref().iter().take(8).fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
    }

    async fn index(
        &self,
        bundle: &PatchBundle,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<mendix_agent_core::bundle::index::ReleaseIndex, StepError> {
        let sha256 = bundle.spec.index_sha256.clone().unwrap_or_default();
        let index = patiently(cancel, paused, || async {
            stored::index(&self.contents, &bundle.spec.release_id, &sha256)
                .await
                .map_err(StoredError::into_call)
        });
        Ok(mendix_agent_core::bundle::index::ReleaseIndex::clone(&*index.await?))
    }

    async fn images(
        &self,
        bundle: &PatchBundle,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Vec<PreImage>, StepError> {
        let lost = |why: String| {
            CallError::about("read", "pre-images".into(), super::failure::CallCause::Answer(why))
        };
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
    async fn inventories(
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

    async fn plan(
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
        })
    }

    /// What is kept besides this release's own blobs, which admission counts itself.
    async fn state_bytes(&self, bundle: &PatchBundle) -> Result<u64, CallError> {
        let mine = bundle.status.as_ref().map(|status| status.blobs.clone()).unwrap_or_default();
        self.contents.stored_bytes(&mine).await
    }

    /// Records on the components what is about to happen to them, before it does.
    async fn announce(
        &self,
        plan: &Plan,
        run: &str,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), StepError> {
        let _no_correction = self.corrections.write().await;
        for component in plan.components() {
            let entry = component.entry();
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
    async fn withdraw(
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
        let recorded =
            patiently(cancel, &paused, || async { self.records.components().await }).await?;
        if is_settled(bundle, &recorded) {
            return Ok(());
        }
        let (owned, inventory) = self.inventories(&paused, cancel).await?;
        let plan = match self.plan(bundle, &inventory, supply, &paused, cancel).await {
            Ok(plan) => plan,
            Err(NoPlan::Stopped) => return Err(StepError::Stopped),
            Err(NoPlan::Refused(why)) => {
                let cause = super::failure::CallCause::Answer(summary(&why));
                return Err(CallError::about("settle", bundle.name_any(), cause).into());
            }
        };
        for component in plan.components() {
            let entry = component.entry();
            let mut objects = vec![];
            for object in component.objects() {
                let live = patiently(cancel, &paused, || async { self.live.get(&object.id).await })
                    .await?;
                let uid = live.as_ref().and_then(|live| text(live, "/metadata/uid"));
                let hash = sha256_hex(&mendix_agent_core::bundle::canonical::bytes(&object.body));
                let hash = hash.get(..16).unwrap_or(&hash).to_owned();
                objects.push(OwnedObject::new(&object.id, uid, Some(hash)));
            }
            // What had to go and is still there is tried again by the next release.
            for id in component.kept().iter().chain(component.prune()) {
                let live = patiently(cancel, &paused, || async { self.live.get(id).await }).await?;
                let Some(live) = live else { continue };
                let uid = text(&live, "/metadata/uid");
                let going = live.pointer("/metadata/deletionTimestamp").is_some();
                if !going && uid.as_deref() == owned.get(id).map(String::as_str) {
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
pub fn is_settled(bundle: &PatchBundle, components: &[ManagedComponent]) -> bool {
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

/// What a failure that stays means in a state.
fn failed(state: &State, error: &CallError) -> Done {
    match state {
        State::RollingBack(_) => Done::because(Event::Stuck, "CannotRestore", error.line()),
        state if state.untouched() => {
            Done::refused(vec![format!("ServerRefused: {}", error.line())])
        }
        _ => Done::because(Event::Failed, "ApplyFailed", error.line()),
    }
}
