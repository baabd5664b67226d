use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::*;
use crate::labelled::Planted;
use crate::value::personal;

const SETS: [Set; 4] = Set::ALL;

/// Every template of a set under every wrapping.
fn every(set: Set, mut check: impl FnMut(&Sample, &[Planted])) {
    let wraps = [
        Wrap::Plain,
        Wrap::Json(1),
        Wrap::Json(2),
        Wrap::Json(3),
        Wrap::Cri,
        Wrap::CriJson,
        Wrap::Timestamps,
        Wrap::ColouredLines,
        Wrap::ColouredValues,
        Wrap::Percent,
    ];
    for template in 0..Library::of(set).templates.len() {
        for (at, wrap) in wraps.into_iter().enumerate() {
            let mut random = Random::of_sample(0x5eed, (template * wraps.len() + at) as u64);
            let (sample, labelled) = made(set, template, &mut random, Some(wrap));
            check(&sample, &labelled.secrets);
        }
    }
}

#[test]
fn a_range_holds_the_planted_value_whatever_was_wrapped_around_it() {
    for set in SETS {
        every(set, |sample, planted| {
            for (secret, planted) in sample.secrets.iter().zip(planted) {
                let text = sample.text.get(secret.range.clone());
                assert_eq!(text, Some(planted.value.as_str()), "{sample:?}");
                assert!(!planted.value.contains('\n') && !planted.value.trim().is_empty());
            }
            for decoy in &sample.decoys {
                assert!(
                    sample.text.get(decoy.clone()).is_some_and(|t| !t.is_empty()),
                    "{sample:?}"
                );
            }
        });
    }
}

#[test]
fn labels_do_not_overlap_and_no_placeholder_is_left() {
    for set in SETS {
        every(set, |sample, _| {
            let mut ranges: Vec<_> = sample.secrets.iter().map(|s| s.range.clone()).collect();
            ranges.extend(sample.decoys.iter().cloned());
            ranges.sort_by_key(|r| r.start);
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{sample:?}");
            assert!(!sample.text.contains(['«', '»', '‹', '›', '⏎', '⇥']), "{sample:?}");
        });
    }
}

#[test]
fn background_holds_no_secret_and_everything_else_one_of_its_class() {
    for set in SETS {
        every(set, |sample, _| match sample.about {
            None => assert!(sample.background && sample.secrets.is_empty(), "{sample:?}"),
            Some(class) => assert!(
                !sample.background && sample.secrets.iter().any(|s| s.class == class),
                "{sample:?}"
            ),
        });
    }
}

#[test]
fn an_unescaped_wrapping_gives_back_what_was_wrapped() {
    let mut nested = Labelled::default();
    nested.push("a=\"");
    nested.push_secret("p\\\"ä\u{1}<&", Class::Password);
    nested.push("\"\n");
    let twice = nested.encoded(labelled::json).encoded(labelled::json_html);
    let secret = &twice.secrets[0];
    assert_eq!(&twice.text[secret.range.clone()], r#"p\\\\\\\"ä\\u0001\u003c\u0026"#);
    assert_eq!(secret.value, twice.text[secret.range.clone()]);
    let mut form = Labelled::default();
    form.push_secret("a b&c", Class::Password);
    assert_eq!(form.encoded(labelled::form).text, "a+b%26c");
    let query = nested.encoded(labelled::percent);
    assert_eq!(&query.text[query.secrets[0].range.clone()], "p%5C%22%C3%A4%01%3C%26");
}

#[test]
fn the_same_seed_makes_the_same_corpus_and_a_longer_one_begins_with_it() {
    for set in SETS {
        let long = generate(set, 7, 600);
        assert_eq!(generate(set, 7, 600), long);
        assert_eq!(generate(set, 7, 200), long[..200]);
        assert_ne!(generate(set, 8, 600), long);
    }
}

#[test]
fn every_class_has_templates_enough_in_several_shapes() {
    for set in SETS {
        let mut shapes = BTreeMap::<_, BTreeSet<_>>::new();
        let library = Library::of(set);
        for template in &library.templates {
            shapes.entry(template.class).or_default().insert(template.shape);
        }
        for class in Class::ALL {
            let count = templates(set, Some(*class));
            assert!(count >= 12, "{set:?} has {count} templates for {class}");
            assert!(shapes[&Some(*class)].len() >= 2, "{set:?} {class}");
        }
        let used: BTreeSet<_> = library.templates.iter().map(|t| t.shape).collect();
        assert_eq!(used.len(), Shape::ALL.len(), "{set:?}");
        assert!(templates(set, None) >= 150, "{set:?} has {} ordinary", templates(set, None));
    }
    let labelled: usize = Class::ALL.iter().map(|c| templates(Set::Evaluation, Some(*c))).sum();
    assert!(labelled >= 1000, "{labelled}");
}

#[test]
fn the_evaluation_set_has_ten_classes_and_more_in_every_shape_but_pem() {
    let mut classes = BTreeMap::<Shape, BTreeSet<Class>>::new();
    for template in &Library::of(Set::Evaluation).templates {
        classes.entry(template.shape).or_default().extend(template.class);
    }
    for shape in Shape::ALL.iter().filter(|shape| **shape != Shape::Pem) {
        assert!(classes[shape].len() >= 10, "{shape}: {:?}", classes[shape]);
    }
}

#[test]
fn the_sets_share_no_template_and_no_template_comes_twice() {
    let mut of_text = HashMap::<String, Set>::new();
    for set in SETS {
        let mut texts = BTreeSet::new();
        for template in &Library::of(set).templates {
            // White space at the ends and letter case make no template another one.
            let text = template.text.trim().to_lowercase();
            assert!(texts.insert(text.clone()), "twice in {set:?}: {}", template.text);
            let other = of_text.insert(text, set);
            assert_eq!(other, None, "in {set:?}, too: {}", template.text);
        }
    }
}

/// A rule that was written for one phrase would pass if the next set had the phrase with another
/// front or key: what is left of a template without its placeholders must be its own, too.
#[test]
fn the_evaluation_set_shares_no_wording_either() {
    // A PEM block has no words but those of its format.
    let wordings = |set| -> BTreeMap<String, &'static str> {
        let templates = Library::of(set).templates.iter();
        let worded = templates.filter(|t| t.class != Some(Class::Pem));
        worded.map(|t| (wording(t.text), t.text)).collect()
    };
    let mine = wordings(Set::Evaluation);
    for other in [Set::Development, Set::Validation, Set::Rehearsal] {
        for (wording, text) in wordings(other) {
            if wording.split_whitespace().count() >= 4 {
                assert!(!mine.contains_key(&wording), "{other:?} has {text}");
            }
        }
    }
}

