//! The table against an automaton.

use proptest::prelude::*;

use super::*;

/// Everything that a scan reports.
#[derive(Default)]
struct Found {
    stems: Vec<(usize, usize)>,
    digits: Vec<usize>,
    addresses: Vec<usize>,
}

impl Reader for Found {
    const NUMBERS: bool = true;

    fn stem(&mut self, _rule: Rule, start: usize, end: usize) {
        self.stems.push((start, end));
    }

    fn digits(&mut self, at: usize) -> usize {
        self.digits.push(at);
        at
    }

    fn address(&mut self, at: usize) -> usize {
        self.addresses.push(at);
        at
    }
}

fn folded() -> Vec<Vec<u8>> {
    stems().map(|(stem, _)| stem.bytes().map(|b| b | 0x20).collect()).collect()
}

fn by_automaton(text: &[u8]) -> Vec<(usize, usize)> {
    let automaton = aho_corasick::AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(folded())
        .expect("stems make an automaton");
    let mut found: Vec<_> =
        automaton.find_overlapping_iter(text).map(|m| (m.start(), m.end())).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn by_table(text: &[u8]) -> Vec<(usize, usize)> {
    let mut reader = Found::default();
    STEMS.scan(text, 0, &mut reader);
    let mut found = reader.stems;
    // `|0x20` folds a few signs as well (`@` and `` ` ``); the automaton folds letters only.
    let stems = folded();
    found.retain(|&(s, e)| stems.iter().any(|stem| stem.eq_ignore_ascii_case(&text[s..e])));
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn table_is_small_enough_for_its_indices() {
    let (candidates, letters) = (STEMS.candidates.len(), STEMS.letters.len());
    assert!(candidates.max(letters) < usize::from(u16::MAX), "{candidates}, {letters}");
    assert!(stems().all(|(stem, _)| (3..=i8::MAX as usize).contains(&stem.len())));
    assert!(super::super::super::prefixed::VENDORS.len() < 256);
    let alarms: u32 = STEMS.bits.iter().map(|w| w.count_ones() * w.count_ones()).sum();
    let share = f64::from(alarms) / (WORDS * 64 * 64) as f64;
    assert!(share < 0.02, "{share} of all windows are false alarms");
}

#[test]
fn every_stem_is_found_at_even_and_odd_places_and_at_the_very_end() {
    for stem in folded() {
        for pad in 0..4 {
            for tail in ["", " ", "x", "=1234"] {
                let mut text = vec![b'.'; pad];
                text.extend_from_slice(&stem);
                text.extend_from_slice(tail.as_bytes());
                let expected = (pad, pad + stem.len());
                assert!(by_table(&text).contains(&expected), "{stem:?}");
                let upper = text.to_ascii_uppercase();
                assert!(by_table(&upper).contains(&expected), "{stem:?}");
            }
        }
    }
}

#[test]
fn stems_of_one_window_are_reported_in_the_order_of_the_list() {
    #[derive(Default)]
    struct Rules(Vec<Rule>);

    impl Reader for Rules {
        const NUMBERS: bool = false;

        fn stem(&mut self, rule: Rule, _start: usize, _end: usize) {
            self.0.push(rule);
        }

        fn digits(&mut self, at: usize) -> usize {
            at
        }

        fn address(&mut self, at: usize) -> usize {
            at
        }
    }

    for (text, expected) in [
        ("call x", vec![Rule::Phone, Rule::Fragment]),
        ("keystore", vec![Rule::Key, Rule::KeyWord]),
        ("keyname=", vec![Rule::Key, Rule::KeyName]),
    ] {
        let mut rules = Rules::default();
        STEMS.scan(text.as_bytes(), 0, &mut rules);
        rules.0.retain(|rule| expected.contains(rule));
        assert_eq!(rules.0, expected, "{text}");
    }
}

/// Whether four digits begin at the place `i`, and whether an address may have its first sign after it.
fn mark_at(block: &[u8; BLOCK], i: usize) -> (bool, bool) {
    let row = |byte: u8| byte & 0xf0 == 0x30;
    let hex = |byte: u8| row(byte) || byte & 0xd0 == 0x40;
    let begins = i.is_multiple_of(2) || !row(block[i - 1]);
    let digits = block[i..i + 4].iter().all(|&b| row(b)) && begins;
    let (before, sign, after) = (block[i], block[i + 1], block[i + 2]);
    let dot = sign == b'.' && row(before) && row(after) && block[i + 3..i + 6].contains(&b'.');
    let colon = sign == b':' && hex(before) && hex(after);
    (digits, dot || colon)
}

proptest! {
    #[test]
    fn numbers_are_reported_wherever_they_stand(text in "[0-9a-f:. x]{0,60}") {
        let text = text.as_bytes();
        let mut found = Found::default();
        STEMS.scan(text, 0, &mut found);
        let row = |b: u8| matches!(b, b'0'..=b'9' | b':');
        let hex = |b: u8| row(b) || matches!(b, b'a'..=b'f');
        let digits: Vec<usize> = (0..text.len().saturating_sub(3))
            .filter(|&at| at % 2 == 0 || !row(text[at - 1]))
            .filter(|&at| text[at..at + 4].iter().all(|&b| row(b)))
            .collect();
        let addresses: Vec<usize> = (1..text.len().saturating_sub(1))
            .filter(|&at| match text[at] {
                b'.' => {
                    let again = text[at + 1..].iter().take(4).skip(1).any(|&b| b == b'.');
                    row(text[at - 1]) && row(text[at + 1]) && again
                }
                b':' => hex(text[at - 1]) && hex(text[at + 1]),
                _ => false,
            })
            .collect();
        prop_assert_eq!(found.digits, digits);
        prop_assert_eq!(found.addresses, addresses);
    }

    #[test]
    fn eight_places_at_once_have_what_each_has_alone(
        text in proptest::array::uniform21(prop_oneof![any::<u8>(), b'.'..=b':', b'9'..=b'h']),
    ) {
        let places: Vec<(bool, bool)> = (0..STEP).map(|i| mark_at(&text, i)).collect();
        let Marks { digits, address } = numbers(&text);
        let bit = |marks: u64, i: usize| marks >> i & 1 == 1;
        let found: Vec<_> = (0..STEP).map(|i| (bit(digits, i), bit(address, i))).collect();
        prop_assert_eq!(found, places);
    }

    #[test]
    fn table_and_automaton_find_the_same(
        pieces in proptest::collection::vec(
            prop_oneof![
                "[ -~]{0,6}".prop_map(String::from),
                (0..KEY_STEMS.len()).prop_map(|i| KEY_STEMS[i].0.to_owned()),
                (0..KEY_STEMS.len()).prop_map(|i| KEY_STEMS[i].0.to_uppercase()),
            ],
            0..12,
        )
    ) {
        let text = pieces.concat().into_bytes();
        prop_assert_eq!(by_table(&text), by_automaton(&text));
    }
}
