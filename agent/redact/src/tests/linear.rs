//! Time is linear in the input, whatever the input: counted in bytes that rules look at, which no busy
//! machine can blur.

use super::*;
use crate::scan::work;

/// Most bytes that rules may look at for each byte of a line. Ordinary lines need under ten.
const MOST: u64 = 600;

/// What a rule may be made to read again and again: long runs of one stem, openings without an end,
/// near misses, nested escapes, lines full of secrets.
const UNITS: &[&str] = &[
    "key=",
    "password:[ ",
    "token:[ ",
    "token:{",
    "\"password\">",
    "1234 ",
    "http://a:b@",
    "eyJa.",
    "Bearer+",
    "-----BEGIN X-----",
    "-----BEGIN",
    "<Assertion ",
    "<saml:Assertion>",
    "\"\\n",
    "\\n\"\\\\n",
    "cookie: ",
    "cookie: a=b;",
    "sig=",
    "?code=",
    "SAMLResponse=",
    "microflowconstants:{",
    "stringdata:\\\\\"",
    "sig=\\\\\"",
    "jdbc:oracle:thin:",
    "authorization: ",
    "authorization: digest {",
    "key=\"'`",
    "\"kind\":\"Secret\",\"data\":{",
    "\"kind\":\"Secret\",\"data\":",
    "MII+",
    "nonce=\\\"",
    "session:{{",
    // A quote that never closes at its depth.
    ",\\\\\"password=",
    ",\\\\'password=x ",
    "password:[]uint8(\\\\\"",
    "\\\\\"select 'x' ",
    "select * from t where a='x",
    "insert into t values ('x','y'),",
    "update t set a='x' ",
    "delete from ",
    "parameters: $1 = 'x",
    "parameters: [",
    "params: ['",
    "args=[",
    "bind => [",
    "binding parameter [1] as [VARCHAR] - ",
    "row contains (",
    "key (a)=(",
    "duplicate entry '",
    // One stem after another, and one long word of them.
    "password ",
    "password",
    "token is ",
    "secret_",
    "passwordpassword=",
    "the password for a is ",
    "x as password ",
    "MxAdmin / ",
    "constant A.b ",
    "mx_a_b=",
    "name: password value: ",
    "value: x name: password ",
    "{name:password,value:",
    "keyname:value:",
    "curl -u a ",
    "mysql -p ",
    "docker login -p ",
    "echo x | ",
    "identified by '",
    "from-literal=a=",
    // What announces something.
    "keystore ",
    "saml ",
    "saml-",
    "private key: ",
    "p12 |",
    "<NameID>",
    "<a:NameID x",
    "PD94bWwg",
    "-----BEGIN PUBLIC KEY-----",
    "jsonpath secret ",
    "get secret ",
    "\"kty\":\"RSA\",",
    "{\"kty",
    "code ",
    "\"code\":",
    "state:[",
    "xpath [",
    "xpath [a='x",
    "starts-with(a,'",
    ")=(",
    "too long for column 'a': '",
    "bind variables 'x",
    "pin is ",
    "use code for ",
    "- value: a1b2c3d4 ",
    "net use z: \\\\a\\b ",
    "vault login ",
    "<<< a1b2c3 ",
    "the password, a1b2c3d4, ",
    "password (a",
    "password from a: ",
    "unexpected token ",
    "a@secret:/",
    "checksum/secret: ",
    "dup key: {\"a\" ",
    "copy a, line 1: 'x ",
    "cookie a ",
    "cookie=[\"a=b\",",
    "password: !!binary ",
    "{k:password,v:",
    // Numbers.
    "IP:::1",
    "1:2:3:4:5:6:7:8:9",
    "bsn 1 2 3 ",
    "12345678 bsn ",
    "12345",
    "4111 1111 1111 1112 ",
    "NL91 ABNA ",
    "0612 345 ",
    "+31 6 ",
    "1.2.3.",
    "a:b:",
    "bsn 12345678",
    "phone: 1 ",
    // Addresses.
    "a@",
    "a:b@c",
    "@a='",
    "://",
    // Closing and opening signs inside of a value.
    "password=((((",
    "password=<a<a<a",
    "password='a'b",
    "password=a,b;c|d&e",
    "password=\\\\\\\\",
    "password: |",
    "password=a b=c ",
    // Escapes in escapes.
    "%2525",
    "\\u0025\\u0032",
    "\\\\\\\\\\\\\\\\n",
    "\\\"\\\\\\\"",
    "\u{1b}[31m",
    "\u{200b}",
    "[R:key:1234567",
    "[R:key:12345678]",
];

/// For each byte of the text, how many bytes are looked at, and where most of them.
fn looked_at(text: &str) -> (u64, String) {
    let (bytes, place) = work::of(|| {
        let _ = whole(text.as_bytes()).expect("text");
    });
    (bytes / text.len() as u64, place)
}

/// A line of `len` bytes of one unit, with what may stand after it.
fn line(unit: &str, after: &str, len: usize) -> String {
    unit.repeat((len - after.len()) / unit.len()) + after
}

#[test]
fn no_hostile_line_is_read_many_times_over() {
    const LEN: usize = 8 * 1024;
    let spaces = " ".repeat(LEN / 2);
    let secrets = UNITS.iter().copied().map(|unit| (unit, ""));
    let trailed = UNITS.iter().copied().map(|unit| (unit, spaces.as_str()));
    let mut faults = Vec::new();
    for (unit, after) in secrets.chain(trailed) {
        let per_byte = |len: usize| looked_at(&line(unit, after, len));
        let ((once, _), (twice, place)) = (per_byte(LEN), per_byte(2 * LEN));
        // Quadratic time doubles it; what uses up its budget is at the bound and stays there.
        if once.max(twice) > MOST || twice > once + once / 2 + 16 {
            faults.push(format!("{unit:?} + {} blanks: {once}, {twice} at {place}", after.len()));
        }
    }
    assert!(faults.is_empty(), "bytes looked at for each byte:\n{}", faults.join("\n"));
}

#[test]
fn text_full_of_secrets_is_read_a_few_times_only() {
    let mut faults = Vec::new();
    for (rule, template) in vectors::positives() {
        let line = render(template, 5).text() + " ";
        let text = line.repeat((16 * 1024 / line.len()).max(1));
        let (per_byte, place) = looked_at(&text);
        if per_byte > 100 {
            faults.push(format!("{rule} {per_byte} at {place}: {}", short(&line)));
        }
    }
    assert!(faults.is_empty(), "bytes looked at for each byte:\n{}", faults.join("\n"));
}

#[test]
fn a_line_that_used_up_what_it_may_is_taken_whole() {
    let out = text_of(&"key=".repeat(MAX_LINE / 4));
    assert!(out.starts_with("[R:line:") && out.len() < 30, "{out}");
}
