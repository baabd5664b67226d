//! Command lines of well-known tools whose flags have no telling names: `curl -u user:…`,
//! `mysql -p…` (R09, R24).

mod flags;

pub(super) use self::flags::{at_rule_of_user, at_short_flag, at_slash_flag, at_user_flag};
use super::Class;
use super::header;
use super::judge::{is_locator, is_made_up};
use super::scan::Scan;
use super::value::{self, Reach};

/// Longest command line that is read, bytes.
const LONGEST: usize = 2048;
/// Most arguments that are read.
const MOST: usize = 48;

/// What an argument of a tool holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A password.
    Password,
    /// `user:password`.
    Pair,
    /// `user%password`.
    PercentPair,
    /// `name=value; …`.
    Cookies,
}

/// A flag of some tools.
struct Flag {
    tools: &'static [&'static str],
    /// Only after this subcommand.
    after: Option<&'static str>,
    names: &'static [&'static str],
    holds: Holds,
    /// The value may stand right behind a flag of one letter.
    joined: bool,
}

const fn flag(
    tools: &'static [&'static str],
    names: &'static [&'static str],
    holds: Holds,
    joined: bool,
) -> Flag {
    Flag { tools, after: None, names, holds, joined }
}

const FLAGS: &[Flag] = &[
    flag(
        &["curl"],
        &["-u", "-su", "-sSu", "-ku", "-sku", "-vu", "-iu", "--user", "-U", "--proxy-user"],
        Holds::Pair,
        true,
    ),
    flag(&["curl"], &["-b", "--cookie"], Holds::Cookies, true),
    flag(
        &["mysql", "mysqldump", "mysqladmin", "mysqlimport", "mariadb"],
        &["-p"],
        Holds::Password,
        true,
    ),
    flag(&["sqlcmd", "bcp", "sqlpackage"], &["-P"], Holds::Password, true),
    flag(&["redis-cli"], &["-a"], Holds::Password, false),
    flag(
        &["sshpass", "mongo", "mongosh", "mongodump", "mongorestore"],
        &["-p"],
        Holds::Password,
        true,
    ),
    flag(
        &["ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldapwhoami", "ldappasswd"],
        &["-w"],
        Holds::Password,
        true,
    ),
    flag(&["ansible", "http", "https"], &["-a", "--auth"], Holds::Pair, false),
    flag(&["openssl"], &["-k", "-K"], Holds::Password, false),
    flag(&["zip", "unzip", "mosquitto_pub", "mosquitto_sub"], &["-P"], Holds::Password, false),
    flag(&["7z", "7za"], &["-p"], Holds::Password, true),
    flag(&["useradd", "usermod"], &["-p"], Holds::Password, false),
    flag(&["ssh-keygen"], &["-N", "-P"], Holds::Password, false),
    flag(&["smbclient", "rpcclient"], &["-U"], Holds::PercentPair, false),
    Flag {
        tools: &["az"],
        after: Some("secret"),
        names: &["--value"],
        holds: Holds::Password,
        joined: false,
    },
    Flag {
        tools: &["az"],
        after: Some("ad"),
        names: &["-p"],
        holds: Holds::Password,
        joined: false,
    },
    Flag {
        tools: &["dotnet"],
        after: Some("nuget"),
        names: &["-k"],
        holds: Holds::Password,
        joined: false,
    },
    Flag {
        tools: &[
            "docker", "podman", "helm", "skopeo", "oras", "buildah", "nerdctl", "crane", "az",
            "oc", "cf", "argocd",
        ],
        after: Some("login"),
        names: &["-p"],
        holds: Holds::Password,
        joined: false,
    },
];

/// Tools that take a secret without a flag: after this subcommand, so many words on.
const WORDS: &[(&str, &str, usize)] = &[
    ("vault", "login", 1),
    ("vault", "unseal", 1),
    ("redis-cli", "AUTH", 1),
    ("redis-cli", "auth", 1),
    ("rabbitmqctl", "add_user", 2),
    ("rabbitmqctl", "change_password", 2),
    ("htpasswd", "", 2),
    ("net", "use", 1),
    ("net", "user", 2),
    ("cargo", "login", 1),
    ("mc", "set", 4),
    ("mc", "add", 4),
];

