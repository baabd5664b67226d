//! Patch bundles: from signed bytes to a plan, and the decisions while it is carried out.
//!
//! ```text
//! Authentic bytes ─ index::verify ─▶ Verified<ReleaseIndex> ─┐
//! Authentic bytes ─ blob::verify ──▶ Verified<Vec<Object>> ──┴─ admission::admit ─▶ Admitted ─ Plan::new ─▶ Plan
//! ```
//!
//! Each arrow is the only way to make the type on its right: what was not verified cannot be
//! admitted, what was not admitted cannot be planned, and only a [`plan::Plan`] can be applied.

pub mod admission;
pub mod blob;
pub mod cadence;
pub mod canonical;
pub mod disruption;
pub mod drift;
pub mod floor;
pub mod foundation;
pub mod index;
pub mod kind;
pub mod limits;
pub mod name;
pub mod object;
pub mod ownership;
pub mod plan;
pub mod readiness;
pub mod run;
pub mod schema;
mod verified;
pub mod version;
pub mod way_back;

pub use verified::{Authentic, Verified};
