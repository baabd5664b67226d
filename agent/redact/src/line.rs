//! One line: prefix, shadows, scanners, and the merged result.

use std::sync::{Arc, LazyLock};

use memchr::memmem;

use super::follow::Follow;
use super::placeholder::{self, Pieces, Placeholders};
use super::scan::{Cue, MOST_SPANS, Scan, Span, looked};
use super::shadow::{self, Plain, Shadow};
use super::signs::Signs;
use super::stems::{Reader, Rule, STEMS};
use super::{
    Class, Counts, Finder, Redaction, address, announced, assign, body, header, members, mendix,
    near, numbers, pairs, prefixed, prose, query, sql, tool,
};

/// Capacity, in spans, above which the list gives its memory back after the line.
const KEPT_SPANS: usize = 4096;
impl Scan<'_> {
    /// Asks those who look for more than the rules know.
    fn ask(&mut self, finders: &[Box<dyn Finder>]) {
        let (text, body) = (self.rest(self.body), self.body);
        for finder in finders {
            let class = finder.class();
            finder.find(text, &mut |range| self.add(body + range.start, body + range.end, class));
        }
    }

    /// Looks for keys and prefixes only.
    fn run_stems(&mut self) {
        STEMS.scan(self.text, self.body, &mut Stemmed(self));
    }

    /// Runs every scanner.
    fn run_all(&mut self, signs: Signs) {
        STEMS.scan(self.text, self.body, self);
        address::at_signs(self, signs);
    }

    fn at_stem(&mut self, rule: Rule, start: usize, end: usize) {
        if self.spent() {
            return;
        }
        match rule {
            Rule::Pass
            | Rule::Pwd
            | Rule::Password
            | Rule::Secret
            | Rule::Credential
            | Rule::Token
            | Rule::Key
            | Rule::Signature
            | Rule::Session
            | Rule::ForeignKey
            | Rule::Weak => assign::at_stem(self, rule, start, end),
            Rule::WeakSigned => assign::at_stem(self, Rule::Weak, start, end - 1),
            Rule::Sig => query::at_sig(self, start),
            Rule::Auth => header::at_auth(self, start, end),
            Rule::Scheme => header::at_scheme(self, start, end),
            Rule::Cookie => header::at_cookie(self, start, end),
            Rule::GoCookie => header::at_go_cookie(self, end),
            Rule::Creds => tool::at_creds(self, start, end),
            Rule::OauthParameter => query::at_oauth(self, start, end),
            Rule::SamlParameter => query::at_saml(self, start, end),
            Rule::SamlElement => query::at_assertion(self, start, end),
            Rule::PemBegin => prefixed::at_pem(self, start, end),
            Rule::Jwt => prefixed::at_jwt(self, start),
            Rule::Blob => prefixed::at_blob(self, start, end),
            Rule::Bot => prefixed::at_bot(self, start),
            Rule::Hook => prefixed::at_hook(self, end),
            Rule::Mark => prefixed::at_mark(self, start, end),
            Rule::Hash => prefixed::at_hash(self, start, end),
            Rule::ValueFlag => tool::at_value_flag(self, start, end),
            Rule::NewValue => announced::at_new_value(self, start, end),
            Rule::Vendor(index) => prefixed::at_vendor(self, index, start, end),
            Rule::MendixConstants => members::at_map(self, Class::MendixConstant, start, end),
            Rule::MendixVariable => mendix::at_mendix_variable(self, start, end),
            Rule::OracleThin => query::at_oracle(self, end),
            Rule::GoUser => query::at_go_user(self, end),
            Rule::Bsn => numbers::at_bsn(self, start, end),
            Rule::Body => body::at_body(self, start, end),
            Rule::Phone => numbers::at_phone(self, start, end),
            Rule::Manifest => self.cues.manifest = true,
            Rule::ShortPassword => assign::at_stem(self, rule, start, end - 1),
            Rule::ShortPin => assign::at_stem(self, Rule::Pin, start, end - 1),
            Rule::SamlWord => announced::at_word(self, start, end, Class::Saml),
            Rule::KeyWord => announced::at_word(self, start, end, Class::KeyBlob),
            Rule::Element => announced::at_element(self, start, end),
            Rule::LoneValue => pairs::at_lone_value(self, end),
            Rule::Jwk => announced::at_jwk(self, start),
            Rule::Print => announced::at_print(self, start, end),
            Rule::SecretCommand => {
                self.cues.secret = true;
                if self.cues.next.is_none() {
                    self.cues.next = Some(Cue::Output(Class::K8sSecret));
                }
            }
            Rule::OauthMember => query::at_oauth_member(self, start, end),
            Rule::XPath => sql::at_xpath(self, start, end),
            Rule::KeyDetail => sql::at_detail(self, end),
            Rule::TooLong => sql::at_too_long(self, end),
            Rule::Code => prose::at_code(self, start, end),
            Rule::Pin => assign::at_stem(self, rule, start, end),
            Rule::Literal => assign::at_literal(self, end),
            Rule::StringData => members::at_map(self, Class::K8sSecret, start, end),
            Rule::MxAdmin => mendix::at_admin(self, end),
            Rule::Tool => tool::at_tool(self, start, end),
            Rule::Echo => tool::at_echo(self, start, end),
            Rule::Put => tool::at_put(self, end),
            Rule::OracleTool => tool::at_oracle(self, end),
            Rule::Connect => tool::at_connect(self, start, end),
            Rule::UserFlag => tool::at_user_flag(self, end),
            Rule::ShortFlag => tool::at_short_flag(self, end),
            Rule::SlashFlag => tool::at_slash_flag(self, end),
            Rule::UserRules => tool::at_rule_of_user(self, end),
            Rule::SecureString => tool::at_secure_string(self, end),
            Rule::Pgpass => tool::at_pgpass(self, end),
            Rule::Prompt => announced::at_prompt(self),
            Rule::PrivateLines => announced::at_private_lines(self),
            Rule::Ssh2 => self.cues.next = Some(Cue::Pem { column: start - self.body.min(start) }),
            Rule::Args => sql::at_args(self, end),
            Rule::Bound => sql::at_bound(self, end),
            Rule::Login => {
                let name = self.slice(start, end).iter().take_while(|&&b| b != b' ').count();
                tool::at_tool(self, start, start + name);
            }
            Rule::MendixConstant => mendix::at_constant(self, start, end - 1),
            Rule::MendixList => mendix::at_constants(self, start, end),
            Rule::Data => members::at_data(self, start, end),
            Rule::GoBytes => members::object(self, Class::K8sSecret, end - 1, false),
            Rule::KeyName => pairs::at_key_name(self, end),
            Rule::GoSecret => members::go_secret(self, end - 1),
            Rule::Statement => sql::at_statement(self, start, end),
            Rule::Fragment => sql::at_fragment(self, start, end),
            Rule::BoundPairs => sql::at_pairs(self, start),
            Rule::Said => sql::at_said(self, start),
            Rule::BoundList => sql::at_list(self, end),
            Rule::Binding => sql::at_binding(self, end),
            Rule::Duplicate => sql::at_duplicate(self, end.saturating_sub(1)),
            Rule::Copied => sql::at_copied(self, end),
            Rule::Variables => sql::at_variables(self, end),
            Rule::Parameters => sql::at_parameters(self, end),
            Rule::Identified => sql::at_identified(self, end),
            Rule::BoundValue => sql::at_value(self, end),
            Rule::BoundMap => sql::at_map(self, end),
            Rule::Row => sql::at_row(self, end),
            Rule::Complaint => sql::at_complaint(self, end),
            Rule::Positional => tool::at_login(self, start, end),
            Rule::Call => tool::at_call(self, start, end),
            Rule::Attempt => prose::at_attempt(self, start, end),
            Rule::Entry => near::at_entry(self, start, end),
            Rule::Path => query::at_path(self, end),
            Rule::Send => tool::at_send(self, start, end),
            Rule::Community => tool::at_community(self, start, end),
            Rule::Generated => pairs::at_generated(self, end),
            Rule::DataLine => {
                let lead = self.slice(self.body, start.min(self.body + 64));
                let alone = self.text_end == end && lead.iter().all(|&b| b == b' ');
                self.cues.manifest |= alone;
            }
            Rule::BoundTo => sql::at_bound_to(self, end),
            Rule::Escape => self.escapes = true,
        }
    }
}

