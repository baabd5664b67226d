//! Every interleaving of the two parties on a model of the API server, with processes that die and
//! pause at any instant: no state in which a trial is both committed and reverted, or in which the
//! Deployment is not what the end of the trial says, or from which no end can be reached.

use std::collections::{HashMap, HashSet, VecDeque};

use super::*;

/// What the API server holds. Versions of objects are counted up to a bound that no path exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Server {
    phase: Phase,
    /// Version of the trial.
    trial: u8,
    /// Whether the Deployment asks for the new version.
    new: bool,
    /// Whether it bears the guard's mark.
    marked: bool,
    /// Version of the Deployment.
    deployment: u8,
}

/// Where the agent that rolls the new version out is. A restart is a return to `Idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Old {
    Idle,
    /// Has read the Deployment in this version.
    Read(u8),
    /// Has read the phase after it and may write.
    Allowed(u8),
    /// Wants to withdraw what it read in this version.
    Withdraws(u8),
}

/// A process of the new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum New {
    Idle,
    Commits(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Guard {
    Idle,
    /// Writes this phase over that version of the trial.
    Moves(Phase, u8),
    /// Restores the Deployment that it read, for the trial in this version.
    Restores(Restoration, u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    server: Server,
    /// Two processes of the former version: one may be paused where the other goes on.
    old: [Old; 2],
    new: New,
    guard: Guard,
    /// Whether a process of the new version has ever run: one may still act after its pod was told to
    /// go.
    has_run: bool,
    deadline: bool,
    /// Whether the new version can prove itself.
    good: bool,
}

impl World {
    fn start(good: bool) -> Self {
        let server =
            Server { phase: Phase::Proposed, trial: 0, new: false, marked: false, deployment: 0 };
        Self {
            server,
            old: [Old::Idle; 2],
            new: New::Idle,
            guard: Guard::Idle,
            has_run: false,
            deadline: false,
            good,
        }
    }

    /// A compare-and-swap of the phase.
    fn swap(mut self, party: Party, to: Phase, read: u8) -> Self {
        if self.server.trial == read {
            assert!(may(party, self.server.phase, to), "{party:?}: {} {to}", self.server.phase);
            self.server.phase = to;
            self.server.trial += 1;
        }
        self
    }

    /// A write of the Deployment that was read in this version.
    fn write(mut self, read: u8, change: impl FnOnce(&mut Server)) -> Self {
        if self.server.deployment == read {
            change(&mut self.server);
            self.server.deployment += 1;
            self.has_run |= self.server.new;
        }
        self
    }

    fn next(self) -> Vec<Self> {
        let mut all = vec![
            // Any process dies at any instant.
            self.with_old(0, Old::Idle),
            self.with_old(1, Old::Idle),
            Self { new: New::Idle, ..self },
            Self { guard: Guard::Idle, ..self },
            Self { deadline: true, ..self },
            self.old_agent(0),
            self.old_agent(1),
        ];
        if self.has_run {
            all.push(self.new_agent());
        }
        all.push(self.the_guard());
        all.retain(|next| *next != self);
        all
    }

    fn with_old(mut self, process: usize, old: Old) -> Self {
        self.old[process] = old;
        self
    }

    fn old_agent(self, process: usize) -> Self {
        let server = self.server;
        let next = match self.old[process] {
            Old::Idle if server.new => Old::Idle,
            Old::Idle => Old::Read(server.deployment),
            Old::Read(deployment) if rolls_out(server.phase) => Old::Allowed(deployment),
            Old::Read(_) if server.phase == Phase::Proposed => Old::Withdraws(server.trial),
            Old::Read(_) | Old::Allowed(_) | Old::Withdraws(_) => Old::Idle,
        };
        let after = match self.old[process] {
            Old::Allowed(read) => self.write(read, |server| server.new = true),
            Old::Withdraws(read) => self.swap(Party::Agent, Phase::Withdrawn, read),
            Old::Idle | Old::Read(_) => self,
        };
        after.with_old(process, next)
    }

    fn new_agent(self) -> Self {
        let second = Duration::from_secs(1);
        let session = self.good.then_some(second);
        let standing = Standing { is_new: true, has_state: true, session };
        match self.new {
            New::Idle => match agent(self.server.phase, &standing, second) {
                Verdict::Commit => Self { new: New::Commits(self.server.trial), ..self },
                _ => self,
            },
            New::Commits(read) => {
                Self { new: New::Idle, ..self.swap(Party::Agent, Phase::Committed, read) }
            }
        }
    }

    fn the_guard(self) -> Self {
        let server = self.server;
        let look = Look {
            phase: server.phase,
            now: Timestamp::UNIX_EPOCH,
            deadline: None,
            lasts: Duration::from_secs(1),
            watched: if self.deadline { Duration::from_secs(1) } else { Duration::ZERO },
            restarts: 0,
            handovers: 0,
        };
        let idle = Self { guard: Guard::Idle, ..self };
        match self.guard {
            Guard::Idle => {
                let guard = match guard(&look) {
                    Move::Rest => Guard::Idle,
                    Move::Begin => Guard::Moves(Phase::Trial, server.trial),
                    Move::Revert(_) => Guard::Moves(Phase::Reverting, server.trial),
                    Move::Restore => {
                        let what = restoration(server.new, server.marked);
                        Guard::Restores(what, server.deployment, server.trial)
                    }
                };
                Self { guard, ..self }
            }
            Guard::Moves(to, read) => idle.swap(Party::Guard, to, read),
            Guard::Restores(Restoration::Done, _, trial) => {
                Self { guard: Guard::Moves(Phase::Reverted, trial), ..self }
            }
            Guard::Restores(Restoration::PutBack, read, _) => {
                idle.write(read, |server| (server.new, server.marked) = (false, true))
            }
            Guard::Restores(Restoration::Mark, read, _) => {
                idle.write(read, |server| server.marked = true)
            }
        }
    }
}

/// All states that can be reached, each with those that can follow.
fn explore(good: bool) -> HashMap<World, Vec<World>> {
    let mut graph = HashMap::new();
    let mut open = VecDeque::from([World::start(good)]);
    while let Some(world) = open.pop_front() {
        if graph.contains_key(&world) {
            continue;
        }
        let next = world.next();
        open.extend(next.iter().copied());
        graph.insert(world, next);
    }
    graph
}

#[test]
fn whatever_dies_or_pauses_a_trial_has_one_end_and_the_deployment_is_what_it_says() {
    let mut ends = HashSet::new();
    for good in [true, false] {
        let graph = explore(good);
        assert!(graph.len() > 200, "{} states are no exploration", graph.len());
        for (world, next) in &graph {
            let Server { phase, new, .. } = world.server;
            match phase {
                Phase::Committed => assert!(new && good, "{world:?}"),
                Phase::Reverted | Phase::Withdrawn | Phase::Proposed => assert!(!new, "{world:?}"),
                Phase::Trial | Phase::Reverting => {}
            }
            if phase.ended() {
                ends.insert((good, phase));
            }
            for after in next {
                let ended_as = after.server;
                assert!(!phase.ended() || ended_as.phase == phase, "{world:?} {after:?}");
                assert!(!phase.ended() || ended_as.new == new, "{world:?} {after:?}");
            }
        }
    }
    let all = [Phase::Reverted, Phase::Withdrawn].map(|phase| [(true, phase), (false, phase)]);
    let mut expected: HashSet<_> = all.into_iter().flatten().collect();
    expected.insert((true, Phase::Committed));
    assert_eq!(ends, expected);
}

#[test]
fn from_every_state_an_end_can_be_reached_by_the_guard_alone() {
    for good in [true, false] {
        for world in explore(good).into_keys() {
            // Both agents are dead; the deadline passes; the guard was restarted.
            let mut now = World {
                old: [Old::Idle; 2],
                new: New::Idle,
                guard: Guard::Idle,
                deadline: true,
                ..world
            };
            let mut steps = 0;
            while !now.server.phase.ended() {
                now = now.the_guard();
                steps += 1;
                assert!(steps < 20, "{world:?} does not end: {now:?}");
            }
        }
    }
}

#[test]
fn without_a_guard_nothing_is_reverted_and_a_good_version_still_commits() {
    for world in explore(true).into_keys().filter(|world| world.server.phase == Phase::Trial) {
        let mut now = World { guard: Guard::Idle, old: [Old::Idle; 2], new: New::Idle, ..world };
        let mut steps = 0;
        while !now.server.phase.ended() {
            now = if now.server.new { now.new_agent() } else { now.old_agent(0) };
            steps += 1;
            assert!(steps < 20, "{world:?} does not end: {now:?}");
        }
        assert_eq!(now.server.phase, Phase::Committed);
    }
}
