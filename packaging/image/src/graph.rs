//! What is linked into the agent: its crates as cargo resolves them for the agent alone, and what comes
//! from the toolchain and the C library.
//!
//! `cargo tree` and not `cargo metadata` says which crates they are: metadata resolves the features of
//! the whole workspace, so that what only tests need would seem to be in the product.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use thiserror::Error;

use crate::build::{AGENT, WORKSPACE, cargo};

/// What is in the agent can't be found out.
#[derive(Debug, Error)]
pub enum GraphError {
    /// A program can't be started.
    #[error("can't run {program}{}", hint(program))]
    Start {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {output}{}", hint(program))]
    Failed {
        /// The program with its arguments.
        program: String,
        /// What it said.
        output: String,
    },
    /// A program said something else than it should.
    #[error("{program} said what is not understood: {line}")]
    Output {
        /// The program.
        program: &'static str,
        /// What it said.
        line: String,
    },
    /// Cargo.lock can't be read.
    #[error("Cargo.lock")]
    Lock(#[source] io::Error),
}

fn hint(program: &str) -> &'static str {
    if program.starts_with("dpkg-query") {
        "; the image is made on Debian (12 or later), whose C library is linked into it: libc6-dev \
         and libgcc-VERSION-dev have to be installed"
    } else {
        ""
    }
}

/// A crate that is linked into the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SPDX expression; none for the workspace's own crates.
    pub licence: Option<String>,
    /// Where it is developed.
    pub repository: Option<String>,
    /// SHA-256 of the package, from Cargo.lock; none for the workspace's own crates.
    pub checksum: Option<String>,
    /// Where its sources are on this machine.
    pub folder: PathBuf,
    /// Names and versions of the crates that it uses.
    pub uses: Vec<Id>,
}

/// Name and version.
pub type Id = (String, String);

impl Crate {
    /// Name and version.
    #[must_use]
    pub fn id(&self) -> Id {
        (self.name.clone(), self.version.clone())
    }
}

/// What is linked in besides crates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// SPDX expression.
    pub licence: &'static str,
    /// Package URL.
    pub purl: String,
    /// Files with its licence.
    pub texts: Vec<PathBuf>,
}

/// Everything that is in the binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// By name and version, the agent itself among them.
    pub crates: BTreeMap<Id, Crate>,
    /// The standard library, the C library and the compiler's.
    pub parts: Vec<Part>,
}

/// Looks up what is linked into the agent when it is built on this machine.
///
/// # Errors
/// [`GraphError`].
pub fn of_the_agent() -> Result<Graph, GraphError> {
    let rustc = Rustc::ask()?;
    let tree = run(
        "cargo tree",
        Command::new(cargo()).args(["tree", "--locked", "--package", AGENT.package]).args([
            "--target",
            &rustc.host,
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "depth",
            "--format",
            "{p}",
        ]),
    )?;
    let uses = edges(&tree)?;
    let metadata = run(
        "cargo metadata",
        Command::new(cargo())
            .args(["metadata", "--locked", "--format-version", "1", "--filter-platform"])
            .arg(&rustc.host),
    )?;
    let metadata: Metadata = serde_json::from_str(&metadata).map_err(|error| {
        GraphError::Output { program: "cargo metadata", line: error.to_string() }
    })?;
    let lock = std::fs::read_to_string(Path::new(WORKSPACE).join("Cargo.lock"))
        .map_err(GraphError::Lock)?;
    let mut checksums = checksums(&lock);
    let mut known: BTreeMap<Id, Package> = metadata
        .packages
        .into_iter()
        .map(|package| ((package.name.clone(), package.version.clone()), package))
        .collect();
    let mut crates = BTreeMap::new();
    for (id, uses) in uses {
        let package = known.remove(&id).ok_or_else(|| GraphError::Output {
            program: "cargo metadata",
            line: format!("nothing of {} {}", id.0, id.1),
        })?;
        let folder = package.manifest_path.parent().unwrap_or(Path::new("")).to_path_buf();
        let (name, version) = id.clone();
        let found = Crate {
            name,
            version,
            licence: package.license.map(|text| text.replace('/', " OR ")),
            repository: package.repository,
            checksum: checksums.remove(&id),
            folder,
            uses,
        };
        crates.insert(id, found);
    }
    Ok(Graph { crates, parts: vec![rustc.part()?, c_library()?, compiler_library()?] })
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
}

/// Who uses whom, from lines of a depth, a name and a version. A crate that was listed before with
/// what it uses is listed again without, and with a mark.
fn edges(tree: &str) -> Result<BTreeMap<Id, Vec<Id>>, GraphError> {
    let mut uses: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
    let mut path: Vec<Id> = Vec::new();
    for line in tree.lines() {
        let strange = || GraphError::Output { program: "cargo tree", line: line.to_owned() };
        let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let depth: usize = line[..digits].parse().map_err(|_| strange())?;
        let mut words = line[digits..].split(' ');
        let name = words.next().ok_or_else(strange)?.to_owned();
        let version = words.next().and_then(|word| word.strip_prefix('v')).ok_or_else(strange)?;
        let id = (name, version.to_owned());
        if depth > path.len() {
            return Err(strange());
        }
        path.truncate(depth);
        if let Some(user) = path.last() {
            let list = uses.entry(user.clone()).or_default();
            if !list.contains(&id) {
                list.push(id.clone());
            }
        }
        uses.entry(id.clone()).or_default();
        path.push(id);
    }
    uses.values_mut().for_each(|list| list.sort());
    Ok(uses)
}

