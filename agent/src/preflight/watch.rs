//! Preflight by the agent itself: when it starts, while it can't connect, and once more when it is
//! connected after that, so that "waiting for connection" always comes with a reason; and when the API
//! server refuses it something, so that rights that somebody took away are named.
//!
//! The result is a report to the control plane (as soon as there is one) and a part of AgentStatus. An
//! Event tells when other checks fail than before: once an outage, however often it is dialled.

use std::{convert::Infallible, future::pending, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, ResourceExt as _};
use mendix_agent_proto::v1::report::Body;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Report, Verdict};
use crate::{
    channel::{Link, Reports},
    cluster::{CALL_DEADLINE, Cluster},
    config::Config,
    crd::agent_status::{AgentStatus, NAME},
    occasion,
};

/// How long the agent tries to connect before it looks for the reason: about fourteen failed dials,
/// or three denials. A restart of the control plane takes less.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often it looks while it can't connect.
pub const AGAIN: Duration = Duration::from_secs(600);
/// How long a connection must hold before an earlier failure is looked at again.
pub const SETTLED: Duration = Duration::from_secs(30);
/// How often it looks at a trouble that does not keep it from being connected.
pub const RECHECK: Duration = Duration::from_secs(3600);
/// How often it looks while rights are missing, and how soon after a look a refusal leads to another.
pub const REFUSED: Duration = Duration::from_secs(60);
/// Longest note of a Kubernetes Event is 1 KiB.
const MAX_NOTE: usize = 1000;

/// When to look: decided from the link, denials and the last look alone.
#[derive(Clone, Copy, Debug)]
struct Agenda {
    connected: bool,
    /// Since when that is so.
    since: Instant,
    last: Option<Look>,
    /// The first call that was refused since the last look.
    refused: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    result: Verdict,
    rights: Rights,
}

/// What the last look found of the agent's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    /// Nobody doubted them.
    There,
    /// Something was refused although they are there: a quota or a policy of the cluster did that, and
    /// may go on to.
    ThereDespiteRefusal,
    Missing,
}

impl Agenda {
    fn new(now: Instant) -> Self {
        Self { connected: false, since: now, last: None, refused: None }
    }

    fn observe(&mut self, connected: bool, now: Instant) {
        if self.connected != connected {
            (self.connected, self.since) = (connected, now);
        }
    }

    fn refuse(&mut self, now: Instant) {
        self.refused.get_or_insert(now);
    }

    /// Takes in a look that began now. What is refused from here on counts for the next.
    fn begin(&mut self) -> bool {
        self.refused.take().is_some()
    }

    fn end(&mut self, at: Instant, report: &Report, was_refused: bool) {
        // While they were missing much was refused that has no other reason.
        let were_missing = self.last.is_some_and(|last| last.rights == Rights::Missing);
        let rights = match report.lacks_rights() {
            true => Rights::Missing,
            false if was_refused && !were_missing => Rights::ThereDespiteRefusal,
            false => Rights::There,
        };
        self.last = Some(Look { at, result: report.worst(), rights });
    }

    /// The next look; `None` while there is nothing to find out.
    fn due(&self) -> Option<Instant> {
        let Some(last) = self.last else { return Some(self.since) };
        let refused = |pause: Duration| self.refused.map(|at| at.max(last.at + pause));
        let of_rights = match last.rights {
            Rights::There => refused(REFUSED),
            Rights::ThereDespiteRefusal => refused(AGAIN),
            Rights::Missing => Some(last.at + REFUSED),
        };
        [self.due_by_the_link(last), of_rights].into_iter().flatten().min()
    }

    fn due_by_the_link(&self, last: Look) -> Option<Instant> {
        if !self.connected {
            return Some((self.since + PATIENCE).max(last.at + AGAIN));
        }
        // Something was found: is it over, now that there is a connection, or after a while?
        let next = if last.at < self.since { self.since + SETTLED } else { last.at + RECHECK };
        (last.result > Verdict::Pass).then_some(next)
    }
}

