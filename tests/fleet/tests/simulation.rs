//! The agent's own session code under a simulated network and virtual time: driver, dialler, TLS and
//! HTTP/2 as they are shipped, the control plane's end scripted. Faults come from a seed, which is
//! printed; `MENDIX_SIMULATION_SEED` repeats a run. (Within one instant the order of two events is
//! tokio's to choose.)
#![expect(clippy::expect_used, reason = "what a test needs and can't have fails it")]

#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/orders.rs"]
mod orders;
#[path = "simulation/plane.rs"]
mod plane;
#[path = "simulation/skew.rs"]
mod skew;
#[path = "simulation/world.rs"]
mod world;
