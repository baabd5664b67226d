//! Whether what stands after a key is something to hide.

use super::Class;
use super::key::{self, Key, Strength};
use super::made_up::{is_base32, is_made_up, is_product_key, is_uuid};
use super::mendix;
use super::near;
use super::phrase::{is_grouped, is_phrase, is_scrambled};
use super::scan::Scan;
use super::value;
use super::words::{COMMON, JOINED, PARTS};

/// Whether `text` is something to hide under `key`.
pub(super) fn is_value(scan: &Scan<'_>, key: &Key, text: &[u8]) -> bool {
    if value::is_nothing(text) {
        return false;
    }
    if key.plural && text.iter().all(u8::is_ascii_digit) {
        return false;
    }
    // `pass=2`, `PASS: TestLogin`: of a compiler, of a test.
    let bare = scan.slice(key.start, key.end);
    let assigned = scan.at(key.end) == Some(b'=');
    let command = bare == b"PASS" && !assigned && !is_sent(scan, key, text);
    if bare.eq_ignore_ascii_case(b"pass") && (text.len() < 4 || command) {
        return false;
    }
    if is_shouted_name(scan, key, text) {
        return false;
    }
    if key.class == Class::MendixConstant && mendix::is_setting(bare, text) {
        return false;
    }
    if key.class == Class::Signature {
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b"+/=_%-.".contains(b);
        return text.len() >= 16 && text.iter().all(fits) && text.iter().any(u8::is_ascii_digit);
    }
    if key.strength == Strength::Weak {
        // A code to type in: `"otp":"123456"`.
        let code = bare.len() >= 3
            && bare.get(bare.len() - 3..).is_some_and(|end| end.eq_ignore_ascii_case(b"otp"))
            && (4..=8).contains(&text.len())
            && text.iter().all(u8::is_ascii_digit);
        if code {
            return true;
        }
        // `otp_seed=JBSWY3DP…`
        let lower = bare.to_ascii_lowercase();
        let seed = [&b"otp"[..], b"seed", b"mfa", b"2fa"]
            .iter()
            .any(|w| memchr::memmem::find(&lower, w).is_some());
        let signed = matches!(scan.at(scan.skip_space(key.end)), Some(b'=' | b':'));
        return value::looks_random(text) && !is_uuid(text)
            || seed && (is_base32(text) || near::is_seed(text))
            || signed && is_uuid(text) && key::is_named(scan, key)
            || is_product_key(text)
            || is_hex_secret(bare, text)
            || is_parameter(scan, key) && is_long_hex(text)
            || signed
                && is_compound_key(bare)
                && (is_long_hex(text) || is_code(text) || is_padded(text))
            || (key::is_named(scan, key) || key::is_for_ciphers(scan, key)) && is_long_hex(text);
    }
    if key.class != Class::Password && (is_path(text) || is_pointer(text)) {
        return false;
    }
    // `principal=bob, credentials=correct-horse-battery`: of one who logs in, and no object.
    let credentials = scan.at(key.end) == Some(b'=') && bare.eq_ignore_ascii_case(b"credentials");
    if credentials && is_phrase(text) {
        return true;
    }
    if is_setting(scan, key, text) || is_word(key, text) || is_locator(text) {
        return false;
    }
    // `secretKey: db-password`: the name of an entry of a Secret.
    let entry = bare.eq_ignore_ascii_case(b"secretkey") || bare.eq_ignore_ascii_case(b"secret_key");
    let parts = || text.split(|b| b"-_.".contains(b));
    if entry && text.len() <= 40 && names_secret(text) && parts().all(|part| PARTS.has(part)) {
        return false;
    }
    if matches!(key.class, Class::Password | Class::Key) && is_no_password(bare, text) {
        return false;
    }
    // `Unexpected token: END_OBJECT`
    let constant = |b: &u8| b.is_ascii_uppercase() || *b == b'_';
    let parsed = [&b"START_"[..], b"END_", b"BEGIN_", b"VALUE_", b"FIELD_"];
    let parsed = parsed.iter().any(|begin| text.starts_with(begin));
    if key.class == Class::Token && parsed && text.len() <= 40 && text.iter().all(constant) {
        return false;
    }
    let listed = key.plural && key.class == Class::Token;
    let named = (key.class == Class::Secret || listed) && is_object_name(scan, key, text);
    !named && !is_fingerprint(text)
}

