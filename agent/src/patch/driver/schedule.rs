//! When a run may start: this cluster's own time within the spread of a release, and the wait for it.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{super::failure::StepError, Driver, LONGEST_NAP};
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

    /// A number that is this cluster's own for a release, so that clusters don't all start at once.
    pub(super) fn seed(&self, release_id: &str) -> u64 {
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            format!("{}/{release_id}", self.cluster.uid).as_bytes(),
        );
        digest.as_ref().iter().take(8).fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
    }
}
