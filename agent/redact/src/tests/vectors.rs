//! Test vectors of the redaction policy, and the generator of the secrets in them.
//!
//! Shared by the unit tests and the benchmark (which includes this file by path), so nothing here
//! reaches into the crate. A template holds secrets as `«kind»`; [`render`] makes them up from a
//! seed. Nothing here is a real secret, and no literal has the shape of one.

// Paths, so that the benchmark can include this file as well.
#[path = "vectors/decoys.rs"]
pub(crate) mod decoys;
#[path = "vectors/families.rs"]
pub(crate) mod families;
#[path = "vectors/field.rs"]
pub(crate) mod field;
#[path = "vectors/forms.rs"]
pub(crate) mod forms;
#[path = "vectors/keys.rs"]
pub(crate) mod keys;
#[path = "vectors/names.rs"]
pub(crate) mod names;
#[path = "vectors/near.rs"]
pub(crate) mod near;
#[path = "vectors/people.rs"]
pub(crate) mod people;
#[path = "vectors/plain.rs"]
pub(crate) mod plain;
#[path = "vectors/platform.rs"]
pub(crate) mod platform;
#[path = "vectors/spoken.rs"]
pub(crate) mod spoken;
#[path = "vectors/systems.rs"]
pub(crate) mod systems;

use base64::Engine as _;

/// A rule and a text in which `«kind»` marks what has to go and nothing else.
pub(crate) type Positive = (&'static str, &'static str);

/// Every positive vector.
pub(crate) fn positives() -> impl Iterator<Item = Positive> {
    [
        families::POSITIVES,
        keys::POSITIVES,
        platform::POSITIVES,
        people::POSITIVES,
        systems::POSITIVES,
        forms::POSITIVES,
        names::POSITIVES,
        near::POSITIVES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Every text that must come out as it went in.
pub(crate) fn decoys() -> impl Iterator<Item = &'static str> {
    [
        keys::NEAR_MISSES,
        platform::NEAR_MISSES,
        people::NEAR_MISSES,
        systems::NEAR_MISSES,
        families::NEAR_MISSES,
        forms::NEAR_MISSES,
        names::NEAR_MISSES,
        near::NEAR_MISSES,
        plain::NEAR_MISSES,
        spoken::NEAR_MISSES,
        decoys::ORDINARY,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// A rendered vector: text that stays and secrets, in turn, beginning and ending with text.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    /// One more than there are secrets.
    pub(crate) stays: Vec<String>,
    /// What has to go.
    pub(crate) secrets: Vec<String>,
}

impl Rendered {
    /// The whole text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (index, stays) in self.stays.iter().enumerate() {
            text.push_str(stays);
            text.push_str(self.secrets.get(index).map_or("", String::as_str));
        }
        text
    }

    /// The same with both kinds of pieces rewritten.
    pub(crate) fn map(&self, change: impl Fn(&str) -> String) -> Self {
        Self {
            stays: self.stays.iter().map(|piece| change(piece)).collect(),
            secrets: self.secrets.iter().map(|piece| change(piece)).collect(),
        }
    }

    /// The same with text before and after.
    pub(crate) fn framed(mut self, before: &str, after: &str) -> Self {
        if let Some(first) = self.stays.first_mut() {
            first.insert_str(0, before);
        }
        if let Some(last) = self.stays.last_mut() {
            last.push_str(after);
        }
        self
    }
}

/// Fills a template with secrets made from `seed`. `⟦BEGIN …⟧` stands for the marks of a PEM block,
/// which scanners of repositories would take for one.
pub(crate) fn render(template: &str, seed: u64) -> Rendered {
    let mut random = Random(seed ^ 0x9E37_79B9_7F4A_7C15);
    let mut stays = Vec::new();
    let mut secrets = Vec::new();
    let template = template.replace(['⟦', '⟧'], "-----");
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once('«') {
        let (kind, tail) = after.split_once('»').expect("template closes its mark");
        stays.push(before.to_owned());
        secrets.push(secret(kind, &mut random));
        rest = tail;
    }
    stays.push(rest.to_owned());
    Rendered { stays, secrets }
}

/// JSON string escaping of a piece, without the quotes.
pub(crate) fn json_escaped(piece: &str) -> String {
    let quoted = serde_json::to_string(piece).expect("text");
    quoted[1..quoted.len() - 1].to_owned()
}

