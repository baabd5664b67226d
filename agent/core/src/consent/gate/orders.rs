//! Events in any order, against a model that knows nothing of the gate: whenever the gate lets logs
//! leave, the model must say that everything it takes was there at that moment.

use proptest::prelude::*;

use super::{
    tests::{FAULTS, Situation},
    *,
};
use crate::{
    consent::{
        grant::tests::{grant, status_key, trust},
        keys::ConsentKeys,
        lease::{LEASE_PAYLOAD_TYPE, Lease},
        policy::{LocalPolicy, Mode, Reading},
    },
    envelope::{SigningKey, sha256},
};

/// Something that happens to an agent.
#[derive(Clone, Debug)]
enum Happening {
    Pass(u64),
    List(Status),
    Unlist,
    Policy(bool),
    PolicyGone,
    PolicySilent,
    Rotate,
    Deregister(bool),
    Void,
    Request,
    Ask,
    Answer(Answer),
    Decide,
}

/// What comes back for the newest nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Good,
    Forged,
    OtherNonce,
    Repeated,
    Solved,
}

fn happening() -> impl Strategy<Value = Happening> {
    let status = prop::sample::select(vec![
        Status::Open,
        Status::OnHold,
        Status::AwaitingYourReply,
        Status::Solved,
        Status::Unknown,
    ]);
    let answer = prop::sample::select(vec![
        Answer::Good,
        Answer::Good,
        Answer::Good,
        Answer::Forged,
        Answer::OtherNonce,
        Answer::Repeated,
        Answer::Solved,
    ]);
    prop_oneof![
        4 => (0u64..40_000).prop_map(Happening::Pass),
        1 => (0u64..20_000_000).prop_map(Happening::Pass),
        2 => status.prop_map(Happening::List),
        2 => Just(Happening::List(Status::Open)),
        1 => Just(Happening::Unlist),
        6 => any::<bool>().prop_map(Happening::Policy),
        1 => Just(Happening::PolicyGone),
        1 => Just(Happening::PolicySilent),
        1 => Just(Happening::Rotate),
        1 => any::<bool>().prop_map(Happening::Deregister),
        1 => Just(Happening::Void),
        6 => Just(Happening::Request),
        5 => Just(Happening::Ask),
        6 => answer.prop_map(Happening::Answer),
        10 => Just(Happening::Decide),
    ]
}

/// What is true, kept apart from what the gate makes of it.
#[derive(Debug)]
struct Truth {
    listed: Option<Status>,
    deregistered: bool,
    rotated: bool,
    void: bool,
    /// When the customer's yes was last read; none after a no.
    allowed_at: Option<Duration>,
    /// When the nonce was sent that the newest good answer belongs to.
    proven_at: Option<Duration>,
    ended: bool,
    is_faulty: bool,
}

impl Truth {
    fn lets_logs_leave(&self, now: Now) -> bool {
        let within = |at: Option<Duration>, most: u64| {
            at.is_some_and(|at| now.boot - at < Duration::from_secs(most))
        };
        let active =
            matches!(self.listed, Some(Status::Open | Status::OnHold | Status::AwaitingYourReply));
        let grant = grant();
        !self.is_faulty
            && active
            && !self.deregistered
            && !self.rotated
            && !self.void
            && !self.ended
            && within(self.allowed_at, 15)
            && within(self.proven_at, 60)
            && now.wall < grant.expires_at
            && now.wall >= grant.not_before - CLOCK_SKEW
    }
}

/// An agent in the middle of things.
struct Agent {
    situation: Situation,
    carried: Ticket,
    envelope: Vec<u8>,
    trust: Trust,
    policy: PolicyView,
    truth: Truth,
    candidate: Option<LeaseClock>,
    nonce: [u8; 16],
    asked_at: Option<Duration>,
    last_answer: Vec<u8>,
    sequence: u64,
    nonces: u8,
}

