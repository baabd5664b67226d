//! The machine keeps its invariants in orders that chance picks.

use mendix_agent_proto::v1::control_message::Body as Down;
use proptest::prelude::*;

use super::{
    invariants::{Happening, World, reconnects, report},
    *,
};

fn duration() -> impl Strategy<Value = Option<prost_types::Duration>> {
    prop_oneof![
        Just(None),
        (-10i64..5_000).prop_map(|seconds| Some(prost_types::Duration { seconds, nanos: 0 })),
        any::<(i64, i32)>()
            .prop_map(|(seconds, nanos)| { Some(prost_types::Duration { seconds, nanos }) }),
        (prop::sample::select(vec![i64::MIN, -1, 0, i64::MAX]), any::<i32>())
            .prop_map(|(seconds, nanos)| { Some(prost_types::Duration { seconds, nanos }) }),
    ]
}

fn capabilities() -> impl Strategy<Value = Option<v1::Capabilities>> {
    let names: Vec<String> = CAPABILITIES.iter().map(ToString::to_string).collect();
    let some = prop::sample::subsequence(names, 0..=CAPABILITIES.len());
    prop::option::of(some.prop_map(|names| v1::Capabilities { names }))
}

fn section() -> impl Strategy<Value = v1::DesiredSection> {
    use v1::desired_section::Body;
    let body = prop_oneof![
        Just(None),
        Just(Some(Body::Release(v1::ReleaseSection::default()))),
        Just(Some(Body::Tickets(v1::TicketsSection::default()))),
        Just(Some(Body::Requests(v1::RequestsSection::default()))),
    ];
    (-2i32..6, 0u64..4, body).prop_map(|(section, revision, body)| v1::DesiredSection {
        section,
        revision,
        body,
    })
}

fn down() -> impl Strategy<Value = Option<Down>> {
    prop_oneof![
        Just(None),
        (duration(), duration(), 0u32..3, capabilities()).prop_map(
            |(heartbeat_interval, max_session_age, late, capabilities)| {
                Some(Down::Welcome(v1::Welcome {
                    session_id: "s".into(),
                    protocol: if late == 0 { 2 } else { 1 },
                    heartbeat_interval,
                    max_session_age,
                    capabilities,
                    ..Default::default()
                }))
            }
        ),
        prop::collection::vec(section(), 0..4)
            .prop_map(|sections| Some(Down::DesiredState(v1::DesiredState { sections }))),
        (duration(), duration())
            .prop_map(|(deadline, spread)| Some(Down::Drain(v1::Drain { deadline, spread }))),
        duration().prop_map(|retry_after| Some(Down::Throttle(v1::Throttle { retry_after }))),
        Just(Some(Down::Deregistered(v1::Deregistered { reason: "gone".into() }))),
        any::<bool>().prop_map(|fits| {
            let size = limits::MAX_LEASE_ENVELOPE + usize::from(!fits);
            Some(Down::Lease(v1::Lease { envelope: vec![0; size] }))
        }),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0u32..4_000).prop_map(Happening::Wait),
        8 => Just(Happening::ToTheDeadline),
        6 => (0usize..3).prop_map(Happening::Dialled),
        2 => (0usize..4, any::<bool>()).prop_map(|(at, refused)| Happening::Closed(at, refused)),
        9 => (0usize..3, down()).prop_map(|(at, body)| Happening::Down(at, Box::new(body))),
        2 => (0usize..3, 0u64..6).prop_map(|(at, revision)| Happening::AckReport(at, revision)),
        3 => (0usize..3, 0u64..9).prop_map(|(at, sequence)| Happening::AckHeartbeat(at, sequence)),
        3 => (0u8..3, 0u8..4).prop_map(|(section, state)| Happening::Report(section, state)),
        1 => Just(Happening::LeaseRequest),
        2 => (1u64..9).prop_map(Happening::AuditCheckpoint),
        1 => Just(Happening::NewIdentity),
        4 => (0usize..40).prop_map(Happening::Again),
        14 => (0usize..2).prop_map(Happening::Serve),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_in_every_order(
        random: u64,
        happenings in prop::collection::vec(happening(), 0..120),
        shutdown: bool,
    ) {
        let mut world = World::new(random);
        for happening in happenings {
            world.live(happening);
        }
        if shutdown {
            world.step(Event::Shutdown);
            world.step(Event::NewIdentity);
            world.step(Event::Report(v1::Section::Health, report(0, 9).1));
        } else {
            reconnects(world);
        }
    }
}
