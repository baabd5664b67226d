//! One valid situation, and every way to make a single thing in it wrong.

use proptest::prelude::*;

use super::*;
use crate::{
    consent::{
        grant::{
            Budget,
            tests::{consent_key, grant, signed, status_key, trust},
        },
        keys::ConsentKeys,
        lease::{Heard, LEASE_PAYLOAD_TYPE, Lease},
        policy::{LocalPolicy, Mode, Reading},
    },
    envelope::{SigningKey, sha256},
};

const NONCE: [u8; 16] = [5; 16];

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn boot(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Everything the gate looks at. `Default` is a situation in which a snapshot may be taken.
#[derive(Clone)]
pub(super) struct Situation {
    pub(super) cluster_uid: String,
    pub(super) managed: BTreeSet<String>,
    pub(super) redaction_policy: u32,
    deregistered: bool,
    listed: bool,
    ticket: Ticket,
    grant: Grant,
    grant_signer: u8,
    /// Overrides the envelope made from `grant`.
    envelope: Option<Vec<u8>>,
    pub(super) wish_ticket: String,
    pub(super) wish_components: Vec<String>,
    lease: Lease,
    lease_signer: u8,
    lease_for_other_grant: bool,
    asked: [u8; 16],
    policy: Reading,
    policy_read_at: Duration,
    pub(super) ledger: Ledger,
    pub(super) now: Now,
}

impl Default for Situation {
    fn default() -> Self {
        let grant = grant();
        Self {
            cluster_uid: "cluster-1".into(),
            managed: ["mendix-operator", "ingress", "monitoring"].map(String::from).into(),
            redaction_policy: 1,
            deregistered: false,
            listed: true,
            ticket: Ticket {
                id: "MX-1001".into(),
                status: Status::Open,
                origin: Origin::Customer,
                severity: "HIGH",
                title: String::new(),
                grant_envelope: vec![],
            },
            grant_signer: 1,
            envelope: None,
            wish_ticket: "MX-1001".into(),
            wish_components: vec![],
            lease: Lease {
                version: 1,
                grant_sha256: String::new(),
                cluster_uid: "cluster-1".into(),
                ticket_id: "MX-1001".into(),
                ticket_status: "OPEN".into(),
                sequence: 7,
                nonce: hex::encode(NONCE),
                issued_at: time("2026-11-20T12:00:00Z"),
            },
            lease_signer: 2,
            lease_for_other_grant: false,
            asked: NONCE,
            policy: Reading::Present(LocalPolicy {
                mode: Mode::WithConsent,
                suspend: false,
                excluded_components: BTreeSet::new(),
                max_window_hours: Some(24),
                extra_patterns: ExtraPatterns::default(),
            }),
            policy_read_at: boot(1000),
            ledger: Ledger::default(),
            now: Now { wall: time("2026-11-20T12:00:00Z"), boot: boot(1001) },
            grant,
        }
    }
}

impl Situation {
    pub(super) fn envelope(&self) -> Vec<u8> {
        self.envelope.clone().unwrap_or_else(|| {
            SigningKey::from_seed(&[self.grant_signer; 32])
                .unwrap()
                .sign(grant::GRANT_PAYLOAD_TYPE, &serde_json::to_vec(&self.grant).unwrap())
        })
    }

    pub(super) fn ticket(&self) -> Ticket {
        let mut ticket = self.ticket.clone();
        if ticket.grant_envelope.is_empty() {
            ticket.grant_envelope = self.envelope();
        } else {
            // The marker for "carries no grant".
            ticket.grant_envelope.clear();
        }
        ticket
    }

    /// The whole gate, as the edge goes through it.
    fn decide(&self) -> Result<(ActiveConsent, LeaseClock, PolicyView), Refusal> {
        let trust = trust();
        let ticket = self.ticket();
        let candidate = consider(
            Facts {
                cluster_uid: &self.cluster_uid,
                trust: &trust,
                managed: &self.managed,
                redaction_policy: self.redaction_policy,
            },
            Told { ticket: self.listed.then_some(&ticket), deregistered: self.deregistered },
            Wish { ticket_id: &self.wish_ticket, components: &self.wish_components },
            &self.ledger,
            self.now.wall,
        )?;
        let mut clock = candidate.lease_clock();
        clock.ask(self.asked, boot(1000));
        let mut lease = self.lease.clone();
        if lease.grant_sha256.is_empty() {
            let named =
                if self.lease_for_other_grant { b"other".to_vec() } else { self.envelope() };
            lease.grant_sha256 = hex::encode(sha256(&named));
        }
        let signer = SigningKey::from_seed(&[self.lease_signer; 32]).unwrap();
        let envelope = signer.sign(LEASE_PAYLOAD_TYPE, &serde_json::to_vec(&lease).unwrap());
        clock.hear(&envelope)?;
        let mut policy = PolicyView::default();
        policy.observe(self.policy_read_at, self.policy.clone());
        candidate
            .admit(&clock, &policy, &self.ledger, self.now)
            .map(|consent| (consent, clock, policy))
    }

    /// Edits the policy; where another fault has removed it, there is nothing to edit.
    fn local(&mut self, edit: impl FnOnce(&mut LocalPolicy)) {
        if let Reading::Present(policy) = &mut self.policy {
            edit(policy);
        }
    }

    /// Spends one snapshot, as far as other faults let it.
    fn spend(&mut self, grant: &Grant, at: &str) {
        let _refused_already = self.ledger.begin(grant, time(at));
    }
}

#[test]
fn with_everything_in_order_consent_names_what_may_be_collected() {
    let (consent, ..) = Situation::default().decide().unwrap();
    assert_eq!(consent.components(), ["mendix-operator", "ingress"]);
    assert_eq!(
        consent.window(),
        Window { from: time("2026-11-20T06:00:00Z"), to: time("2026-11-20T12:00:00Z") },
        "the end is fixed at the start"
    );
    assert!(consent.allows(DataClass::Events) && !consent.allows(DataClass::RuntimeLogs));
    assert_eq!(consent.grant_sha256(), &sha256(&signed(&grant())));
}

#[test]
fn a_wish_narrows_and_the_customer_narrows_further() {
    let mut situation = Situation { wish_components: vec!["ingress".into()], ..Default::default() };
    assert_eq!(situation.decide().unwrap().0.components(), ["ingress"]);
    situation.wish_components.clear();
    situation.local(|p| {
        p.excluded_components.insert("mendix-operator".into());
    });
    situation.local(|p| p.max_window_hours = Some(2));
    let (consent, ..) = situation.decide().unwrap();
    assert_eq!(consent.components(), ["ingress"]);
    assert_eq!(consent.excluded(), ["mendix-operator"]);
    assert_eq!(consent.window().from, time("2026-11-20T10:00:00Z"));
}

#[test]
fn an_automatic_ticket_needs_a_customers_act() {
    let mut situation = Situation::default();
    situation.ticket.origin = Origin::Automatic;
    assert!(situation.decide().is_ok(), "with a grant it is like any other");
    situation.ticket.grant_envelope = vec![0];
    assert_eq!(situation.decide().unwrap_err().code(), "AutomaticTicket");
}

/// A name, the code to be seen, and what makes it wrong.
pub(super) type Fault = (&'static str, &'static str, fn(&mut Situation));

/// Each makes exactly one thing wrong.
pub(super) const FAULTS: &[Fault] = &[
    ("deregistered", "Deregistered", |s| s.deregistered = true),
    ("ticket not listed", "NoTicket", |s| s.listed = false),
    ("another ticket asked", "NoTicket", |s| s.wish_ticket = "MX-1002".into()),
    ("no grant", "NoGrant", |s| s.ticket.grant_envelope = vec![0]),
    ("grant signed by nobody known", "GrantInvalid", |s| s.grant_signer = 9),
    ("grant signed by the status key", "GrantInvalid", |s| s.grant_signer = 2),
    ("grant is rubbish", "GrantInvalid", |s| s.envelope = Some(b"{}".to_vec())),
    ("grant of another kind", "GrantInvalid", |s| {
        let payload = serde_json::to_vec(&s.grant).unwrap();
        s.envelope = Some(consent_key().sign(LEASE_PAYLOAD_TYPE, &payload));
    }),
    ("grant.version", "GrantField", |s| s.grant.version = 2),
    ("grant.grant_id empty", "GrantField", |s| s.grant.grant_id.clear()),
    ("grant.grant_id odd", "GrantField", |s| s.grant.grant_id = "../1".into()),
    ("grant.cluster_uid", "WrongCluster", |s| s.grant.cluster_uid = "cluster-2".into()),
    ("grant.ticket_id", "WrongTicket", |s| s.grant.ticket_id = "MX-1002".into()),
    ("grant.ticket_id in other case", "WrongTicket", |s| s.grant.ticket_id = "mx-1001".into()),
    ("grant.scopes empty", "ScopeMissing", |s| s.grant.scopes.clear()),
    ("grant.scopes access only", "ScopeMissing", |s| {
        s.grant.scopes = vec![Scope::DirectEnvironmentAccess];
    }),
    ("grant.consented_by", "GrantField", |s| s.grant.consented_by = " ".into()),
    ("grant.consented_how", "GrantField", |s| s.grant.consented_how.clear()),
    ("grant.consented_at ahead", "GrantField", |s| {
        s.grant.consented_at = time("2026-11-20T12:06:00Z");
    }),
    ("grant.components empty", "GrantField", |s| s.grant.components.clear()),
    ("grant.components wildcard", "GrantField", |s| s.grant.components.push("*".into())),
    ("grant.components twice", "GrantField", |s| s.grant.components.push("ingress".into())),
    ("grant.components unmanaged", "ComponentNotManaged", |s| {
        s.grant.components.push("shop".into());
    }),
    ("component no longer managed", "ComponentNotManaged", |s| {
        s.managed.remove("ingress");
    }),
    ("component outside the grant", "ComponentNotGranted", |s| {
        s.wish_components = vec!["monitoring".into()];
    }),
    ("grant.data_classes", "GrantField", |s| s.grant.data_classes.clear()),
    ("grant.window reversed", "GrantField", |s| s.grant.window.to = s.grant.window.from),
    ("grant.window too long", "GrantField", |s| {
        s.grant.window.from = time("2026-11-11T08:59:59Z");
    }),
    ("grant.window ahead", "WindowExcluded", |s| {
        s.grant.window.from = time("2026-11-20T12:00:00Z");
    }),
    ("grant.not_before", "NotYetValid", |s| s.grant.not_before = time("2026-11-20T12:05:01Z")),
    ("grant.expires_at", "Expired", |s| s.grant.expires_at = time("2026-11-20T12:00:00Z")),
    ("grant valid too long", "GrantField", |s| {
        s.grant.expires_at = time("2026-11-23T09:00:01Z");
    }),
    ("clock before the grant", "NotYetValid", |s| s.now.wall = time("2026-11-20T08:54:59Z")),
    ("clock after the grant", "Expired", |s| s.now.wall = time("2026-11-21T09:00:00Z")),
    ("clock set back after the grant's end", "Expired", |s| {
        let other = Grant { grant_id: "other".into(), ..grant() };
        s.spend(&other, "2026-11-21T09:00:00Z");
    }),
    ("grant.budget.snapshots", "GrantField", |s| s.grant.budget.snapshots = 0),
    ("grant.budget.bytes", "GrantField", |s| s.grant.budget.bytes = 0),
    ("grant.min_redaction_policy", "RedactionTooOld", |s| s.grant.min_redaction_policy = 2),
    ("older build", "RedactionTooOld", |s| s.redaction_policy = 0),
    ("grant.recipient_public_key no key", "RecipientKey", |s| {
        s.grant.recipient_public_key = "a2V5".into();
    }),
    ("grant.recipient_public_key open to all", "RecipientKey", |s| {
        s.grant.recipient_public_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
    }),
    ("grant.status_key_id not pinned", "StatusKeyNotPinned", |s| {
        s.grant.status_key_id = "0123456789abcdef".into();
    }),
    ("grant.status_key_id is the consent key", "StatusKeyNotPinned", |s| {
        s.grant.status_key_id = consent_key().keyid();
    }),
    ("ticket solved", "TicketInactive", |s| s.ticket.status = Status::Solved),
    ("ticket status unknown", "TicketInactive", |s| s.ticket.status = Status::Unknown),
    ("lease signed by another status key", "LeaseUnsigned", |s| s.lease_signer = 3),
    ("lease signed by the consent key", "LeaseUnsigned", |s| s.lease_signer = 1),
    ("lease.version", "LeaseInvalid", |s| s.lease.version = 2),
    ("lease for another grant", "LeaseMissing", |s| s.lease_for_other_grant = true),
    ("lease.cluster_uid", "LeaseInvalid", |s| s.lease.cluster_uid = "cluster-2".into()),
    ("lease.ticket_id", "LeaseInvalid", |s| s.lease.ticket_id = "MX-1002".into()),
    ("lease.ticket_status solved", "TicketInactive", |s| s.lease.ticket_status = "SOLVED".into()),
    ("lease.ticket_status unknown", "TicketInactive", |s| s.lease.ticket_status = "NEW".into()),
    ("lease.nonce", "LeaseInvalid", |s| s.lease.nonce = hex::encode([6; 16])),
    ("nothing asked", "LeaseInvalid", |s| s.asked = [7; 16]),
    ("lease too old", "LeaseMissing", |s| {
        s.now.boot = boot(1060);
        s.policy_read_at = boot(1059);
    }),
    ("policy absent", "PolicyAbsent", |s| s.policy = Reading::Absent),
    ("policy invalid", "PolicyUnreadable", |s| s.policy = Reading::Invalid),
    ("policy unreadable", "PolicyUnreadable", |s| s.policy = Reading::Failed),
    ("policy old", "PolicyUnreadable", |s| s.policy_read_at = boot(986)),
    ("policy denies", "PolicyDenies", |s| s.local(|p| p.mode = Mode::Deny)),
    ("policy suspended", "PolicySuspended", |s| s.local(|p| p.suspend = true)),
    ("policy excludes all", "ComponentsExcluded", |s| {
        let all = ["mendix-operator", "ingress"].map(String::from).into();
        s.local(|p| p.excluded_components = all);
    }),
    ("policy allows no window", "WindowExcluded", |s| s.local(|p| p.max_window_hours = Some(0))),
    ("policy asks for a pattern that is none", "PolicyPatterns", |s| {
        s.local(|p| p.extra_patterns = ExtraPatterns::new(vec!["(".into()]));
    }),
    ("grant voided", "GrantVoided", |s| {
        s.ledger.void(&grant(), "Solved", time("2026-11-20T11:00:00Z"));
    }),
    ("snapshots spent", "SnapshotsSpent", |s| {
        s.grant.budget.snapshots = 1;
        s.spend(&grant(), "2026-11-20T11:00:00Z");
    }),
    ("bytes spent", "BytesSpent", |s| {
        s.grant.budget = Budget { snapshots: 9, bytes: 1 };
        s.spend(&grant(), "2026-11-20T11:00:00Z");
    }),
    ("grant id used by another ticket", "WrongTicket", |s| {
        let other = Grant { ticket_id: "MX-9".into(), ..grant() };
        s.spend(&other, "2026-11-20T11:00:00Z");
    }),
];

#[test]
fn each_single_fault_is_refused_with_its_own_code() {
    for (name, expected, spoil) in FAULTS {
        let mut situation = Situation::default();
        spoil(&mut situation);
        match situation.decide() {
            Ok(_) => panic!("{name}: a snapshot would have been taken"),
            Err(refusal) => {
                assert_eq!(refusal.code(), *expected, "{name}: {refusal}");
                assert!(!refusal.next_step().is_empty());
            }
        }
    }
}

/// What a fault speaks of. Of two that speak of the same, the later can mend the earlier: a component
/// that is added twice to a list that was emptied is in it once. Combinations take one of each.
fn subject(fault: &Fault) -> &'static str {
    let name = fault.0;
    let speaks_of = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if speaks_of(&["component"]) {
        "components"
    } else if speaks_of(&["clock", "not_before", "expires_at", "valid too long", "consented_at"]) {
        "time"
    } else if speaks_of(&["window"]) {
        "window"
    } else if speaks_of(&["budget", "spent"]) {
        "budget"
    } else {
        name
    }
}