impl Agent {
    fn new(fault: Option<usize>) -> Self {
        let mut situation = Situation::default();
        if let Some(fault) = fault {
            (FAULTS[fault].2)(&mut situation);
        }
        Self {
            carried: situation.ticket(),
            envelope: situation.envelope(),
            situation,
            trust: trust(),
            policy: PolicyView::default(),
            truth: Truth {
                listed: Some(Status::Open),
                deregistered: false,
                rotated: false,
                void: false,
                allowed_at: None,
                proven_at: None,
                ended: false,
                is_faulty: fault.is_some(),
            },
            candidate: None,
            nonce: [0; 16],
            asked_at: None,
            last_answer: Vec::new(),
            sequence: 0,
            nonces: 0,
        }
    }

    fn ticket(&self) -> Option<Ticket> {
        let status = self.truth.listed?;
        Some(Ticket { status, ..self.carried.clone() })
    }

    fn consider(&self) -> Result<Candidate, Refusal> {
        let ticket = self.ticket();
        let facts = Facts {
            cluster_uid: &self.situation.cluster_uid,
            trust: &self.trust,
            managed: &self.situation.managed,
            redaction_policy: self.situation.redaction_policy,
        };
        let told = Told { ticket: ticket.as_ref(), deregistered: self.truth.deregistered };
        let wish = Wish {
            ticket_id: &self.situation.wish_ticket,
            components: &self.situation.wish_components,
        };
        consider(facts, told, wish, &self.situation.ledger, self.situation.now.wall)
    }

    fn happens(&mut self, happening: Happening) {
        let boot = self.situation.now.boot;
        match happening {
            Happening::Pass(millis) => {
                self.situation.now.boot += Duration::from_millis(millis);
                let millis = i64::try_from(millis).unwrap();
                self.situation.now.wall += SignedDuration::from_millis(millis);
            }
            Happening::List(status) => self.truth.listed = Some(status),
            Happening::Unlist => self.truth.listed = None,
            Happening::Policy(yes) => {
                let mode = if yes { Mode::WithConsent } else { Mode::Deny };
                let policy = LocalPolicy {
                    mode,
                    suspend: false,
                    excluded_components: BTreeSet::new(),
                    max_window_hours: None,
                    extra_patterns: ExtraPatterns::default(),
                };
                self.policy.observe(boot, Reading::Present(policy));
                self.truth.allowed_at = yes.then_some(boot);
            }
            Happening::PolicyGone => {
                self.policy.observe(boot, Reading::Absent);
                self.truth.allowed_at = None;
            }
            Happening::PolicySilent => self.policy.observe(boot, Reading::Failed),
            Happening::Rotate => {
                let key = SigningKey::from_seed(&[9; 32]).unwrap().pinned();
                let (consent, status) = (vec![key], vec![status_key().pinned()]);
                let keys = ConsentKeys { version: 1, sequence: 9, consent, status };
                self.trust = Trust::parse(&serde_json::to_vec(&keys).unwrap()).unwrap();
                self.truth.rotated = true;
            }
            Happening::Deregister(so) => self.truth.deregistered = so,
            Happening::Void => {
                let now = self.situation.now.wall;
                self.situation.ledger.void(&grant(), "TicketSolved", now);
                self.truth.void = true;
            }
            Happening::Request => {
                // A new request begins with a clock of its own.
                self.truth.proven_at = None;
                self.truth.ended = false;
                self.asked_at = None;
                self.candidate = self.consider().ok().map(|candidate| candidate.lease_clock());
            }
            Happening::Ask => {
                self.nonces = self.nonces.wrapping_add(1);
                self.nonce = [self.nonces; 16];
                if let Some(clock) = &mut self.candidate {
                    clock.ask(self.nonce, boot);
                    self.asked_at = Some(boot);
                }
            }
            Happening::Answer(answer) => self.answer(answer),
            Happening::Decide => {}
        }
    }

