//! What must hold for any bytes, one function a target.
//!
//! `targets/` lets libFuzzer look for bytes that break one of them, `tests/replay.rs` runs them over
//! the committed seeds with the ordinary tests. A target panics where an invariant does not hold;
//! the README says how to look longer and what to do with a finding.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of it is test code: it panics where something does not hold"
)]

mod archive;
mod consent;
mod envelope;
mod input;
mod json;
mod proxy;
mod redaction;
mod release;
mod seeds;
mod session;

pub use self::{
    archive::archive,
    consent::{grant, lease},
    envelope::envelope,
    json::canonical,
    proxy::proxy,
    redaction::redactor,
    release::{admission, blob, floor, index},
    seeds::seeds,
    session::{frames, session},
};

/// A target: it panics when its input shows that something does not hold. Says whether the input was
/// taken (parsed, verified, admitted): seeds that are all refused guide nobody.
pub type Target = fn(&[u8]) -> bool;

/// Every target by the name of its binary and its seed folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("admission", admission),
    ("archive", archive),
    ("blob", blob),
    ("canonical", canonical),
    ("envelope", envelope),
    ("floor", floor),
    ("frames", frames),
    ("grant", grant),
    ("index", index),
    ("lease", lease),
    ("proxy", proxy),
    ("redactor", redactor),
    ("session", session),
];
