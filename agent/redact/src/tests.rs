//! The policy's vectors, in every disguise, and the properties of the engine.

use proptest::{prelude::*, test_runner::RngSeed};

use super::*;

mod finders;
mod linear;
mod near;
mod vectors;

use vectors::{Rendered, json_escaped, render};

const KEY: [u8; 32] = [7; 32];
/// Seeds that each vector is tried with.
const SEEDS: u64 = 4;

fn whole(input: &[u8]) -> Result<(Vec<u8>, Counts), RedactError> {
    let mut redactor = Redactor::new(&SnapshotKey::new(KEY).into());
    let mut out = Vec::new();
    redactor.push(input, &mut out)?;
    redactor.finish(&mut out)?;
    Ok((out, redactor.counts().clone()))
}

fn text_of(input: &str) -> String {
    String::from_utf8(whole(input.as_bytes()).expect("text").0).expect("text stays text")
}

/// Ways to write the same lines.
fn disguises(vector: &Rendered) -> Vec<(&'static str, Rendered)> {
    let stamp = |piece: &str| piece.replace('\n', "\n2026-11-22T07:15:23.123456789Z ");
    let once = vector.map(json_escaped);
    let twice = once.clone().framed("{\"m\":\"", "\"}").map(json_escaped);
    let thrice = twice.clone().framed("{\"m\":\"", "\"}").map(json_escaped);
    let frame = |inner: Rendered| inner.framed("{\"level\":\"info\",\"log\":\"", "\",\"n\":1}");
    let coloured = Rendered {
        stays: (0..vector.stays.len())
            .map(|i| {
                let open = if i == 0 { "" } else { "\u{1b}[0m" };
                let close = if i + 1 == vector.stays.len() { "" } else { "\u{1b}[1;31m" };
                format!("{open}{}{close}", vector.stays[i])
            })
            .collect(),
        secrets: vector.secrets.clone(),
    };
    vec![
        ("plain", vector.clone()),
        ("with a time stamp", vector.map(stamp).framed("2026-11-22T07:15:23.123456789Z ", "")),
        ("in JSON", frame(once)),
        ("in JSON twice", frame(twice)),
        ("in JSON three times", frame(thrice)),
        ("with colours", coloured),
        ("with a carriage return", vector.map(|p| p.replace('\n', "\r\n")).framed("", "\r\n")),
    ]
}

/// What is wrong with `out` as the redaction of `vector`.
fn fault(vector: &Rendered, out: &str) -> Option<String> {
    let mut rest = out;
    for (index, stays) in vector.stays.iter().enumerate() {
        let Some(tail) = rest.strip_prefix(stays.as_str()) else {
            return Some(format!("expected {stays:?} at {rest:?}"));
        };
        rest = tail;
        if index < vector.secrets.len() {
            let Some(end) = placeholder::end_at(rest.as_bytes(), 0) else {
                return Some(format!("expected a placeholder at {rest:?}"));
            };
            rest = &rest[end..];
        }
    }
    (!rest.is_empty()).then(|| format!("unexpected rest {rest:?}"))
}

/// What is left of the secrets of `vector` in `out`, for results whose exact form does not matter.
fn remains(vector: &Rendered, out: &str) -> Option<String> {
    let words = vector.secrets.iter().flat_map(|s| s.split(|c: char| !c.is_ascii_alphanumeric()));
    words
        .filter(|word| word.len() >= 6)
        .flat_map(|word| (0..=word.len() - 6).map(|at| &word[at..at + 6]))
        .find(|piece| out.contains(piece))
        .map(|piece| format!("{piece:?} is left in {out:?}"))
}

fn short(text: &str) -> String {
    text.chars().take(400).collect()
}

