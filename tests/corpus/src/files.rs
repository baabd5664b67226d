//! The text files of all sets.

use crate::template::{Files, Hand};

macro_rules! files {
    ($hand:ident $folder:literal) => {
        files!($hand $folder: "words" "keys" "formats" "azure" "tokens" "web" "keyfiles" "personal" "ordinary")
    };
    ($hand:ident $folder:literal: $($name:literal)*) => {
        Files {
            hand: Hand::$hand,
            texts: &[$(include_str!(concat!("../templates/", $folder, "/", $name, ".txt")),)*],
        }
    };
}

/// Forms that the other sets showed to be unknown are thought up here.
pub(crate) const DEVELOPMENT: &[Files] = &[files!(
    Development "development": "words" "keys" "formats" "azure" "tokens" "web" "keyfiles" "personal" "ordinary" "forms" "systems" "families"
)];
pub(crate) const VALIDATION: &[Files] = &[files!(Validation "validation")];
/// The evaluation set of policies 2 to 4, that of policy 5, that of policy 6, and that of policy 7.
pub(crate) const REHEARSAL: &[Files] = &[
    files!(Rehearsal "rehearsal"),
    files!(
        SecondRehearsal "second-rehearsal": "words" "mixed" "passwords" "secrets" "structures" "cloud" "bearer" "keystores" "sessions" "people" "plain"
    ),
    files!(
        ThirdRehearsal "third-rehearsal": "words" "passwords" "flags" "nested" "cloud" "tokens" "keystores" "sessions" "people" "plain"
    ),
    files!(
        FourthRehearsal "fourth-rehearsal": "words" "passwords" "structured" "commands" "connections" "tokens" "keys" "sessions" "people" "plain"
    ),
];
pub(crate) const EVALUATION: &[Files] = &[files!(
    Evaluation "evaluation": "words" "beginning" "passwords" "structured" "commands" "connections" "tokens" "keys" "sessions" "people" "mixed" "plain"
)];
