//! Runs every target over its committed seeds, findings of the past among them.

use std::{fs, path::PathBuf};

use mendix_fuzz::TARGETS;

fn seeds(target: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_target_survives_its_seeds() {
    for (name, target) in TARGETS {
        let files = seeds(name);
        assert!(!files.is_empty(), "{name} has no seeds");
        let mut taken = 0;
        for file in files {
            println!("{}", file.display());
            taken += usize::from(target(&fs::read(file).unwrap()));
        }
        assert!(taken > 0, "{name} takes none of its seeds: write them anew (README.md)");
    }
}

#[test]
fn every_target_takes_nothing_and_noise() {
    for (_, target) in TARGETS {
        target(&[]);
        for byte in 0..=255 {
            target(&[byte]);
        }
        let noise: Vec<u8> =
            (0..2048_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        target(&noise);
    }
}

#[test]
fn every_target_has_a_binary_and_every_seed_folder_a_target() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: PathBuf| -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(folder.join("seeds")), targets);
    assert_eq!(names(folder.join("targets/fuzz_targets")), targets);
}
