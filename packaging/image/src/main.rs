//! `cargo image`: builds the agent and puts its image together, with the bill of materials and the
//! licences, and prints the sizes that are promised.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use mendix_agent_image::{
    agent::{self, About},
    build::{self, AGENT, Profile},
    graph, licences, sbom,
};

/// What a size is held against, in bytes.
struct Gate {
    what: &'static str,
    /// More than this fails.
    ceiling: u64,
}

const MB: u64 = 1_000_000;
const BINARY: Gate = Gate { what: "binary, stripped", ceiling: 14 * MB };
const IMAGE: Gate = Gate { what: "image, uncompressed", ceiling: 18 * MB };

/// Builds the agent's image, without Docker: an OCI archive, the bill of materials, the licences.
///
/// The same sources and toolchain give the same bytes, in any folder and at any time. `skopeo copy
/// oci-archive:…`, `podman load` and `ctr images import` take the archive.
#[derive(Debug, Parser)]
#[command(name = "cargo image", version)]
struct Arguments {
    /// Use this static binary instead of building one; its size is printed and not judged.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// What the image is called, without a tag.
    #[arg(long, value_name = "NAME", default_value = agent::REPOSITORY)]
    repository: String,
    /// Folder for what is made.
    #[arg(long, value_name = "FOLDER", default_value = "target/image")]
    out: PathBuf,
    /// Write what would be in the image below this folder instead, for an image builder that takes a
    /// folder.
    #[arg(long, value_name = "FOLDER")]
    unpacked: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let about = {
        let graph = graph::of_the_agent().context("what is in the agent")?;
        let licences = licences::collect(&graph).context("licences")?;
        About { licences, sbom: sbom::cyclonedx(&graph) }
    };
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => {
            eprintln!("building the agent (release, static); this takes some minutes");
            build::build(AGENT, Profile::Release)?
        }
    };
    let image = agent::release(&binary, &arguments.repository, &about);
    if let Some(folder) = &arguments.unpacked {
        return Ok(image.unpack(folder)?);
    }
    let out = &arguments.out;
    fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    let archive = image.write(&out.join("mendix-agent.tar"))?;
    for (name, text) in [("licences.txt", &about.licences), ("sbom.cdx.json", &about.sbom)] {
        fs::write(out.join(name), text).with_context(|| format!("write {name}"))?;
    }
    println!("{}", archive.by_tag);
    println!("{}", archive.by_digest);
    println!("{}", archive.path.display());
    let built = arguments.binary.is_none();
    let sizes = [(BINARY, size(&binary)?), (IMAGE, archive.unpacked)];
    let mut over = Vec::new();
    for (gate, bytes) in &sizes {
        print!("{:<20}{:>6.2} MB", gate.what, megabytes(*bytes));
        if built {
            print!(", at most {} MB", gate.ceiling / MB);
        }
        println!();
        if built && *bytes > gate.ceiling {
            over.push(gate.what);
        }
    }
    println!("{:<20}{:>6.2} MB", "archive", megabytes(size(&archive.path)?));
    if !over.is_empty() {
        bail!("larger than it may be: {}", over.join(", "));
    }
    Ok(())
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.len())
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MB as f64
}
