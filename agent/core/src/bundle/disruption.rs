//! Disruption limits: a release that can wait is not begun while the components are short of pods
//! already, such as in the middle of a node upgrade. What they need is what their own
//! PodDisruptionBudgets say.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::index::ReleaseClass;

/// Longest time that a due release is held back: a component that is short of pods because it is broken
/// needs the release that mends it.
pub const MAX_HOLD: SignedDuration = SignedDuration::from_hours(4);

/// Until when a release of this class, due at `due`, may be held back; none when it is not: critical
/// ones, and what would be late.
pub fn held_until(class: ReleaseClass, due: Timestamp, apply_by: Timestamp) -> Option<Timestamp> {
    (class != ReleaseClass::Critical)
        .then(|| due.saturating_add(MAX_HOLD).unwrap_or(due).min(apply_by))
}

/// What a live PodDisruptionBudget misses; none when it has what it needs, or says nothing about its
/// current form yet.
pub fn shortage(budget: &Value) -> Option<String> {
    let number = |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64);
    if number("/status/observedGeneration") != number("/metadata/generation") {
        return None;
    }
    // A budget over no pods at all protects nothing.
    if number("/status/expectedPods").unwrap_or(0) == 0 {
        return None;
    }
    let healthy = number("/status/currentHealthy").unwrap_or(0);
    let needed = number("/status/desiredHealthy").unwrap_or(0);
    (healthy < needed).then(|| format!("{healthy} of {needed} pods that it needs are healthy"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn critical_releases_and_late_ones_are_not_held_back() {
        let due: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let later = due + SignedDuration::from_hours(24);
        assert_eq!(held_until(ReleaseClass::Critical, due, later), None);
        assert_eq!(held_until(ReleaseClass::Weekly, due, later), Some(due + MAX_HOLD));
        let soon = due + SignedDuration::from_hours(1);
        assert_eq!(held_until(ReleaseClass::Quarterly, due, soon), Some(soon));
    }

    #[test]
    fn a_budget_is_short_when_fewer_pods_are_healthy_than_it_needs() {
        let budget = |observed: i64, expected: i64, healthy: i64| {
            json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed,
                "expectedPods": expected, "currentHealthy": healthy, "desiredHealthy": 2}})
        };
        assert_eq!(
            shortage(&budget(2, 3, 1)).as_deref(),
            Some("1 of 2 pods that it needs are healthy")
        );
        for enough in [budget(2, 3, 2), budget(1, 3, 0), budget(2, 0, 0), json!({})] {
            assert_eq!(shortage(&enough), None, "{enough}");
        }
    }
}
