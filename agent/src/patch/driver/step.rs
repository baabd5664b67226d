//! What is done in each state of a run, and which event comes of it.

use jiff::Timestamp;
use kube::ResourceExt;
use mendix_agent_core::bundle::{
    admission::{AGENT_COMPONENT, HighWater},
    cadence,
    plan::Plan,
    run::{Event, Step},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        failure::{CallError, StepError, patiently},
        gate::Passage,
        report::summary,
        steps::Steps,
        supply::Supply,
    },
    Done, Driver,
    plan::Recorded,
    upgrade::{after_restore, is_agents},
};
use crate::crd::patch_bundle::PatchBundle;

impl Driver {
    pub(super) async fn step(
        &self,
        bundle: &PatchBundle,
        step: Step,
        supply: &dyn Supply,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Done, StepError> {
        let run = bundle.name_any();
        let recorded = self.recorded(paused, cancel).await?;
        let steps = Steps {
            live: &self.live,
            client: &self.cluster.client,
            run: &run,
            owned: &recorded.owned,
            cancel,
            paused,
        };
        match step {
            Step::Start => Ok(Done::on(Event::Started)),
            Step::Receive => self.receive(bundle, supply, paused, cancel).await,
            Step::Preflight => self.preflight(bundle, &recorded, supply, &steps).await,
            Step::Time => self.time(bundle, paused, cancel).await,
            Step::Snapshot => self.snapshot(bundle, &recorded, supply, &steps).await,
            Step::Begin => match self.plan(bundle, &recorded, supply, paused, cancel).await {
                Ok(plan) => {
                    self.announce(&plan, &run, paused, cancel).await?;
                    Ok(Done::on(Event::Begun))
                }
                Err(no_plan) => no_plan.failed(),
            },
            Step::Apply(_) | Step::Gate(_) | Step::Soak { .. } => {
                match self.plan(bundle, &recorded, supply, paused, cancel).await {
                    Ok(plan) => self.advance(bundle, &plan, step, &steps).await,
                    Err(no_plan) => no_plan.failed(),
                }
            }
            Step::Restore(place) => self.restore(bundle, place, &steps).await,
            Step::None => Err(StepError::Stopped),
        }
    }

    /// Has the API server try what the plan wants, and raises the high-water mark.
    async fn preflight(
        &self,
        bundle: &PatchBundle,
        recorded: &Recorded,
        supply: &dyn Supply,
        steps: &Steps<'_>,
    ) -> Result<Done, StepError> {
        let plan = match self.plan(bundle, recorded, supply, steps.paused, steps.cancel).await {
            Ok(plan) => plan,
            Err(no_plan) => return no_plan.refused(),
        };
        let refusals = steps.preview(&plan).await?;
        if !refusals.is_empty() {
            return Ok(Done::refused(refusals));
        }
        let no_way_back = steps.no_way_back(&plan).await?;
        let mark =
            HighWater { sequence: plan.release().sequence, index_sha256: *plan.index_sha256() };
        let accepted = self.supplied(bundle, steps.cancel, || async { supply.accept(mark).await });
        if let Err(error) = accepted.await? {
            return Ok(Done::refused(vec![format!("NotAccepted: {error}")]));
        }
        let mut done = Done::on(Event::PreflightPassed);
        if !no_way_back.is_empty() {
            let why = summary(&no_way_back);
            done.note.message = Some(format!("can't be undone: {why}"));
        }
        Ok(done)
    }

    /// Draws the moment at which the release is due.
    async fn time(
        &self,
        bundle: &PatchBundle,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Done, StepError> {
        let index = self.index(bundle, paused, cancel).await?;
        let seed = self.seed(&index.release_id);
        let now = Timestamp::now();
        let apply_by = bundle.spec.apply_by.unwrap_or_else(|| cadence::apply_by(&index, now));
        let mut done = Done::on(Event::Timed);
        done.note.due_at = Some(cadence::due(&index, apply_by, seed, now));
        Ok(done)
    }

    /// Waits until the release may begin, and keeps what it is about to change.
    async fn snapshot(
        &self,
        bundle: &PatchBundle,
        recorded: &Recorded,
        supply: &dyn Supply,
        steps: &Steps<'_>,
    ) -> Result<Done, StepError> {
        let (paused, cancel) = (steps.paused, steps.cancel);
        self.wait_until_due(bundle, cancel).await?;
        if is_agents(bundle) {
            // Before anything is touched it may wait for as long as it takes.
            Box::pin(self.wait_for_trial(bundle, None, cancel)).await?;
        }
        let index = self.index(bundle, paused, cancel).await?;
        Box::pin(self.wait_for_budgets(bundle, &index, steps)).await?;
        let plan = match self.plan(bundle, recorded, supply, paused, cancel).await {
            Ok(plan) => plan,
            Err(no_plan) => return no_plan.refused(),
        };
        let images = steps.pre_images(&plan).await?;
        let stored =
            patiently(cancel, paused, || async { self.contents.put_packed(&images).await });
        let mut done = Done::on(Event::PreImagesStored);
        done.note.pre_images = Some(stored.await?);
        Ok(done)
    }

    /// Puts one component back, and with the last of them withdraws the run.
    async fn restore(
        &self,
        bundle: &PatchBundle,
        place: u32,
        steps: &Steps<'_>,
    ) -> Result<Done, StepError> {
        let of_component = self.images(bundle, place, steps.paused, steps.cancel).await?;
        let left = match self.name_of(bundle, place).as_deref() {
            Some(AGENT_COMPONENT) => Box::pin(self.come_back(bundle, &of_component, steps)).await?,
            _ => steps.restore(&of_component).await?,
        };
        if place == 0 {
            for component in &bundle.spec.components {
                self.withdraw(&component.name, steps.paused, steps.cancel).await?;
            }
        }
        let mut done = Done::on(after_restore(bundle, place));
        if !left.is_empty() {
            done.note.message = Some(format!("left in place: {}", summary(&left)));
        }
        Ok(done)
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
        let is_agent = component.entry().name == AGENT_COMPONENT;
        match step {
            Step::Apply(_) if is_agent => {
                return Box::pin(self.roll_out(bundle, component, steps)).await;
            }
            Step::Apply(_) => {
                steps.apply(component).await?;
                return Ok(Done::on(Event::Applied));
            }
            Step::Gate(_) if is_agent => {
                return Box::pin(self.judge(bundle, component, steps)).await;
            }
            _ => {}
        }
        let baseline = self.baseline(bundle, steps.paused, steps.cancel).await?;
        let (passage, event) = match step {
            // A trial is gate and soak in one, and what it committed stays.
            _ if is_agent => (Passage::Passed(vec![]), Event::Soaked),
            Step::Gate(_) => (steps.gate(component, &baseline).await?, Event::Ready),
            _ => (steps.soak(component, &baseline).await?, Event::Soaked),
        };
        let mut notes = match passage {
            Passage::Passed(tolerated) => tolerated,
            Passage::Failed(failure) => {
                return Ok(Done::because(Event::Failed, "NotReady", failure.line()));
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
}
