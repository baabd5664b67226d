//! What AgentStatus says, from the link and the sections of the report; nothing is read or written here.

use std::time::Duration;

use mendix_agent_core::session::{Capability, SKEW_BOUND};
use mendix_agent_proto::v1::{self, report::Body};

use crate::{
    channel::Link,
    crd::agent_status::AgentStatusStatus,
    health,
    occasion::{self, Occasion},
    preflight,
};

/// What people are warned of besides a broken connection. Each is said once per session: what changes with every heartbeat is left out.
pub(super) fn warning(link: &Link) -> Option<(Occasion, String)> {
    let Link::Connected { clock_skew_millis, identity_conflict, lacks, .. } = link else {
        return None;
    };
    let conflict = identity_conflict.clone().map(|said| (occasion::IDENTITY_CONFLICT, said));
    conflict
        .or_else(|| wrong_clock(*clock_skew_millis).map(|said| (occasion::CLOCK_SKEW, said)))
        .or_else(|| missing(lacks).map(|said| (occasion::CONTROL_PLANE_LACKS, said)))
}

/// Says what the control plane can't, and what comes of it.
fn missing(lacks: &[Capability]) -> Option<String> {
    let each: Vec<String> = lacks.iter().map(|lack| format!("{lack} ({})", lack.loss())).collect();
    (!each.is_empty()).then(|| format!("the control plane lacks {}", each.join(", ")))
}

/// Says that this node's clock is off by more than what dates are judged with.
fn wrong_clock(skew_millis: i64) -> Option<String> {
    let off = Duration::from_millis(skew_millis.unsigned_abs());
    (off > SKEW_BOUND).then(|| {
        let side = if skew_millis > 0 { "behind" } else { "ahead of" };
        format!(
            "this node's clock is {} s {side} the control plane's; set the node's clock",
            off.as_secs()
        )
    })
}

/// Says how the link is.
pub(super) fn describe_link(status: &mut AgentStatusStatus, link: &Link) {
    match link {
        Link::WaitingForConnection { last_failure } => {
            status.link = "WaitingForConnection".into();
            status.last_failure.clone_from(last_failure);
            status.problem = last_failure.as_ref().map(|why| format!("not connected: {why}"));
        }
        Link::Connected { session_id, since, clock_skew_millis, identity_conflict, lacks } => {
            status.link = "Connected".into();
            status.link_since = Some(*since);
            status.session_id = Some(session_id.clone());
            status.clock_skew_millis = Some(*clock_skew_millis);
            status.problem = identity_conflict
                .clone()
                .or_else(|| wrong_clock(*clock_skew_millis))
                .or_else(|| missing(lacks));
        }
        Link::Disconnected { since, last_failure } => {
            status.link = "Disconnected".into();
            status.link_since = Some(*since);
            status.last_failure = Some(last_failure.clone());
            status.problem = Some(format!("not connected: {last_failure}"));
        }
        Link::Deregistered { reason } => {
            status.link = "Deregistered".into();
            status.problem = Some(format!("deregistered: {reason}"));
        }
    }
}

/// The link in one line, for a person.
pub(crate) fn in_one_line(link: &Link) -> String {
    let mut status = AgentStatusStatus::default();
    describe_link(&mut status, link);
    match status.problem {
        Some(problem) => format!("{}, {problem}", status.link),
        None => status.link,
    }
}

/// Says what the sections of the report tell. The first problem stands, and a link that is down comes
/// before them all.
pub(super) fn describe_sections(status: &mut AgentStatusStatus, sections: &[Body]) {
    status.health = health::overall(&[]).to_owned();
    for body in sections {
        let problem = match body {
            Body::ReleaseRun(run) => release_run(status, run),
            Body::Components(report) => {
                status.health = health::overall(&report.components).to_owned();
                let sick = report.components.iter().find(|c| c.health != "Ready");
                sick.map(|c| format!("component {} is {}: {}", c.name, c.health, c.message))
            }
            Body::Preflight(report) => {
                status.preflight = Some(report.result.clone());
                status.preflight_findings = preflight::findings(report);
                let failed = report.checks.iter().find(|check| check.result == "Fail");
                failed.map(|check| format!("preflight {}: {}", check.name, check.detail))
            }
            Body::Health(report) => {
                describe_inventory(status, report);
                None
            }
            Body::Initialization(report) => (report.state == "Failed").then(|| {
                format!(
                    "attempt {} to initialize failed at {}: {}",
                    report.attempt, report.phase, report.message
                )
            }),
            Body::TicketStates(_) | Body::RequestOutcomes(_) => None,
            Body::Unsupported(report) => (!report.sections.is_empty()).then(|| {
                format!(
                    "the control plane sent sections this version does not know: {:?}",
                    report.sections
                )
            }),
        };
        status.problem = status.problem.take().or(problem);
    }
}

