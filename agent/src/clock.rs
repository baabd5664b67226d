//! The clock that nobody sets and suspend does not stop, for every span that has to be true.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the node's start, suspend included. `std::time::Instant` stops in suspend: a leader that
/// slept would believe that it still leads, and the 60 s of a lease would last a night.
pub(crate) fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
