//! The Mendix on Azure agent: everything that touches the world.
//!
//! Three paths, one module each: [`channel`] (one outbound mTLS session), [`patch`] (signed patch
//! bundles in, drift out) and [`logs`] (consented snapshots). The decisions they act on are made in
//! `mendix-agent-core` and written down in the [`audit`] log. [`run`] wires them up, on the replica
//! that [`leadership`] lets lead.

pub mod agent_status;
pub mod audit;
pub mod channel;
pub mod cli;
mod clock;
pub mod cluster;
pub mod config;
pub mod consent;
pub mod console;
pub mod crd;
pub mod denials;
pub mod errors;
pub mod hardening;
pub mod health;
pub mod http;
pub mod initialization;
pub mod kubeconfig;
pub mod leadership;
pub mod logging;
pub mod logs;
pub mod metrics;
mod nodes;
pub mod occasion;
pub mod patch;
mod pods;
pub mod preflight;
pub mod requests;
pub mod run;
pub mod service;
pub mod status;
pub mod supervise;
pub mod term;
pub mod upgrade;
