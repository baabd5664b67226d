//! Integration tests of the agent: one binary, so that they share one API server and one link step.

mod manifests;
mod patch;
mod rights;
