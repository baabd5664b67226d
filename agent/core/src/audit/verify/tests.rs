use proptest::prelude::*;

use super::{super::log::tests as logs, *};

/// A log of two segments: thirty short records and a few long ones between them.
fn stored() -> Vec<Segment> {
    let (_, segments) = logs::written((0..12).map(logs::event));
    segments
}

fn lines(segments: &[Segment]) -> Vec<String> {
    segments.iter().flat_map(|s| s.records.lines()).map(str::to_owned).collect()
}

/// The segment with other lines, and an end that fits them: whoever edits can do that much.
fn of(lines: &[String]) -> Vec<Segment> {
    let chain = lines.last().map(|line| hex::encode(record::hash(line))).unwrap_or_default();
    let records = lines.iter().map(|line| format!("{line}\n")).collect();
    vec![Segment { number: 1, records, chain }]
}

fn findings(segments: Vec<Segment>, checkpoints: &[Checkpoint]) -> Vec<Finding> {
    verify(segments, Some(logs::CLUSTER), checkpoints).findings
}

fn checkpoint(lines: &[String], sequence: usize) -> Checkpoint {
    Checkpoint { sequence: sequence as u64, chain: record::hash(&lines[sequence - 1]) }
}

#[test]
fn an_untouched_log_is_sound_and_confirms_its_checkpoints() {
    let lines = lines(&stored());
    let kept = [checkpoint(&lines, 4), checkpoint(&lines, 12)];
    let verdict = verify(stored(), Some(logs::CLUSTER), &kept);
    assert!(verdict.is_sound() && verdict.unproven.is_empty(), "{verdict:?}");
    assert_eq!((verdict.records, verdict.first), (12, 1));
    assert_eq!(verdict.confirmed, kept);
    assert_eq!(verdict.end, Some(kept[1]));
}

#[test]
fn an_altered_record_is_named() {
    let mut lines = lines(&stored());
    lines[4] = lines[4].replace("NoGrant", "Expired");
    let expected = Finding::Altered { sequence: 5, segment: 1, line: 5 };
    assert_eq!(findings(of(&lines), &[]), [expected]);
}

#[test]
fn a_record_whose_link_was_altered_is_named_and_the_one_before_it_is_unproven() {
    let mut lines = lines(&stored());
    let previous = hex::encode(Record::parse(&lines[4]).unwrap().previous().unwrap());
    lines[4] = lines[4].replace(&previous, &"0".repeat(64));
    let verdict = verify(of(&lines), None, &[]);
    assert_eq!(verdict.findings, [Finding::Altered { sequence: 5, segment: 1, line: 5 }]);
    assert_eq!(verdict.unproven, [4]);
}

#[test]
fn an_altered_record_that_is_no_record_any_more_is_named_by_its_place() {
    for rubbish in ["", "{}", "rubbish"] {
        let mut lines = lines(&stored());
        lines[6] = rubbish.into();
        let verdict = verify(of(&lines), None, &[]);
        assert_eq!(
            verdict.findings,
            [Finding::Altered { sequence: 7, segment: 1, line: 7 }],
            "{rubbish:?}"
        );
    }
}

#[test]
fn a_record_that_claims_another_number_is_named_by_its_place() {
    let mut lines = lines(&stored());
    lines[4] = lines[4].replace("\"sequence\":5", "\"sequence\":50");
    let expected = Finding::Altered { sequence: 5, segment: 1, line: 5 };
    assert_eq!(findings(of(&lines), &[]), [expected]);
}

#[test]
fn removed_records_are_named() {
    let mut lines = lines(&stored());
    lines.drain(4..6);
    let verdict = verify(of(&lines), None, &[]);
    assert_eq!(verdict.findings, [Finding::Removed { first: 5, last: 6 }]);
    assert_eq!(verdict.unproven, [4], "its witness is among them");
}

#[test]
fn a_removed_beginning_is_only_seen_with_a_checkpoint() {
    let mut lines = lines(&stored());
    let kept = [checkpoint(&lines, 2), checkpoint(&lines, 3), checkpoint(&lines, 12)];
    lines.drain(..3);
    let verdict = verify(of(&lines), None, &kept);
    assert!(verdict.is_sound(), "older segments are dropped in time: {verdict:?}");
    assert_eq!(verdict.first, 4);
    assert_eq!(verdict.confirmed, [kept[1], kept[2]]);
    assert_eq!(verdict.not_covered, [kept[0]]);
}

#[test]
fn moved_records_are_named() {
    let mut lines = lines(&stored());
    let moved = lines.remove(2);
    lines.insert(8, moved);
    let expected = Finding::Moved { sequence: 3, segment: 1, line: 9 };
    assert_eq!(findings(of(&lines), &[]), [expected]);
}

#[test]
fn a_repeated_record_is_named() {
    let mut lines = lines(&stored());
    lines.insert(8, lines[2].clone());
    let expected = Finding::Repeated { sequence: 3, segment: 1, line: 9 };
    assert_eq!(findings(of(&lines), &[]), [expected]);
}

