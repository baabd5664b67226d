//! The demo: the three jobs of the agent on a real one-node Kubernetes, step by step.
//!
//! `main.rs` reads the command line; [`demo`] is the list of steps; the other modules are the parts
//! the steps use. Nothing here is a stand-in: the agent runs as a pod from its own image, the
//! control plane is the reference one with its own command line, logs come from real containers.

pub mod bench;
pub mod binaries;
pub mod chart;
pub mod demo;
pub mod install;
pub mod source;
pub mod stage;
pub mod steps;
pub mod ui;
pub mod wire;
