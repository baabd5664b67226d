//! Manifests of Secrets, in YAML and JSON of many lines or of one (R11).

use super::member::{Member, indentation, member};
use crate::Class;
use crate::members;
use crate::scan::Scan;
use crate::value::{self, Reach};

/// Lines between `kind: Secret` or `apiVersion: v1` and its `data:`.
const MANIFEST_LINES: u32 = 64;

/// A Kubernetes manifest in YAML or JSON of many lines.
#[derive(Clone, Copy)]
pub(super) struct Manifest {
    /// Column of `apiVersion`, `kind` and `data`.
    indent: usize,
    /// `kind: Secret` was seen; before that only what looks like base64 of text is taken.
    pub(super) secret: bool,
    /// Inside `data:` or `stringData:`.
    data: bool,
    lines: u32,
}

impl Manifest {
    /// What a command that prints a Secret is followed by.
    pub(super) const OF_A_COMMAND: Self = Self { indent: 0, secret: true, data: false, lines: 0 };

    /// A manifest begins at a line `apiVersion: v1` or `kind: Secret`.
    pub(super) fn begin(scan: &Scan<'_>) -> Option<Self> {
        let member = member(scan)?;
        let value = value::read(scan, member.value, Reach::Word);
        let value = scan.slice(value.start, value.end);
        let secret = member.name == b"kind" && value == b"Secret";
        let core = member.name == b"apiVersion" && value == b"v1";
        // `data:` comes before `kind:` where members are sorted.
        let data = member.name == b"data" && value.is_empty();
        (secret || core || data).then_some(Self { indent: member.column, secret, data, lines: 0 })
    }

    /// Reads the next line of the manifest; false when it has ended.
    pub(super) fn apply(&mut self, scan: &mut Scan<'_>) -> bool {
        let (mut here, blank) = indentation(scan);
        if blank {
            return true;
        }
        let found = member(scan);
        here = found.as_ref().map_or(here, |member| member.column);
        let Some(member) = found else {
            // The lines of a block scalar inside of data.
            if self.data && here > self.indent {
                let start = scan.body + here;
                let end = value::trimmed_end(scan, start, scan.text.len());
                let line = scan.slice(start, end);
                if self.secret && !matches!(line, b"}" | b"}," | b"{") && !line.starts_with(b"# ") {
                    scan.add(start, end, Class::K8sSecret);
                }
                return true;
            }
            self.lines += 1;
            return !scan.starts(scan.body, b"---") && self.lines < MANIFEST_LINES;
        };
        if here > self.indent {
            if self.data && (self.secret || looks_like_secret_data(scan, &member)) {
                member.redact(scan, Class::K8sSecret);
            } else {
                self.lines += 1;
            }
            return self.lines < MANIFEST_LINES;
        }
        if here < self.indent {
            return false;
        }
        self.data = matches!(member.name, b"data" | b"stringData");
        if self.data && self.secret && scan.at(member.value) == Some(b'{') {
            members::object(scan, Class::K8sSecret, member.value, false);
        }
        if member.name == b"kind" {
            let quoted = scan.at(member.value) == Some(b'"');
            self.secret = scan.starts(member.value + usize::from(quoted), b"Secret");
            return self.secret;
        }
        self.lines += 1;
        self.lines < MANIFEST_LINES
    }
}

/// Before the kind is known (`data` sorts before `kind`): base64 of printable text, or long base64.
fn looks_like_secret_data(scan: &Scan<'_>, member: &Member<'_>) -> bool {
    use base64::Engine as _;
    let value = value::read(scan, member.value, Reach::Word);
    let text = scan.slice(value.start, value.end);
    if text.len() < 4 || !text.len().is_multiple_of(4) {
        return false;
    }
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text) else { return false };
    text.len() >= 24 || members::is_text(&bytes)
}
