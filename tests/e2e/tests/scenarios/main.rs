//! Scenarios with the agent as what it is in production, a process of its own that can be killed: real
//! API server, real TLS, real TUF; the control plane runs in the test, so that its counters can be
//! read. One binary, so that the scenarios that need pods share one node.

mod agent;
mod collect;
mod consent;
mod floor;
mod nodes;
mod plane;
mod preflight;
mod release;
mod site;
mod snapshot;
