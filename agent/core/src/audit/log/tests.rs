use super::*;

pub(in crate::audit) const CLUSTER: &str = "c-1";

pub(in crate::audit) fn event(n: usize) -> (Timestamp, Event) {
    let event = Event::SnapshotRefused {
        request: format!("req-{n}"),
        ticket: "MX-1".into(),
        reason: "NoGrant".into(),
    };
    ("2026-11-22T10:00:00Z".parse().unwrap(), event)
}

/// Events that fill a segment with a few of them.
fn large(n: usize) -> (Timestamp, Event) {
    let event = Event::Drift {
        object: format!("ConfigMap a/{n}"),
        fields: vec!["x".repeat(200); 60],
        claimed_by: "somebody".into(),
        times: 1,
    };
    ("2026-11-22T10:00:00Z".parse().unwrap(), event)
}

/// A store that never fails: what it holds after appending one event after the other.
pub(in crate::audit) fn written(
    events: impl IntoIterator<Item = (Timestamp, Event)>,
) -> (Log, Vec<Segment>) {
    let (mut log, mut stored) = (Log::empty(CLUSTER), Vec::new());
    for event in events {
        append(&mut log, &mut stored, &[event], u64::MAX).unwrap();
    }
    (log, stored)
}

fn append(
    log: &mut Log,
    stored: &mut Vec<Segment>,
    events: &[(Timestamp, Event)],
    acknowledged: u64,
) -> Result<usize, AppendError> {
    let plan = log.plan(events, acknowledged)?;
    if let Some(drop) = plan.drop {
        stored.retain(|segment| segment.number != drop);
    }
    match stored.iter_mut().find(|segment| segment.number == plan.segment.number) {
        Some(segment) => *segment = plan.segment.clone(),
        None => stored.push(plan.segment.clone()),
    }
    let taken = plan.taken;
    log.apply(plan);
    Ok(taken)
}

#[test]
fn what_was_written_is_read_back_and_continued() {
    let (log, stored) = written((0..5).map(event));
    assert_eq!(log.end().unwrap().sequence, 5);
    let again = Log::load(CLUSTER, stored.clone()).unwrap();
    assert_eq!(again, log);
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].records.lines().count(), 5);
    assert_eq!(log.place(5), Place::Known(log.end().unwrap().chain));
    assert_eq!(log.place(0), Place::Known(record::genesis(CLUSTER)));
    assert_eq!(log.place(6), Place::Beyond);
}

#[test]
fn a_full_segment_is_left_alone_and_the_chain_goes_on_in_the_next() {
    let (log, stored) = written((0..60).map(large));
    assert!(stored.len() > 2, "{} segments", stored.len());
    assert!(stored.iter().all(|segment| segment.records.len() <= MAX_SEGMENT));
    let numbers: Vec<_> = stored.iter().map(|segment| segment.number).collect();
    assert_eq!(numbers, (1..=u32::try_from(stored.len()).unwrap()).collect::<Vec<_>>());
    assert_eq!(Log::load(CLUSTER, stored.clone()).unwrap(), log);
    // A record in the middle of an old segment has to be looked up there.
    assert_eq!(log.place(2), Place::In(1));
    assert!(find(&stored[0].records, 2).is_some());
}

#[test]
fn a_batch_that_does_not_fit_is_taken_in_rounds() {
    let (mut log, mut stored) = (Log::empty(CLUSTER), Vec::new());
    let events: Vec<_> = (0..60).map(large).collect();
    let mut left = &events[..];
    let mut rounds = 0;
    while !left.is_empty() {
        let taken = append(&mut log, &mut stored, left, 0).unwrap();
        assert!(taken > 0);
        left = &left[taken..];
        rounds += 1;
    }
    assert_eq!(rounds, stored.len());
    assert_eq!(log.end().unwrap().sequence, 60);
}

#[test]
fn the_oldest_segment_goes_only_once_its_end_was_acknowledged() {
    let (mut log, mut stored) = (Log::empty(CLUSTER), Vec::new());
    let mut n = 0;
    let full = loop {
        match append(&mut log, &mut stored, &[large(n)], 0) {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(stored.len(), MAX_SEGMENTS);
    let oldest_end = stored[0].records.lines().count() as u64;
    assert_eq!(full, AppendError::Full { oldest_end });
    // One short of its end is not enough.
    assert_eq!(append(&mut log, &mut stored, &[large(n)], oldest_end - 1), Err(full));
    append(&mut log, &mut stored, &[large(n)], oldest_end).unwrap();
    assert_eq!(stored.len(), MAX_SEGMENTS);
    assert_eq!(stored[0].number, 2);
    assert_eq!(log.place(1), Place::Dropped);
    assert_eq!(Log::load(CLUSTER, stored).unwrap(), log);
}

#[test]
fn a_damaged_end_is_not_continued() {
    let (_, stored) = written((0..3).map(event));
    let change = |edit: &dyn Fn(&mut Segment)| {
        let mut stored = stored.clone();
        edit(&mut stored[0]);
        Log::load(CLUSTER, stored)
    };
    let middle = change(&|s| s.records = s.records.replace("req-1", "req-9"));
    assert_eq!(middle, Err(LoadError::Broken { segment: 1, line: 3 }));
    let last = change(&|s| s.records = s.records.replace("req-2", "req-9"));
    assert_eq!(last, Err(LoadError::Broken { segment: 1, line: 3 }));
    let half = change(&|s| s.records.truncate(s.records.len() - 20));
    assert!(matches!(half, Err(LoadError::Record { segment: 1, line: 3, .. })));
    let nothing = change(&|s| s.records.clear());
    assert_eq!(nothing, Err(LoadError::Empty { segment: 1 }));
    let other = Log::load("c-2", stored.clone());
    assert!(matches!(other, Err(LoadError::OtherCluster { segment: 1, .. })));
}
