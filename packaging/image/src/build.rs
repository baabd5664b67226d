//! Building a program of this workspace as one static file, which runs in an image with nothing else
//! in it.
//!
//! glibc, and not musl: its allocator and its resolver are what the agent was measured with, and the
//! resolver is part of a static program since 2.34.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use thiserror::Error;

/// Where the workspace is that this was compiled from.
pub(crate) const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

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

/// What a build is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Tests and the demo. Only the last link differs from an ordinary build of the dev profile: what
    /// is compiled already is used.
    Dev,
    /// Customers: optimised, stripped, with the small crypto library (ADR 0017), and without the paths of
    /// this machine, so that a build in another folder gives the same bytes.
    Release,
}

/// Builds a program. Blocks for as long as the compiler needs.
///
/// # Errors
/// [`BuildError`], with what the compiler says.
pub fn build(program: Program<'_>, profile: Profile) -> Result<PathBuf, BuildError> {
    let name = program.name.to_owned();
    let mut command = Command::new(cargo());
    command
        .current_dir(WORKSPACE)
        .args(["rustc", "--locked", "--message-format", "json-render-diagnostics", "--package"])
        .args([program.package, program.kind, program.name]);
    if profile == Profile::Release {
        command.arg("--release").env(SMALL_CRYPTO.0, SMALL_CRYPTO.1).envs(c_and_paths());
    }
    command.args(["--", "-C", "target-feature=+crt-static"]);
    if profile == Profile::Dev {
        command.args(["-C", "strip=debuginfo"]);
    }
    let output = command
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

pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// How aws-lc is told to leave out what is fastest on few processors only. packaging/deb/build.sh says the same.
const SMALL_CRYPTO: (&str, &str) = ("AWS_LC_SYS_SMALL", "1");
/// No tables for unwinding through C: a panic begins and ends in Rust, with no C between.
const NO_C_UNWINDING: &str = "-fno-asynchronous-unwind-tables";

/// The variables that take the folders of this machine out of what rustc and the C compiler write
/// down: those of panics' places and of aws-lc's errors. And the C compiler's other flag.
fn c_and_paths() -> [(&'static str, OsString); 2] {
    let workspace = Path::new(WORKSPACE).canonicalize().unwrap_or_else(|_| WORKSPACE.into());
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |folder| workspace.join(folder));
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), Into::into);
    // The last that fits counts; the target folder is mostly inside the workspace.
    let names = [(&cargo_home, "/cargo"), (&workspace, "/source"), (&target, "/target")];
    let flags = |before: &str| {
        let flag = |(folder, name): &(&PathBuf, &str)| {
            [OsStr::new(before), folder.as_os_str(), OsStr::new("="), OsStr::new(*name)]
                .into_iter()
                .collect::<OsString>()
        };
        names.iter().map(flag).collect::<Vec<_>>()
    };
    let c = flags("-ffile-prefix-map=").join(OsStr::new(" "));
    [
        ("CARGO_ENCODED_RUSTFLAGS", flags("--remap-path-prefix=").join(OsStr::new("\u{1f}"))),
        ("CFLAGS", [c.as_os_str(), OsStr::new(NO_C_UNWINDING)].join(OsStr::new(" "))),
    ]
}
