//! Templates and word pools, read from the text files of a set.
//!
//! A set is made of one part or more, each with pools of its own. A file has sections. `@R01 logfmt` begins templates of a class in a shape, `@- klog` lines that
//! hold no secret, `%host` the values of a pool (`%logger !`: values that must stay readable).
//! A line is one template or value; `#` begins a comment. In a line, `«spec»` is a secret of the
//! section's class (`«R29=spec»` of another), `‹spec›` something ordinary, `‹=text›` a text that must
//! stay readable; `⏎`, `⇥` and `␛` are a line break, a tab and an escape. A spec is the name of a pool
//! or generator (`value.rs`), `:argument`, then encodings (`fill.rs`) after `|`.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use crate::Set;
use crate::class::{Class, Shape};
use crate::value::Forms;

/// One template; its place in the library is its number.
#[derive(Debug)]
pub(crate) struct Template {
    /// `None`: background.
    pub(crate) class: Option<Class>,
    pub(crate) shape: Shape,
    pub(crate) text: &'static str,
    /// The place of its part in the library.
    pub(crate) part: usize,
}

/// Who thought values up: each part of a set has its own forms of passwords, addresses and the like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hand {
    /// Its forms are beside those of the validation set, where each value is made.
    Development,
    Validation,
    Own(&'static Forms),
}

/// Files that share their pools.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) hand: Hand,
    pub(crate) texts: &'static [&'static str],
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) readable: bool,
    pub(crate) values: Vec<&'static str>,
}

/// What the templates of one part are filled from.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) hand: Hand,
    pub(crate) pools: HashMap<&'static str, Pool>,
}

/// All that a set is made from.
#[derive(Debug, Default)]
pub(crate) struct Library {
    pub(crate) templates: Vec<Template>,
    pub(crate) by_class: BTreeMap<Option<Class>, Vec<usize>>,
    pub(crate) parts: Vec<Part>,
}

enum Section {
    None,
    Templates(Option<Class>, Shape),
    Pool(&'static str),
}

impl Library {
    pub(crate) fn of(set: Set) -> &'static Self {
        static DEVELOPMENT: OnceLock<Library> = OnceLock::new();
        static VALIDATION: OnceLock<Library> = OnceLock::new();
        static REHEARSAL: OnceLock<Library> = OnceLock::new();
        static EVALUATION: OnceLock<Library> = OnceLock::new();
        match set {
            Set::Development => DEVELOPMENT.get_or_init(|| Self::read(crate::files::DEVELOPMENT)),
            Set::Validation => VALIDATION.get_or_init(|| Self::read(crate::files::VALIDATION)),
            Set::Rehearsal => REHEARSAL.get_or_init(|| Self::read(crate::files::REHEARSAL)),
            Set::Evaluation => EVALUATION.get_or_init(|| Self::read(crate::files::EVALUATION)),
        }
    }

    /// Panics at a malformed header: the files are part of this crate, and its tests read them all.
    fn read(parts: &[Files]) -> Self {
        let mut library = Self::default();
        for part in parts {
            let mut pools = HashMap::new();
            for text in part.texts {
                library.read_file(text, &mut pools);
            }
            library.parts.push(Part { hand: part.hand, pools });
        }
        library
    }

    fn read_file(&mut self, text: &'static str, pools: &mut HashMap<&'static str, Pool>) {
        let mut section = Section::None;
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(header) = line.strip_prefix('@') {
                section = templates(header);
            } else if let Some(header) = line.strip_prefix('%') {
                let (name, readable) = match header.strip_suffix(" !") {
                    Some(name) => (name, true),
                    None => (header, false),
                };
                pools.entry(name).or_default().readable = readable;
                section = Section::Pool(name);
            } else {
                self.add(&section, line, pools);
            }
        }
    }

    fn add(
        &mut self,
        section: &Section,
        line: &'static str,
        pools: &mut HashMap<&'static str, Pool>,
    ) {
        match section {
            Section::None => panic!("a line before any section: {line}"),
            Section::Templates(class, shape) => {
                self.by_class.entry(*class).or_default().push(self.templates.len());
                self.templates.push(Template {
                    class: *class,
                    shape: *shape,
                    text: line,
                    part: self.parts.len(),
                });
            }
            Section::Pool(name) => pools.entry(name).or_default().values.push(line),
        }
    }
}

fn templates(header: &str) -> Section {
    let parsed = header.split_once(' ').and_then(|(class, shape)| {
        let class = if class == "-" { None } else { Some(class.parse().ok()?) };
        Some(Section::Templates(class, shape.parse().ok()?))
    });
    parsed.unwrap_or_else(|| panic!("not a class and a shape: @{header}"))
}
