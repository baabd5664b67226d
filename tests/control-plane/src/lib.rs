//! Reference control plane of the Mendix on Azure agent.
//!
//! What the demo, the tests and load runs talk to: real mechanisms, state in one folder,
//! restart-safe. Library for tests ([`init()`], [`ControlPlane`], [`Store`]) and a binary with an
//! operator CLI.
//!
//! ```text
//! operator CLI ──▶ Store (files, lock) ◀── server: Enrollment · Control · Bundle · Snapshot ◀── agents
//!                    │ repository: TUF        one TLS port, client certificates of the channel CA
//!                    │ portal: consent and status keys, tickets, grants
//! ```

pub mod attestation;
pub mod cli;
mod crypto;
mod init;
pub mod manifests;
pub mod pki;
pub mod portal;
mod provision;
pub mod repository;
pub mod server;
pub mod snapshots;
pub mod store;

pub use init::{InitError, init};
pub use provision::provision;
pub use server::{ControlPlane, Options, Running};
pub use store::{Store, StoreError};
