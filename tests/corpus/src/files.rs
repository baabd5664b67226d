//! The text files of all sets.

macro_rules! files {
    ($set:literal) => {
        files!($set: "words" "keys" "formats" "azure" "tokens" "web" "keyfiles" "personal" "ordinary")
    };
    ($set:literal: $($name:literal)*) => {
        &[$(include_str!(concat!("../templates/", $set, "/", $name, ".txt")),)*]
    };
}

pub(crate) const DEVELOPMENT: &[&str] = files!("development");
pub(crate) const VALIDATION: &[&str] = files!("validation");
pub(crate) const EVALUATION: &[&str] = files!("evaluation");
