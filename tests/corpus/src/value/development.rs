//! Forms of passwords and of vendors' tokens that the development set has: many more than anybody would
//! write down in one template, since rules that know one form only are worth little.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::credential::{edged, random_mixed};
use super::{ALNUM, DIGITS, HEX, LOWER, UPPER, URL_SAFE};
use crate::fill::Source;

/// The value of a generator of secrets, or `None` if there is none of that name.
pub(super) fn value(name: &str, argument: &str, source: &mut Source<'_>) -> Option<String> {
    Some(match name {
        // Passwords of every form, without a sign that a sentence or a shell could take for its own.
        "pwform" => form(source),
        "handed" => handed(argument, source),
        // A number as exchanges have it, with its country.
        "plus" => format!(
            "+{}{}",
            source.random.pick(&["316", "324", "491", "447", "336", "346", "353"]),
            source.random.letters("123456789", 8)
        ),
        _ => return None,
    })
}

/// A password in one of the forms that people and generators have.
fn form(source: &mut Source<'_>) -> String {
    let word = source.word("pwword");
    let lower = word.to_lowercase();
    match source.random.below(18) {
        0 => groups(source, 4, LOWER, 4),
        1 => groups(source, 3, &format!("{LOWER}{LOWER}{DIGITS}"), 6),
        2 => groups(source, 5, &format!("{UPPER}{DIGITS}"), 4),
        3 => groups(source, 4, HEX, 4),
        4 => {
            let by = *source.random.pick(&["-", "_", "."]);
            let (two, three, four) =
                (source.word("pwword"), source.word("pwword"), source.word("pwword"));
            [lower, two.to_lowercase(), three.to_lowercase(), four.to_lowercase()].join(by)
        }
        5 => {
            let (two, three) = (source.word("pwword"), source.word("pwword"));
            format!("{word}{two}{three}{}", source.random.below(100))
        }
        6 => format!("{word}{}!", source.random.between(1950, 2027)),
        7 => format!("{}#{lower}", source.random.below(1000)),
        8 => format!("{}_{}", word.to_uppercase(), source.random.between(10, 999)),
        9 => source.random.letters(UPPER, 3) + &source.random.letters("0123456789", 5),
        10 => source.random.letters(HEX, 16),
        11 => source.random.letters(&format!("{LOWER}{DIGITS}"), 12) + "7",
        12 => edged(source, "!@#%^*-_+", 14),
        13 => random_mixed(source, 22),
        14 => source.random.letters(DIGITS, 8),
        15 => source.word("pwunicode"),
        16 => STANDARD.encode(source.random.bytes(18)),
        _ => source.word("pwcommon"),
    }
}

fn groups(source: &mut Source<'_>, parts: usize, letters: &str, of: usize) -> String {
    let parts: Vec<_> = (0..parts).map(|_| source.random.letters(letters, of)).collect();
    parts.join("-")
}

