//! When a run may start: this cluster's own time within the spread of a release, the wait for it, and
//! for a while longer as long as the components are short of pods already.

use std::time::Duration;

use jiff::Timestamp;
use mendix_agent_core::bundle::{disruption, index::ReleaseIndex};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        failure::{CallCause, CallError, StepError, patiently, pauses},
        steps::Steps,
    },
    Driver, LONGEST_NAP,
};
use crate::crd::patch_bundle::PatchBundle;

impl Driver {
    pub(super) async fn wait_until_due(
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

    /// Holds a release that can wait back while a PodDisruptionBudget of the components is short.
    pub(super) async fn wait_for_budgets(
        &self,
        bundle: &PatchBundle,
        index: &ReleaseIndex,
        steps: &Steps<'_>,
    ) -> Result<(), StepError> {
        let status = bundle.status.as_ref();
        let due = status.and_then(|status| status.due_at.or(status.changed_at));
        let (Some(due), Some(apply_by)) = (due, bundle.spec.apply_by) else { return Ok(()) };
        let Some(until) = disruption::held_until(index.class, due, apply_by) else {
            return Ok(());
        };
        let is_budget = |kind: &str| kind == "policy/PodDisruptionBudget";
        let mut pauses = pauses();
        let mut held = false;
        while Timestamp::now() < until {
            let mut short = None;
            for id in steps.owned.keys().filter(|id| is_budget(&id.group_kind())) {
                let live =
                    patiently(steps.cancel, steps.paused, || async { self.live.get(id).await });
                let why = live.await?.as_ref().and_then(disruption::shortage);
                if let Some(why) = why {
                    short = Some(CallError::new("hold back for", id, CallCause::Found(why)));
                    break;
                }
            }
            let Some(short) = short else { break };
            (steps.paused)(Some(&short));
            held = true;
            tokio::select! {
                () = steps.cancel.cancelled() => return Err(StepError::Stopped),
                () = tokio::time::sleep(pauses.next().unwrap_or(LONGEST_NAP)) => {}
            }
        }
        if held {
            (steps.paused)(None);
        }
        Ok(())
    }

    /// A number that is this cluster's own for a release, so that clusters don't all start at once.
    pub(super) fn seed(&self, release_id: &str) -> u64 {
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            format!("{}/{release_id}", self.cluster.uid).as_bytes(),
        );
        digest.as_ref().iter().take(8).fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
    }
}
