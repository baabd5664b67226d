//! Notices that the API server denies the agent a call for want of rights.
//!
//! Rights go when a customer deletes a role or a binding, and no watch tells: one that is open stays
//! open. What tells is the next call that is denied. A quota and an admission policy answer with the
//! same number, so a denial is a reason to look at the rights and nothing more.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::watch;

/// How many calls were denied since the process began; shared by all that make calls.
#[derive(Clone, Debug)]
pub struct Denials(Arc<watch::Sender<u64>>);

impl Default for Denials {
    fn default() -> Self {
        Self(Arc::new(watch::channel(0).0))
    }
}

impl Denials {
    /// Counts an answer with this status if it denies rights.
    pub(crate) fn count(&self, status: StatusCode) {
        if status == StatusCode::FORBIDDEN {
            self.0.send_modify(|denied| *denied = denied.wrapping_add(1));
        }
    }

    /// Changes with every denial from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
