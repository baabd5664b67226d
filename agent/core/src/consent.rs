//! Consent: the gate that every log byte has to pass.
//!
//! ```text
//! grant ─▶ ticket ─▶ lease ─▶ local policy ─▶ ledger ─▶ ActiveConsent
//! ```
//!
//! Only the gate makes an [`gate::ActiveConsent`], and only with one can a snapshot be taken.

pub mod gate;
pub mod grant;
pub mod keys;
pub mod lease;
pub mod ledger;
pub mod policy;
pub mod refusal;
pub mod ticket;

pub use refusal::Refusal;
