use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sender_with(chunks: &[usize]) -> Sender {
    let mut sender = Sender::new();
    for &len in chunks {
        sender.accept(Bytes::from(vec![1; len])).unwrap();
    }
    sender
}

#[test]
fn acks_ahead_behind_and_inside_a_chunk_are_refused() {
    let mut sender = sender_with(&[10, 20]);
    assert_eq!(sender.acknowledged(31), Err(TransferError::AckAhead { next_offset: 31, sent: 30 }));
    assert_eq!(sender.acknowledged(11), Err(TransferError::AckInsideChunk { next_offset: 11 }));
    sender.acknowledged(10).unwrap();
    sender.acknowledged(10).unwrap();
    assert_eq!(sender.acknowledged(0), Err(TransferError::AckBehind { next_offset: 0, acked: 10 }));
    assert_eq!(sender.acked(), 10);
}

#[test]
fn no_more_than_the_window_is_ever_unacknowledged() {
    let mut sender = sender_with(&[MAX_SNAPSHOT_CHUNK, MAX_SNAPSHOT_CHUNK]);
    assert!(!sender.room());
    let refused = sender.accept(Bytes::from_static(b"x")).unwrap_err();
    assert_eq!(refused, TransferError::NoRoom { unacked: MAX_SNAPSHOT_UNACKED });
    sender.acknowledged(MAX_SNAPSHOT_CHUNK as u64).unwrap();
    assert!(sender.room());
}

#[test]
fn an_upload_resumes_from_what_the_server_has() {
    let mut sender = sender_with(&[10, 20]);
    sender.acknowledged(10).unwrap();
    sender.disconnected(at(100));
    sender.disconnected(at(150));
    assert!(!sender.room());
    assert_eq!(sender.accept(Bytes::from_static(b"x")), Err(TransferError::Disconnected));
    // The first ack of the lost connection may not have arrived: the server may have more.
    let again = sender.resume(at(160), 10).unwrap();
    assert_eq!(again.iter().map(|c| c.offset).collect::<Vec<_>>(), [10]);
    sender.disconnected(at(200));
    assert!(sender.resume(at(201), 30).unwrap().is_empty());
    assert!(sender.totals().is_ok());
}

#[test]
fn after_the_resume_window_a_new_snapshot_is_needed() {
    let mut sender = sender_with(&[10]);
    sender.disconnected(at(100));
    assert_eq!(sender.resume(at(161), 0), Err(TransferError::TooLate { down: at(61) }));
}

#[test]
fn a_server_that_lost_acknowledged_bytes_is_not_resumed() {
    let mut sender = sender_with(&[10, 20]);
    sender.acknowledged(10).unwrap();
    sender.disconnected(at(0));
    let refused = sender.resume(at(1), 0).unwrap_err();
    assert_eq!(refused, TransferError::AckBehind { next_offset: 0, acked: 10 });
}

#[test]
fn totals_need_every_byte_acknowledged() {
    let mut sender = sender_with(&[10]);
    assert_eq!(sender.totals(), Err(TransferError::Incomplete { unacked: 10 }));
    sender.acknowledged(10).unwrap();
    assert_eq!(sender.totals(), Ok(Totals { size: 10, sha256: hash(&[1; 10]) }));
}

#[test]
fn the_receiver_refuses_gap_overlap_damage_and_excess() {
    let data = [1, 2, 3];
    let sum = hash(&data);
    let mut receiver = Receiver::new(7);
    receiver.accept(0, &data, &sum).unwrap();
    let refused = [
        (receiver.accept(4, &data, &sum), ReceiveError::Gap { offset: 4, expected: 3 }),
        (receiver.accept(0, &data, &sum), ReceiveError::Overlap { offset: 0, expected: 3 }),
        (receiver.accept(3, &[1, 2, 4], &sum), ReceiveError::Checksum { offset: 3 }),
        (receiver.accept(3, &data, &sum[..31]), ReceiveError::Checksum { offset: 3 }),
        (receiver.accept(3, &[], &hash(&[])), ReceiveError::ChunkSize { size: 0 }),
    ];
    for (result, expected) in refused {
        assert_eq!(result, Err(expected));
    }
    receiver.accept(3, &data, &sum).unwrap();
    assert_eq!(
        receiver.accept(6, &data, &sum),
        Err(ReceiveError::OverLimit { offset: 6, limit: 7 })
    );
    let big = vec![0; MAX_SNAPSHOT_CHUNK + 1];
    let mut roomy = Receiver::new(u64::MAX);
    assert!(matches!(roomy.accept(0, &big, &hash(&big)), Err(ReceiveError::ChunkSize { .. })));
    assert_eq!(receiver.next_offset(), 6);
    assert!(receiver.finish(6, &hash(&[1, 2, 3, 1, 2, 3])).is_ok());
    assert!(receiver.finish(7, &hash(&[1, 2, 3, 1, 2, 3])).is_err());
    assert!(receiver.finish(6, &hash(&[1, 2, 3, 1, 2])).is_err());
}

