//! Integration tests of the agent: one binary, so that they share one API server and one link step.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod bundle_file;
mod channel;
mod connections;
mod events;
mod failure_modes;
mod health;
mod identity;
mod initialization;
mod leadership;
mod logs;
mod manifests;
mod patch;
mod proxy;
mod rights;