#[test]
fn an_inserted_line_is_named() {
    let mut lines = lines(&stored());
    lines.insert(8, "not a record".into());
    let found = findings(of(&lines), &[]);
    assert!(matches!(found[..], [Finding::NoRecord { segment: 1, line: 9, .. }]), "{found:?}");
}

#[test]
fn a_tail_that_was_cut_off_shows_against_a_checkpoint() {
    let mut lines = lines(&stored());
    let kept = checkpoint(&lines, 12);
    lines.truncate(9);
    assert_eq!(findings(of(&lines), &[]), [], "consistent in itself");
    let expected = Finding::CutOff { end: 9, checkpoint: 12 };
    assert_eq!(findings(of(&lines), &[kept]), std::slice::from_ref(&expected));
    let nothing = Finding::CutOff { end: 0, checkpoint: 12 };
    assert_eq!(findings(vec![], &[kept]), [nothing]);
    // Cut off without mending the end of the segment.
    let mut segment = of(&lines);
    segment[0].chain = hex::encode(kept.chain);
    assert_eq!(findings(segment, &[kept]), [Finding::SegmentEnd { segment: 1 }, expected]);
}

#[test]
fn a_log_that_was_written_anew_shows_against_a_checkpoint() {
    let lines = lines(&stored());
    let (_, forged) = logs::written((0..12).map(|n| logs::event(if n == 3 { 99 } else { n })));
    assert_eq!(findings(forged.clone(), &[]), [], "consistent in itself");
    assert_eq!(findings(forged.clone(), &[checkpoint(&lines, 3)]), []);
    let found = findings(forged, &[checkpoint(&lines, 12)]);
    assert_eq!(found, [Finding::Rewritten { sequence: 12 }]);
}

#[test]
fn a_log_of_another_cluster_is_no_log_of_this_one() {
    let verdict = verify(stored(), Some("c-2"), &[]);
    assert_eq!(
        verdict.findings[0],
        Finding::OtherCluster { sequence: 1, cluster: logs::CLUSTER.into() }
    );
    // Its records are renamed and chained anew, its beginning is not.
    let first = lines(&stored())[0].replace("\"c-1\"", "\"c-2\"");
    assert_eq!(findings_of_one(&first), [Finding::Beginning { cluster: "c-2".into() }]);
}

fn findings_of_one(line: &str) -> Vec<Finding> {
    verify(of(&[line.to_owned()]), Some("c-2"), &[]).findings
}

#[test]
fn a_missing_segment_is_a_gap() {
    let large = |n: usize| {
        let (at, _) = logs::event(n);
        let fields = vec!["x".repeat(200); 60];
        let claimed_by = "somebody".into();
        (at, super::super::Event::Drift { object: n.to_string(), fields, claimed_by, times: 1 })
    };
    let (_, mut segments) = logs::written((0..70).map(large));
    assert!(segments.len() >= 3);
    let gone = segments.remove(1);
    let first = Record::parse(gone.records.lines().next().unwrap()).unwrap().sequence;
    let last = first + gone.records.lines().count() as u64 - 1;
    let verdict = verify(segments, None, &[]);
    assert_eq!(verdict.findings, [Finding::Removed { first, last }]);
    assert!(verdict.unproven.is_empty(), "the segment before it names its own end");
}

proptest! {
    /// Whatever is done to one line, the log is not sound, and the finding names the place.
    #[test]
    fn any_single_change_shows_against_the_last_checkpoint(
        at in 0usize..12,
        byte in any::<prop::sample::Index>(),
        what in 0u8..4,
    ) {
        let original = lines(&stored());
        let kept = [checkpoint(&original, 12)];
        let mut changed = original.clone();
        match what {
            0 => {
                let mut bytes = changed[at].clone().into_bytes();
                let byte = byte.index(bytes.len());
                bytes[byte] = if bytes[byte] == b'0' { b'1' } else { b'0' };
                changed[at] = String::from_utf8(bytes).unwrap();
            }
            1 => { changed.remove(at); }
            2 => changed.swap(at, byte.index(12)),
            _ => changed.insert(byte.index(12), original[at].clone()),
        }
        let verdict = verify(of(&changed), Some(logs::CLUSTER), &kept);
        // Removing the first record alone looks like a beginning that was dropped in time.
        let looks_dropped = what == 1 && at == 0;
        if changed != original && !looks_dropped {
            prop_assert!(!verdict.is_sound(), "{what} at {at}: {verdict:?}");
        }
        if what == 0 && at < 11 {
            let sequence = at as u64 + 1;
            let named = matches!(
                verdict.findings[..],
                [Finding::Altered { sequence: s, .. }] if s == sequence
            );
            prop_assert!(named, "{:?}", verdict.findings);
        }
    }

    /// Verification of anything ends, and finds something wrong with rubbish.
    #[test]
    fn arbitrary_lines_are_judged_without_panic(lines in proptest::collection::vec(".{0,80}", 1..20)) {
        let verdict = verify(of(&lines), None, &[]);
        prop_assert!(!verdict.is_sound());
    }
}
