//! Redaction keeps what was measured (docs/redaction.md). A few thousand samples, so that it can run
//! with every change; the benchmark has more, with intervals.

use mendix_corpus::{Class, Kind, Set, Shape, generate};
use mendix_recall::{Report, measure};

/// Samples of each set.
const SAMPLES: usize = 6000;

fn report(set: Set) -> Report {
    measure(set, &generate(set, 1, SAMPLES))
}

#[test]
fn the_development_set_meets_the_goals() {
    let report = report(Set::Development);
    let shown: Vec<String> =
        report.faults.iter().map(|f| format!("{}: {}", f.what, f.text)).collect();
    let shown = shown.join("\n");
    let credentials = report.kind(Kind::Credential);
    assert!(credentials.percent() >= 99.5, "credentials {credentials}\n{shown}");
    let personal = report.kind(Kind::Personal);
    assert!(personal.percent() >= 99.0, "personal data {personal}\n{shown}");
    for (shape, share) in &report.shapes {
        assert!(share.percent() >= 98.0, "{shape} {share}\n{shown}");
    }
    assert!(report.decoys.percent() <= 0.5, "decoys {}\n{shown}", report.decoys);
    assert!(report.background.percent() <= 0.5, "ordinary lines {}\n{shown}", report.background);
    assert_eq!(report.refused, 0);
}

/// Not the goals: what was reached, less the width of the interval.
#[test]
fn the_validation_set_is_served_no_worse_than_measured() {
    let report = report(Set::Validation);
    let credentials = report.kind(Kind::Credential);
    assert!(credentials.percent() >= 99.8, "credentials {credentials}");
    let personal = report.kind(Kind::Personal);
    assert!(personal.percent() >= 99.5, "personal data {personal}");
    assert!(report.decoys.percent() <= 0.4, "decoys {}", report.decoys);
    assert!(report.background.percent() <= 0.5, "ordinary lines {}", report.background);
}

/// The former evaluation sets and what was written like them: their lines are known by now.
#[test]
fn the_rehearsal_set_is_served_no_worse_than_measured() {
    let report = report(Set::Rehearsal);
    let credentials = report.kind(Kind::Credential);
    assert!(credentials.percent() >= 99.8, "credentials {credentials}");
    let personal = report.kind(Kind::Personal);
    assert!(personal.percent() >= 99.6, "personal data {personal}");
    assert!(report.decoys.percent() <= 0.35, "decoys {}", report.decoys);
    // Certificates and public keys among them, which go on purpose.
    assert!(report.background.percent() <= 0.7, "ordinary lines {}", report.background);
}

#[test]
fn the_evaluation_set_is_measured_in_every_class_and_shape_and_no_sample_is_kept() {
    let report = report(Set::Evaluation);
    assert_eq!(report.classes.len(), Class::ALL.len(), "every class has samples");
    assert_eq!(report.shapes.len(), Shape::ALL.len(), "every shape has samples");
    assert!(report.faults.is_empty(), "no sample of this set is kept");
}
