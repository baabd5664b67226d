//! The steps of the demo, in their order. Each acts as the person who would, then waits for what must
//! follow and checks it; a step that shows something unexpected fails with what it saw.

use std::time::Duration;

pub mod channel;
pub mod logs;
pub mod patch;
pub mod removal;

/// Longest wait for the agent's pod to come up and connect.
const CONNECT: Duration = Duration::from_secs(300);
/// Longest wait for a release to end, either way: two components, gates of 60 s.
const RELEASE: Duration = Duration::from_secs(600);
/// Longest wait for drift to be put back. The goal is 10 s; the summary shows what it took.
const DRIFT: Duration = Duration::from_secs(180);
/// Longest wait until everything is deleted: pods get half a minute to end.
const REMOVED: Duration = Duration::from_secs(480);
/// Longest wait for a request's outcome to arrive.
const OUTCOME: Duration = Duration::from_secs(300);