impl Reader for Scan<'_> {
    const NUMBERS: bool = true;

    fn stem(&mut self, rule: Rule, start: usize, end: usize) {
        self.at_stem(rule, start, end);
    }

    fn digits(&mut self, at: usize) -> usize {
        numbers::at_digits(self, at)
    }

    fn address(&mut self, at: usize) -> usize {
        address::at_mark(self, at)
    }
}

/// Looks for stems alone.
struct Stemmed<'s, 'a>(&'s mut Scan<'a>);

impl Reader for Stemmed<'_, '_> {
    const NUMBERS: bool = false;

    fn stem(&mut self, rule: Rule, start: usize, end: usize) {
        self.0.at_stem(rule, start, end);
    }

    fn digits(&mut self, at: usize) -> usize {
        at
    }

    fn address(&mut self, at: usize) -> usize {
        at
    }
}

/// Redacts line after line of one stream.
pub(super) struct Lines {
    placeholders: Placeholders,
    counts: Counts,
    spans: Vec<Span>,
    cleaned: Shadow,
    decoded: Shadow,
    plain: Plain,
    follow: Follow,
    finders: Arc<[Box<dyn Finder>]>,
}

impl Lines {
    pub(super) fn new(redaction: &Redaction) -> Self {
        Self {
            placeholders: Placeholders::new(&redaction.key),
            counts: Counts::default(),
            spans: Vec::new(),
            cleaned: Shadow::default(),
            decoded: Shadow::default(),
            plain: Plain::default(),
            follow: Follow::default(),
            finders: Arc::clone(&redaction.finders),
        }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn note(&mut self, class: Class) {
        self.counts.note(class);
    }

    pub(super) fn begin_placeholder(&self) -> Pieces {
        self.placeholders.begin()
    }

    /// Appends the redacted form of `line`, which has no line end.
    pub(super) fn redact(&mut self, line: &[u8], ascii: bool, signs: Signs, out: &mut Vec<u8>) {
        self.spans.clear();
        let (line, line_end) = match line.strip_suffix(b"\r") {
            Some(line) => (line, &b"\r"[..]),
            None => (line, &b""[..]),
        };
        let odd = signs.odd && memchr::memchr3(0x1b, b'%', b'~', line).is_some();
        let colours = odd && memchr::memchr(0x1b, line).is_some();
        let unclean = colours || (!ascii && shadow::has_odd_characters(line));
        if unclean {
            self.cleaned.clean(line);
        }
        let text = if unclean { self.cleaned.text() } else { line };
        let body = timestamp_prefix(text);
        // What is made plain may be any sign.
        let signs = if unclean { Signs::ANY } else { signs };
        let line_ends = if signs.backslash { escaped_line_ends(text) } else { 0 };

        let mut scan = Scan::new(text, body, &mut self.spans);
        scan.own = signs.own && placeholder::is_in(text);
        if self.follow.waits() {
            self.follow.apply(&mut scan);
        }
        scan.run_all(signs);
        scan.ask(&self.finders);
        if odd {
            prefixed::entra(&mut scan);
        }
        if signs.padding {
            prefixed::azure(&mut scan);
        }
        let escapes = scan.escapes;
        let cues = scan.finish();
        self.follow.update(text, body, cues);
        if line_ends != 0 {
            inner_lines(text, body, line_ends, &mut self.spans);
        }

        let percent = odd && memchr::memchr(b'%', text).is_some();
        let escaped = percent || escapes;
        if escaped && self.decoded.decode(text) {
            let found = self.spans.len();
            decoded_lines(self.decoded.text(), body, &self.finders, &mut self.spans);
            let mut index = found;
            while let Some(span) = self.spans.get_mut(index) {
                if let Some((start, end)) = self.decoded.source(span.start, span.end) {
                    (span.start, span.end) = (start, end);
                    index += 1;
                } else {
                    self.spans.swap_remove(index);
                }
            }
        }
        if unclean {
            for span in &mut self.spans {
                if let Some((start, end)) = self.cleaned.source(span.start, span.end) {
                    (span.start, span.end) = (start, end);
                }
            }
        }
        self.write(line, out);
        out.extend_from_slice(line_end);
        if unclean {
            self.cleaned.clear();
        }
        if escaped {
            self.decoded.clear();
        }
        if self.spans.capacity() > KEPT_SPANS {
            self.spans = Vec::new();
        }
    }

    /// Writes `line` with its spans replaced; overlapping ones become one, of the class of the
    /// first.
    fn write(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if self.spans.is_empty() {
            out.extend_from_slice(line);
            return;
        }
        if self.spans.len() > MOST_SPANS {
            let start = timestamp_prefix(line);
            self.spans.clear();
            self.spans.push(Span { start, end: line.len(), class: Class::Line });
        }
        self.spans.sort_unstable_by_key(|s| (s.start, std::cmp::Reverse(s.end), s.class));
        let mut written = 0;
        let mut spans = self.spans.iter().copied().peekable();
        while let Some(mut span) = spans.next() {
            while let Some(next) = spans.next_if(|next| next.start < span.end) {
                span.end = span.end.max(next.end);
            }
            out.extend_from_slice(line.get(written..span.start).unwrap_or_default());
            let value = line.get(span.start..span.end).unwrap_or_default();
            self.placeholders.write(span.class, self.plain.of(value), out);
            self.counts.note(span.class);
            written = span.end;
        }
        out.extend_from_slice(line.get(written..).unwrap_or_default());
        self.plain.clear();
    }
}

/// Reads a decoded text line by line: line ends may have been encoded as well.
fn decoded_lines(text: &[u8], body: usize, finders: &[Box<dyn Finder>], spans: &mut Vec<Span>) {
    let mut follow = Follow::default();
    let mut start = body;
    loop {
        let rest = text.get(start..).unwrap_or_default();
        let end = memchr::memchr(b'\n', rest).map_or(text.len(), |len| start + len);
        let line = text.get(..end).unwrap_or_default();
        let mut scan = Scan::new(line, start, spans);
        scan.own = placeholder::is_in(line.get(start..).unwrap_or_default());
        if follow.waits() {
            follow.apply(&mut scan);
        }
        scan.run_all(Signs::ANY);
        scan.ask(finders);
        prefixed::entra(&mut scan);
        prefixed::azure(&mut scan);
        let cues = scan.finish();
        follow.update(line, start, cues);
        if end >= text.len() {
            return;
        }
        start = end + 1;
    }
}

/// Backslashes of the escapes of line ends that are read, each a bit of what [`escaped_line_ends`] says.
const LINE_ENDS: [usize; 3] = [1, 2, 4];

/// Which escapes of line ends `text` holds.
fn escaped_line_ends(text: &[u8]) -> usize {
    let mut found = 0;
    let mut run_end = 0;
    for at in memchr::memchr_iter(b'\\', text) {
        // Once for each run of backslashes.
        if at >= run_end {
            let rest = text.get(at..).unwrap_or_default();
            let run = rest.iter().take_while(|&&b| b == b'\\').count();
            looked(run + 1);
            run_end = at + run;
            if rest.get(run) == Some(&b'n') && LINE_ENDS.contains(&run) {
                found |= run;
            }
        }
    }
    found
}

/// Reads the lines inside of strings, for what depends on lines: an escaped line end ends one.
///
/// The escape of a line end that was escaped `d` times has `2^d` backslashes, and the quotes around
/// that string have one fewer; quotes inside of it have more. `line_ends` says which of them there are.
fn inner_lines(text: &[u8], body: usize, line_ends: usize, spans: &mut Vec<Span>) {
    static ESCAPE: LazyLock<memmem::Finder<'static>> =
        LazyLock::new(|| memmem::Finder::new(b"\\n"));
    for slashes in LINE_ENDS.into_iter().filter(|slashes| line_ends & slashes != 0) {
        let mut follow = Follow::default();
        let mut string: Option<(usize, usize)> = None;
        let mut line_start = 0;
        for hit in ESCAPE.find_iter(text) {
            let end = hit + 1;
            let run = run_before(text, end);
            if run != slashes {
                continue;
            }
            if string.is_none_or(|(_, string_end)| end > string_end) {
                let start = string_start(text, body, end, slashes);
                let string_end = string_end(text, end, slashes);
                string = Some((start, string_end));
                follow = Follow::default();
                line_start = start;
            }
            inner_line(text, line_start, end - run, &mut follow, spans);
            line_start = end + 1;
            // The last line of the string has no line end.
            let next = ESCAPE.find(text.get(line_start..).unwrap_or_default());
            if let Some((_, string_end)) = string
                && next.is_none_or(|next| line_start + next > string_end)
            {
                inner_line(text, line_start, string_end, &mut follow, spans);
            }
        }
    }
}

fn inner_line(text: &[u8], start: usize, end: usize, follow: &mut Follow, spans: &mut Vec<Span>) {
    let Some(text) = text.get(..end) else { return };
    if start >= end {
        return;
    }
    let mut scan = Scan::new(text, start, spans);
    scan.own = placeholder::is_in(text.get(start..).unwrap_or_default());
    if follow.waits() {
        follow.apply(&mut scan);
    }
    scan.run_stems();
    let cues = scan.finish();
    follow.update(text, start, cues);
}

/// Backslashes right before `at`.
fn run_before(text: &[u8], at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    let run = before.iter().rev().take_while(|&&b| b == b'\\').count();
    looked(run + 1);
    run
}

/// Where the string around `at` begins, given the backslashes of its line ends.
fn string_start(text: &[u8], body: usize, at: usize, slashes: usize) -> usize {
    let before = text.get(body..at).unwrap_or_default();
    let start = memchr::memrchr_iter(b'"', before)
        .map(|quote| body + quote)
        .find(|&quote| run_before(text, quote) < 2 * slashes - 1)
        .map_or(body, |quote| quote + 1);
    looked(at - start);
    start
}

/// Where the string around `at` ends.
fn string_end(text: &[u8], at: usize, slashes: usize) -> usize {
    let end = memchr::memchr_iter(b'"', text.get(at..).unwrap_or_default())
        .map(|quote| at + quote)
        .find_map(|quote| {
            let run = run_before(text, quote);
            (run < 2 * slashes - 1).then_some(quote - run)
        })
        .unwrap_or(text.len());
    looked(end.saturating_sub(at));
    end
}

/// Length of the RFC 3339 time stamp and space that pod logs put before each line, with stream and
/// tag if they are the runtime's own; 0 without one.
pub(super) fn timestamp_prefix(line: &[u8]) -> usize {
    let shape = |at: usize, sign: u8| line.get(at) == Some(&sign);
    if !(shape(4, b'-') && shape(7, b'-') && shape(10, b'T') && shape(13, b':') && shape(16, b':'))
    {
        return 0;
    }
    // A table, since this is asked of every line.
    const STAMP: [bool; 256] = {
        let mut signs = [false; 256];
        let mut i = 0;
        while i < 256 {
            signs[i] = matches!(i as u8, b'0'..=b'9' | b'-' | b':' | b'T' | b'.' | b'Z' | b'+');
            i += 1;
        }
        signs
    };
    let len = line.iter().take(40).take_while(|&&b| STAMP[usize::from(b)]).count();
    if !(20..40).contains(&len) || line.get(len) != Some(&b' ') {
        return 0;
    }
    // A record as the runtime writes it: stream, and whether the line is full or partial.
    let rest = line.get(len + 1..).unwrap_or_default();
    let record = [&b"stdout F "[..], b"stderr F ", b"stdout P ", b"stderr P "];
    len + 1 + record.iter().find(|mark| rest.starts_with(mark)).map_or(0, |mark| mark.len())
}
