//! The rule of last resort: what it must leave alone, whatever is said around it.

use super::*;

/// What stands before and after a thing that is harmless.
const AROUND: &[(&str, &str)] = &[
    ("the password was checked by ", " again"),
    ("password rejected, see ", ""),
    ("no password needed since ", " is there"),
    ("wachtwoord gecontroleerd door ", " vandaag"),
    ("Passwort wurde geprüft, siehe ", " dazu"),
    ("token accepted, ", " goes on"),
    ("signing key loaded, ", " goes on"),
    ("", " has asked for the password"),
    ("unlocking what ", " has locked"),
];

/// Names, numbers and places as logs have them.
fn harmless() -> impl Strategy<Value = String> {
    prop_oneof![
        // Words, of any case and in a row.
        "[a-z]{2,14}",
        "[A-Z][aeiou][a-z]{1,8}",
        "[A-Z][aeiou][a-z]{2,5}[A-Z][aeiou][a-z]{2,5}",
        // Hosts, pods, versions.
        "[a-z]{3,8}-[0-9]{1,3}",
        "[a-z]{4,8}-[a-z]{3,8}-[0-9]{1,2}",
        "v?[0-9]{1,2}\\.[0-9]{1,2}\\.[0-9]{1,2}",
        "[a-z]{3,8}\\.[a-z]{3,8}\\.(svc|local|example)",
        // Errors, tickets.
        "(ORA|INC|KB|ERR|JIRA)-?[0-9]{4,7}",
        // Sizes and times.
        "[0-9]{1,5}(ms|s|h|MB|%)?",
        "[0-9]{1,3}\\.[0-9]{1,3}(ms|s|µs)",
        "[0-2][0-9]:[0-5][0-9]:[0-5][0-9]",
        // Classes, and files with their lines.
        "[A-Z][aeiou][a-z]{2,6}[1-9][A-Z][aeiou][a-z]{2,6}",
        "[A-Z][aeiou][a-z]{2,6}\\.(java|kt|py):[0-9]{1,3}",
        // Paths and pairs.
        "/[a-z]{2,6}/[a-z]{2,6}/[A-Z][a-z]{2,6}[0-9]{2}",
        "[a-z]{3,6}=[A-Z][a-z]{2,6}[0-9]{2}",
        // Identifiers.
        "(id|trace|commit|request) [0-9a-f]{32}",
    ]
}

proptest! {
    #![proptest_config(chosen())]

    #[test]
    fn what_is_harmless_stays_near_any_word(
        (before, after) in proptest::sample::select(AROUND),
        thing in harmless(),
    ) {
        let line = format!("{before}{thing}{after}");
        prop_assert_eq!(text_of(&line), line);
    }

    #[test]
    fn what_is_near_goes_and_what_is_far_stays(
        words in proptest::collection::vec("[bcdfgl][aeiou][a-z]{2,4}", 0..40),
        value in "[A-Z][a-z]{3}[0-9][a-z]{2}[0-9]{2}[A-Z]{2}[a-z]{2}",
    ) {
        let between = words.iter().map(|word| format!("{word} ")).collect::<String>();
        let out = text_of(&format!("the password {between}{value}"));
        if words.len() < 12 && between.len() < 120 {
            prop_assert!(!out.contains(&value), "{}", out);
        } else if between.len() > 160 {
            prop_assert!(out.contains(&value), "{}", out);
        }
    }
}