#[test]
fn every_positive_goes_and_its_surroundings_stay_in_every_disguise() {
    let mut faults = Vec::new();
    for (rule, template) in vectors::positives() {
        for (disguise, _) in disguises(&render(template, 0)) {
            for seed in 0..SEEDS {
                let forms = disguises(&render(template, seed));
                let (_, vector) = forms.iter().find(|(name, _)| *name == disguise).expect("form");
                let text = vector.text();
                let out = text_of(&text);
                // On one line a PEM block goes as a whole, with what is between its lines.
                let block = rule == "R21" && disguise.starts_with("in JSON");
                let fault = if block { remains(vector, &out) } else { fault(vector, &out) };
                if let Some(fault) = fault {
                    faults.push(format!(
                        "{rule} {disguise}: {}\n   {}",
                        short(&text),
                        short(&fault)
                    ));
                    break;
                }
                if let Err(leak) = scan_output(out.as_bytes()) {
                    faults
                        .push(format!("{rule} {disguise}: second engine: {leak}: {}", short(&out)));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn no_decoy_is_altered_in_any_disguise() {
    let mut faults = Vec::new();
    for template in vectors::decoys() {
        for (disguise, vector) in disguises(&render(template, 0)) {
            let text = vector.text();
            let out = text_of(&text);
            if out != text {
                faults.push(format!("{disguise}: {}\n   {}", short(&text), short(&out)));
            }
            if let Err(leak) = scan_output(out.as_bytes()) {
                faults.push(format!("{disguise}: second engine: {leak}: {}", short(&out)));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

/// Certificates are no secrets, and tell of people and of places all the same.
#[test]
fn every_block_goes_whatever_its_label_and_so_does_what_stands_after_its_mark() {
    let body = "MIID".to_owned() + &"aB3d".repeat(15);
    for label in ["PRIVATE KEY", "CERTIFICATE", "RSA PUBLIC KEY", "X509 CRL"] {
        let open = format!("-----BEGIN {label}-----");
        let block = format!("{open}\n{body}\n{body}\naB3dEf==\n-----END {label}-----");
        for text in [block.clone(), block.replace('\n', "\\n")] {
            assert!(!text_of(&text).contains("aB3d"), "{text}");
        }
        for secret in ["password=kestrelmauve7", "password: kestrelmauve7"] {
            for text in [
                format!("{open} {secret}"),
                format!("{open}\n{secret}"),
                format!("{open}\n{body}\n{secret}"),
            ] {
                assert!(!text_of(&text).contains("kestrel"), "{text}");
            }
        }
    }
}

/// Forms as they were met: what matters is that the secret is gone.
#[test]
fn every_form_of_the_field_is_known() {
    let mut faults = Vec::new();
    for &(rule, template) in vectors::field::POSITIVES {
        let forms = disguises(&render(template, 0));
        let missed: Vec<_> = (0..SEEDS)
            .flat_map(|seed| disguises(&render(template, seed)))
            .filter_map(|(disguise, vector)| {
                remains(&vector, &text_of(&vector.text())).map(|_| disguise)
            })
            .collect();
        if let Some(first) = missed.first() {
            let (_, vector) = forms.iter().find(|(name, _)| name == first).expect("form");
            faults.push(format!(
                "{rule} {first} ({}): {}\n   {}",
                missed.len(),
                short(&vector.text()),
                short(&text_of(&vector.text()))
            ));
        }
    }
    for &template in vectors::field::NEAR_MISSES {
        for (disguise, vector) in disguises(&render(template, 0)) {
            let text = vector.text();
            let out = text_of(&text);
            if out != text {
                faults.push(format!("decoy {disguise}: {}\n   {}", short(&text), short(&out)));
                break;
            }
        }
    }
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

/// The output of a stream that arrives in `chunks`.
fn in_chunks<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Result<Vec<u8>, RedactError> {
    let mut redactor = Redactor::new(&SnapshotKey::new(KEY).into());
    let mut out = Vec::new();
    for chunk in chunks {
        redactor.push(chunk, &mut out)?;
    }
    redactor.finish(&mut out)?;
    Ok(out)
}

#[test]
fn no_boundary_between_chunks_changes_the_output() {
    for (rule, template) in vectors::positives() {
        let text = render(template, 1).text();
        let expected = text_of(&text);
        // The longest vectors are the same letters over and over.
        for at in (0..=text.len()).filter(|at| *at < 600 || at % 97 == 0) {
            let (head, tail) = text.as_bytes().split_at(at);
            let out = in_chunks([head, tail]).expect("text");
            assert_eq!(String::from_utf8_lossy(&out), expected, "{rule} cut at {at}");
        }
        let bytes = in_chunks(text.as_bytes().chunks(1)).expect("text");
        assert_eq!(String::from_utf8_lossy(&bytes), expected, "{rule} byte by byte");
    }
}

#[test]
fn redacting_twice_is_redacting_once() {
    for (rule, template) in vectors::positives() {
        for (disguise, vector) in disguises(&render(template, 2)) {
            let once = text_of(&vector.text());
            assert_eq!(text_of(&once), once, "{rule} {disguise}");
        }
    }
}

#[test]
fn a_value_has_one_placeholder_inside_a_snapshot_and_another_in_the_next() {
    let hash = |key: u8, text: &str| {
        let mut counts = Counts::default();
        let out =
            redact_text(&SnapshotKey::new([key; 32]).into(), text, &mut counts).expect("text");
        let at = out.find("[R:password:").expect("a placeholder");
        out[at..].to_owned()
    };
    let plain = hash(1, "password=Hunter2");
    assert_eq!(plain, hash(1, "x password=Hunter2"));
    assert_eq!(plain, hash(1, "password=\u{1b}[31mHunter2"));
    assert_eq!(plain, hash(1, "?password=Hunter%32"));
    assert_ne!(plain, hash(2, "password=Hunter2"));
    assert_ne!(plain, hash(1, "password=Hunter3"));
}

#[test]
fn keys_are_found_through_colours_invisible_characters_and_escapes() {
    for text in [
        "pass\u{1b}[31mword=S3cretXy",
        "pa\u{200b}ss\u{ad}word=S3cretXy",
        "\u{ff50}\u{ff41}\u{ff53}\u{ff53}word\u{ff1d}S3cretXy",
        "password\u{a0}=\u{a0}S3cretXy",
        "password=\u{201c}S3cretXy\u{201d}",
        "q=p%61ssword%3DS3cretXy",
        "q=p%2561ssword%253DS3cretXy",
        "{\"a\":\"x?token\\u003dS3cretXy\\u0026b=1\"}",
        "\\x22password\\x22:\\x22S3cretXy\\x22",
        "PASSWORD=S3cretXy",
        "pAsSwOrD=S3cretXy",
    ] {
        let out = text_of(text);
        assert!(!out.contains("S3cretXy") && out.contains("[R:"), "{text}\n{out}");
    }
}

#[test]
fn an_endless_line_becomes_one_placeholder_with_its_length_and_keeps_its_time() {
    let long = "x".repeat(MAX_LINE + 1);
    let text = format!("one\n2026-11-22T07:15:23.1Z {long}\nthree\n");
    let (out, counts) = whole(text.as_bytes()).expect("text");
    let out = String::from_utf8(out).expect("text");
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("one"));
    let second = lines.next().expect("a line");
    assert!(second.starts_with("2026-11-22T07:15:23.1Z [R:line:"), "{second}");
    assert!(second.ends_with(&format!("] {} bytes", MAX_LINE + 24)), "{second}");
    assert_eq!(lines.next(), Some("three"));
    assert_eq!(counts.of(Class::Line), 1);
    for size in [1000, 65_536, MAX_LINE] {
        assert_eq!(in_chunks(text.as_bytes().chunks(size)).expect("text"), out.as_bytes());
    }
    let longest = "y".repeat(MAX_LINE);
    assert_eq!(text_of(&longest), longest);
}

#[test]
fn a_line_with_too_many_secrets_goes_as_a_whole() {
    let text = format!("2026-11-22T07:15:23.1Z Cookie: {}", "a=b;".repeat(40_000));
    let out = text_of(&text);
    assert!(out.starts_with("2026-11-22T07:15:23.1Z [R:line:") && out.len() < 60, "{out}");
}

#[test]
fn binary_input_is_refused_and_stays_refused() {
    let mut redactor = Redactor::new(&SnapshotKey::new(KEY).into());
    let mut out = Vec::new();
    let result = redactor.push(b"ok\n\0\0\0\0\0\0\0\0\0\n", &mut out);
    assert_eq!(result, Err(RedactError::Nul { count: 9, offset: 12 }));
    assert_eq!(redactor.push(b"more\n", &mut out), Err(RedactError::Ended));
    assert_eq!(redactor.finish(&mut out), Err(RedactError::Ended));

    let utf16: Vec<u8> = "password=x".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(matches!(whole(&utf16), Err(RedactError::Nul { .. })));
    assert!(matches!(whole(&[0xff; 40]), Err(RedactError::NotUtf8 { invalid: 40, offset: 40 })));
    // One line in Latin-1 is no reason to lose the log.
    let latin = b"caf\xe9 au lait password=S3cretXy\n";
    let (out, _) = whole(latin).expect("mostly text");
    assert!(out.starts_with(b"caf\xe9 au lait password=[R:password:"));
}

#[test]
fn no_placeholder_is_longer_than_the_rules_expect() {
    let longest = Class::ALL.iter().map(|class| class.name().len()).max();
    assert_eq!(longest.map(|name| name + "[R::12345678]".len()), Some(placeholder::LONGEST));
}

#[test]
fn counts_are_per_class_and_hold_no_value() {
    let (_, counts) = whole(b"password=S3cretXy\n10.1.2.3 and 10.1.2.4\n").expect("text");
    assert_eq!(counts.of(Class::Password), 1);
    assert_eq!(counts.of(Class::Ipv4), 2);
    assert_eq!(counts.total(), 3);
    let json = serde_json::to_string(&counts).expect("JSON");
    assert_eq!(json, r#"{"password":1,"ipv4":2}"#);
}

#[test]
fn the_second_engine_knows_what_the_first_one_takes_out() {
    let mut missed = Vec::new();
    for (rule, template) in vectors::positives() {
        let certain = [
            "«github»",
            "«gitlab»",
            "«slack»",
            "«npm»",
            "«aws»",
            "«entra»",
            "«jwt»",
            "«sa»",
            "AccountKey=«b64»",
        ];
        let known = certain.iter().any(|kind| template.contains(kind));
        let block = rule == "R21" && template.starts_with('⟦');
        if !known && !block {
            continue;
        }
        let text = render(template, 3).text();
        if scan_output(text.as_bytes()).is_ok() {
            missed.push(text);
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    let leak = scan_output(b"x\npassword=Zx9kQw3rT7yLm2\n").expect_err("a leak");
    assert_eq!((leak.pattern, leak.offset), ("password", 2));
    assert!(!leak.to_string().contains("Zx9"));
}

/// A line as applications write them.
fn some_line() -> impl Strategy<Value = Vec<u8>> {
    let positives: Vec<_> = vectors::positives().map(|(_, template)| template).collect();
    let decoys: Vec<_> = vectors::decoys().collect();
    prop_oneof![
        (proptest::sample::select(positives), any::<u64>()).prop_map(|(template, seed)| render(
            template, seed
        )
        .text()
        .into_bytes()),
        proptest::sample::select(decoys).prop_map(|text| text.as_bytes().to_vec()),
    ]
}

/// Such lines and noise, some without a line end.
fn some_log() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        some_line(),
        "[ -~]{0,60}".prop_map(String::into_bytes),
        "(\\PC|\\\\|\"|\\[|=|:){0,40}".prop_map(String::into_bytes),
        proptest::collection::vec(1_u8.., 0..12),
    ];
    let line = (line, prop_oneof![Just("\n"), Just("\r\n"), Just("")]);
    proptest::collection::vec(line, 0..12).prop_map(|lines| {
        lines.into_iter().flat_map(|(line, end)| [line, end.as_bytes().to_vec()].concat()).collect()
    })
}

/// The same cases in every run, but those of another seed where `PROPTEST_RNG_SEED` names one: a case in
/// ten thousand is for who looks for it (`PROPTEST_CASES`), not for a change that has nothing to do with it.
fn chosen() -> ProptestConfig {
    let given = ProptestConfig::default();
    let rng_seed = match given.rng_seed {
        RngSeed::Random => RngSeed::Fixed(8),
        seed => seed,
    };
    ProptestConfig { rng_seed, ..given }
}

proptest! {
    #![proptest_config(chosen())]

    #[test]
    fn chunks_of_any_size_give_the_same_output(
        log in some_log(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(log.len() + 1)).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([log.len()]) {
            chunks.push(&log[from..cut]);
            from = cut;
        }
        prop_assert_eq!(in_chunks(chunks), whole(&log).map(|(out, _)| out));
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow_without_bound(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok((out, counts)) = whole(&bytes) {
            // A placeholder stands for one byte at least.
            prop_assert!(out.len() <= bytes.len() + placeholder::LONGEST * counts.total() as usize);
            let _ = scan_output(&out);
        }
    }

    #[test]
    fn what_was_redacted_once_goes_through_unchanged(
        lines in proptest::collection::vec(some_line(), 0..12),
    ) {
        let (once, _) = whole(&lines.join(&b'\n')).expect("text");
        let (twice, _) = whole(&once).expect("redacted text is text");
        prop_assert_eq!(String::from_utf8_lossy(&twice), String::from_utf8_lossy(&once));
    }
}

#[test]
fn what_only_begins_like_a_place_or_a_name_is_no_place() {
    for line in [
        "secretKey=kestrelmauve",
        "jwt.secret-key: kestrelmauve",
        "tokenkey=kestrelmauve",
        "secretKey=my-secret-kestrel",
        "passwordKey=kestrelmauve",
        "password=vault:kestrelmauve",
        "password=ref+kestrelmauve",
        "password=/etc/kestrelmauve7",
        "password=/tmp/kestrelmauve",
        "PASSWORD=$KESTREL_MAUVE",
        "password=%KESTREL_MAUVE%",
        "password=op://kestrelmauve",
        "password=!secretkestrel",
        "password=$SECRET_kestrel",
        "USE_PASSWORD=kestrelmauve",
        "checksum/password: kestrelmauve",
        "json token=kestrelmauve7",
        "token: KESTRELMAUVE",
        "pwd=/kestrelmauve",
        "password=2026-11-22Tkestrelmauve",
        "password=$(cat<<<kestrelmauve7)",
    ] {
        let out = text_of(line).to_ascii_lowercase();
        assert!(!out.contains("kestrel"), "{line}: {out}");
    }
}
