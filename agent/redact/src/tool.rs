//! Command lines of well-known tools whose flags have no telling names: `curl -u user:…`,
//! `mysql -p…` (R09, R24).

mod command;
mod flags;
mod table;

pub(super) use self::command::{
    at_call, at_community, at_connect, at_creds, at_echo, at_login, at_oracle, at_pgpass, at_put,
    at_secure_string, at_send,
};
pub(super) use self::flags::{
    at_rule_of_user, at_short_flag, at_slash_flag, at_user_flag, at_value_flag,
};
use self::table::{FLAGS, Flag, Holds, WORDS};
use super::Class;
use super::header;
use super::judge::is_locator;
use super::scan::Scan;
use super::value::{self, Reach};

/// Longest command line that is read, bytes.
const LONGEST: usize = 2048;
/// Most arguments that are read.
const MOST: usize = 48;

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
    // `["redis-cli" "-a" "x"]`, as Go prints a list.
    let quoted = close != end && scan.at(close) == Some(b' ');
    if close != end && !listed && !quoted || scan.at(end) == Some(b'\\') && close == end {
        return;
    }
    let end = match (listed, quoted) {
        (true, _) => close + 1,
        (_, true) => close,
        _ => end,
    };
    // `a0="sshpass" a1="-p" a2="x"`, as the kernel notes the arguments of a command.
    let audit = quoted
        && scan.at(close + 1) == Some(b'a')
        && scan.at(close + 2).is_some_and(|b| b.is_ascii_digit());
    let flags = || FLAGS.iter().filter(move |f| f.tools.iter().any(|t| t.as_bytes() == name));
    let words = || WORDS.iter().filter(move |(tool, ..)| tool.as_bytes() == name);
    if flags().next().is_none() && words().next().is_none() {
        return;
    }
    let bare = matches!(name, b"htpasswd" | b"wpa_passphrase" | b"radtest");
    let mut after = if bare { Some((&b""[..], 0)) } else { None };
    // `htpasswd -nb bob x`: without the name of a file.
    let mut unfiled = false;
    let mut at = end;
    let mut commands = [&b""[..]; 3];
    for _ in 0..MOST {
        at = number_of(scan, scan.skip_space(at), audit);
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
        unfiled |= name == b"htpasswd" && text.first() == Some(&b'-') && text.contains(&b'n');
        if text.first() != Some(&b'-') && !place {
            if let Some((command, count)) = &mut after {
                *count += 1 + usize::from(std::mem::take(&mut unfiled));
                let due = words().any(|(_, w, n)| w.as_bytes() == *command && n == count);
                if due && !value::is_nothing(text) {
                    scan.add(argument.start, argument.end, Class::Password);
                    scan.done = scan.done.max(argument.end);
                    if name == b"htpasswd" {
                        return;
                    }
                }
            } else if words().any(|(_, word, _)| word.as_bytes() == text) {
                after = Some((text, 0));
            }
        } else if words().any(|(_, word, _)| word.as_bytes() == text) {
            // `consul keyring -install x`
            after = Some((text, 0));
        }
        let said = |f: &&Flag| f.after.is_none_or(|after| commands.contains(&after.as_bytes()));
        for flag in flags().filter(said) {
            for name in flag.names {
                // `-fsSLu`: letters without a value before the one that has it.
                let cluster = (*name == "-u" && flag.tools == ["curl"]).then(|| clustered(text));
                let rest = text.strip_prefix(name.as_bytes()).or(cluster.flatten());
                let Some(rest) = rest else { continue };
                let long = name.starts_with("--");
                if rest.is_empty() && !(flag.joined && *name == "-p" && is_prompting(flag)) {
                    let from = number_of(scan, scan.skip_space(at), audit);
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

/// Past the number of an argument, `a2=`, where they have one.
fn number_of(scan: &Scan<'_>, at: usize, numbered: bool) -> usize {
    let name = scan.run(at, 5, u8::is_ascii_alphanumeric);
    if numbered && scan.at(at + name) == Some(b'=') { at + name + 1 } else { at }
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

/// What follows the `u` of a cluster of curl's flags.
fn clustered(text: &[u8]) -> Option<&[u8]> {
    let flags = text.strip_prefix(b"-")?;
    let letters = flags.iter().take_while(|b| b"fsSkLivgGNO".contains(b)).count();
    flags.get(letters..).filter(|_| letters > 0)?.strip_prefix(b"u")
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
            // `"$USER:$PASS"`
            if is_locator(text.get(colon + 1..).unwrap_or_default()) {
                return;
            }
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