#[test]
fn a_receiver_goes_on_from_what_it_stored() {
    let stored = vec![9; 100_000];
    let mut receiver = Receiver::restored(200_000, stored.as_slice()).unwrap();
    assert_eq!(receiver.next_offset(), 100_000);
    receiver.accept(100_000, &[1], &hash(&[1])).unwrap();
    let all: Vec<u8> = stored.iter().copied().chain([1]).collect();
    assert!(receiver.finish(100_001, &hash(&all)).is_ok());
    assert!(Receiver::restored(99_999, stored.as_slice()).is_err());
}

/// What the network may do between the two.
#[derive(Clone, Debug)]
enum Event {
    /// The next chunk is made and sent.
    Send(usize),
    /// The server gets the oldest chunk in flight.
    Deliver,
    /// The agent gets the server's acknowledgement.
    Ack,
    /// All that is in flight is lost; reconnected after so many seconds.
    Break(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1usize..=MAX_SNAPSHOT_CHUNK).prop_map(Event::Send),
        4 => Just(Event::Deliver),
        4 => Just(Event::Ack),
        1 => (0u64..=60).prop_map(Event::Break),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the network loses, the receiver ends with exactly the sender's bytes, and the
    /// window holds all the time.
    #[test]
    fn a_lossy_connection_delivers_every_byte_once(
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut sender = Sender::new();
        let mut receiver = Receiver::new(u64::MAX);
        let mut flight: VecDeque<OutChunk> = VecDeque::new();
        let mut now = Duration::ZERO;
        let deliver = |receiver: &mut Receiver, chunk: &OutChunk| {
            receiver.accept(chunk.offset, &chunk.data, &chunk.sha256).unwrap();
        };
        for event in events {
            match event {
                Event::Send(len) if sender.room() => {
                    let fill = u8::try_from(sender.sent() % 251).unwrap();
                    flight.push_back(sender.accept(Bytes::from(vec![fill; len])).unwrap());
                }
                Event::Send(_) => {}
                Event::Deliver => {
                    if let Some(chunk) = flight.pop_front() {
                        deliver(&mut receiver, &chunk);
                    }
                }
                Event::Ack => sender.acknowledged(receiver.next_offset()).unwrap(),
                Event::Break(seconds) => {
                    flight.clear();
                    sender.disconnected(now);
                    now += Duration::from_secs(seconds);
                    flight.extend(sender.resume(now, receiver.next_offset()).unwrap());
                }
            }
            prop_assert!(sender.sent() - sender.acked() <= MAX_SNAPSHOT_UNACKED as u64);
        }
        while let Some(chunk) = flight.pop_front() {
            deliver(&mut receiver, &chunk);
        }
        sender.acknowledged(receiver.next_offset()).unwrap();
        let totals = sender.totals().unwrap();
        prop_assert_eq!(receiver.finish(totals.size, &totals.sha256), Ok(totals));
    }

    /// No sequence of acknowledgements makes the sender forget a byte the server may not have.
    #[test]
    fn arbitrary_acks_never_move_past_what_was_sent(
        acks in proptest::collection::vec(0u64..100, 0..40),
    ) {
        let mut sender = sender_with(&[10, 20, 30]);
        for ack in acks {
            let before = sender.acked();
            let moved = sender.acknowledged(ack).is_ok();
            prop_assert_eq!(moved, [0, 10, 30, 60].contains(&ack) && ack >= before);
            prop_assert_eq!(sender.acked(), if moved { ack } else { before });
        }
    }
}
