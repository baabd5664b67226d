//! Health and inventory: what the agent saw, as the report that is sent. Pure: the agent lists and
//! measures (its module `health`), here is decided what that means.
//!
//! A report is sent when it differs from the last one. Figures that always move are therefore told
//! in steps, and a step is left only when the figure has moved by more than one ([`Steps`]).

mod apps;
mod steps;

use mendix_agent_proto::v1;

pub use self::{
    apps::{AppSeen, MINIMUM_RUNTIME, Runtime, RuntimeUnreadable, count_apps},
    steps::{HostSeen, OwnSeen, Steps},
};

/// AKS's value of a node's upgrade status when it gave up on upgrading it.
pub const QUARANTINED: &str = "Quarantined";

/// What was seen this time.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The nodes, or why they can't be listed.
    pub nodes: Result<Vec<v1::NodeHealth>, String>,
    /// The apps; none where the cluster does not know them; or why they can't be listed.
    pub apps: Result<Option<Vec<AppSeen>>, String>,
    /// The host; none where it does not tell.
    pub host: Option<HostSeen>,
    /// This process.
    pub own: OwnSeen,
    /// Whether the guard of the agent's upgrades is available; none where the agent is no Deployment and
    /// so has none; or why that can't be read.
    pub guard: Result<Option<bool>, String>,
}

/// The worst of the components: Degraded over Progressing over Unknown over Healthy; Unknown when
/// there are none.
pub fn overall(components: &[v1::ComponentState]) -> &'static str {
    let any = |health: &str| components.iter().any(|c| c.health == health);
    if any("Degraded") {
        "Degraded"
    } else if any("Progressing") {
        "Progressing"
    } else if components.is_empty() || components.iter().any(|c| c.health != "Ready") {
        "Unknown"
    } else {
        "Healthy"
    }
}