/// The letters of a template outside of its placeholders.
fn wording(template: &str) -> String {
    let mut out = String::new();
    let mut depth = 0_usize;
    for c in template.chars() {
        match c {
            '«' | '‹' => depth += 1,
            '»' | '›' => depth -= 1,
            c if depth > 0 || c.is_ascii_digit() => {}
            c if c.is_alphabetic() => out.extend(c.to_lowercase()),
            _ => out.push(' '),
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn checksums_hold() {
    let mut seen = HashMap::<Class, usize>::new();
    for set in SETS {
        every(set, |sample, planted| {
            if sample.wrap != Wrap::Plain {
                return;
            }
            for secret in planted {
                let digits: String = secret.value.chars().filter(char::is_ascii_digit).collect();
                let holds = match secret.class {
                    Class::Iban => {
                        let iban: String = secret
                            .value
                            .replace("%20", "")
                            .chars()
                            .filter(char::is_ascii_alphanumeric)
                            .collect();
                        personal::mod_97(&format!("{}{}", &iban[4..], &iban[..4])) == 1
                    }
                    Class::Card => personal::luhn(&digits) && (13..=16).contains(&digits.len()),
                    Class::Bsn => personal::eleven(&digits),
                    Class::Ipv4 => secret.value.parse::<std::net::Ipv4Addr>().is_ok(),
                    Class::Ipv6 => secret.value.parse::<std::net::Ipv6Addr>().is_ok(),
                    _ => continue,
                };
                assert!(holds, "{:?} in {}", secret, sample.text);
                *seen.entry(secret.class).or_default() += 1;
            }
        });
    }
    assert!(seen.len() == 5 && seen.values().all(|n| *n >= 24), "{seen:?}");
}

#[test]
fn check_digits_are_those_of_published_examples() {
    assert_eq!(personal::mod_97("WEST12345698765432GB82"), 1);
    assert_eq!(personal::mod_97("ABNA0417164300NL91"), 1);
    assert!(personal::luhn("4111111111111111") && !personal::luhn("4111111111111112"));
    assert!(personal::eleven("111222333") && !personal::eleven("111222334"));
}

#[test]
fn a_generated_corpus_holds_every_class_wrapping_and_share_of_background() {
    for set in SETS {
        let samples = generate(set, 1, 6000);
        let classes: BTreeSet<_> =
            samples.iter().flat_map(|s| &s.secrets).map(|s| s.class).collect();
        assert_eq!(classes.len(), Class::ALL.len());
        let wraps: BTreeSet<_> = samples.iter().map(|s| s.wrap).collect();
        assert_eq!(wraps.len(), 10, "{wraps:?}");
        assert_eq!(samples.iter().filter(|s| s.background).count(), 2000);
    }
}
