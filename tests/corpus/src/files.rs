//! The text files of all sets.

macro_rules! files {
    ($set:literal) => {
        files!($set: "words" "keys" "formats" "azure" "tokens" "web" "keyfiles" "personal" "ordinary")
    };
    ($set:literal: $($name:literal)*) => {
        &[$(include_str!(concat!("../templates/", $set, "/", $name, ".txt")),)*]
    };
}

/// Forms that the other sets showed to be unknown are thought up here.
pub(crate) const DEVELOPMENT: &[&str] = files!(
    "development": "words" "keys" "formats" "azure" "tokens" "web" "keyfiles" "personal" "ordinary" "forms" "systems"
);
pub(crate) const VALIDATION: &[&str] = files!("validation");
pub(crate) const REHEARSAL: &[&str] = files!("rehearsal");
pub(crate) const EVALUATION: &[&str] = files!(
    "evaluation": "words" "mixed" "passwords" "secrets" "structures" "cloud" "bearer" "keystores" "sessions" "people" "plain"
);
