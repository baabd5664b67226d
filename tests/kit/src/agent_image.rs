//! The agent's own image, from this workspace: what `packaging/image/Dockerfile` describes, put
//! together without Docker.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use thiserror::Error;

use crate::{image::Image, progress::Progress};

/// The repository of the image; nothing outside this machine answers to it.
pub const REPOSITORY: &str = "localhost/mendix-agent";
/// Where the workspace is that this was compiled from.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The binary could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Cargo is missing.
    #[error("can't run cargo to build {name}")]
    NoCargo {
        /// The program.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The compiler refused.
    #[error("building {name} failed ({status}):\n{output}")]
    Refused {
        /// The program.
        name: String,
        /// How cargo ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// Cargo did not say where the program is.
    #[error("cargo built {name}, but did not say where it is")]
    NoExecutable {
        /// The program.
        name: String,
    },
}

/// A program of this workspace.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its package.
    pub package: &'a str,
    /// `--bin` or `--example`.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// The agent.
pub const AGENT: Program<'_> =
    Program { package: "mendix-agent", kind: "--bin", name: "mendix-agent" };

/// Builds a program as one static file, which runs in an image with nothing else in it.
///
/// Only the last link differs from an ordinary build of the dev profile: what is compiled already is
/// used. Blocks for as long as the compiler needs.
///
/// # Errors
/// [`BuildError`], with what the compiler says.
pub fn build(program: Program<'_>, progress: &Progress) -> Result<PathBuf, BuildError> {
    let name = program.name.to_owned();
    progress.say(format!("building {name} (static)"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(WORKSPACE)
        .args(["rustc", "--message-format", "json-render-diagnostics", "--package"])
        .args([program.package, program.kind, program.name])
        .args(["--", "-C", "target-feature=+crt-static", "-C", "strip=debuginfo"])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BuildError::NoCargo { name: name.clone(), source })?;
    if !output.status.success() {
        return Err(BuildError::Refused {
            name,
            status: output.status,
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == program.name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or(BuildError::NoExecutable { name })
}

/// The agent's image from its static binary.
#[must_use]
pub fn image(binary: &Path, tag: &str) -> Image {
    with_files(Image::new(REPOSITORY, tag))
        .file("usr/bin/mendix-agent", 0o755, binary)
        .entrypoint(&["/usr/bin/mendix-agent"])
        .label("org.opencontainers.image.title", "mendix-agent")
        .label("org.opencontainers.image.description", "In-cluster agent of Mendix on Azure")
}

/// Everything in the agent's image but the agent: an image for another static program that shall
/// find what the agent finds.
#[must_use]
pub fn with_files(image: Image) -> Image {
    image
        .folder("etc", 0o755)
        .bytes("etc/passwd", 0o644, include_str!("../../../packaging/image/passwd"))
        .bytes("etc/group", 0o644, include_str!("../../../packaging/image/group"))
        .folder("tmp", 0o1777)
        .folder("usr", 0o755)
        .folder("usr/bin", 0o755)
        .user("65532:65532")
}