/// The report about what was seen; `steps` remembers the figures that were told last.
pub fn report(
    seen: Seen,
    components: &[v1::ComponentState],
    steps: &mut Steps,
) -> v1::HealthReport {
    let mut reasons: Vec<String> = components
        .iter()
        .filter(|c| c.health != "Ready")
        .map(|c| format!("component {} is {}: {}", c.name, c.health, c.message))
        .collect();
    let mut state = overall(components);
    let nodes = seen.nodes.unwrap_or_else(|error| {
        reasons.push(error);
        Vec::new()
    });
    for node in &nodes {
        if !node.ready {
            reasons.push(format!("node {} is not ready", node.name));
            state = "Degraded";
        }
        for pressure in &node.pressures {
            reasons.push(format!("node {} has {pressure}", node.name));
        }
        if node.upgrade_status == QUARANTINED {
            reasons.push(format!("node {} is quarantined: AKS could not upgrade it", node.name));
        }
    }
    let apps = seen.apps.unwrap_or_else(|error| {
        reasons.push(error);
        None
    });
    let apps = apps.map(|apps| count_apps(&apps));
    if let Some(apps) = &apps {
        let (major, minor) = MINIMUM_RUNTIME;
        if apps.below_minimum > 0 {
            reasons.push(format!(
                "{} of {} Mendix apps run a version below {major}.{minor}, which is not supported",
                apps.below_minimum, apps.total
            ));
        }
    }
    let guard = seen.guard.unwrap_or_else(|error| {
        reasons.push(error);
        None
    });
    if guard == Some(false) {
        reasons.push(
            "the guard is not available, and no upgrade of the agent begins without it".into(),
        );
    }
    let (resident, cpu) = steps.own(seen.own);
    v1::HealthReport {
        state: state.to_owned(),
        reasons,
        agent_rss_bytes: resident,
        agent_cpu_millis: cpu,
        nodes,
        apps,
        host: seen.host.map(|host| steps.host(host)),
        guard_available: guard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str, health: &str) -> v1::ComponentState {
        v1::ComponentState { name: name.into(), health: health.into(), ..Default::default() }
    }

    fn told(seen: Seen, components: &[v1::ComponentState]) -> v1::HealthReport {
        report(seen, components, &mut Steps::default())
    }

    fn nothing() -> Seen {
        let own = OwnSeen { resident_bytes: 0, cpu_millis: 0 };
        Seen { nodes: Ok(vec![]), apps: Ok(None), host: None, own, guard: Ok(None) }
    }

    #[test]
    fn a_guard_that_is_away_is_told_before_an_upgrade_waits_for_it() {
        let seen = |guard| Seen { guard, ..nothing() };
        let fine = [component("a", "Ready")];
        let away = told(seen(Ok(Some(false))), &fine);
        assert_eq!((away.state.as_str(), away.guard_available), ("Healthy", Some(false)));
        assert!(away.reasons[0].contains("guard is not available"), "{:?}", away.reasons);
        for guard in [None, Some(true)] {
            let report = told(seen(Ok(guard)), &fine);
            assert_eq!((report.guard_available, report.reasons), (guard, vec![]));
        }
        let unread = told(seen(Err("reading the guard: forbidden".into())), &fine);
        assert_eq!((unread.guard_available, unread.reasons.len()), (None, 1));
    }

    #[test]
    fn one_degraded_component_degrades_the_whole_and_is_named() {
        let report = told(nothing(), &[component("a", "Ready"), component("b", "Degraded")]);
        assert_eq!(report.state, "Degraded");
        assert!(report.reasons[0].contains("component b"), "{:?}", report.reasons);
    }

    #[test]
    fn a_node_that_is_not_ready_degrades_and_the_rest_is_said() {
        let node = v1::NodeHealth {
            name: "n1".into(),
            pressures: vec!["DiskPressure".into()],
            upgrade_status: QUARANTINED.into(),
            ..Default::default()
        };
        let report = told(Seen { nodes: Ok(vec![node]), ..nothing() }, &[component("a", "Ready")]);
        assert_eq!(report.state, "Degraded");
        assert_eq!(
            report.reasons,
            [
                "node n1 is not ready",
                "node n1 has DiskPressure",
                "node n1 is quarantined: AKS could not upgrade it"
            ]
        );
    }

    #[test]
    fn what_cannot_be_listed_is_a_reason_not_a_silence() {
        let seen = Seen {
            nodes: Err("listing nodes: forbidden".into()),
            apps: Err("listing Mendix apps: forbidden".into()),
            ..nothing()
        };
        let report = told(seen, &[]);
        assert_eq!((report.state.as_str(), report.reasons.len()), ("Unknown", 2));
        assert_eq!(report.apps, None);
    }

    #[test]
    fn apps_below_the_minimum_are_flagged_and_no_app_is_named() {
        let app = |runtime: &str| AppSeen { state: "Running".into(), runtime: runtime.into() };
        let seen = Seen { apps: Ok(Some(vec![app("10.9.1"), app("10.10.0")])), ..nothing() };
        let report = told(seen, &[component("a", "Ready")]);
        assert_eq!(report.state, "Healthy", "an old app is not a sick cluster");
        assert_eq!(
            report.reasons,
            ["1 of 2 Mendix apps run a version below 10.10, which is not supported"]
        );
    }

    #[test]
    fn a_report_of_the_same_state_is_the_same_although_figures_jitter() {
        let mut steps = Steps::default();
        let mut see = |percent: u64| {
            let host = HostSeen {
                cpus: 4,
                memory_total: 16 << 30,
                memory_available: (8 << 30) + percent * (5 << 20),
                load: 1.0 + percent as f64 / 200.0,
                disk_available: 0.45 + percent as f64 / 1000.0,
            };
            let own =
                OwnSeen { resident_bytes: (38 << 20) + percent * (30 << 10), cpu_millis: 100 };
            report(Seen { host: Some(host), own, ..nothing() }, &[], &mut steps)
        };
        let first = see(0);
        for round in 0..200 {
            // Half a gibibyte, half a CPU and a tenth of the disk, to and fro.
            assert_eq!(see((round * 37) % 100), first, "round {round}");
        }
        assert_ne!(see(800), first, "a real change is told");
    }
}