/// Whether these faults, the last of them applied first, still let a snapshot be taken.
fn passes_with(faults: &[&Fault], situation: Situation) -> bool {
    let mut situation = situation;
    for fault in faults.iter().rev() {
        (fault.2)(&mut situation);
    }
    situation.decide().is_ok()
}

/// Whatever else is wrong as well, one fault is enough.
#[test]
fn no_two_faults_make_a_consent() {
    for first in FAULTS {
        for second in FAULTS.iter().filter(|second| subject(second) != subject(first)) {
            assert!(
                !passes_with(&[first, second], Situation::default()),
                "{} after {}: a snapshot would have been taken",
                first.0,
                second.0
            );
        }
    }
}

proptest! {
    /// The same with more of them, at any time within the lease that is not before that of
    /// `Default`, from which "policy old" counts.
    #[test]
    fn no_combination_of_faults_makes_a_consent(
        picks in prop::sample::subsequence((0..FAULTS.len()).collect::<Vec<_>>(), 1..6),
        boots in 1u64..59,
    ) {
        let mut situation = Situation::default();
        situation.now.boot = boot(1000 + boots);
        situation.policy_read_at = situation.now.boot;
        prop_assert!(situation.decide().is_ok());
        let mut subjects = BTreeSet::new();
        let faults: Vec<&Fault> = picks
            .iter()
            .map(|pick| &FAULTS[*pick])
            .filter(|fault| subjects.insert(subject(fault)))
            .collect();
        prop_assert!(!passes_with(&faults, situation));
    }

    /// Any bit of the envelopes that was changed on the way is found.
    #[test]
    fn an_altered_grant_never_passes(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut envelope = signed(&grant());
        let at = at.index(envelope.len());
        envelope[at] ^= 1 << bit;
        let situation = Situation { envelope: Some(envelope), ..Default::default() };
        prop_assert!(situation.decide().is_err());
    }
}

