//! A thousand consents, each with something wrong in it, through a real agent: the API server's audit
//! log has no read of a pod's log, the kubelet was not asked, the control plane has no byte, and the
//! wire carried no connection but the session's.

use mendix_agent_core::{
    consent::{
        grant::{DataClass, GRANT_PAYLOAD_TYPE, Grant, Window},
        lease::LEASE_PAYLOAD_TYPE,
    },
    envelope::{SigningKey, sha256},
    seal,
};
use mendix_control_plane::store::{RequestKind, RequestRecord, TicketGrant};

use super::*;

const CONSENTS: usize = 1020;
/// Tickets that an agent follows at once, less some.
const AT_ONCE: usize = 60;

/// SplitMix64: the same consents in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).unwrap()
    }

    fn hours(&mut self, most: i64) -> SignedDuration {
        SignedDuration::from_mins(1 + i64::try_from(self.roll() % (60 * most as u64)).unwrap())
    }

    fn text(&mut self) -> String {
        format!("{:x}", self.roll())
    }
}

struct Portal {
    consent: SigningKey,
    status: SigningKey,
    recipient: String,
}

impl Portal {
    fn of(world: &World) -> Self {
        let key = |name: &str| {
            let path = world.plane.store().dir().join("portal").join(name);
            SigningKey::from_pkcs8(&std::fs::read(path).unwrap()).unwrap()
        };
        let recipient = seal::generate_recipient_keypair().unwrap().0.to_base64();
        Self { consent: key("consent.pk8"), status: key("status.pk8"), recipient }
    }

    fn grant(&self, world: &World, ticket: &str, n: usize) -> Grant {
        let (now, hours) = (Timestamp::now(), SignedDuration::from_hours);
        Grant {
            version: 1,
            grant_id: format!("grant-{n}"),
            cluster_uid: world.uid.clone(),
            ticket_id: ticket.into(),
            scopes: vec![Scope::LogSharing],
            consented_by: "somebody".into(),
            consented_at: now - hours(2),
            consented_how: "portal-ticket-form".into(),
            components: vec![COMPONENT.into()],
            data_classes: vec![DataClass::ComponentLogs, DataClass::Events, DataClass::Status],
            window: Window { from: now - hours(24), to: now + hours(1) },
            not_before: now - hours(2),
            expires_at: now + hours(2),
            budget: Budget { snapshots: 5, bytes: 1 << 28 },
            min_redaction_policy: 1,
            recipient_public_key: self.recipient.clone(),
            status_key_id: self.status.keyid(),
        }
    }

    /// An envelope with one thing wrong in it, or none at all.
    fn spoiled(&self, world: &World, ticket: &str, n: usize, dice: &mut Dice) -> Option<Vec<u8>> {
        let mut grant = self.grant(world, ticket, n);
        let (now, key, kind) = (Timestamp::now(), &self.consent, GRANT_PAYLOAD_TYPE);
        let stranger = SigningKey::from_seed(&[7; 32]).unwrap();
        let mut payload = None;
        let (mut key, mut kind) = (key, kind);
        let what = n % FAULTS;
        match what {
            0 => grant.version = 2 + dice.below(1000) as u32,
            1 => {
                grant.grant_id = [String::new(), "../x".into(), "a b".into(), "x".repeat(65)]
                    [dice.below(4)]
                .clone()
            }
            2 => grant.cluster_uid = dice.text(),
            3 => grant.ticket_id = dice.text(),
            4 => {
                grant.scopes = [vec![], vec![Scope::DirectEnvironmentAccess]][dice.below(2)].clone()
            }
            5 => grant.consented_by = " ".repeat(dice.below(3)),
            6 => grant.consented_how = "x".repeat(257 + dice.below(50)),
            7 => grant.consented_at = now + SignedDuration::from_mins(6) + dice.hours(1),
            8 => {
                grant.components =
                    vec![["*", "nois?", "noisy-*", "Noisy", "", "a/b"][dice.below(6)].into()]
            }
            9 => grant.components.push(dice.text()),
            10 => grant.components = vec![COMPONENT.into(), COMPONENT.into()],
            11 => grant.components.clear(),
            12 => grant.data_classes.clear(),
            13 => grant.window.from = grant.window.to + dice.hours(10),
            14 => grant.window.from = now - SignedDuration::from_hours(241) - dice.hours(1000),
            15 => grant.window.from = now + SignedDuration::from_mins(30),
            16 => grant.not_before = now + SignedDuration::from_mins(6) + dice.hours(1),
            17 => grant.expires_at = now - dice.hours(1),
            18 => {
                grant.expires_at =
                    grant.not_before + SignedDuration::from_hours(72) + dice.hours(99)
            }
            19 => grant.budget.snapshots = 0,
            20 => grant.budget.bytes = 0,
            21 => grant.min_redaction_policy = 1000 + dice.below(1000) as u32,
            22 => grant.recipient_public_key = dice.text(),
            23 => grant.status_key_id = dice.text(),
            24 => key = &self.status,
            25 => key = &stranger,
            26 => kind = LEASE_PAYLOAD_TYPE,
            // A field that nobody knows; a field twice; a field that is missing.
            27..=29 => {
                let text = serde_json::to_string(&grant).unwrap();
                let mut value: Value = serde_json::from_str(&text).unwrap();
                payload = Some(match what {
                    27 => {
                        value[dice.text()] = true.into();
                        value.to_string()
                    }
                    28 => text.replacen('{', "{\"version\":1,", 1),
                    _ => {
                        let map = value.as_object_mut().unwrap();
                        let name = map.keys().nth(dice.below(map.len())).unwrap().clone();
                        map.remove(&name);
                        value.to_string()
                    }
                });
            }
            // Bytes changed on the way, cut off, or more of them.
            30..=34 => {}
            // No grant at all.
            _ => return None,
        }
        let payload =
            payload.map_or_else(|| serde_json::to_vec(&grant).unwrap(), String::into_bytes);
        let mut envelope = key.sign(kind, &payload);
        match what {
            30..=32 => loop {
                let (at, now) = (dice.below(envelope.len()), b'0' + dice.below(10) as u8);
                if envelope[at] != now {
                    envelope[at] = now;
                    break;
                }
            },
            33 => envelope.truncate(1 + dice.below(envelope.len() - 1)),
            34 => envelope.extend_from_slice(b"{}"),
            _ => {}
        }
        Some(envelope)
    }
}