/// A tool's name at `start`.
pub(super) fn at_tool(scan: &mut Scan<'_>, start: usize, end: usize) {
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let more = scan.run(end, 24, is_name);
    let end = end + more;
    if start < scan.done
        || scan.before(start).is_some_and(|b| is_name(&b) || b >= 0x80) && start > scan.body
        || !matches!(scan.at(end), Some(b' ' | b',' | b'"' | b'\'' | b'\\'))
    {
        return;
    }
    let name = scan.slice(start, end);
    // `["mysql","-px"]`, `[mysql, -px]`: arguments in a list.
    let close = value::quote_at(scan, end).map_or(end, |(slashes, _)| end + slashes + 1);
    let listed = scan.at(close) == Some(b',');
    if close != end && !listed || scan.at(end) == Some(b'\\') && close == end {
        return;
    }
    let end = if listed { close + 1 } else { end };
    let flags = || FLAGS.iter().filter(move |f| f.tools.iter().any(|t| t.as_bytes() == name));
    let words = || WORDS.iter().filter(move |(tool, ..)| tool.as_bytes() == name);
    if flags().next().is_none() && words().next().is_none() {
        return;
    }
    let mut after = if name == b"htpasswd" { Some((&b""[..], 0)) } else { None };
    let mut at = end;
    let mut commands = [&b""[..]; 3];
    for _ in 0..MOST {
        at = scan.skip_space(at);
        if at >= scan.text.len() || at > start + LONGEST {
            return;
        }
        let argument = match scan.at(at) {
            // A share: its backslashes escape nothing.
            Some(b'\\') if name == b"net" && value::quote_at(scan, at).is_none() => {
                let end = at + scan.run(at, LONGEST, |b| !b.is_ascii_whitespace());
                value::Value { start: at, end, next: end, quoted: false }
            }
            _ if listed => list_element(scan, at),
            _ => argument_at(scan, at),
        };
        let text = scan.slice(argument.start, argument.end);
        if text.is_empty() || matches!(text, b"|" | b";" | b"&&" | b"||" | b">" | b"#") {
            return;
        }
        if text.first() != Some(&b'-')
            && let Some(room) = commands.iter_mut().find(|room| room.is_empty())
        {
            *room = text;
        }
        at = argument.next.max(at + 1);
        if listed && scan.at(at) == Some(b',') {
            at += 1;
        }
        // `net use z: \\host\share /user:x`: neither drive, share nor option.
        let place = name == b"net"
            && after.is_some()
            && (text.ends_with(b":") || text.first().is_some_and(|b| b"/\\*".contains(b)));
        if text.first() != Some(&b'-') && !place {
            if let Some((command, count)) = &mut after {
                *count += 1;
                let due = words().any(|(_, w, n)| w.as_bytes() == *command && n == count);
                if due && !value::is_nothing(text) {
                    scan.add(argument.start, argument.end, Class::Password);
                    scan.done = scan.done.max(argument.end);
                }
            } else if words().any(|(_, word, _)| word.as_bytes() == text) {
                after = Some((text, 0));
            }
        }
        let said = |f: &&Flag| f.after.is_none_or(|after| commands.contains(&after.as_bytes()));
        for flag in flags().filter(said) {
            for name in flag.names {
                let Some(rest) = text.strip_prefix(name.as_bytes()) else { continue };
                let long = name.starts_with("--");
                if rest.is_empty() && !(flag.joined && *name == "-p" && is_prompting(flag)) {
                    let from = scan.skip_space(at);
                    let next = if listed {
                        list_element(scan, from)
                    } else {
                        value::read(scan, from, Reach::Word)
                    };
                    at = next.next.max(at);
                    take(scan, flag.holds, next.start, next.end);
                } else if long && rest.first() == Some(&b'=')
                    || !long && flag.joined && !rest.is_empty()
                {
                    let signed = long || rest.first() == Some(&b'=');
                    let from = argument.end - rest.len() + usize::from(signed);
                    // `-p'x y'`
                    let value = match value::quote_at(scan, from) {
                        Some((slashes, quote)) => value::quoted(scan, from, slashes, quote),
                        None => {
                            value::Value { start: from, end: argument.end, next: at, quoted: false }
                        }
                    };
                    at = value.next.max(at);
                    take(scan, flag.holds, value.start, value.end);
                }
            }
        }
    }
}