/// `--db-password=PASSWORD`, `[--token TOKEN]`: a usage text says what kind of value a flag takes.
fn is_shouted_name(scan: &Scan<'_>, key: &Key, text: &[u8]) -> bool {
    const NAMES: &[&[u8]] =
        &[b"PASS", b"PASSWORD", b"PWD", b"TOKEN", b"KEY", b"SECRET", b"PASSPHRASE", b"VALUE"];
    scan.before(key.start) == Some(b'-') && NAMES.contains(&text)
}

/// `PASS x` at the end of its line, as FTP has it: no outcome of a test.
fn is_sent(scan: &Scan<'_>, key: &Key, text: &[u8]) -> bool {
    // `Client "x", "PASS y"`: in quotes of its own.
    let close = scan.at(key.end + 1 + text.len());
    let quoted = matches!(scan.before(key.start), Some(b'"' | b'\''))
        && matches!(close, Some(b'"' | b'\'' | b'\\'));
    // `command: PASS x; 530 Login incorrect`
    let answered =
        matches!(close, Some(b';' | b',' | b':')) && scan.before(key.start) == Some(b' ');
    let last = quoted
        || answered
        || scan.slice(scan.text_end.saturating_sub(text.len()), scan.text_end) == text;
    let test = text.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"test"));
    let digits = text.len() >= 6 && text.iter().all(u8::is_ascii_digit);
    last && !test
        && !text.contains(&b'/')
        && scan.at(key.end) == Some(b' ')
        && (digits || is_made_up(text))
}

/// `seed=…`, `_app_session=…` in hexadecimal digits, which are no digest there.
pub(super) fn is_hex_secret(key: &[u8], text: &[u8]) -> bool {
    const STEMS: &[&[u8]] = &[
        b"session",
        b"seed",
        b"salt",
        b"pepper",
        b"community",
        b"dek",
        b"kek",
        b"csrf",
        b"xsrf",
        b"hmac",
        b"machinekey",
        b"routing_key",
        b"routingkey",
        b"bearer",
        b"pat",
        b"license",
        b"licence",
        b"jwt",
        b"sid",
    ];
    let ends = |stem: &&[u8]| {
        let from = key.len().checked_sub(stem.len());
        from.and_then(|from| key.get(from..)).is_some_and(|end| end.eq_ignore_ascii_case(stem))
    };
    is_long_hex(text) && STEMS.iter().any(ends)
}