/// Kinds of faults in [`Portal::spoiled`].
const FAULTS: usize = 36;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_invalid_consents_bring_no_read_and_no_byte() {
    let mut world = noisy_world().await;
    world.start_agent().await;
    let (portal, mut dice) = (Portal::of(&world), Dice(4711));
    let template = world.open_ticket(None);
    let mut reasons = BTreeSet::new();
    let mut refused = 0;
    while refused < CONSENTS {
        let mut tickets = vec![];
        let mut requests = vec![];
        for n in refused..refused + AT_ONCE {
            let ticket_id = format!("t-{n}");
            let grant =
                portal.spoiled(&world, &ticket_id, n, &mut dice).map(|envelope| TicketGrant {
                    sha256: hex::encode(sha256(&envelope)),
                    envelope: String::from_utf8(envelope).unwrap(),
                    recipient: portal.recipient.clone(),
                    budget_bytes: 1 << 28,
                    lease_sequence: 0,
                });
            requests.push(RequestRecord {
                request_id: format!("req-{n}"),
                created_at: Timestamp::now(),
                kind: RequestKind::Snapshot { ticket_id: ticket_id.clone(), components: vec![] },
            });
            tickets.push(TicketRecord { ticket_id, grant, ..template.clone() });
        }
        // The control plane is in other hands: it lists what it likes.
        let placed = requests.clone();
        world.rewrite(|cluster| {
            cluster.tickets.revision += 1;
            cluster.tickets.value = tickets;
            cluster.requests.revision += 1;
            cluster.requests.value = requests;
        });
        for request in &placed {
            world.outcome(request).await;
        }
        let done = world.plane.store().cluster(&world.uid).unwrap().done;
        for n in refused..refused + AT_ONCE {
            let id = format!("req-{n}");
            let done = done.iter().find(|done| done.request.request_id == id).unwrap();
            assert_eq!(done.outcome, "Refused", "{id}: {done:?}");
            assert_eq!(done.snapshot_id, "");
            reasons.insert(done.reason.clone());
        }
        refused += AT_ONCE;
    }
    assert!(reasons.len() >= 10, "{reasons:?}");
    assert_nothing_left(&world);
    assert_eq!(world.snapshots().await.len(), 0);
    // Enrolment, and for each session itself and a look for newer keys of the portal: an upload
    // would have a connection of its own.
    let after = world.proxy.seen();
    let sessions = world.plane.counters().sessions;
    assert!(after.connections <= 1 + 2 * sessions, "{after:?} with {sessions} sessions");
    let figures = world.audit.as_ref().unwrap().figures();
    assert_eq!(figures.refusals.values().sum::<u64>(), refused as u64);
    let records = decisions(&world).await;
    let written = records.iter().filter(|r| r.event["kind"] == "snapshot-refused").count();
    assert_eq!(written, refused);
    assert!(records.iter().all(|r| r.event["kind"] != "snapshot-allowed"));

    // The same instruments do see a snapshot that is consented to.
    world.rewrite(|cluster| {
        cluster.tickets.revision += 1;
        cluster.tickets.value.clear();
    });
    let (_, request) = world.open_ticket_with_request(Some(consent()));
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    assert!(world.log_reads() > 0 && world.plane.counters().snapshot_bytes > 0);
    assert!(world.proxy.seen().connections > after.connections);
    world.stop_agent().await;
    println!("{refused} consents refused for {} reasons: {reasons:?}", reasons.len());
}