/// The element at `at` of a list of arguments.
fn list_element(scan: &Scan<'_>, at: usize) -> value::Value {
    if value::quote_at(scan, at).is_some() {
        return value::read(scan, at, Reach::Word);
    }
    let end = at + scan.run(at, 256, |b| !b",]".contains(b));
    value::Value { start: at, end, next: end, quoted: false }
}

/// The argument at `at`; a comma ends none, as in `cn=admin,dc=example`.
fn argument_at(scan: &Scan<'_>, at: usize) -> value::Value {
    /// Most commas.
    const MOST: usize = 16;
    // `-p='x y'`
    if scan.at(at) == Some(b'-')
        && scan.at(at + 2) == Some(b'=')
        && let Some((slashes, quote)) = value::quote_at(scan, at + 3)
    {
        let next = value::quoted(scan, at + 3, slashes, quote).next;
        return value::Value { start: at, end: next, next, quoted: false };
    }
    let mut argument = value::read(scan, at, Reach::Word);
    for _ in 0..MOST {
        let more = scan.at(argument.next + 1).is_some_and(|b| b.is_ascii_alphanumeric());
        if argument.quoted || scan.at(argument.next) != Some(b',') || !more {
            break;
        }
        let next = value::read(scan, argument.next + 1, Reach::Word);
        argument.end = next.end;
        argument.next = next.next;
    }
    argument
}

/// MySQL's `-p` alone asks for the password: what follows is none.
fn is_prompting(flag: &Flag) -> bool {
    flag.tools.contains(&"mysql")
}

fn take(scan: &mut Scan<'_>, holds: Holds, start: usize, end: usize) {
    let text = scan.slice(start, end);
    if value::is_nothing(text) || text.first() == Some(&b'-') || is_locator(text) {
        return;
    }
    match holds {
        Holds::Password => scan.add(start, end, Class::Password),
        Holds::Pair => {
            let Some(colon) = memchr::memchr(b':', text) else { return };
            scan.add(start + colon + 1, end, Class::Password);
        }
        Holds::PercentPair => {
            let Some(sign) = memchr::memchr(b'%', text) else { return };
            scan.add(start + sign + 1, end, Class::Password);
        }
        Holds::Cookies => {
            header::cookies(scan, start, end);
        }
    }
    scan.done = scan.done.max(end);
}

/// `sqlplus bob/x@db`, `impdp bob/x`: the password of a user of Oracle's tools.
pub(super) fn at_oracle(scan: &mut Scan<'_>, end: usize) {
    let mut at = end;
    for _ in 0..4 {
        at = scan.skip_space(at);
        let len = scan.run(at, 256, |b| !b.is_ascii_whitespace() && !b"\"'".contains(b));
        let text = scan.slice(at, at + len);
        if len == 0 {
            return;
        }
        // Options, and the parameters that follow.
        if let Some(slash) =
            memchr::memchr(b'/', text).filter(|_| !text.starts_with(b"-") && !text.contains(&b'='))
        {
            let rest = text.get(slash + 1..).unwrap_or_default();
            let close = memchr::memrchr(b'@', rest).unwrap_or(rest.len());
            if slash > 0 && close > 0 {
                scan.add(at + slash + 1, at + slash + 1 + close, Class::Password);
            }
            return;
        }
        at += len;
    }
}

