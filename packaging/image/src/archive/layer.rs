//! The one layer of an image: its entries as a tar file that is the same wherever it is written, and
//! whose digest is taken on the way.

use std::{
    fs::{self, File},
    io::{self, Read, Seek as _, Write},
    os::unix,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256, digest};
use flate2::{Compression, GzBuilder, write::GzEncoder};
use tar::{Builder, EntryType, Header};

use super::ImageError;

/// RFC 1952: the system on which a gzip file was made.
const UNKNOWN_SYSTEM: u8 = 255;

/// Something in the image.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) content: Content,
}

/// What it is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Folder,
    Bytes(Vec<u8>),
    File(PathBuf),
    Symlink(String),
}

/// A layer that was written.
pub(super) struct Layer {
    pub(super) file: File,
    /// Of the tar file.
    pub(super) unpacked: Sum,
    /// Of what is in the archive.
    pub(super) stored: Sum,
}

/// Digest and length of some bytes.
#[derive(Clone)]
pub(super) struct Sum {
    pub(super) digest: String,
    pub(super) bytes: u64,
}

impl Layer {
    /// Writes the entries, in this order, into an unnamed file in the folder where `beside` is.
    pub(super) fn write(
        entries: &[&Entry],
        compressed: bool,
        beside: &Path,
    ) -> Result<Self, ImageError> {
        let folder =
            beside.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |source| ImageError::File { path: folder.to_owned(), source };
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        let (mut file, unpacked, stored) = if compressed {
            let (gzip, unpacked) = append_entries(entries, gzip(Hashing::new(file)), folder)?;
            let (file, stored) = gzip.finish().map_err(failed)?.finish();
            (file, unpacked, stored)
        } else {
            let (file, unpacked) = append_entries(entries, file, folder)?;
            (file, unpacked.clone(), unpacked)
        };
        file.rewind().map_err(failed)?;
        Ok(Self { file, unpacked, stored })
    }
}

fn append_entries<W: Write>(
    entries: &[&Entry],
    to: W,
    folder: &Path,
) -> Result<(W, Sum), ImageError> {
    let mut tar = Builder::new(Hashing::new(to));
    entries.iter().try_for_each(|entry| entry.append_to(&mut tar))?;
    let failed = |source| ImageError::File { path: folder.to_owned(), source };
    Ok(tar.into_inner().map_err(failed)?.finish())
}

impl Entry {
    /// Writes it as a file, a folder or a link of this machine.
    pub(super) fn place_at(&self, path: &Path) -> io::Result<()> {
        match &self.content {
            Content::Folder => match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            },
            Content::Bytes(bytes) => fs::write(path, bytes)?,
            Content::File(from) => drop(fs::copy(from, path)?),
            Content::Symlink(target) => return unix::fs::symlink(target, path),
        }
        fs::set_permissions(path, unix::fs::PermissionsExt::from_mode(self.mode))
    }

    fn append_to(&self, tar: &mut Builder<impl Write>) -> Result<(), ImageError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ImageError::File { path, source }
        };
        let inside = Path::new(&self.path);
        match &self.content {
            Content::Bytes(bytes) => {
                append(tar, &self.path, self.mode, bytes.len() as u64, bytes.as_slice())
                    .map_err(failed(inside))
            }
            Content::File(from) => {
                let file = File::open(from).map_err(failed(from))?;
                let size = file.metadata().map_err(failed(from))?.len();
                append(tar, &self.path, self.mode, size, file).map_err(failed(from))
            }
            Content::Folder => {
                let mut header = header(self.mode, 0);
                header.set_entry_type(EntryType::Directory);
                tar.append_data(&mut header, format!("{}/", self.path), io::empty())
                    .map_err(failed(inside))
            }
            Content::Symlink(target) => {
                let mut header = header(self.mode, 0);
                header.set_entry_type(EntryType::Symlink);
                tar.append_link(&mut header, &self.path, target).map_err(failed(inside))
            }
        }
    }
}

/// Appends a file to a tar file.
pub(super) fn append(
    tar: &mut Builder<impl Write>,
    path: &str,
    mode: u32,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    // A file that grows while it is read must not break the archive.
    tar.append_data(&mut header(mode, size), path, content.take(size))
}

/// Root owns everything, since the epoch.
fn header(mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// Compresses what is written to it, under a header without a time, a name or a system.
pub(crate) fn gzip<W: Write>(to: W) -> GzEncoder<W> {
    let header = GzBuilder::new().mtime(0).operating_system(UNKNOWN_SYSTEM);
    header.write(to, Compression::best())
}

/// Passes bytes on and takes their digest.
struct Hashing<W> {
    to: W,
    context: Context,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn new(to: W) -> Self {
        Self { to, context: Context::new(&SHA256), bytes: 0 }
    }

    fn finish(self) -> (W, Sum) {
        let digest = named_digest(self.context.finish().as_ref());
        (self.to, Sum { digest, bytes: self.bytes })
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// `sha256:…` of some bytes.
pub(super) fn sha256(bytes: &[u8]) -> String {
    named_digest(digest(&SHA256, bytes).as_ref())
}

fn named_digest(digest: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest))
}
