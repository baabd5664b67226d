//! The health of a component, of the health of its objects.

use mendix_agent_core::bundle::{object::ObjectId, readiness::Readiness};

/// The health of a component: that of its worst object, with the reason. An object that says nothing
/// counts for nothing as long as there are others, as it does at a gate; `Unknown` is a component
/// of which nothing can be judged.
pub(super) fn worst(healths: &[(ObjectId, Readiness)]) -> (&'static str, Option<String>) {
    let rank = |health: &Readiness| match health {
        Readiness::Failed { .. } => 3,
        Readiness::Progressing { .. } => 2,
        Readiness::Ready => 1,
        Readiness::Unknown { .. } => 0,
    };
    let Some((id, health)) = healths.iter().max_by_key(|(_, health)| rank(health)) else {
        return ("Ready", None);
    };
    let name = match health {
        Readiness::Failed { .. } => "Degraded",
        Readiness::Progressing { .. } => "Progressing",
        Readiness::Unknown { .. } => "Unknown",
        Readiness::Ready => return ("Ready", None),
    };
    (name, Some(format!("{id}: {}", health.reason())))
}

#[cfg(test)]
mod tests {
    use mendix_agent_core::bundle::object::IdFields;

    use super::*;

    fn object(name: &str, health: Readiness) -> (ObjectId, Readiness) {
        let id = ObjectId::from(IdFields {
            group: "example.com".into(),
            version: "v1".into(),
            kind: "Thing".into(),
            namespace: None,
            name: name.into(),
        });
        (id, health)
    }

    fn silent() -> (ObjectId, Readiness) {
        object("silent", Readiness::Unknown { reason: "reports nothing".into() })
    }

    #[test]
    fn an_object_that_reports_nothing_does_not_hide_that_the_others_are_ready() {
        assert_eq!(worst(&[object("a", Readiness::Ready), silent()]), ("Ready", None));
        assert_eq!(worst(&[silent(), object("a", Readiness::Ready)]), ("Ready", None));
    }

    #[test]
    fn a_component_of_which_nothing_can_be_judged_is_unknown() {
        let (health, reason) = worst(&[silent(), silent()]);
        assert_eq!(health, "Unknown");
        assert_eq!(reason.as_deref(), Some("Thing silent: reports nothing"));
    }

    #[test]
    fn the_worst_object_makes_the_health_of_its_component() {
        let mut objects = vec![object("a", Readiness::Ready), silent()];
        objects.push(object("slow", Readiness::Progressing { reason: "waits".into() }));
        assert_eq!(worst(&objects), ("Progressing", Some("Thing slow: waits".into())));
        objects.insert(0, object("bad", Readiness::Failed { reason: "broke".into() }));
        assert_eq!(worst(&objects), ("Degraded", Some("Thing bad: broke".into())));
        assert_eq!(worst(&[]), ("Ready", None));
    }
}
