//! Measures redaction on the labelled corpus: how many secrets of each class and shape are gone
//! whole, and how many decoys and ordinary lines were altered.
//!
//! Rules are tuned on the development set and held against the validation set; of both every miss can
//! be looked at. What is claimed is measured on the evaluation set, of which only figures are kept:
//! there is no way to see a sample.

mod align;

use std::{collections::BTreeMap, fmt};

use mendix_agent_core::redact::{RedactError, Redactor, SnapshotKey};
use mendix_corpus::{Class, Kind, Sample, Set, Shape, Wrap};

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Those that count.
    pub hits: u64,
    /// All.
    pub of: u64,
}

impl Share {
    /// In percent; of none it is 100.
    #[must_use]
    pub fn percent(self) -> f64 {
        if self.of == 0 { 100.0 } else { self.hits as f64 * 100.0 / self.of as f64 }
    }

    /// Wilson's interval at 95 %, in percent. It takes the cases to be independent, which samples of
    /// one template are not.
    #[must_use]
    pub fn interval(self) -> (f64, f64) {
        const Z: f64 = 1.96;
        if self.of == 0 {
            return (0.0, 100.0);
        }
        let (n, p) = (self.of as f64, self.hits as f64 / self.of as f64);
        let middle = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 100.0 / (1.0 + Z * Z / n);
        ((middle - half).max(0.0) * scale, (middle + half) * scale)
    }

    fn count(&mut self, hit: bool) {
        self.hits += u64::from(hit);
        self.of += 1;
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.interval();
        let (percent, hits, of) = (self.percent(), self.hits, self.of);
        write!(f, "{percent:6.2} %  {low:6.2} – {high:6.2}  {hits:>6} of {of:>6}")
    }
}

/// What a set says about the rules.
#[derive(Debug, Default)]
pub struct Report {
    /// Secrets found, by class.
    pub classes: BTreeMap<Class, Share>,
    /// Secrets found, by shape.
    pub shapes: BTreeMap<Shape, Share>,
    /// Secrets found, by how the sample was wrapped.
    pub wraps: BTreeMap<Wrap, Share>,
    /// Decoys altered.
    pub decoys: Share,
    /// Ordinary lines altered.
    pub background: Share,
    /// Secrets found, by class and shape.
    pub cells: BTreeMap<(Class, Shape), Share>,
    /// Ordinary lines altered, by shape and by what the rules took something in them for.
    pub alarms: BTreeMap<(Shape, String), u64>,
    /// Samples that were refused as no text; all their secrets count as found.
    pub refused: u64,
    /// What went wrong, of the sets that may be seen only.
    pub faults: Vec<Fault>,
}

/// One thing that went wrong with a sample of a set that may be seen.
#[derive(Clone, Debug)]
pub struct Fault {
    /// `missed R07`, `decoy`, `background`.
    pub what: String,
    /// The bytes it is about.
    pub bytes: String,
    /// The sample's template.
    pub template: usize,
    /// The sample.
    pub text: String,
    /// What became of it.
    pub out: String,
}

impl Report {
    /// Secrets found of all classes of a kind.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> Share {
        let of_kind = self.classes.iter().filter(|(class, _)| class.kind() == kind);
        of_kind.fold(Share::default(), |sum, (_, share)| Share {
            hits: sum.hits + share.hits,
            of: sum.of + share.of,
        })
    }
}

/// Redacts one text as a stream of its own.
///
/// # Errors
/// As [`Redactor::push`].
pub fn redacted(text: &str) -> Result<String, RedactError> {
    let mut redactor = Redactor::new(&SnapshotKey::new([1; 32]).into());
    let mut out = Vec::with_capacity(text.len() + 64);
    redactor.push(text.as_bytes(), &mut out)?;
    redactor.finish(&mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Redacts `samples`, made from `set`, one by one and compares.
#[must_use]
pub fn measure(set: Set, samples: &[Sample]) -> Report {
    let mut report = Report::default();
    for sample in samples {
        let Ok(out) = redacted(&sample.text) else {
            report.refused += 1;
            continue;
        };
        report.add(set, sample, &out);
    }
    report
}

impl Report {
    fn add(&mut self, set: Set, sample: &Sample, out: &str) {
        let hidden = align::hidden(&sample.text, out);
        let mut fault = |what: String, range: std::ops::Range<usize>| {
            if set.may_be_seen() {
                self.faults.push(Fault {
                    what,
                    bytes: sample.text.get(range).unwrap_or_default().to_owned(),
                    template: sample.template,
                    text: sample.text.clone(),
                    out: out.to_owned(),
                });
            }
        };
        for secret in &sample.secrets {
            let gone = hidden.get(secret.range.clone()).is_some_and(|b| b.iter().all(|&h| h));
            self.classes.entry(secret.class).or_default().count(gone);
            self.shapes.entry(sample.shape).or_default().count(gone);
            self.cells.entry((secret.class, sample.shape)).or_default().count(gone);
            self.wraps.entry(sample.wrap).or_default().count(gone);
            if !gone {
                fault(format!("missed {}", secret.class), secret.range.clone());
            }
        }
        for decoy in &sample.decoys {
            let altered = hidden.get(decoy.clone()).is_none_or(|b| b.iter().any(|&h| h));
            self.decoys.count(altered);
            if altered {
                fault("decoy".into(), decoy.clone());
            }
        }
        if sample.background {
            let altered = out != sample.text;
            self.background.count(altered);
            if altered {
                fault("background".into(), 0..0);
                for class in align::classes(out) {
                    *self.alarms.entry((sample.shape, class.to_owned())).or_default() += 1;
                }
            }
        }
    }
}
