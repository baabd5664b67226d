//! The image of the agent, made from files: no Docker, no daemon, no registry.
//!
//! [`build`] makes the binary, [`licences`] and [`sbom`] say what is in it, from the [`graph`] of the
//! crates that are linked into it; [`agent`] is what the image consists of and [`archive`] writes it.
//! The tests and the demo make theirs with the same code, from a development build.
//!
//! The same sources and toolchain give the same bytes: no time, no random number and no path of the
//! machine gets into the binary, the image or what describes them.

pub mod agent;
pub mod archive;
pub mod build;
pub mod graph;
pub mod licences;
pub mod sbom;