    fn answer(&mut self, answer: Answer) {
        let Some(clock) = &mut self.candidate else { return };
        self.sequence += 1;
        let word = if answer == Answer::Solved { "SOLVED" } else { "OPEN" };
        let nonce = if answer == Answer::OtherNonce { [0xff; 16] } else { self.nonce };
        let lease = Lease {
            version: 1,
            grant_sha256: hex::encode(sha256(&self.envelope)),
            cluster_uid: "cluster-1".into(),
            ticket_id: "MX-1001".into(),
            ticket_status: word.into(),
            sequence: self.sequence,
            nonce: hex::encode(nonce),
            issued_at: self.situation.now.wall,
        };
        let forger = SigningKey::from_seed(&[8; 32]).unwrap();
        let signer = if answer == Answer::Forged { forger } else { status_key() };
        let bytes = signer.sign(LEASE_PAYLOAD_TYPE, &serde_json::to_vec(&lease).unwrap());
        let bytes = match answer {
            Answer::Repeated => self.last_answer.clone(),
            _ => bytes,
        };
        let _heard_or_refused = clock.hear(&bytes);
        match answer {
            Answer::Good => {
                // Only an answer to something that was asked, and not answered before.
                if let Some(asked) = self.asked_at.take()
                    && !self.truth.ended
                {
                    self.truth.proven_at = Some(asked);
                }
                self.last_answer = bytes;
            }
            Answer::Solved => self.truth.ended = true,
            Answer::Forged | Answer::OtherNonce | Answer::Repeated => {}
        }
    }

    /// Whether the gate would let logs leave now.
    fn decides(&mut self) -> bool {
        let Some(clock) = &self.candidate else { return false };
        let Ok(candidate) = self.consider() else { return false };
        let now = self.situation.now;
        let admitted = candidate.admit(clock, &self.policy, &self.situation.ledger, now);
        let Ok(consent) = admitted else { return false };
        let ticket = self.ticket();
        let told = Told { ticket: ticket.as_ref(), deregistered: self.truth.deregistered };
        consent.still_holds(&self.trust, told, clock, &self.policy, now).is_ok()
    }
}

/// The order in which everything is there.
fn good_order() -> Vec<Happening> {
    vec![
        Happening::Policy(true),
        Happening::Request,
        Happening::Ask,
        Happening::Answer(Answer::Good),
        Happening::Decide,
    ]
}

#[test]
fn the_order_in_which_everything_is_there_lets_logs_leave() {
    let mut agent = Agent::new(None);
    good_order().into_iter().for_each(|happening| agent.happens(happening));
    assert!(agent.decides() && agent.truth.lets_logs_leave(agent.situation.now));
}

/// Faults of the grant and of what it is judged by that no event and no time cures. Those of lease,
/// policy and clock are what the events themselves vary.
fn lasting_faults() -> Vec<usize> {
    let lasts = |(name, code, _): &(&str, &str, fn(&mut Situation))| {
        let of_grant = name.starts_with("grant")
            || matches!(*code, "ComponentNotManaged" | "ComponentNotGranted" | "RedactionTooOld");
        of_grant && !name.ends_with("ahead") && *code != "NotYetValid"
    };
    (0..FAULTS.len()).filter(|fault| lasts(&FAULTS[*fault])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn in_any_order_of_events_logs_leave_only_when_everything_is_there(
        happenings in proptest::collection::vec(happening(), 1..25),
    ) {
        let mut agent = Agent::new(None);
        for (step, happening) in good_order().into_iter().chain(happenings).enumerate() {
            agent.happens(happening.clone());
            if agent.decides() {
                prop_assert!(
                    agent.truth.lets_logs_leave(agent.situation.now),
                    "step {step}, {happening:?}: {:?}", agent.truth
                );
            }
        }
    }

    #[test]
    fn with_any_single_thing_wrong_no_order_of_events_lets_logs_leave(
        fault in 0..lasting_faults().len(),
        happenings in proptest::collection::vec(happening(), 0..10),
    ) {
        let mut agent = Agent::new(Some(lasting_faults()[fault]));
        let (name, ..) = FAULTS[lasting_faults()[fault]];
        for happening in good_order().into_iter().chain(happenings) {
            agent.happens(happening.clone());
            prop_assert!(!agent.decides(), "{name}: {happening:?}");
        }
    }
}
