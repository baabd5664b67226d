//! Application heartbeats: a PING can be answered by a proxy whose backend is dead, these can't.

use std::time::{Duration, Instant};

use mendix_agent_proto::limits;

use super::backoff::about;

/// Heartbeats of one session.
#[derive(Clone, Debug)]
pub(super) struct Heart {
    interval: Duration,
    due: Instant,
    sent: u64,
    acknowledged: u64,
}

impl Heart {
    pub(super) fn new(interval: Duration, now: Instant, random: u64) -> Self {
        Self { interval, due: now + about(interval, random), sent: 0, acknowledged: 0 }
    }

    /// When the next one is to be sent.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Sequence of the last one that was sent; 0 before the first.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sequence of the heartbeat to send now; `None` when too many in a row were not answered.
    pub(super) fn beat(&mut self, now: Instant, random: u64) -> Option<u64> {
        if self.sent - self.acknowledged >= u64::from(limits::HEARTBEAT_MISSES) {
            return None;
        }
        self.sent += 1;
        self.due = now + about(self.interval, random);
        Some(self.sent)
    }

    /// The server answered. An answer to a heartbeat that was never sent proves nothing.
    pub(super) fn acknowledged(&mut self, sequence: u64) -> bool {
        if sequence == 0 || sequence > self.sent {
            return false;
        }
        self.acknowledged = self.acknowledged.max(sequence);
        true
    }
}
