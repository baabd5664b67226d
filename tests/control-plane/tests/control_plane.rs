//! The control plane over real TLS, with a small tonic client: enrolment, sessions, the release
//! repository, snapshots and the operator's commands.
#![expect(clippy::expect_used, reason = "the helpers of a test fail it as its body does")]

#[path = "control_plane/client.rs"]
mod client;
#[path = "control_plane/commands.rs"]
mod commands;
#[path = "control_plane/enrollment.rs"]
mod enrollment;
#[path = "control_plane/foundation.rs"]
mod foundation;
#[path = "control_plane/load.rs"]
mod load;
#[path = "control_plane/reading.rs"]
mod reading;
#[path = "control_plane/recorded.rs"]
mod recorded;
#[path = "control_plane/releases.rs"]
mod releases;
#[path = "control_plane/sessions.rs"]
mod sessions;
#[path = "control_plane/snapshots.rs"]
mod snapshots;