/// What a vendor hands out that says by its form whose it is.
fn handed(name: &str, source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    match name {
        "telegram" => {
            format!("{}:AA{}", random.letters("123456789", 9), random.letters(URL_SAFE, 33))
        }
        "slackpath" => format!(
            "T{}/B{}/{}",
            random.letters(&(UPPER.to_owned() + DIGITS), 9),
            random.letters(&(UPPER.to_owned() + DIGITS), 9),
            random.letters(ALNUM, 24)
        ),
        "discord" => format!(
            "MT{}.G{}.{}",
            random.letters(ALNUM, 24),
            random.letters(URL_SAFE, 5),
            random.letters(URL_SAFE, 38)
        ),
        "swarm" => format!(
            "SWMTKN-1-{}-{}",
            random.letters(&format!("{LOWER}{DIGITS}"), 50),
            random.letters(&format!("{LOWER}{DIGITS}"), 25)
        ),
        "wireguard" => STANDARD.encode(random.bytes(32)),
        "kubeadm" => format!(
            "{}.{}",
            random.letters(&format!("{LOWER}{DIGITS}"), 5) + "7",
            random.letters(&format!("{LOWER}{DIGITS}"), 15) + "k"
        ),
        "bcrypt" => format!(
            "$2{}$12${}",
            random.letters("aby", 1),
            random.letters(&format!("./{ALNUM}"), 53)
        ),
        "argon" => format!(
            "$argon2id$v=19$m=65536,t=3,p=4${}${}",
            random.letters(ALNUM, 22),
            random.letters(ALNUM, 43)
        ),
        "scrypt" => format!(
            "pbkdf2_sha256$260000${}${}",
            random.letters(ALNUM, 12),
            STANDARD.encode(random.bytes(32))
        ),
        "jwkd" => URL_SAFE_NO_PAD.encode(random.bytes(32)),
        "ntlm3" => format!("TlRMTVNTUAAD{}", STANDARD.encode(random.bytes(90))),
        "twilio" => format!("SK{}", random.letters(HEX, 32)),
        "airtable" => format!("pat{}.{}", random.letters(ALNUM, 14), random.letters(HEX, 64)),
        "mapbox" => {
            format!("sk.eyJ1Ijoi{}.{}", random.letters(ALNUM, 40), random.letters(URL_SAFE, 22))
        }
        "cloudflare" => format!("v1.0-{}-{}", random.letters(HEX, 24), random.letters(HEX, 146)),
        "azdevops" => format!(
            "{}JQQJ99{}AAAAAAAAAAAAASAZDO{}",
            random.letters(ALNUM, 52),
            random.letters(&format!("{UPPER}{DIGITS}"), 6),
            random.letters(ALNUM, 4)
        ),
        "redisacl" => random.letters(HEX, 64),
        "planetscale" => format!("pscale_tkn_{}", random.letters(URL_SAFE, 43)),
        "influx" => STANDARD.encode(random.bytes(64)),
        "okta" => format!("00{}", random.letters(URL_SAFE, 39) + "k"),
        "jenkins" => format!("11{}", random.letters(HEX, 32)),
        "clojars" => format!("CLOJARS_{}", random.letters(HEX, 60)),
        "terraform" => {
            format!("{}.atlasv1.{}", random.letters(ALNUM, 14), random.letters(ALNUM, 67))
        }
        "googlerefresh" => format!("1//0{}", random.letters(URL_SAFE, 96)),
        "facebook" => format!("EAA{}", random.letters(ALNUM, 120)),
        "gcpsession" => format!("ya29.{}", random.letters(URL_SAFE, 120)),
        "hubspot" => {
            format!("pat-eu1-{}", [8, 4, 4, 4, 12].map(|n| random.letters(HEX, n)).join("-"))
        }
        "postmanold" => format!("PMAK-{}-{}", random.letters(HEX, 24), random.letters(HEX, 34)),
        "azfunc" => format!("{}AzFu{}==", random.letters(ALNUM, 44), random.letters(ALNUM, 6)),
        "acr" => format!("{}+ACR{}", random.letters(ALNUM, 42), random.letters(ALNUM, 6)),
        "sha512crypt" => format!(
            "$6${}${}",
            random.letters(ALNUM, 16),
            random.letters(&format!("./{ALNUM}"), 86)
        ),
        "scram" => {
            let mut piece = |n| STANDARD.encode(random.bytes(n));
            let (salt, stored, server) = (piece(16), piece(32), piece(32));
            format!("SCRAM-SHA-256$4096:{salt}${stored}:{server}")
        }
        "vaultroot" => format!("hvs.{}", random.letters(ALNUM, 24)),
        "erlang" => random.letters(UPPER, 20),
        "newgitlab" => format!(
            "glpat-{}.01.{}",
            random.letters(URL_SAFE, 26) + "k",
            random.letters(&format!("{LOWER}{DIGITS}"), 9)
        ),
        "openai" => format!(
            "sk-proj-{}T3BlbkFJ{}",
            random.letters(URL_SAFE, 74),
            random.letters(URL_SAFE, 73) + "k"
        ),
        "groq" => format!("gsk_{}", random.letters(ALNUM, 52)),
        "dop" => format!("dop_v1_{}", random.letters(HEX, 64)),
        "newrelic" => format!("{}FFFFNRAL", random.letters(HEX, 32)),
        "linear" => format!("lin_api_{}", random.letters(ALNUM, 40)),
        "notion" => format!("secret_{}", random.letters(ALNUM, 43)),
        "resend" => format!("re_{}_{}", random.letters(ALNUM, 8), random.letters(ALNUM, 24)),
        "vercel" => format!("vcp_{}", random.letters(ALNUM, 56)),
        "supabase" => format!("sbp_{}", random.letters(HEX, 40)),
        "shopify" => format!("shpat_{}", random.letters(HEX, 32)),
        "square" => format!("EAAA{}", random.letters(URL_SAFE, 59) + "k"),
        "mailersend" => format!("mlsn.{}", random.letters(HEX, 64)),
        "huggingface" => format!("hf_{}", random.letters(ALNUM, 34)),
        "databricks" => format!("dapi{}-2", random.letters(HEX, 32)),
        "confluent" => format!("cflt{}", random.letters(ALNUM, 60)),
        "pulumi" => format!("pul-{}", random.letters(HEX, 40)),
        "atlassian" => format!(
            "ATATT3xFfGF0{}={}",
            random.letters(URL_SAFE, 170),
            random.letters("0123456789ABCDEF", 8)
        ),
        "bitbucket" => format!("BBDC-{}", random.letters(ALNUM, 44)),
        "sourcegraph" => format!("sgp_{}_{}", random.letters(HEX, 16), random.letters(HEX, 40)),
        "sentry" => format!("sntryu_{}", random.letters(HEX, 64)),
        "grafanacloud" => format!("glc_eyJ{}", random.letters(ALNUM, 100)),
        "md5role" => format!("md5{}", random.letters(HEX, 32)),
        "mysqlnative" => format!("*{}", random.letters("0123456789ABCDEF", 40)),
        _ => panic!("nobody hands out {name}"),
    }
}
