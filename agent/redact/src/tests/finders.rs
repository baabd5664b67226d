//! What a snapshot adds to the rules: the customer's patterns, the agent's own credentials, and a
//! finder that fails.

use std::{ops::Range, panic::AssertUnwindSafe};

use super::*;

const TOKEN: &str = "zq8rT2vLm4Xw9Kd3Jp7Y";

fn redaction() -> Redaction {
    let patterns = [r"POL-\d{6}", r"(?i)dossier (\d{4})", "^only .*"].map(str::to_owned);
    let custom = custom::CustomPatterns::compile(&patterns).expect("patterns");
    let own = OwnSecrets::new([TOKEN.as_bytes()], []);
    Redaction::new(SnapshotKey::new(KEY), vec![Box::new(custom), Box::new(own)])
}

fn in_pieces<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> String {
    let mut redactor = Redactor::new(&redaction());
    let mut out = Vec::new();
    for chunk in chunks {
        redactor.push(chunk, &mut out).expect("text");
    }
    redactor.finish(&mut out).expect("text");
    String::from_utf8(out).expect("text stays text")
}

fn vectors() -> Vec<Rendered> {
    let rendered = |stays: &[&str], secrets: &[&str]| Rendered {
        stays: stays.iter().map(|&s| s.to_owned()).collect(),
        secrets: secrets.iter().map(|&s| s.to_owned()).collect(),
    };
    vec![
        rendered(&["policy ", " lapsed"], &["POL-123456"]),
        rendered(&["policies ", " and ", "."], &["POL-123456", "POL-654321"]),
        rendered(&["in Dossier ", " of bob"], &["2044"]),
        rendered(&["called with ", " once"], &[TOKEN]),
        rendered(&["one\npolicy ", "\ntwo ", " and\nthree"], &["POL-123456", TOKEN]),
    ]
}

#[test]
fn patterns_and_credentials_go_in_every_disguise_and_at_every_boundary() {
    for vector in vectors() {
        for (disguise, vector) in disguises(&vector) {
            let text = vector.text();
            let whole = in_pieces([text.as_bytes()]);
            if let Some(fault) = fault(&vector, &whole) {
                panic!("{disguise}: {text}\n{fault}");
            }
            for at in 0..=text.len() {
                let (head, tail) = text.as_bytes().split_at(at);
                assert_eq!(in_pieces([head, tail]), whole, "{disguise} cut at {at}");
            }
            assert_eq!(in_pieces([whole.as_bytes()]), whole, "{disguise} twice");
        }
    }
}

#[test]
fn edges_of_a_pattern_are_those_of_the_line_without_its_time() {
    let out = in_pieces([b"2026-11-22T07:15:23.1Z only this\r\nnot only this\n".as_slice()]);
    let (head, tail) = out.split_once(']').expect("a placeholder");
    assert!(head.starts_with("2026-11-22T07:15:23.1Z [R:custom:"), "{out}");
    assert_eq!(tail, "\r\nnot only this\n");
}

#[test]
fn finds_are_counted_under_their_class() {
    let mut counts = Counts::default();
    let text = format!("POL-123456 {TOKEN}");
    redact_text(&redaction(), &text, &mut counts).expect("text");
    assert_eq!((counts.of(Class::Custom), counts.of(Class::AgentSecret)), (1, 1));
}

/// Fails at a word, as a rule with a mistake in it would.
#[derive(Debug)]
struct Faulty;

impl Finder for Faulty {
    fn class(&self) -> Class {
        Class::Custom
    }

    fn find(&self, text: &[u8], _found: &mut dyn FnMut(Range<usize>)) {
        assert!(memchr::memmem::find(text, b"boom").is_none(), "a rule fails");
    }
}

#[test]
fn a_panic_inside_a_rule_ends_its_stream_and_no_other() {
    let redaction = Redaction::new(SnapshotKey::new(KEY), vec![Box::new(Faulty)]);
    let mut good = Redactor::new(&redaction);
    let mut bad = Redactor::new(&redaction);
    let (mut good_out, mut bad_out) = (Vec::new(), Vec::new());
    good.push(b"one\n", &mut good_out).expect("text");
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        bad.push(b"one\npassword=S3cretXy boom\n", &mut bad_out)
    }));
    assert!(panicked.is_err(), "the mistake is not hidden");
    assert_eq!(bad_out, b"one\n", "nothing of the line that failed comes out");
    assert_eq!(bad.push(b"more\n", &mut bad_out), Err(RedactError::Ended));
    assert_eq!(bad.finish(&mut bad_out), Err(RedactError::Ended));
    good.push(b"two\n", &mut good_out).expect("text");
    good.finish(&mut good_out).expect("text");
    assert_eq!(good_out, b"one\ntwo\n");
}
