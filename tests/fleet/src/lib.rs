//! Load on a control plane: thousands of agents in this process, the control plane in another, and
//! what is measured between them.
//!
//! ```text
//! agents ── the agent's own session (machine, driver, dialler, TLS), each with its certificate and
//!    │      its own loopback address ──▶ plane, a process of its own
//!    ▼
//! record ── every dial, connection and loss, with its time ──▶ curve ──▶ table, JSON, picture
//! ```

pub mod agents;
pub mod curve;
pub mod measure;
pub mod network;
pub mod picture;
pub mod plane;
pub mod process;
pub mod record;
