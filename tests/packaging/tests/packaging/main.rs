//! What users install and look at, checked without building it: one binary, light to link.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod chart;
mod deb;
mod docs;
mod files;
mod image;
mod observability;
mod systemd;