/// The digests in a Cargo.lock, as cargo writes it: blocks of lines.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
    };
    lock.split("[[package]]")
        .filter_map(|block| {
            let id = (value(block, "name")?, value(block, "version")?);
            Some((id, value(block, "checksum")?))
        })
        .collect()
}

struct Rustc {
    program: std::ffi::OsString,
    version: String,
    host: String,
}

impl Rustc {
    fn ask() -> Result<Self, GraphError> {
        let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let about = run("rustc", Command::new(&program).arg("-vV"))?;
        let field = |name: &str| {
            let value = about.lines().find_map(|line| line.strip_prefix(name));
            let strange = || GraphError::Output { program: "rustc -vV", line: about.clone() };
            value.map(|value| value.trim().to_owned()).ok_or_else(strange)
        };
        let (version, host) = (field("release:")?, field("host:")?);
        Ok(Self { program, version, host })
    }

    fn part(&self) -> Result<Part, GraphError> {
        let root = run("rustc", Command::new(&self.program).args(["--print", "sysroot"]))?;
        // Also names what the standard library is made of.
        let text = Path::new(root.trim()).join("share/doc/rust/COPYRIGHT-library.html");
        Ok(Part {
            name: "rust-std",
            purl: format!("pkg:generic/rust@{}", self.version),
            version: self.version.clone(),
            licence: "MIT OR Apache-2.0",
            texts: vec![text],
        })
    }
}

/// `libc.a` and what belongs to it.
fn c_library() -> Result<Part, GraphError> {
    let (version, purl) = debian("libc6-dev")?;
    let texts = vec!["/usr/share/doc/libc6-dev/copyright".into()];
    Ok(Part { name: "glibc", version, licence: "LGPL-2.1-or-later", purl, texts })
}

/// `libgcc.a` and `libgcc_eh.a`: how panics unwind.
fn compiler_library() -> Result<Part, GraphError> {
    let path = run("gcc", Command::new("gcc").arg("-print-libgcc-file-name"))?;
    // …/gcc/x86_64-linux-gnu/12/libgcc.a
    let major = Path::new(path.trim()).parent().and_then(Path::file_name);
    let major = major
        .and_then(|name| name.to_str())
        .ok_or_else(|| GraphError::Output { program: "gcc", line: path.trim().to_owned() })?;
    let package = format!("libgcc-{major}-dev");
    let (version, purl) = debian(&package)?;
    Ok(Part {
        name: "libgcc",
        version,
        licence: "GPL-3.0-or-later WITH GCC-exception-3.1",
        purl,
        texts: vec![Path::new("/usr/share/doc").join(package).join("copyright")],
    })
}

/// Version and package URL of an installed Debian package.
fn debian(package: &str) -> Result<(String, String), GraphError> {
    let format = ["--show", "--showformat", "${Version} ${Architecture}\n", package];
    let line = run("dpkg-query", Command::new("dpkg-query").args(format))?;
    let strange = || GraphError::Output { program: "dpkg-query", line: line.clone() };
    let first = line.lines().next().ok_or_else(strange)?;
    let (version, architecture) = first.split_once(' ').ok_or_else(strange)?;
    let encoded = version.replace('+', "%2B").replace(':', "%3A");
    Ok((version.to_owned(), format!("pkg:deb/debian/{package}@{encoded}?arch={architecture}")))
}

fn run(program: &str, command: &mut Command) -> Result<String, GraphError> {
    let output = command
        .current_dir(WORKSPACE)
        .output()
        .map_err(|source| GraphError::Start { program: program.to_owned(), source })?;
    if !output.status.success() {
        return Err(GraphError::Failed {
            program: program.to_owned(),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        (name.into(), "1.0.0".into())
    }

    #[test]
    fn a_crate_that_is_listed_again_keeps_what_it_uses() {
        let tree =
            "0a v1.0.0 (/somewhere)\n1b v1.0.0\n2d v1.0.0\n1c v1.0.0\n2b v1.0.0 (*)\n2d v1.0.0\n";
        let uses = edges(tree).unwrap();
        assert_eq!(uses[&id("a")], [id("b"), id("c")]);
        assert_eq!(uses[&id("b")], [id("d")]);
        assert_eq!(uses[&id("c")], [id("b"), id("d")]);
        assert!(uses[&id("d")].is_empty());
        for strange in ["a v1.0.0", "0a", "0a v1.0.0\n2b v1.0.0"] {
            assert!(edges(strange).is_err(), "{strange}");
        }
    }

    #[test]
    fn digests_are_those_of_the_block_they_stand_in() {
        let lock = "version = 4\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\n[[package]]\n\
                    name = \"b\"\nversion = \"1.0.0\"\nsource = \"registry\"\nchecksum = \"ab\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(id("b"), "ab".to_owned())]));
    }
}
