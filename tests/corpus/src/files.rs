//! The text files of all sets.

use crate::template::{Files, Hand};
use crate::value::{
    evaluation, fifth_rehearsal, fourth_rehearsal, rehearsal, second_rehearsal, third_rehearsal,
};

macro_rules! files {
    ($hand:expr, $folder:literal) => {
        files!($hand, $folder: "words" "keys" "formats" "azure" "tokens" "web" "keyfiles" "personal" "ordinary")
    };
    ($hand:expr, $folder:literal: $($name:literal)*) => {
        Files {
            hand: $hand,
            texts: &[$(include_str!(concat!("../templates/", $folder, "/", $name, ".txt")),)*],
        }
    };
}

/// Forms that the other sets showed to be unknown are thought up here.
pub(crate) const DEVELOPMENT: &[Files] = &[files!(
    Hand::Development, "development": "words" "keys" "formats" "azure" "tokens" "web" "keyfiles" "personal" "ordinary" "forms" "systems" "families"
)];
pub(crate) const VALIDATION: &[Files] = &[files!(Hand::Validation, "validation")];
/// The evaluation sets of former policies: that of 2 to 4, and those of 5, 6, 7 and 8. The last part
/// was written for this set alone: what applications, databases and identity providers write.
pub(crate) const REHEARSAL: &[Files] = &[
    files!(Hand::Own(&rehearsal::FORMS), "rehearsal"),
    files!(
        Hand::Own(&second_rehearsal::FORMS), "second-rehearsal": "words" "mixed" "passwords" "secrets" "structures" "cloud" "bearer" "keystores" "sessions" "people" "plain"
    ),
    files!(
        Hand::Own(&third_rehearsal::FORMS), "third-rehearsal": "words" "passwords" "flags" "nested" "cloud" "tokens" "keystores" "sessions" "people" "plain"
    ),
    files!(
        Hand::Own(&fourth_rehearsal::FORMS), "fourth-rehearsal": "words" "passwords" "structured" "commands" "connections" "tokens" "keys" "sessions" "people" "plain"
    ),
    files!(
        Hand::Own(&fifth_rehearsal::FORMS), "fifth-rehearsal": "words" "beginning" "passwords" "structured" "commands" "connections" "tokens" "keys" "sessions" "people" "mixed" "plain"
    ),
    // What applications and data stores write, and what platforms and the people who run them write: no
    // evaluation sets before they were read.
    files!(
        Hand::Own(&fifth_rehearsal::FORMS), "sixth-rehearsal": "words" "sentences" "messages" "support" "passwords" "structured" "connections" "tokens" "people" "plain"
    ),
    files!(
        Hand::Own(&fifth_rehearsal::FORMS), "seventh-rehearsal": "words" "traces" "environment" "said" "random" "connections" "tokens" "structured" "people" "pasted" "plain"
    ),
];
/// Each file is about what its name says; `words` holds the pools.
pub(crate) const EVALUATION: &[Files] = &[files!(
    Hand::Own(&evaluation::FORMS), "evaluation": "words" "settings" "payloads" "manifests" "commands" "messages" "databases" "azure" "identity" "keys" "people" "stacks" "ordinary"
)];
