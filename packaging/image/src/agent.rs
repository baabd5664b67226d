//! What the agent's image consists of; `packaging/image/Dockerfile` says the same to Docker.

use std::{io::Write as _, path::Path};

use crate::archive::{self, Image};

/// The repository of an image that is not meant for a registry; nothing outside this machine answers
/// to it.
pub const REPOSITORY: &str = "localhost/mendix-agent";
/// What the allocator is told, by its environment.
///
/// One heap for all threads: glibc gives each thread of a busy process one of its own and keeps in each what was
/// used there once; the agent's few threads wait most of their lives, and it is as fast with one
/// (docs/measurements.md, "Applying a release").
///
/// What takes 128 KiB and more is mapped by itself and goes back at once. glibc would raise that bound with the first
/// such buffer that is freed; those of gzip, one for each log of a snapshot, then leave holes in the heap that the next
/// one does not fit into (docs/measurements.md, "Log snapshots").
///
/// Set here, it holds however the agent is deployed; the unit for virtual machines says the same.
pub const HEAPS: [(&str, &str); 2] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072")];
/// Where the image says what is in it.
const ABOUT: &str = "usr/share/doc/mendix-agent";

/// The agent's image from its static binary, for this machine.
#[must_use]
pub fn image(binary: &Path, tag: &str) -> Image {
    with_program(Image::new(REPOSITORY, tag), binary)
}

/// The image that customers get, tagged with the version: it also says what is in it, and is
/// compressed.
#[must_use]
pub fn release(binary: &Path, repository: &str, about: &About) -> Image {
    with_program(Image::new(repository, env!("CARGO_PKG_VERSION")), binary)
        .folder("usr/share", 0o755)
        .folder("usr/share/doc", 0o755)
        .folder(ABOUT, 0o755)
        .bytes(&format!("{ABOUT}/licences.txt.gz"), 0o644, gzipped(about.licences.as_bytes()))
        .bytes(&format!("{ABOUT}/sbom.cdx.json"), 0o644, about.sbom.as_bytes())
        .label("org.opencontainers.image.version", env!("CARGO_PKG_VERSION"))
        .compressed()
}

/// A megabyte of licences is a seventh of that so.
fn gzipped(text: &[u8]) -> Vec<u8> {
    let mut gzip = archive::gzip(Vec::with_capacity(text.len() / 4));
    // Writing into memory does not fail.
    let _ = gzip.write_all(text);
    gzip.finish().unwrap_or_default()
}

fn with_program(image: Image, binary: &Path) -> Image {
    let image = HEAPS.iter().fold(image, |image, (name, value)| image.env(name, value));
    with_files(image)
        .file("usr/bin/mendix-agent", 0o755, binary)
        .entrypoint(&["/usr/bin/mendix-agent"])
        .label("org.opencontainers.image.title", "mendix-agent")
        .label("org.opencontainers.image.description", "In-cluster agent of Mendix on Azure")
}

/// What a release says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// [`crate::licences`].
    pub licences: String,
    /// [`crate::sbom`].
    pub sbom: String,
}

/// Everything in the agent's image but the agent: an image for another static program that shall
/// find what the agent finds.
#[must_use]
pub fn with_files(image: Image) -> Image {
    image
        .folder("etc", 0o755)
        .bytes("etc/passwd", 0o644, include_str!("../passwd"))
        .bytes("etc/group", 0o644, include_str!("../group"))
        .folder("tmp", 0o1777)
        .folder("usr", 0o755)
        .folder("usr/bin", 0o755)
        .user("65532:65532")
}
