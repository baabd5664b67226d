//! Container images made from files, without a registry, a daemon or a Dockerfile.
//!
//! An [`Image`] is written as one OCI layout in a tar file, which `ctr images import`, `podman load`,
//! `docker load` (25 and later) and `kind load image-archive` read. The same content gives the same
//! bytes and so the same digest, anywhere and at any time. Each image has two names in the archive:
//! its tag, and `repository@sha256:…`, because release bundles may name images by digest only.

mod layer;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde_json::json;
use tar::Builder;
use thiserror::Error;

pub(crate) use self::layer::gzip;
use self::layer::{Content, Entry, Layer, Sum, append, sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The annotation that containerd takes an image's full name from.
const NAME: &str = "io.containerd.image.name";
/// Every time stamp in an image: builds must not differ by when they ran.
const EPOCH: &str = "1970-01-01T00:00:00Z";
/// An index of an archive that [`names`] reads; ours are below 2 KiB.
const MAX_INDEX: u64 = 1024 * 1024;

/// Why an image could not be made or read.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A file can't be read or written.
    #[error("image: {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The archive is none of an image.
    #[error("{}: no OCI image archive with names in its index.json", path.display())]
    NotAnArchive {
        /// The file.
        path: PathBuf,
    },
}

/// What an image consists of. Build it up, then [`Image::write`].
#[derive(Clone, Debug)]
pub struct Image {
    repository: String,
    tag: String,
    entries: Vec<Entry>,
    entrypoint: Vec<String>,
    user: Option<String>,
    env: Vec<String>,
    labels: BTreeMap<String, String>,
    compressed: bool,
}

/// An image that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// The tar file.
    pub path: PathBuf,
    /// `sha256:…` of the manifest: the image's identity.
    pub digest: String,
    /// `repository:tag`.
    pub by_tag: String,
    /// `repository@sha256:…`.
    pub by_digest: String,
    /// Bytes of the one layer as it is unpacked.
    pub unpacked: u64,
}

impl Image {
    /// An empty image called `repository:tag`. Take a repository on `localhost/`: a runtime that
    /// does not have the image can then never ask somebody else for it.
    #[must_use]
    pub fn new(repository: &str, tag: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            entries: Vec::new(),
            entrypoint: Vec::new(),
            user: None,
            env: Vec::new(),
            labels: BTreeMap::new(),
            compressed: false,
        }
    }

    /// A folder, such as `tmp` with mode `0o1777`. Paths are relative to the root of the image; the
    /// order in which entries are given does not count.
    #[must_use]
    pub fn folder(self, path: &str, mode: u32) -> Self {
        self.entry(path, mode, Content::Folder)
    }

    /// A file with this content.
    #[must_use]
    pub fn bytes(self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.entry(path, mode, Content::Bytes(content.into()))
    }

    /// A file with the content of one on this machine, read when the image is written.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, from: &Path) -> Self {
        self.entry(path, mode, Content::File(from.to_owned()))
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, 0o777, Content::Symlink(target.to_owned()))
    }

    fn entry(mut self, path: &str, mode: u32, content: Content) -> Self {
        let path = path.trim_start_matches('/').to_owned();
        self.entries.push(Entry { path, mode, content });
        self
    }

    /// What runs, with its first arguments.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(ToString::to_string).collect();
        self
    }

    /// Who it runs as, such as `65532:65532`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// A label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Compresses the layer with gzip, for images that are pushed and pulled: a third of the bytes,
    /// and a second of work that images of tests are better off without.
    #[must_use]
    pub fn compressed(mut self) -> Self {
        self.compressed = true;
        self
    }

    /// Writes what is in the image below an existing or new folder, for builders that take one. Who
    /// owns it is not written down: an ordinary user may do this.
    ///
    /// # Errors
    /// [`ImageError::File`].
    pub fn unpack(&self, folder: &Path) -> Result<(), ImageError> {
        fs::create_dir_all(folder)
            .map_err(|source| ImageError::File { path: folder.to_owned(), source })?;
        self.sorted().into_iter().try_for_each(|entry| {
            let path = folder.join(&entry.path);
            entry.place_at(&path).map_err(|source| ImageError::File { path, source })
        })
    }

    /// The entries in the order of their paths: a folder's is a prefix of what is in it, so it comes
    /// first.
    fn sorted(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|one, two| one.path.cmp(&two.path));
        entries
    }

    /// Writes the archive. Files are streamed: memory does not grow with them.
    ///
    /// # Errors
    /// [`ImageError::File`].
    pub fn write(&self, path: &Path) -> Result<Archive, ImageError> {
        let failed = |source| ImageError::File { path: path.to_owned(), source };
        let mut layer = Layer::write(&self.sorted(), self.compressed, path)?;
        let media_type = if self.compressed { LAYER_GZIP } else { LAYER };

        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": EPOCH,
            "config": {
                "Entrypoint": self.entrypoint,
                "User": self.user.as_deref().unwrap_or(""),
                "Env": self.env,
                "Labels": self.labels,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.unpacked.digest]},
            "history": [{"created": EPOCH, "created_by": env!("CARGO_PKG_NAME")}],
        })
        .to_string();
        let config_digest = sha256(config.as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config_digest, "size": config.len()},
            "layers": [{"mediaType": media_type, "digest": layer.stored.digest, "size": layer.stored.bytes}],
        })
        .to_string();
        let digest = sha256(manifest.as_bytes());
        let by_tag = format!("{}:{}", self.repository, self.tag);
        let by_digest = format!("{}@{digest}", self.repository);
        let named = |name: &str| {
            json!({
                "mediaType": MANIFEST,
                "digest": digest,
                "size": manifest.len(),
                "annotations": {NAME: name},
                "platform": {"os": "linux", "architecture": architecture()},
            })
        };
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [named(&by_tag), named(&by_digest)],
        })
        .to_string();

        let mut tar = Builder::new(File::create(path).map_err(failed)?);
        let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
        let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
        for (name, content) in [
            ("oci-layout", layout),
            ("index.json", &index),
            (&blob(&digest), &manifest),
            (&blob(&config_digest), &config),
        ] {
            append(&mut tar, name, 0o644, content.len() as u64, content.as_bytes())
                .map_err(failed)?;
        }
        let Sum { digest: layer_digest, bytes } = &layer.stored;
        append(&mut tar, &blob(layer_digest), 0o644, *bytes, &mut layer.file).map_err(failed)?;
        tar.into_inner().and_then(|mut file| file.flush()).map_err(failed)?;
        Ok(Archive {
            path: path.to_owned(),
            digest,
            by_tag,
            by_digest,
            unpacked: layer.unpacked.bytes,
        })
    }
}

