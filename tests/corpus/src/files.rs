//! The text files of both sets.

macro_rules! files {
    ($set:literal: $($name:literal)*) => {
        &[$(include_str!(concat!("../templates/", $set, "/", $name, ".txt")),)*]
    };
}

pub(crate) const DEVELOPMENT: &[&str] = files!("development":
    "words" "keys" "formats" "azure" "tokens" "web" "keyfiles" "personal" "ordinary");

pub(crate) const EVALUATION: &[&str] = files!("evaluation":
    "words" "keys" "formats" "azure" "tokens" "web" "keyfiles" "personal" "ordinary");
