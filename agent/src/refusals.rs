//! Notices that the API server refuses what the agent asks for want of rights.
//!
//! Rights go when a customer deletes a role or a binding, and no watch tells: one that is open stays
//! open. What tells is the next call that is refused. A quota and an admission policy answer with the
//! same number, so a refusal is a reason to look at the rights and nothing more.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::watch;

/// How many calls were refused since the process began; shared by all that make calls.
#[derive(Clone, Debug)]
pub struct Refusals(Arc<watch::Sender<u64>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(watch::channel(0).0))
    }
}

impl Refusals {
    /// Counts an answer with this status if it is a refusal.
    pub(crate) fn count(&self, status: StatusCode) {
        if status == StatusCode::FORBIDDEN {
            self.0.send_modify(|refused| *refused = refused.wrapping_add(1));
        }
    }

    /// Changes with every refusal from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