/// The names of the images in an archive: those under which a runtime has them after an import.
///
/// # Errors
/// [`ImageError`] when it is no OCI archive, or one without names.
pub fn names(archive: &Path) -> Result<Vec<String>, ImageError> {
    let failed = |source| ImageError::File { path: archive.to_owned(), source };
    let none = || ImageError::NotAnArchive { path: archive.to_owned() };
    let mut tar = tar::Archive::new(File::open(archive).map_err(failed)?);
    for entry in tar.entries().map_err(failed)? {
        let entry = entry.map_err(|_| none())?;
        if entry.path_bytes().as_ref() != b"index.json" {
            continue;
        }
        let mut text = Vec::new();
        entry.take(MAX_INDEX).read_to_end(&mut text).map_err(failed)?;
        let index: serde_json::Value = serde_json::from_slice(&text).map_err(|_| none())?;
        let names: Vec<_> = index["manifests"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|manifest| manifest["annotations"][NAME].as_str().map(str::to_owned))
            .collect();
        return if names.is_empty() { Err(none()) } else { Ok(names) };
    }
    Err(none())
}

/// This machine's, in the words of OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(from: &Path) -> Image {
        Image::new("localhost/sample", "1")
            .folder("tmp", 0o1777)
            .bytes("/etc/passwd", 0o644, "app:x:65532:65532::/:/none\n")
            .file("bin/app", 0o755, from)
            .symlink("bin/sh", "app")
            .entrypoint(&["/bin/app"])
            .user("65532:65532")
            .env("PATH", "/bin")
            .label("org.opencontainers.image.title", "sample")
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let app = folder.path().join("app");
        std::fs::write(&app, "#!/bin/sh\n").unwrap();
        let one = sample(&app).write(&folder.path().join("one.tar")).unwrap();
        // Another file, written at another time, with other permissions.
        let copy = folder.path().join("copy");
        std::fs::copy(&app, &copy).unwrap();
        File::open(&copy).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let two = sample(&copy).write(&folder.path().join("two.tar")).unwrap();
        assert_eq!(one.digest, two.digest);
        assert_eq!(std::fs::read(&one.path).unwrap(), std::fs::read(&two.path).unwrap());

        // The order of the entries does not count; a label does, and so does compression.
        let mut turned = sample(&app);
        turned.entries.reverse();
        assert_eq!(turned.write(&folder.path().join("turned.tar")).unwrap().digest, one.digest);
        for other in [sample(&app).label("a", "b"), sample(&app).compressed()] {
            let other = other.write(&folder.path().join("other.tar")).unwrap();
            assert_ne!(one.digest, other.digest);
        }
    }

    #[test]
    fn every_blob_is_named_by_its_digest_and_the_image_by_tag_and_digest() {
        let folder = tempfile::tempdir().unwrap();
        let app = folder.path().join("app");
        std::fs::write(&app, vec![7; 100_000]).unwrap();
        let archive = sample(&app).write(&folder.path().join("image.tar")).unwrap();
        assert_eq!(archive.by_tag, "localhost/sample:1");
        assert_eq!(archive.by_digest, format!("localhost/sample@{}", archive.digest));
        assert_eq!(
            names(&archive.path).unwrap(),
            [archive.by_tag.clone(), archive.by_digest.clone()]
        );

        let mut blobs = 0;
        let mut tar = tar::Archive::new(File::open(&archive.path).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(sha256(&content), format!("sha256:{name}"));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3);
    }

    #[test]
    fn a_file_that_is_no_archive_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a tar file").unwrap();
        assert!(matches!(names(file.path()), Err(ImageError::NotAnArchive { .. })));
    }
}
