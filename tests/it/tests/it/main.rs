//! Integration tests of the agent: one binary, so that they share one API server and one link step.

mod logs;
mod manifests;
mod patch;
mod rights;
