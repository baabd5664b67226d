//! The reader of archives: what support unpacks was written by a machine it does not trust.

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};

use crate::input::Input;

/// The control plane's file, built again here: the rest of that crate would double the build.
#[allow(unreachable_pub, reason = "it is public where it belongs")]
#[path = "../../control-plane/src/snapshots/unpack.rs"]
mod unpack;

/// An archive as it came, or a tar that is compressed first.
pub fn archive(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let compress = input.flag();
    let rest = input.rest();
    let plain = if compress {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(rest).unwrap();
        encoder.finish().unwrap()
    } else {
        rest.to_vec()
    };
    let around = tempfile::tempdir().unwrap();
    let dir = around.path().join("snapshot");
    fs::create_dir(&dir).unwrap();
    let unpacked = unpack::unpack(plain.as_slice(), &dir);

    let beside: Vec<_> = fs::read_dir(around.path()).unwrap().flatten().collect();
    assert_eq!(beside.len(), 1, "something was written beside the folder");
    let mut sizes = Vec::new();
    only_files(&dir, &mut sizes);
    if let Ok(files) = &unpacked {
        assert_eq!(files.len(), sizes.len(), "a file was written over or left out");
        let said: u64 = files.iter().map(|file| file.size).sum();
        assert_eq!(said, sizes.iter().sum::<u64>());
    }
    unpacked.is_ok_and(|files| !files.is_empty())
}

fn only_files(dir: &Path, sizes: &mut Vec<u64>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            only_files(&entry.path(), sizes);
        } else {
            assert!(kind.is_file(), "{} is no file", entry.path().display());
            sizes.push(entry.metadata().unwrap().len());
        }
    }
}