/// Looks when it is due, until shutdown.
///
/// # Errors
/// Never: what is wrong is in the report.
pub async fn run(
    cluster: Cluster,
    config: Config,
    mut link: watch::Receiver<Link>,
    reports: Reports,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut agenda = Agenda::new(Instant::now());
    let mut told = Troubles::default();
    let mut denials = cluster.denials.subscribe();
    loop {
        let connected = matches!(&*link.borrow_and_update(), Link::Connected { .. });
        agenda.observe(connected, Instant::now());
        let due = agenda.due();
        tokio::select! {
            () = at(due) => {}
            changed = link.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
            Ok(()) = denials.changed() => {
                agenda.refuse(Instant::now());
                continue;
            }
            () = shutdown.cancelled() => return Ok(()),
        }
        let was_refused = agenda.begin();
        let report = tokio::select! {
            report = super::run(&config, Ok(cluster.client.clone())) => report,
            () = shutdown.cancelled() => return Ok(()),
        };
        agenda.end(Instant::now(), &report, was_refused);
        if told.are_others_than(&report) {
            tell(&cluster, &report).await;
        }
        reports.publish(Body::Preflight(report.to_proto()));
    }
}

/// The checks that are not as they should be, as people were told of them last. Their details are no
/// part of it: addresses, times and counts differ from look to look and are no news.
#[derive(Debug, Default, PartialEq, Eq)]
struct Troubles(Vec<(&'static str, Verdict)>);

impl Troubles {
    /// Takes in a report; whether there is something to tell.
    fn are_others_than(&mut self, report: &Report) -> bool {
        let bad = report.checks.iter().filter(|check| check.result > Verdict::Pass);
        let now = Self(bad.map(|check| (check.name, check.result)).collect());
        let changed = *self != now;
        *self = now;
        changed
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Tells people what was found: an Event about AgentStatus, and a line in the log.
pub async fn tell(cluster: &Cluster, report: &Report) {
    let troubles = super::findings(&report.to_proto());
    let occasion = match report.worst() {
        Verdict::Fail => occasion::PREFLIGHT_FAILED,
        Verdict::Warn => occasion::PREFLIGHT_WARNED,
        Verdict::Pass | Verdict::Skip => occasion::PREFLIGHT_PASSED,
    };
    let mut note = match troubles.len() {
        0 => "everything the agent needs is there".to_owned(),
        _ => troubles.join("\n"),
    };
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    tracing::info!(reason = occasion.reason, troubles = troubles.join(" | "), "preflight");
    cluster.event(&subject(cluster).await, occasion, note).await;
}

async fn subject(cluster: &Cluster) -> ObjectReference {
    let api = cluster.own::<AgentStatus>();
    let stored = match timeout(CALL_DEADLINE, api.get(NAME)).await {
        Ok(Ok(stored)) => Some(stored),
        // Not written yet, or not readable: the reference works without a UID.
        Ok(Err(_)) | Err(_) => None,
    };
    ObjectReference {
        api_version: Some(AgentStatus::api_version(&()).into_owned()),
        kind: Some(AgentStatus::kind(&()).into_owned()),
        name: Some(NAME.to_owned()),
        namespace: Some(cluster.namespace.clone()),
        uid: stored.and_then(|stored| stored.uid()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Check, *};

    fn report(checks: &[(&'static str, Verdict, &str)]) -> Report {
        let check =
            |&(name, result, detail): &(_, _, &str)| Check::new(name, result, detail, "", "");
        Report { checks: checks.iter().map(check).collect() }
    }

    #[test]
    fn other_checks_that_fail_are_news_and_other_details_are_not() {
        use Verdict::{Fail, Pass, Skip, Warn};
        let mut told = Troubles::default();
        let mut news = |checks: &[_]| told.are_others_than(&report(checks));
        assert!(!news(&[("DNS", Pass, ""), ("nodes", Pass, "")]), "all is well, as expected");
        assert!(news(&[("DNS", Fail, "no answer within 10 s"), ("TCP", Skip, "")]));
        assert!(!news(&[("DNS", Fail, "does not resolve"), ("TCP", Skip, "")]));
        assert!(
            news(&[("DNS", Pass, ""), ("TCP", Fail, "")]),
            "the worst is the same, the cause not"
        );
        assert!(news(&[("DNS", Pass, ""), ("TCP", Warn, "")]));
        assert!(news(&[("DNS", Pass, ""), ("TCP", Pass, "")]), "and that it is over");
    }

    /// An outage of an hour; the link is told anew every second, as if that often were dialled.
    #[tokio::test(start_paused = true)]
    async fn an_outage_is_looked_at_every_ten_minutes_however_often_it_is_dialled() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        looked(&mut agenda, start, Verdict::Pass);
        agenda.observe(true, start);
        let lost = start + Duration::from_secs(3600);
        let mut looks = Vec::new();
        for second in 0..3600 {
            let now = lost + Duration::from_secs(second);
            agenda.observe(false, now);
            if agenda.due().is_some_and(|due| due <= now) {
                looked(&mut agenda, now, Verdict::Fail);
                looks.push(second);
            }
        }
        assert_eq!(looks, [120, 720, 1320, 1920, 2520, 3120]);
    }

    fn looked(agenda: &mut Agenda, at: Instant, result: Verdict) {
        let was_refused = agenda.begin();
        agenda.end(at, &report(&[("DNS", result, "")]), was_refused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_looked_into_and_missing_rights_every_minute_until_they_are_back() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        looked(&mut agenda, start, Verdict::Pass);
        agenda.observe(true, start);
        assert_eq!(agenda.due(), None);

        let lost = start + Duration::from_secs(3600);
        agenda.refuse(lost);
        agenda.refuse(lost + Duration::from_secs(1));
        assert_eq!(agenda.due(), Some(lost), "at once");
        let was_refused = agenda.begin();
        let missing = report(&[("permissions", Verdict::Fail, "")]);
        agenda.end(lost, &missing, was_refused);
        assert_eq!(agenda.due(), Some(lost + REFUSED));
        agenda.refuse(lost + Duration::from_secs(1));
        assert_eq!(agenda.due(), Some(lost + REFUSED), "once a minute, however much is refused");
        looked(&mut agenda, lost + REFUSED, Verdict::Pass);
        assert_eq!(agenda.due(), None, "they are back");
        let again = lost + REFUSED + Duration::from_secs(1);
        agenda.refuse(again);
        assert_eq!(agenda.due(), Some(lost + 2 * REFUSED), "and may be lost again at any time");
    }

    #[tokio::test(start_paused = true)]
    async fn denials_that_have_another_reason_are_looked_into_seldom() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        looked(&mut agenda, start, Verdict::Pass);
        agenda.observe(true, start);
        let mut looks = Vec::new();
        for second in 10..3600 {
            let now = start + Duration::from_secs(second);
            // A quota that is full, say, and a run that tries again and again.
            agenda.refuse(now);
            if agenda.due().is_some_and(|due| due <= now) {
                looked(&mut agenda, now, Verdict::Pass);
                looks.push(second);
            }
        }
        assert_eq!(looks, [60, 660, 1260, 1860, 2460, 3060]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_looks_at_the_start_and_then_only_while_it_cannot_connect() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        assert_eq!(agenda.due(), Some(start));
        looked(&mut agenda, start, Verdict::Pass);
        agenda.observe(true, start + PATIENCE);
        assert_eq!(agenda.due(), None, "connected, and nothing was wrong");

        let lost = start + 10 * AGAIN;
        agenda.observe(false, lost);
        assert_eq!(agenda.due(), Some(lost + PATIENCE));
        agenda.observe(false, lost + PATIENCE / 2);
        assert_eq!(agenda.due(), Some(lost + PATIENCE), "trying again does not start it over");
        looked(&mut agenda, lost + PATIENCE, Verdict::Fail);
        assert_eq!(agenda.due(), Some(lost + PATIENCE + AGAIN));
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_flaps_is_not_looked_at_more_often() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        looked(&mut agenda, start, Verdict::Fail);
        for second in 0..60 {
            agenda.observe(second % 2 == 0, start + Duration::from_secs(second));
        }
        assert_eq!(agenda.due(), Some(start + AGAIN));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_looked_at_again_once_the_connection_holds() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        looked(&mut agenda, start, Verdict::Fail);
        let back = start + Duration::from_secs(300);
        agenda.observe(true, back);
        assert_eq!(agenda.due(), Some(back + SETTLED));
        looked(&mut agenda, back + SETTLED, Verdict::Warn);
        assert_eq!(agenda.due(), Some(back + SETTLED + RECHECK));
        looked(&mut agenda, back + SETTLED + RECHECK, Verdict::Pass);
        assert_eq!(agenda.due(), None);
    }
}
