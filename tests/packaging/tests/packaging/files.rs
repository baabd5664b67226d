//! The repository's files, as the tests read them.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Text of a file, by its path from the root.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The objects in a file of YAML documents; empty documents are none.
pub(crate) fn objects(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// To be held while the agent's program is built and read: the package's and the image's, which is
/// static, are linked in the same place.
pub(crate) fn program() -> MutexGuard<'static, ()> {
    static PROGRAM: Mutex<()> = Mutex::new(());
    PROGRAM.lock().unwrap_or_else(PoisonError::into_inner)
}