fn describe_inventory(status: &mut AgentStatusStatus, report: &v1::HealthReport) {
    let count = |is: fn(&v1::NodeHealth) -> bool| report.nodes.iter().filter(|n| is(n)).count();
    if !report.nodes.is_empty() {
        let ready = count(|node| node.ready);
        let quarantined = count(|node| node.upgrade_status == health::QUARANTINED);
        let mut text = format!("{ready} of {} ready", report.nodes.len());
        if quarantined > 0 {
            text.push_str(&format!(", {quarantined} quarantined by an AKS upgrade"));
        }
        status.nodes = Some(text);
    }
    status.apps = report.apps.as_ref().map(|apps| {
        let (major, minor) = health::MINIMUM_RUNTIME;
        let mut text = apps.total.to_string();
        if apps.below_minimum > 0 {
            text.push_str(&format!(", {} below {major}.{minor}", apps.below_minimum));
        }
        if apps.unknown_runtime > 0 {
            text.push_str(&format!(", {} of unknown version", apps.unknown_runtime));
        }
        text
    });
}

fn release_run(status: &mut AgentStatusStatus, run: &v1::ReleaseRunReport) -> Option<String> {
    if !run.committed_release.is_empty() {
        status.release = Some(run.committed_release.clone());
    }
    let late = if run.overdue { " (OVERDUE)" } else { "" };
    let bad = matches!(
        run.state.as_str(),
        "RollingBack" | "RolledBack" | "Postponed" | "Held" | "Refused"
    );
    let why = if run.message.is_empty() { String::new() } else { format!(": {}", run.message) };
    if !matches!(
        run.state.as_str(),
        "" | "Committed" | "RolledBack" | "Postponed" | "Held" | "Refused"
    ) {
        status.run = Some(format!("{} {}{why}", run.release_id, run.state));
    }
    (bad || run.overdue).then(|| format!("release {} {}{late}{why}", run.release_id, run.state))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::crd::agent_status::AgentStatus;

    #[test]
    fn nodes_and_apps_are_told_in_one_line_each() {
        let node = |ready, upgrade: &str| v1::NodeHealth {
            ready,
            upgrade_status: upgrade.into(),
            ..Default::default()
        };
        let report = v1::HealthReport {
            nodes: vec![node(true, ""), node(false, "Quarantined")],
            apps: Some(v1::AppsHealth { total: 7, below_minimum: 2, ..Default::default() }),
            ..Default::default()
        };
        let mut status = AgentStatusStatus::default();
        describe_sections(&mut status, &[Body::Health(report)]);
        assert_eq!(status.nodes.unwrap(), "1 of 2 ready, 1 quarantined by an AKS upgrade");
        assert_eq!(status.apps.unwrap(), "7, 2 below 10.10");
    }

    #[test]
    fn the_first_problem_is_the_connection_then_the_release_then_a_component() {
        let component = Body::Components(v1::ComponentsReport {
            components: vec![v1::ComponentState {
                name: "op".into(),
                health: "Degraded".into(),
                message: "0 of 1 replicas ready".into(),
                ..Default::default()
            }],
        });
        let run = Body::ReleaseRun(v1::ReleaseRunReport {
            release_id: "r2".into(),
            state: "RolledBack".into(),
            message: "op never became ready".into(),
            ..Default::default()
        });
        let mut status = AgentStatusStatus::default();
        describe_sections(&mut status, &[run.clone(), component.clone()]);
        assert_eq!(status.problem.as_deref(), Some("release r2 RolledBack: op never became ready"));
        assert_eq!(status.health, "Degraded");

        let mut status = AgentStatusStatus::default();
        let since = jiff::Timestamp::UNIX_EPOCH;
        describe_link(
            &mut status,
            &Link::Disconnected { since, last_failure: "TCP: refused".into() },
        );
        describe_sections(&mut status, &[run, component]);
        assert_eq!(status.problem.as_deref(), Some("not connected: TCP: refused"));
    }

    #[test]
    fn a_release_that_is_overdue_is_a_problem_though_it_is_on_its_way() {
        let run = v1::ReleaseRunReport {
            release_id: "r2".into(),
            state: "Scheduled".into(),
            overdue: true,
            ..Default::default()
        };
        let mut status = AgentStatusStatus::default();
        describe_sections(&mut status, &[Body::ReleaseRun(run)]);
        assert_eq!(status.problem.as_deref(), Some("release r2 Scheduled (OVERDUE)"));
    }

    #[test]
    fn what_a_release_waits_for_is_told_while_it_is_under_way() {
        let told = |state: &str, message: &str| {
            let mut status = AgentStatusStatus::default();
            let run = v1::ReleaseRunReport {
                release_id: "r2".into(),
                state: state.into(),
                message: message.into(),
                ..Default::default()
            };
            describe_sections(&mut status, &[Body::ReleaseRun(run)]);
            (status.run, status.problem)
        };
        let waits = told("Scheduled", "waits for a session that has been stable for 600 s");
        let says = "r2 Scheduled: waits for a session that has been stable for 600 s";
        assert_eq!(waits, (Some(says.into()), None), "no problem, and no secret either");
        assert_eq!(told("Verified", ""), (Some("r2 Verified".into()), None));
        for ended in ["Committed", "RolledBack", "Postponed", "Held", "Refused", ""] {
            assert_eq!(told(ended, "why").0, None, "{ended}");
        }
    }

    #[test]
    fn a_clock_a_day_off_is_a_problem_and_a_warning() {
        let link = |clock_skew_millis, identity_conflict| Link::Connected {
            session_id: "s1".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
            clock_skew_millis,
            identity_conflict,
            lacks: Vec::new(),
        };
        for (skew, says) in [(86_400_000, "86400 s behind"), (-86_400_000, "86400 s ahead of")] {
            let mut status = AgentStatusStatus::default();
            describe_link(&mut status, &link(skew, None));
            assert!(status.problem.unwrap().contains(says));
            assert_eq!(warning(&link(skew, None)).unwrap().0, occasion::CLOCK_SKEW);
        }
        assert_eq!(warning(&link(-59_000, None)), None);
        let both = link(86_400_000, Some("process c0ffee used it".into()));
        assert_eq!(warning(&both).unwrap().0, occasion::IDENTITY_CONFLICT);
    }

    #[test]
    fn what_the_control_plane_lacks_is_a_problem_and_a_warning_with_what_comes_of_it() {
        let link = Link::Connected {
            session_id: "s1".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
            clock_skew_millis: 0,
            identity_conflict: None,
            lacks: vec![Capability::AuditCheckpoints, Capability::LogSnapshots],
        };
        let mut status = AgentStatusStatus::default();
        describe_link(&mut status, &link);
        let problem = status.problem.unwrap();
        let says = "the control plane lacks audit-checkpoints (the audit log is not acknowledged";
        assert!(problem.starts_with(says), "{problem}");
        assert!(problem.ends_with("log-snapshots (no log can be shared)"), "{problem}");
        assert_eq!(warning(&link), Some((occasion::CONTROL_PLANE_LACKS, problem)));
    }

    #[test]
    fn an_agent_that_never_connected_has_all_that_its_definition_requires() {
        let mut status = AgentStatusStatus::default();
        describe_link(&mut status, &Link::WaitingForConnection { last_failure: None });
        let written = json!(status);
        let definition = json!(<AgentStatus as kube::CustomResourceExt>::crd());
        let schema = definition
            .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status/required")
            .and_then(serde_json::Value::as_array)
            .expect("the status has required fields");
        for field in schema {
            let field = field.as_str().expect("a name");
            assert!(written.get(field).is_some(), "{field} is required and not written");
        }
    }

    #[test]
    fn what_preflight_found_is_in_the_status_with_its_remedy() {
        let check = |name: &str, result: &str| v1::PreflightCheck {
            name: name.into(),
            result: result.into(),
            detail: "what was seen".into(),
            remedy: "what to do".into(),
            ..Default::default()
        };
        let mut report = v1::PreflightReport {
            result: "Failed".into(),
            checks: vec![check("DNS", "Pass"), check("TCP", "Fail"), check("nodes", "Warn")],
        };
        let of = |report: &v1::PreflightReport| {
            let mut status = AgentStatusStatus::default();
            describe_sections(&mut status, &[Body::Preflight(report.clone())]);
            status
        };
        let status = of(&report);
        assert_eq!(status.preflight.as_deref(), Some("Failed"));
        assert_eq!(status.preflight_findings, ["TCP: what was seen; what to do"]);
        assert_eq!(status.problem.as_deref(), Some("preflight TCP: what was seen"));
        report.checks.remove(1);
        let status = of(&report);
        assert_eq!(status.preflight_findings, ["nodes: what was seen; what to do"]);
        assert_eq!(status.problem, None);
    }

    #[test]
    fn a_healthy_connected_agent_has_no_problem() {
        let mut status = AgentStatusStatus::default();
        let link = Link::Connected {
            session_id: "s1".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
            clock_skew_millis: 3,
            identity_conflict: None,
            lacks: Vec::new(),
        };
        describe_link(&mut status, &link);
        let run = v1::ReleaseRunReport {
            release_id: "r1".into(),
            state: "Committed".into(),
            committed_release: "r1".into(),
            ..Default::default()
        };
        describe_sections(&mut status, &[Body::ReleaseRun(run)]);
        assert_eq!((status.problem, status.release.as_deref()), (None, Some("r1")));
    }
}