/// Capitals and digits in turn, as some make their keys.
fn is_code(text: &[u8]) -> bool {
    text.len() >= 24
        && is_scrambled(text)
        && text.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// Base64 of 16 bytes or more that ends in its padding: too short to look random for certain.
fn is_padded(text: &[u8]) -> bool {
    let body = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or_default();
    (20..=128).contains(&body.len())
        && text.len().is_multiple_of(4)
        && body.iter().all(|b| b.is_ascii_alphanumeric() || b"+/-_".contains(b))
        && is_made_up(body)
}

/// `sdkKey`, `enroll_key`: a key with a word before it; those that name rows, caches and the like were
/// sorted out by then.
fn is_compound_key(name: &[u8]) -> bool {
    let lead =
        name.strip_suffix(b"Key").or(name.strip_suffix(b"_key")).or(name.strip_suffix(b"_KEY"));
    lead.is_some_and(|lead| lead.len() >= 2)
}

/// `?user_key=…`, `&key=…`: a parameter of a URL that lets its caller in.
fn is_parameter(scan: &Scan<'_>, key: &Key) -> bool {
    let name = scan.slice(key.start, key.end).to_ascii_lowercase();
    matches!(scan.before(key.start), Some(b'?' | b'&'))
        && scan.at(key.end) == Some(b'=')
        && (name == b"key" || name.ends_with(b"user_key") || name == b"appid" || name == b"auth")
}

fn is_long_hex(text: &[u8]) -> bool {
    (32..=256).contains(&text.len())
        && text.iter().all(u8::is_ascii_hexdigit)
        && text.iter().any(u8::is_ascii_digit)
}

/// `token=refresh`, `secret: regcred`: small letters alone name a kind or an object. (A password can be
/// a word; a token is none.)
fn is_word(key: &Key, text: &[u8]) -> bool {
    matches!(key.class, Class::Secret | Class::Token)
        && text.len() <= 30
        && text.iter().all(|b| b.is_ascii_lowercase() || *b == b'-')
        && !COMMON.has(text)
        && !is_grouped(text)
}

/// `PASSWORD_ROUNDS=12`, `token.leeway: 30s`: a number under a key that goes on after its stem.
fn is_setting(scan: &Scan<'_>, key: &Key, text: &[u8]) -> bool {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let unit = text.get(digits..).unwrap_or_default();
    let number = (1..=6).contains(&digits)
        && [&b""[..], b"ms", b"s", b"m", b"h", b"d", b"%"].contains(&unit);
    if !number {
        return false;
    }
    let name = scan.slice(key.start, key.end).to_ascii_lowercase();
    let last = name.rsplit(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
    name.contains(&b'_')
        && !JOINED.has(last)
        && ![
            &b"password"[..],
            b"passwd",
            b"pass",
            b"pwd",
            b"pw",
            b"token",
            b"secret",
            b"key",
            b"pin",
            b"code",
            b"phrase",
        ]
        .iter()
        .any(|stem| name.ends_with(stem))
}

/// Says where the secret is kept: a file below one of the usual roots, an entry of a vault, a variable. No
/// beginning alone is enough, since a password may begin with anything.
pub(super) fn is_locator(text: &[u8]) -> bool {
    const ROOTS: &[&str] = &[
        "/run/",
        "/var/",
        "/etc/",
        "/mnt/",
        "/opt/",
        "/secrets/",
        "/vault/",
        "/usr/",
        "/tmp/",
        "/home/",
        "/app/",
        "/data/",
        "/srv/",
        "/dev/",
        "/proc/",
        "./",
    ];
    const SCHEMES: &[&str] = &[
        "file:///",
        "@Microsoft.KeyVault(",
        "arn:aws:secretsmanager:",
        "arn:aws:ssm:",
        "azurekeyvault://",
        "awssm://",
        "gcpsm://",
    ];
    /// What they are followed by has folders.
    const VAULTS: &[&str] = &["vault:", "op://", "ref+"];
    const TAGS: &[&str] = &["!Ref", "!GetAtt", "!secret", "!env_var"];
    let path = |b: &u8| b.is_ascii_alphanumeric() || b"/._-".contains(b);
    let after = |beginnings: &[&str]| {
        beginnings.iter().find_map(|beginning| text.strip_prefix(beginning.as_bytes()))
    };
    const FILES: &[&str] =
        &[".txt", ".pem", ".key", ".crt", ".jks", ".p12", ".pfx", ".json", ".yaml", ".yml", ".env"];
    let file = FILES.iter().any(|end| text.ends_with(end.as_bytes()));
    // `PasswordService.java:57`: a frame of a stack.
    let frame = text.iter().position(|&b| b == b':').is_some_and(|colon| {
        let (file, line) = text.split_at_checked(colon).unwrap_or_default();
        let source =
            [&b".java"[..], b".kt", b".scala", b".groovy", b".cs", b".py", b".js", b".ts", b".go"];
        source.iter().any(|end| file.ends_with(end)) && line.iter().skip(1).all(u8::is_ascii_digit)
    });
    if frame {
        return true;
    }
    let deep =
        after(ROOTS).is_some_and(|rest| file || rest.contains(&b'/')) && text.iter().all(path);
    if deep || after(SCHEMES).is_some() || after(VAULTS).is_some_and(|rest| rest.contains(&b'/')) {
        return true;
    }
    if after(TAGS).is_some_and(|rest| rest.first().is_none_or(|b| *b == b' '))
        || after(&["secretref:"]).is_some_and(names_secret)
    {
        return true;
    }
    // `$SMTP_PASSWORD`, `%SMTP_PASSWORD%`
    let name = text.strip_prefix(b"$").or_else(|| text.strip_prefix(b"%")?.strip_suffix(b"%"));
    name.is_some_and(|name| {
        names_secret(name)
            && name.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
    })
}

/// Whether a name says that it is one of a secret, such as `postgres-password`.
pub(super) fn names_secret(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    [&b"pass"[..], b"pwd", b"secret", b"token", b"key", b"cred"]
        .iter()
        .any(|stem| memchr::memmem::find(&name, stem).is_some())
}

/// `newPassword2`: the name of a field, and no password such as `Passw0rd`.
pub(super) fn is_field(text: &[u8]) -> bool {
    let (last, body) = text.split_last().unwrap_or((&b' ', text));
    let body = if last.is_ascii_digit() { body } else { text };
    names_secret(text) && body.iter().all(|b| b.is_ascii_alphabetic() || b"_.".contains(b))
}

/// `PWD=/srv`, `ALLOW_EMPTY_PASSWORD=1`, `adminPasswordKey: postgres-password`, a time of change: what a
/// key with a password's stem may hold besides one.
fn is_no_password(key: &[u8], text: &[u8]) -> bool {
    // `PWD=/TaYDPxm2okfjR7Q` is none: folders have several steps, or small letters.
    if matches!(key, b"PWD" | b"OLDPWD") && text.starts_with(b"/") {
        let steps = text.iter().filter(|&&b| b == b'/').count();
        return steps > 1 || !is_made_up(text.get(1..).unwrap_or_default());
    }
    let key = key.to_ascii_lowercase();
    let switch = [
        &b"allow"[..],
        b"random",
        b"onetime",
        b"require",
        b"enable",
        b"disable",
        b"force",
        b"use_",
    ];
    if text.len() == 1 && switch.iter().any(|word| memchr::memmem::find(&key, word).is_some()) {
        return true;
    }
    let name = |b: &u8| b.is_ascii_lowercase() || matches!(b, b'-' | b'_' | b'.');
    let word = [&b"passwordkey"[..], b"password-key", b"password_key"];
    if word.iter().any(|end| key.ends_with(end))
        && names_secret(text)
        && text.len() < 40
        && text.iter().all(name)
    {
        return true;
    }
    let digits = |from: usize, to: usize| {
        text.get(from..to).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let at = |at: usize, sign: u8| text.get(at) == Some(&sign);
    let date = digits(0, 4) && at(4, b'-') && digits(5, 7) && at(7, b'-') && digits(8, 10);
    date && at(10, b'T') && digits(11, 13) && at(13, b':') && digits(14, 16)
}

/// `SHA256:…`: says which key, not what it is.
fn is_fingerprint(text: &[u8]) -> bool {
    [&b"SHA256:"[..], b"sha256:", b"SHA1:", b"MD5:"].iter().any(|hash| text.starts_with(hash))
}

/// A file name of two parts or more, in small letters.
fn is_path(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"file:").unwrap_or(text);
    text.first() == Some(&b'/')
        && text.iter().filter(|&&b| b == b'/').count() >= 2
        && text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/._-".contains(b))
}

/// A Go pointer, such as `(*string)(0xc000123456)`.
fn is_pointer(text: &[u8]) -> bool {
    text.starts_with(b"(*") || text.starts_with(b"0xc000") || text.starts_with(b"&")
}

/// `Shop.PaymentSecret`: a constant of a Mendix app, which holds no name of an object.
pub(super) fn is_constants(scan: &Scan<'_>, key: &Key) -> bool {
    let name = scan.slice(key.start, key.end);
    let mut parts = name.split(|&b| b == b'.');
    let part = |part: Option<&[u8]>| {
        part.is_some_and(|part| part.first().is_some_and(u8::is_ascii_uppercase))
    };
    part(parts.next()) && part(parts.next()) && parts.next().is_none()
}

/// `secret="namespace/name"`: the way Kubernetes components log an object.
fn is_object_name(scan: &Scan<'_>, key: &Key, text: &[u8]) -> bool {
    let name = scan.slice(key.start, key.end).to_ascii_lowercase();
    let plain =
        [&b"secret"[..], b"secrets", b"tokens", b"secret-id"].iter().any(|end| name.ends_with(end));
    let dns = |part: &[u8]| {
        !part.is_empty()
            && part
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(b))
    };
    let mut parts = text.split(|&b| b == b'/');
    plain
        && !is_uuid(text)
        && match (parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(name), None) => dns(namespace) && dns(name),
            // A name alone, of several words.
            (Some(name), None, None) => {
                let words = || name.split(|&b| b == b'-' || b == b'.');
                let plain = |w: &&[u8]| w.len() >= 2 && w.iter().all(u8::is_ascii_lowercase);
                let several = words().count() >= 2 && words().any(|w| plain(&w));
                let listed = key.plural && name.iter().any(u8::is_ascii_lowercase);
                dns(name)
                    && name.len() < 64
                    && (several || listed)
                    && !is_grouped(name)
                    && !is_constants(scan, key)
            }
            _ => false,
        }
}