#[test]
fn consent_ends_with_the_first_thing_that_changes() {
    let situation = Situation::default();
    let (consent, lease, policy) = situation.decide().unwrap();
    let ticket = situation.ticket();
    let told = |ticket| Told { ticket: Some(ticket), deregistered: false };
    let now = situation.now;
    assert!(consent.still_holds(&trust(), told(&ticket), &lease, &policy, now).is_ok());

    let code = |result: Result<(), Refusal>| result.unwrap_err().code();
    let solved = Ticket { status: Status::Solved, ..ticket.clone() };
    assert_eq!(
        code(consent.still_holds(&trust(), told(&solved), &lease, &policy, now)),
        "TicketInactive"
    );
    let stripped = Ticket { grant_envelope: vec![], ..ticket.clone() };
    assert_eq!(
        code(consent.still_holds(&trust(), told(&stripped), &lease, &policy, now)),
        "NoGrant"
    );
    let gone = Told { ticket: None, deregistered: false };
    assert_eq!(code(consent.still_holds(&trust(), gone, &lease, &policy, now)), "NoTicket");
    let left = Told { ticket: Some(&ticket), deregistered: true };
    assert_eq!(code(consent.still_holds(&trust(), left, &lease, &policy, now)), "Deregistered");
    let late = Now { wall: grant().expires_at, ..now };
    assert_eq!(
        code(consent.still_holds(&trust(), told(&ticket), &lease, &policy, late)),
        "Expired"
    );
    let silent = Now { boot: boot(1060), ..now };
    assert_eq!(
        code(consent.still_holds(&trust(), told(&ticket), &lease, &policy, silent)),
        "LeaseMissing"
    );
    let frozen = Now { boot: boot(1015), ..now };
    assert_eq!(
        code(consent.still_holds(&trust(), told(&ticket), &lease, &policy, frozen)),
        "PolicyUnreadable"
    );
    let mut excluding = situation;
    excluding.local(|p| {
        p.excluded_components.insert("ingress".into());
    });
    let mut narrowed = PolicyView::default();
    narrowed.observe(boot(1001), excluding.policy.clone());
    assert_eq!(
        code(consent.still_holds(&trust(), told(&ticket), &lease, &narrowed, now)),
        "ComponentsExcluded"
    );
    let mut patterned = Situation::default();
    patterned.local(|p| p.extra_patterns = ExtraPatterns::new(vec!["order [0-9]+".into()]));
    let mut other = PolicyView::default();
    other.observe(boot(1001), patterned.policy.clone());
    let ended = consent.still_holds(&trust(), told(&ticket), &lease, &other, now);
    assert_eq!(code(ended), "PatternsChanged");
    let key = SigningKey::from_seed(&[9; 32]).unwrap().pinned();
    let status = vec![status_key().pinned()];
    let rotated = ConsentKeys { version: 1, sequence: 1, consent: vec![key], status };
    let rotated = Trust::parse(&serde_json::to_vec(&rotated).unwrap()).unwrap();
    let ended = consent.still_holds(&rotated, told(&ticket), &lease, &policy, now);
    assert_eq!(code(ended), "KeyRotated");
}

