//! The licences of what is linked into the agent, with their texts, in one file.
//!
//! The texts are those that came with the sources. A crate without one is an error, unless a crate of
//! the same repository has it, or it may be used under the Apache licence, whose text is always the
//! same.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::graph::{Crate, Graph};

/// Beginnings of names of files with licences, in capitals.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
/// A licence whose text names nobody, and a crate that comes with it.
const APACHE: (&str, &str, &str) = ("Apache-2.0", "anyhow", "LICENSE-APACHE");

/// The file can't be made.
#[derive(Debug, Error)]
pub enum LicenceError {
    /// A text can't be read.
    #[error("{}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A crate came without the text of its licence.
    #[error(
        "{name} {version} ({licence}) comes without a licence text in {}, and no crate of its repository \
         has one; find the text and say in packaging/image/src/licences.rs where it is", folder.display()
    )]
    Missing {
        /// The crate.
        name: String,
        /// Its version.
        version: String,
        /// What it says of its licence.
        licence: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
}

/// All texts, each once, after a list of what falls under which.
///
/// # Errors
/// [`LicenceError`], at the first text that is missing.
pub fn collect(graph: &Graph) -> Result<String, LicenceError> {
    // By text, so that it is printed once; the workspace's own crates have none.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list = String::new();
    for found in graph.crates.values().filter(|found| found.checksum.is_some()) {
        let who = format!("{} {}", found.name, found.version);
        let licence = found.licence.as_deref().unwrap_or("see its text");
        let _ = writeln!(list, "{who}: {licence}");
        for path in files_for(found, graph)? {
            texts.entry(text(&path)?).or_default().push(who.clone());
        }
    }
    for part in &graph.parts {
        let who = format!("{} {}", part.name, part.version);
        let _ = writeln!(list, "{who}: {}", part.licence);
        for path in &part.texts {
            texts.entry(text(path)?).or_default().push(who.clone());
        }
    }
    let mut file = format!(
        "What is in mendix-agent {} besides its own code, and the licences of that.\n\n{list}",
        env!("CARGO_PKG_VERSION")
    );
    // In the order of the first that each belongs to.
    let mut texts: Vec<(String, Vec<String>)> = texts.into_iter().collect();
    texts.sort_by(|one, two| (&one.1, &one.0).cmp(&(&two.1, &two.0)));
    for (text, mut users) in texts {
        users.dedup();
        let line = "=".repeat(80);
        let _ = write!(file, "\n{line}\n{}\n{line}\n\n{}\n", users.join(", "), text.trim_end());
    }
    Ok(file)
}

/// The files with the licence of a crate.
fn files_for(found: &Crate, graph: &Graph) -> Result<Vec<PathBuf>, LicenceError> {
    let own = files_in(&found.folder)?;
    if !own.is_empty() {
        return Ok(own);
    }
    let of_the_same_repository = graph.crates.values().filter(|other| {
        found.repository.is_some()
            && other.repository == found.repository
            && other.licence == found.licence
    });
    for other in of_the_same_repository {
        let files = files_in(&other.folder)?;
        if !files.is_empty() {
            return Ok(files);
        }
    }
    let licence = found.licence.clone().unwrap_or_default();
    let (apache, bringer, file) = APACHE;
    let permitted = licence.split(" OR ").any(|alternative| alternative == apache);
    let bringer = graph.crates.values().find(|other| other.name == bringer);
    match bringer {
        Some(bringer) if permitted => Ok(vec![bringer.folder.join(file)]),
        _ => Err(LicenceError::Missing {
            name: found.name.clone(),
            version: found.version.clone(),
            licence,
            folder: found.folder.clone(),
        }),
    }
}

/// The files in a folder that are named like licences, in the order of their names.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, LicenceError> {
    let failed = |source| LicenceError::File { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_file = entry.file_type().map_err(failed)?.is_file();
        if is_file && NAMES.iter().any(|beginning| name.starts_with(beginning)) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> Result<String, LicenceError> {
    let bytes =
        fs::read(path).map_err(|source| LicenceError::File { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_in(folder: &Path, name: &str, licence: &str, repository: &str) -> Crate {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        Crate {
            name: name.into(),
            version: "1.0.0".into(),
            licence: Some(licence.into()),
            repository: Some(repository.into()),
            checksum: Some("00".into()),
            folder,
            uses: vec![],
        }
    }

    fn graph(crates: &[Crate]) -> Graph {
        let crates = crates.iter().map(|found| (found.id(), found.clone())).collect();
        Graph { crates, parts: vec![] }
    }

    #[test]
    fn a_text_is_there_once_and_names_all_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let one = crate_in(folder.path(), "one", "MIT", "https://example.com/a");
        let two = crate_in(folder.path(), "two", "MIT", "https://example.com/b");
        for (found, name) in [(&one, "LICENSE"), (&two, "license-mit.txt")] {
            fs::write(found.folder.join(name), "Permission is granted\n").unwrap();
        }
        fs::write(two.folder.join("NOTICE"), "by two").unwrap();
        let file = collect(&graph(&[one, two])).unwrap();
        assert_eq!(file.matches("Permission is granted").count(), 1);
        assert!(file.contains("\none 1.0.0, two 1.0.0\n"), "{file}");
        assert!(file.contains("by two"), "{file}");
    }

    #[test]
    fn a_crate_without_a_text_is_named_unless_its_repository_or_its_licence_helps() {
        let folder = tempfile::tempdir().unwrap();
        let root = crate_in(folder.path(), "root", "MIT", "https://example.com/a");
        fs::write(root.folder.join("LICENSE"), "text of a").unwrap();
        let bare = crate_in(folder.path(), "bare", "MIT", "https://example.com/a");
        assert!(collect(&graph(&[root, bare])).unwrap().contains("bare 1.0.0, root 1.0.0"));

        let anyhow =
            crate_in(folder.path(), "anyhow", "MIT OR Apache-2.0", "https://example.com/c");
        fs::write(anyhow.folder.join("LICENSE-APACHE"), "text of Apache").unwrap();
        let either =
            crate_in(folder.path(), "either", "MIT OR Apache-2.0", "https://example.com/d");
        let file = collect(&graph(&[anyhow.clone(), either])).unwrap();
        assert!(file.contains("anyhow 1.0.0, either 1.0.0"), "{file}");
        for licence in ["MIT", "MIT AND Apache-2.0"] {
            let alone = crate_in(folder.path(), "alone", licence, "https://example.com/b");
            let missing = collect(&graph(&[anyhow.clone(), alone])).unwrap_err();
            let named = format!("alone 1.0.0 ({licence})");
            assert!(missing.to_string().contains(&named), "{missing}");
        }
    }
}
