//! Templates and word pools, read from the text files of a set.
//!
//! A file has sections. `@R01 logfmt` begins templates of a class in a shape, `@- klog` lines that
//! hold no secret, `%host` the values of a pool (`%logger !`: values that must stay readable).
//! A line is one template or value; `#` begins a comment. In a line, `«spec»` is a secret of the
//! section's class (`«R29=spec»` of another), `‹spec›` something ordinary, `‹=text›` a text that must
//! stay readable; `⏎`, `⇥` and `␛` are a line break, a tab and an escape. A spec is the name of a pool
//! or generator (`value.rs`), `:argument`, then encodings (`fill.rs`) after `|`.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use crate::Set;
use crate::class::{Class, Shape};

/// One template; its place in the library is its number.
#[derive(Debug)]
pub(crate) struct Template {
    /// `None`: background.
    pub(crate) class: Option<Class>,
    pub(crate) shape: Shape,
    pub(crate) text: &'static str,
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) readable: bool,
    pub(crate) values: Vec<&'static str>,
}

/// All that a set is made from.
#[derive(Debug, Default)]
pub(crate) struct Library {
    pub(crate) templates: Vec<Template>,
    pub(crate) by_class: BTreeMap<Option<Class>, Vec<usize>>,
    pub(crate) pools: HashMap<&'static str, Pool>,
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
    fn read(files: &[&'static str]) -> Self {
        let mut library = Self::default();
        for file in files {
            let mut section = Section::None;
            for line in file.lines() {
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
                    library.pools.entry(name).or_default().readable = readable;
                    section = Section::Pool(name);
                } else {
                    library.add(&section, line);
                }
            }
        }
        library
    }

    fn add(&mut self, section: &Section, line: &'static str) {
        match section {
            Section::None => panic!("a line before any section: {line}"),
            Section::Templates(class, shape) => {
                self.by_class.entry(*class).or_default().push(self.templates.len());
                self.templates.push(Template { class: *class, shape: *shape, text: line });
            }
            Section::Pool(name) => self.pools.entry(name).or_default().values.push(line),
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
