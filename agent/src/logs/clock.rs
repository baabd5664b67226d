//! The two clocks of the log path, in one that can be put in another's place.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use mendix_agent_core::consent::gate::Now;

use crate::clock::boot;

/// Tells the time; cheap to clone.
#[derive(Clone)]
pub(super) struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

impl Clock {
    /// The system's.
    pub(super) fn system() -> Self {
        Self(Arc::new(|| Now { wall: Timestamp::now(), boot: boot() }))
    }

    /// One that passes with the runtime's time, for tests that let hours pass in milliseconds. What is
    /// in `slept`, seconds, has passed on top of it: the machine was suspended, and its timers with it.
    #[cfg(test)]
    pub(super) fn of_runtime(wall: Timestamp, slept: Arc<std::sync::atomic::AtomicU64>) -> Self {
        let start = tokio::time::Instant::now();
        Self(Arc::new(move || {
            let slept = Duration::from_secs(slept.load(std::sync::atomic::Ordering::SeqCst));
            let passed = start.elapsed() + slept;
            // Never zero: readings are compared with ones that are a while ago.
            Now { wall: wall + passed, boot: Duration::from_secs(1000) + passed }
        }))
    }

    /// Both clocks at once.
    pub(super) fn now(&self) -> Now {
        (self.0)()
    }

    /// Time since boot, suspend included.
    pub(super) fn boot(&self) -> Duration {
        self.now().boot
    }
}
