//! From a template to labelled text: every placeholder gets its value, every value its label.

use crate::class::Class;
use crate::labelled::{self, Labelled};
use crate::random::Random;
use crate::template::Part;
use crate::value;

/// What values are drawn from.
pub(crate) struct Source<'a> {
    pub(crate) part: &'static Part,
    pub(crate) random: &'a mut Random,
}

/// Pools name pools; deeper than this a pool names itself.
const DEEPEST: usize = 8;

impl Source<'_> {
    /// A value of a pool, with what it holds filled in.
    pub(crate) fn word(&mut self, pool: &str) -> String {
        let mut out = Labelled::default();
        self.pool(pool, None, false, 0, &mut out);
        out.text
    }

    pub(crate) fn fill(&mut self, template: &str, class: Option<Class>) -> Labelled {
        let mut out = Labelled::default();
        self.fill_at(template, class, 0, &mut out);
        out.split_at_lines();
        out
    }

    fn fill_at(&mut self, template: &str, class: Option<Class>, depth: usize, out: &mut Labelled) {
        assert!(depth < DEEPEST, "a pool that names itself: {template}");
        let mut rest = template;
        while let Some(at) = rest.find(['«', '‹', '⏎', '⇥', '␛']) {
            out.push(&rest[..at]);
            let mut after = rest[at..].chars();
            let mark = after.next();
            rest = after.as_str();
            let close = match mark {
                Some('⏎') => Err("\n"),
                Some('⇥') => Err("\t"),
                Some('␛') => Err("\u{1b}"),
                Some('«') => Ok('»'),
                _ => Ok('›'),
            };
            match close {
                Err(control) => out.push(control),
                Ok(close) => {
                    let (spec, tail) = rest
                        .split_once(close)
                        .unwrap_or_else(|| panic!("no {close} in {template}"));
                    let filled = self.placeholder(spec, close == '»', class, depth);
                    out.append(filled);
                    rest = tail;
                }
            }
        }
        out.push(rest);
    }

    fn placeholder(
        &mut self,
        spec: &str,
        secret: bool,
        class: Option<Class>,
        depth: usize,
    ) -> Labelled {
        let mut out = Labelled::default();
        if let Some(text) = spec.strip_prefix('=').filter(|_| !secret) {
            out.push_decoy(text);
            return out;
        }
        let (class, spec) = match spec.split_once('=').map(|(id, rest)| (id.parse(), rest)) {
            Some((Ok(class), rest)) => (Some(class), rest),
            _ => (class, spec),
        };
        let mut parts = spec.split('|');
        let source = parts.next().unwrap_or_default();
        let (name, argument) = source.split_once(':').unwrap_or((source, ""));
        if secret {
            let value = match value::secret(name, argument, self) {
                Some(value) => value,
                None => {
                    let mut inner = Labelled::default();
                    self.pool(name, class, true, depth, &mut inner);
                    inner.text
                }
            };
            let class = class.unwrap_or_else(|| panic!("a secret without a class: {spec}"));
            out.push_secret(&value, class);
        } else if self.part.pools.contains_key(name) {
            self.pool(name, class, false, depth, &mut out);
        } else if let Some(value) = value::ordinary(name, argument, self) {
            if value.readable {
                out.push_decoy(&value.text);
            } else {
                out.push(&value.text);
            }
        } else {
            panic!("neither a pool nor a generator: {spec}");
        }
        for encoding in parts {
            out = self.encoded(out, encoding);
        }
        out
    }

    fn pool(
        &mut self,
        name: &str,
        class: Option<Class>,
        plain: bool,
        depth: usize,
        out: &mut Labelled,
    ) {
        let pool = self.part.pools.get(name).unwrap_or_else(|| panic!("no pool {name}"));
        let value = *self.random.pick(&pool.values);
        let mut inner = Labelled::default();
        self.fill_at(value, class, depth + 1, &mut inner);
        if pool.readable && !plain {
            out.push_decoy(&inner.text);
        } else {
            out.append(inner);
        }
    }

    fn encoded(&mut self, mut text: Labelled, encoding: &str) -> Labelled {
        let (name, argument) = encoding.split_once(':').unwrap_or((encoding, ""));
        match name {
            "json" => text.encoded(labelled::json),
            "jsonh" => text.encoded(labelled::json_html),
            "pct" => text.encoded(labelled::percent),
            "form" => text.encoded(labelled::form),
            "xml" => text.encoded(labelled::xml),
            "sql" => text.encoded(labelled::sql),
            "b64" => text.base64(),
            // What stands in front of every line but the first: white space, or a pool's value.
            "indent" | "each" => {
                text.split_at_lines();
                let starts = text.line_starts();
                for at in starts.into_iter().skip(1).rev() {
                    let front = match name {
                        "indent" => " ".repeat(argument.parse().unwrap_or_default()),
                        _ => self.word(argument),
                    };
                    text.insert(at, &front);
                }
                text
            }
            _ => panic!("no encoding {encoding}"),
        }
    }
}