/// `vault kv put secret/x a=b c=d`: all that is put.
pub(super) fn at_put(scan: &mut Scan<'_>, end: usize) {
    let mut at = end;
    for _ in 0..MOST {
        at = scan.skip_space(at);
        let len = scan.run(at, 256, |b| b.is_ascii_alphanumeric() || b"_-./".contains(b));
        if len == 0 {
            return;
        }
        if scan.at(at + len) != Some(b'=') {
            at += len;
            continue;
        }
        let value = value::read(scan, at + len + 1, Reach::Word);
        let text = scan.slice(value.start, value.end);
        if !scan.starts(at, b"-") && !text.starts_with(b"@") && !value::is_nothing(text) {
            scan.add(value.start, value.end, Class::Secret);
            scan.done = scan.done.max(value.end);
        }
        at = value.next.max(at + len + 1);
    }
}

/// `ConvertTo-SecureString 'x' -AsPlainText`
pub(super) fn at_secure_string(scan: &mut Scan<'_>, end: usize) {
    let mut at = scan.skip_space(end);
    if scan.slice(at, at + 8).eq_ignore_ascii_case(b"-string ") {
        at = scan.skip_space(at + 8);
    }
    let value = value::read(scan, at, Reach::Word);
    let text = scan.slice(value.start, value.end);
    if !text.starts_with(b"-")
        && !text.starts_with(b"$")
        && !value::is_nothing(text)
        && !text.starts_with(b"(")
    {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `db.example.com:5432:name:bob:x`: a line of a file of passwords of PostgreSQL, from its port on.
pub(super) fn at_pgpass(scan: &mut Scan<'_>, end: usize) {
    let name = |b: &u8| b.is_ascii_alphanumeric() || b"_-.*".contains(b);
    let mut at = end;
    for _ in 0..2 {
        at += scan.run(at, 64, name);
        if scan.at(at) != Some(b':') || scan.before(at) == Some(b':') {
            return;
        }
        at += 1;
    }
    let value = value::read(scan, at, Reach::Word);
    if value.end > at + 2 && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `--creds user:password`, `--src-creds=user:password`: of tools that copy images.
pub(super) fn at_creds(scan: &mut Scan<'_>, start: usize, end: usize) {
    let sign = scan.at(end);
    let flag = scan.before(start) == Some(b'-');
    if !flag || !matches!(sign, Some(b'=' | b' ')) {
        return;
    }
    let value = value::read(scan, scan.skip_space(end + 1), Reach::Word);
    take(scan, Holds::Pair, value.start, value.end);
}

/// `echo x | docker login --password-stdin`, `echo x | base64 -d`: what is piped into something that
/// takes or decodes a secret.
pub(super) fn at_echo(scan: &mut Scan<'_>, start: usize, end: usize) {
    if scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric()) && start > scan.body {
        return;
    }
    let mut from = scan.skip_space(end);
    while scan.at(from) == Some(b'-') {
        let flag = value::read(scan, from, Reach::Word);
        from = scan.skip_space(flag.next.max(from + 1));
    }
    let mut value = value::read(scan, from, Reach::Word);
    // `printf '%s' 'x'`
    if scan.slice(value.start, value.end).starts_with(b"%s") {
        value = value::read(scan, scan.skip_space(value.next), Reach::Word);
    }
    // `<<< x`
    if scan.at(start) == Some(b'<') {
        let text = scan.slice(value.start, value.end);
        if is_made_up(text) || value::looks_random(text) {
            scan.add(value.start, value.end, Class::Password);
            scan.done = scan.done.max(value.end);
        }
        return;
    }
    let pipe = scan.skip_space(value.next);
    if scan.at(pipe) != Some(b'|') {
        return;
    }
    let command = scan.slice(pipe, pipe + 160);
    let takes = [
        &b"stdin"[..],
        b"base64 -",
        b"sudo -S",
        b"chpasswd",
        b"kubeseal",
        b"kinit",
        b"passwd",
        b"cryptsetup",
        b"passphrase",
        b"-pass",
        b"secret create",
        b"secrets versions add",
    ];
    let taken = takes.iter().any(|t| memchr::memmem::find(command, t).is_some());
    if taken && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}