/// SplitMix64: small, seeded, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn string(&mut self, alphabet: &str, len: usize) -> String {
        let alphabet: Vec<char> = alphabet.chars().collect();
        (0..len).map(|_| self.pick(&alphabet)).collect()
    }
}

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &str = "0123456789";
const HEX: &str = "0123456789abcdef";
const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Letters and digits around something in between, with a digit and both cases for certain.
fn around(random: &mut Random, inner: &str, len: usize) -> String {
    let head = random.string(UPPER, 1) + &random.string(DIGITS, 1) + &random.string(LOWER, 1);
    let body = random.string(inner, len);
    head + &body + &random.string(ALNUM, 1)
}

fn secret(kind: &str, random: &mut Random) -> String {
    let alnum = |random: &mut Random, len| random.string(ALNUM, len);
    match kind {
        // A password that can stand unquoted; one with every sign; a plain word; a number; words.
        "pw" => {
            let len = 6 + random.below(8);
            around(random, &format!("{ALNUM}{ALNUM}!_-.#^*+"), len)
        }
        "nasty" => around(random, &format!("{ALNUM}!@#$^&*()-_=+[]{{}};:,.<>/?|~"), 12),
        "quote" => around(random, &format!("{ALNUM}\"\\'"), 14),
        "nastybrace" => around(random, &format!("{ALNUM}!@#;:,.=&"), 12),
        "sig64" => random.string(HEX, 63) + "a",
        "urlpw" => around(random, &format!("{ALNUM}@/:!-_.~$*"), 10),
        "unicode" => around(random, &format!("{LOWER}äöüßéè漢字€"), 8),
        "word" => random.string("bcdfghklmnprtvz", 9),
        "person" => {
            let mut name = || random.string(UPPER, 1) + &random.string(LOWER, 7);
            name() + " " + &name()
        }
        "pin" => random.string("123456789", 6),
        "phrase" => (0..4).map(|_| random.string(LOWER, 6)).collect::<Vec<_>>().join(" "),
        "long" => around(random, ALNUM, 4000),
        "hex" => random.string(HEX, 32),
        "token" => around(random, ALNUM, 28),
        "urltoken" => around(random, &format!("{ALNUM}-_"), 36),
        "b64" => around(random, &format!("{ALNUM}+/"), 40) + "==",
        "b64pct" => around(random, ALNUM, 38) + "%2B" + &alnum(random, 3) + "%3D",
        "pair64" => {
            let pair = random.string(LOWER, 6) + ":" + &alnum(random, 14);
            base64::engine::general_purpose::STANDARD.encode(pair)
        }
        "text64" => base64::engine::general_purpose::STANDARD.encode(random.string(LOWER, 11)),
        "entra" => {
            alnum(random, 3) + "8" + "Q~" + &random.string(&format!("{ALNUM}_.~-"), 33) + "z"
        }
        "jwt" => jwt(random, r#"{"alg":"RS256","typ":"JWT"}"#, r#"{"sub":"bob","iat":1700000000}"#),
        "sa" => jwt(
            random,
            r#"{"alg":"RS256","kid":"abc"}"#,
            r#"{"iss":"https://kubernetes.default.svc","kubernetes.io":{"namespace":"mendix"}}"#,
        ),
        "jwe" => {
            let head = base64::engine::general_purpose::URL_SAFE_NO_PAD
                .encode(r#"{"alg":"dir","enc":"A256GCM"}"#);
            let parts: Vec<String> = [16, 80, 22].iter().map(|&len| alnum(random, len)).collect();
            format!("{head}..{}", parts.join("."))
        }
        "config64" => base64::engine::general_purpose::STANDARD.encode(format!(
            r#"{{"auths":{{"registry.example":{{"auth":"{}"}}}}}}"#,
            alnum(random, 20)
        )),
        "der" => "MII".to_owned() + "J" + &random.string(&format!("{ALNUM}+/"), 300),
        "pem64" => "LS0tLS1CRUdJTi".to_owned() + &alnum(random, 200),
        "ossh64" => "b3BlbnNzaC1rZXkt".to_owned() + &alnum(random, 200),
        "pemline" => random.string(&format!("{ALNUM}+/"), 64),
        "pemlast" => random.string(ALNUM, 30) + "==",
        "pemflat" => (0..6).map(|_| random.string(ALNUM, 64)).collect::<Vec<_>>().join(" "),
        "aws" => {
            ["AKIA", "ASIA"][random.below(2)].to_owned()
                + &random.string("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)
        }
        "github" => {
            ["ghp", "gho", "ghu", "ghs", "ghr"][random.below(5)].to_owned()
                + "_"
                + &alnum(random, 36)
        }
        "githubpat" => {
            "github".to_owned() + "_pat_" + &alnum(random, 22) + "_" + &alnum(random, 59)
        }
        "gitlab" => "glp".to_owned() + "at-" + &alnum(random, 20),
        "slack" => {
            "xox".to_owned()
                + ["b", "p", "a", "r"][random.below(4)]
                + "-"
                + &random.string(DIGITS, 12)
                + "-"
                + &alnum(random, 24)
        }
        "slackhook" => {
            "T".to_owned()
                + &random.string(UPPER, 8)
                + "/B"
                + &random.string(UPPER, 8)
                + "/"
                + &alnum(random, 24)
        }
        "npm" => "npm".to_owned() + "_" + &alnum(random, 36),
        "stripe" => "sk".to_owned() + "_live_" + &alnum(random, 24),
        "google" => "AI".to_owned() + "za" + &alnum(random, 35),
        "sendgrid" => "SG".to_owned() + "." + &alnum(random, 22) + "." + &alnum(random, 43),
        // Three lines of a block, as JSON and YAML have them in a string.
        "pemescaped" => {
            let mut line = || random.string(&format!("{ALNUM}+/"), 63) + "A";
            [line(), line(), line()].join("\\n")
        }
        "nral" => random.string(HEX, 32) + "FFFF" + "NRAL",
        "groups" => {
            let mut group = || random.string("bcdfghjklmnpqrstvwxz", 4);
            [group(), group(), group(), group()].join("-")
        }
        "common" => random.pick(&["supersecret", "topsecret", "changeme", "letmein"]).to_owned(),
        "base32" => random.string("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 24) + &random.string("234567", 8),
        "telegram" => {
            random.string("123456789", 9) + ":A" + "A" + &random.string(&format!("{ALNUM}_-"), 33)
        }
        "azfunc" => around(random, ALNUM, 40) + "Az" + "Fu" + &alnum(random, 6) + "==",
        "atlas" => alnum(random, 14) + ".atlas" + "v1." + &alnum(random, 67),
        "mapbox" => "sk.ey".to_owned() + "J1Ijoi" + &alnum(random, 40) + "." + &alnum(random, 22),
        "swarm" => {
            let lower = format!("{LOWER}{DIGITS}");
            "SWM".to_owned()
                + "TKN-1-"
                + &random.string(&lower, 50)
                + "-"
                + &random.string(&lower, 25)
        }
        "bcrypt" => "$2b".to_owned() + "$12$" + &around(random, &format!("{ALNUM}./"), 49),
        "shadow" => {
            "$6".to_owned()
                + "$"
                + &alnum(random, 16)
                + "$"
                + &around(random, &format!("{ALNUM}./"), 82)
        }
        "scram" => {
            let mut piece = |len| around(random, ALNUM, len) + "=";
            format!("SCRAM-SHA-256$4096:{}${}:{}", piece(18), piece(39), piece(39))
        }
        "ntlm" => "TlRM".to_owned() + "TVNTUAAD" + &alnum(random, 80),
        "apostrophe" => "O'".to_owned() + &random.string(UPPER, 1) + &random.string(LOWER, 6),
        "vault" => "hv".to_owned() + "s." + &alnum(random, 24),
        "uuid" => uuid(random),
        "xasid" => "0.".to_owned() + &uuid(random),
        "xml64" => base64::engine::general_purpose::STANDARD
            .encode(format!("<samlp:Response ID=\"{}\">", alnum(random, 60))),
        "assertion" => format!(
            " ID=\"_{}\"><saml:Subject>{}</saml:Subject>",
            random.string(HEX, 32),
            random.string(LOWER, 9)
        ),
        "email" => {
            let user = random.string(LOWER, 5) + "." + &random.string(LOWER, 7);
            user + "@"
                + &random.string(LOWER, 8)
                + "."
                + random.pick(&["com", "nl", "example.org", "co.uk", "io"])
        }
        "emailu" => {
            "j".to_owned() + "ö" + &random.string(LOWER, 5) + "@" + &random.string(LOWER, 8) + ".de"
        }
        "ip4" => loop {
            let parts: Vec<usize> = (0..4).map(|_| 1 + random.below(254)).collect();
            if parts[0] != 127 {
                break parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
            }
        },
        "ip6" => {
            (0..8).map(|_| format!("{:x}", 1 + random.below(65535))).collect::<Vec<_>>().join(":")
        }
        "ip6short" => {
            format!("2001:db8:{:x}::{:x}", 1 + random.below(65535), 1 + random.below(65535))
        }
        "ip6local" => format!("fe80::{:x}:{:x}", 1 + random.below(65535), 1 + random.below(65535)),
        "iban" => iban(random),
        "ibanspaced" => grouped(&iban(random), ' '),
        "card" => card(random),
        "cardspaced" => grouped(&card(random), ' '),
        "carddashed" => grouped(&card(random), '-'),
        "amex" => {
            let number = luhn("37".to_owned() + &random.string(DIGITS, 12));
            format!("{} {} {}", &number[..4], &number[4..10], &number[10..])
        }
        "bsn" => bsn(random),
        "bsndotted" => {
            let number = bsn(random);
            format!("{}.{}.{}", &number[..4], &number[4..6], &number[6..])
        }
        "mobile" => "06".to_owned() + &random.string("123456789", 8),
        "mobiledash" => "06-".to_owned() + &random.string("123456789", 8),
        "phoneplus" => {
            "+31 6 ".to_owned() + &random.string("123456789", 4) + " " + &random.string(DIGITS, 4)
        }
        "phoneplain" => "+31".to_owned() + &random.string("123456789", 9),
        "phoneus" => {
            "+1 (".to_owned()
                + &random.string("23456789", 3)
                + ") "
                + &random.string("23456789", 3)
                + "-"
                + &random.string(DIGITS, 4)
        }
        "phonezero" => "0031".to_owned() + &random.string("123456789", 9),
        "landline" => "020-".to_owned() + &random.string("123456789", 7),
        "phonelocal" => random.string("23456789", 3) + "-" + &random.string(DIGITS, 4),
        other => panic!("no secret of kind {other}"),
    }
}

fn jwt(random: &mut Random, head: &str, claims: &str) -> String {
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode(head), encode(claims), random.string(&format!("{ALNUM}-_"), 86))
}

pub(crate) fn uuid(random: &mut Random) -> String {
    [8, 4, 4, 4, 12].map(|len| random.string(HEX, len)).join("-")
}

fn grouped(number: &str, separator: char) -> String {
    let mut text = String::new();
    for (index, digit) in number.chars().enumerate() {
        if index > 0 && index % 4 == 0 {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

/// Appends the check digit.
fn luhn(number: String) -> String {
    let sum: u32 = number
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let digit = u32::from(b - b'0') * if i % 2 == 0 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    number + &((10 - sum % 10) % 10).to_string()
}

fn card(random: &mut Random) -> String {
    let issuer = ["4", "51", "55", "2221", "6011"][random.below(5)];
    let digits = random.string(DIGITS, 15 - issuer.len());
    luhn(issuer.to_owned() + &digits)
}

fn bsn(random: &mut Random) -> String {
    loop {
        let number = random.string("123456789", 9);
        let weights = [9, 8, 7, 6, 5, 4, 3, 2, -1];
        let sum: i32 = number.bytes().zip(weights).map(|(b, w)| i32::from(b - b'0') * w).sum();
        if sum % 11 == 0 {
            return number;
        }
    }
}

fn iban(random: &mut Random) -> String {
    let (country, bban) = match random.below(4) {
        0 => ("NL", "ABNA".to_owned() + &random.string(DIGITS, 10)),
        1 => ("DE", random.string(DIGITS, 18)),
        2 => ("GB", "WEST".to_owned() + &random.string(DIGITS, 14)),
        _ => ("BE", random.string(DIGITS, 12)),
    };
    let number = format!("{bban}{country}00");
    let remainder = number.bytes().fold(0_u32, |n, b| match b {
        b'0'..=b'9' => (n * 10 + u32::from(b - b'0')) % 97,
        _ => (n * 100 + u32::from(b - b'A') + 10) % 97,
    });
    format!("{country}{:02}{bban}", 98 - remainder)
}