fn lease(clock: &LeaseClock, sequence: u64, nonce: [u8; 16], status: &str) -> Vec<u8> {
    let lease = Lease {
        version: 1,
        grant_sha256: hex::encode(clock.grant_sha256()),
        cluster_uid: "cluster-1".into(),
        ticket_id: "MX-1001".into(),
        ticket_status: status.into(),
        sequence,
        nonce: hex::encode(nonce),
        issued_at: time("2026-11-20T12:00:00Z"),
    };
    status_key().sign(LEASE_PAYLOAD_TYPE, &serde_json::to_vec(&lease).unwrap())
}

fn clock() -> LeaseClock {
    let signed = grant::verify(&signed(&grant()), &trust()).unwrap();
    LeaseClock::new(&signed, trust().status.only(&signed.status_key_id).unwrap())
}

#[test]
fn sixty_seconds_count_from_the_nonce_not_from_the_answer() {
    let mut clock = clock();
    clock.ask([1; 16], boot(100));
    // However late the answer comes, it proves no more than the moment of asking.
    let heard = clock.hear(&lease(&clock, 1, [1; 16], "ON_HOLD")).unwrap();
    assert_eq!(heard, Heard::Active(boot(160)));
    assert!(clock.check(boot(159)).is_ok());
    assert_eq!(clock.check(boot(160)).unwrap_err().code(), "LeaseMissing");
}

