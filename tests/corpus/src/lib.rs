//! A labelled corpus of log lines, made from a seed: where the secrets are, and what must stay
//! readable. Redaction is measured against it (recall over secrets, precision over decoys and over
//! lines that hold nothing secret), so it is written without a look at the rules it measures.
//!
//! Four sets of templates and word pools, written apart: rules may be tuned on
//! [`Set::Development`], and checked and corrected on [`Set::Validation`] and [`Set::Rehearsal`]; what
//! is claimed is measured on [`Set::Evaluation`]. Templates are text files under `templates/`; `template.rs` says how they
//! are written. Values are made up: no line comes from a real system.

mod class;
mod files;
mod fill;
mod labelled;
mod random;
mod template;
mod value;
mod wrap;

use std::ops::Range;

pub use class::{Class, Kind, Shape, Unknown};
pub use wrap::Wrap;

use crate::fill::Source;
use crate::labelled::Labelled;
use crate::random::Random;
use crate::template::Library;

/// Which templates and word pools a sample is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Set {
    /// To tune rules on.
    Development,
    /// To see whether rules hold on lines they were not written from. It was measured on until its
    /// figures had taught the rules something; since then its lines may be read, too.
    Validation,
    /// The evaluation sets of redaction policies before the present one, which have been read since, and
    /// parts that people wrote for it who had not read the rules.
    Rehearsal,
    /// To measure on: nobody who works on the rules reads its lines.
    Evaluation,
}

impl Set {
    /// Every set.
    pub const ALL: [Self; 4] =
        [Self::Development, Self::Validation, Self::Rehearsal, Self::Evaluation];

    /// What it is called on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Validation => "validation",
            Self::Rehearsal => "rehearsal",
            Self::Evaluation => "evaluation",
        }
    }

    /// Whether those who work on the rules may see what the rules did to its lines.
    pub fn may_be_seen(self) -> bool {
        self != Self::Evaluation
    }
}

/// A secret's place in a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Exactly the bytes that must not be readable afterwards, encoded as they stand there. It lies
    /// within one line; a key over several lines is several secrets.
    pub range: Range<usize>,
    /// Its class.
    pub class: Class,
}

/// One log line, or several that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The text, without a line break at its end.
    pub text: String,
    /// What it looks like.
    pub shape: Shape,
    /// How it was wrapped.
    pub wrap: Wrap,
    /// The template's number within its set: samples of one template are not independent.
    pub template: usize,
    /// The class that the template is about; `None` for background.
    pub about: Option<Class>,
    /// In the order of their places. Some are of other classes than `about`.
    pub secrets: Vec<Secret>,
    /// What must stay readable, in the order of their places.
    pub decoys: Vec<Range<usize>>,
    /// An ordinary line: nothing in it is secret, and all of it must stay as it is.
    pub background: bool,
}

/// Of so many samples one is background.
const BACKGROUND_EVERY: usize = 3;

/// The first `count` samples of a seed. Sample `i` depends on the set, the seed and `i` alone: a
/// longer corpus begins with the shorter one. Two of three samples hold secrets; their classes, and
/// within a class its templates, come equally often.
pub fn generate(set: Set, seed: u64, count: usize) -> Vec<Sample> {
    (0..count).map(|index| sample(set, seed, index).0).collect()
}

/// How many templates a set has for a class (`None`: background).
pub fn templates(set: Set, class: Option<Class>) -> usize {
    Library::of(set).by_class.get(&class).map_or(0, Vec::len)
}

/// A sample and what its text was made from, before labels were put into order.
fn sample(set: Set, seed: u64, index: usize) -> (Sample, Labelled) {
    let library = Library::of(set);
    let mut random = Random::of_sample(seed, index as u64);
    let class = if index % BACKGROUND_EVERY == BACKGROUND_EVERY - 1 {
        None
    } else {
        Some(*random.pick(Class::ALL))
    };
    let template = *random.pick(&library.by_class[&class]);
    made(set, template, &mut random, None)
}

fn made(set: Set, template: usize, random: &mut Random, wrap: Option<Wrap>) -> (Sample, Labelled) {
    let library = Library::of(set);
    let from = &library.templates[template];
    let mut source = Source { part: &library.parts[from.part], random };
    let filled = source.fill(from.text, from.class);
    let wrap = wrap.unwrap_or_else(|| Wrap::drawn(&mut source));
    let mut labelled = wrap.around(filled, &mut source);
    labelled.secrets.sort_by_key(|p| p.range.start);
    labelled.decoys.sort_by_key(|r| r.start);
    let sample = Sample {
        text: labelled.text.clone(),
        shape: from.shape,
        wrap,
        template,
        about: from.class,
        secrets: labelled
            .secrets
            .iter()
            .map(|p| Secret { range: p.range.clone(), class: p.class })
            .collect(),
        decoys: labelled.decoys.clone(),
        background: from.class.is_none(),
    };
    (sample, labelled)
}

#[cfg(test)]
mod tests;
