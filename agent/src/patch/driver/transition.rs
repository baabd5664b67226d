//! From one state to the next: the record is written first, then the new state is told.

use jiff::Timestamp;
use mendix_agent_core::bundle::run::{State, next};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        failure::{StepError, patiently},
        report::cut,
    },
    Done, DriveError, Driver, Note,
};
use crate::crd::patch_bundle::{
    BundleTransition, MAX_HISTORY, MAX_REFUSALS, PatchBundle, PatchBundleStatus,
};

impl Driver {
    /// Persists where an event leads, then tells about it.
    pub(super) async fn enter(
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
            (State::RollingBack(_), State::RollingBack(_) | State::RolledBack | State::Postponed)
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
    pub(super) fn name_of(&self, bundle: &PatchBundle, place: u32) -> Option<String> {
        let place = usize::try_from(place).ok()?;
        bundle.spec.components.get(place).map(|component| component.name.clone())
    }
}