#[test]
fn an_old_lease_replayed_proves_nothing() {
    let mut clock = clock();
    clock.ask([1; 16], boot(100));
    let first = lease(&clock, 1, [1; 16], "OPEN");
    clock.hear(&first).unwrap();
    assert_eq!(clock.hear(&first).unwrap_err().code(), "LeaseInvalid");
    clock.ask([2; 16], boot(120));
    let stale = lease(&clock, 1, [2; 16], "OPEN");
    assert_eq!(clock.hear(&stale).unwrap_err().code(), "LeaseInvalid");
    assert_eq!(clock.check(boot(160)).unwrap_err().code(), "LeaseMissing");
    // The refused one used up nothing: the real answer still counts.
    let real = lease(&clock, 2, [2; 16], "OPEN");
    assert_eq!(clock.hear(&real).unwrap(), Heard::Active(boot(180)));
}

#[test]
fn a_lease_of_another_grant_of_the_same_ticket_does_not_count() {
    let (trust, situation) = (trust(), Situation::default());
    let considered = |grant: &Grant| {
        let ticket = Ticket { grant_envelope: signed(grant), ..situation.ticket() };
        let facts = Facts {
            cluster_uid: &situation.cluster_uid,
            trust: &trust,
            managed: &situation.managed,
            redaction_policy: 1,
        };
        let told = Told { ticket: Some(&ticket), deregistered: false };
        let wish = Wish { ticket_id: "MX-1001", components: &[] };
        consider(facts, told, wish, &situation.ledger, situation.now.wall).unwrap()
    };
    let other = considered(&Grant { grant_id: "another".into(), ..grant() });
    let mut clock = other.lease_clock();
    clock.ask(NONCE, boot(1000));
    let answer = lease(&clock, 1, NONCE, "OPEN");
    clock.hear(&answer).unwrap();
    let mut policy = PolicyView::default();
    policy.observe(boot(1000), situation.policy.clone());
    let refused =
        considered(&grant()).admit(&clock, &policy, &situation.ledger, situation.now).unwrap_err();
    assert_eq!(refused.code(), "LeaseInvalid");
    assert!(other.admit(&clock, &policy, &situation.ledger, situation.now).is_ok());
}

