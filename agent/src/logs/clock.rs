//! The two clocks of the log path.

use std::time::Duration;

use jiff::Timestamp;
use mendix_agent_core::consent::gate::Now;
use rustix::time::{ClockId, clock_gettime};

/// Time since boot, suspend included. `std::time::Instant` stops in suspend, and would stretch the
/// 60 s of a lease over a night.
pub(super) fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Both clocks at once.
pub(super) fn now() -> Now {
    Now { wall: Timestamp::now(), boot: boot() }
}
