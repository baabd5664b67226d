//! The agent's own image, from a development build of this workspace, and images of other programs that
//! shall find what the agent finds.

use std::path::PathBuf;

use mendix_agent_image::build::{self, Profile};
pub use mendix_agent_image::{
    agent::{HEAPS, image, with_files},
    build::{AGENT, BuildError, Program},
};

use crate::progress::Progress;

/// Builds a program as one static file, of the dev profile.
///
/// # Errors
/// [`BuildError`], with what the compiler says.
pub fn build(program: Program<'_>, progress: &Progress) -> Result<PathBuf, BuildError> {
    progress.say(format!("building {} (static)", program.name));
    build::build(program, Profile::Dev)
}