#[test]
fn a_nonce_of_an_earlier_process_is_unknown_to_a_new_clock() {
    let mut before = clock();
    before.ask([1; 16], boot(100));
    let answer = lease(&before, 1, [1; 16], "OPEN");
    assert_eq!(clock().hear(&answer).unwrap_err().code(), "LeaseInvalid");
}

#[test]
fn a_signed_end_needs_no_nonce_and_is_final() {
    let mut clock = clock();
    clock.ask([1; 16], boot(100));
    clock.hear(&lease(&clock, 1, [1; 16], "OPEN")).unwrap();
    let end = clock.hear(&lease(&clock, 2, [9; 16], "SOLVED")).unwrap_err();
    assert_eq!(end.code(), "TicketInactive");
    assert!(clock.solved());
    clock.ask([2; 16], boot(101));
    assert!(clock.hear(&lease(&clock, 3, [2; 16], "OPEN")).is_err());
    assert_eq!(clock.check(boot(101)).unwrap_err().code(), "TicketInactive");
}

#[test]
fn only_the_latest_nonces_are_remembered() {
    let mut clock = clock();
    for n in 0..6 {
        clock.ask([n; 16], boot(100 + u64::from(n)));
    }
    assert_eq!(clock.hear(&lease(&clock, 1, [0; 16], "OPEN")).unwrap_err().code(), "LeaseInvalid");
    assert!(clock.hear(&lease(&clock, 1, [4; 16], "OPEN")).is_ok());
}
