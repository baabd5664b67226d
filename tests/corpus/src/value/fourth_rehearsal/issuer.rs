//! Tokens that name their issuer, as the fourth part of the rehearsal set has them.

use crate::fill::Source;
use crate::value::{ALNUM, DIGITS, HEX, LOWER, UPPER, URL_SAFE};

/// Tokens of services whose first letters name them.
pub(super) fn minted(name: &str, source: &mut Source<'_>) -> String {
    let upper = format!("{UPPER}{DIGITS}");
    let lower = format!("{LOWER}{DIGITS}");
    let base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let random = &mut *source.random;
    match name {
        "ghp" => format!("ghp_{}", random.letters(ALNUM, 36)),
        "ghs" => format!("ghs_{}", random.letters(ALNUM, 36)),
        "gho" => format!("gho_{}", random.letters(ALNUM, 36)),
        "ghfine" => {
            format!(
                "github_pat_11{}0{}_{}",
                random.letters(&upper, 7),
                random.letters(ALNUM, 12),
                random.letters(ALNUM, 59)
            )
        }
        "glpat" => format!("glpat-{}", random.letters(URL_SAFE, 20)),
        "gldt" => format!("gldt-{}", random.letters(URL_SAFE, 20)),
        "glrt" => format!("glrt-{}", random.letters(URL_SAFE, 20)),
        "xoxb" => format!(
            "xoxb-{}-{}-{}",
            random.letters(DIGITS, 12),
            random.letters(DIGITS, 12),
            random.letters(ALNUM, 24)
        ),
        "xapp" => format!(
            "xapp-1-A0{}-{}-{}",
            random.letters(&upper, 9),
            random.letters(DIGITS, 13),
            random.letters(HEX, 64)
        ),
        "slackhook" => format!(
            "T0{}/B0{}/{}",
            random.letters(&upper, 9),
            random.letters(&upper, 9),
            random.letters(ALNUM, 24)
        ),
        "akia" => format!("AKIA{}", random.letters(base32, 16)),
        "asia" => format!("ASIA{}", random.letters(base32, 16)),
        "npm" => format!("npm_{}", random.letters(ALNUM, 36)),
        "stripe" => format!("sk_live_51{}", random.letters(ALNUM, 97)),
        "whsec" => format!("whsec_{}", random.letters(ALNUM, 32)),
        "sendgrid" => {
            format!("SG.{}.{}", random.letters(URL_SAFE, 22), random.letters(URL_SAFE, 43))
        }
        "hvs" => format!("hvs.CAES{}", random.letters(URL_SAFE, 91)),
        "glsa" => format!("glsa_{}_{}", random.letters(ALNUM, 32), random.letters(HEX, 8)),
        "databricks" => format!("dapi{}-2", random.letters(HEX, 32)),
        "hf" => format!("hf_{}", random.letters(ALNUM, 34)),
        "atlassian" => format!(
            "ATATT3xFfGF0{}={}",
            random.letters(URL_SAFE, 171),
            random.letters("0123456789ABCDEF", 8)
        ),
        "google" => format!("AIzaSy{}", random.letters(URL_SAFE, 33)),
        "goclient" => format!("GOCSPX-{}", random.letters(URL_SAFE, 28)),
        "openai" => format!("sk-proj-{}", random.letters(ALNUM, 48)),
        "sonar" => format!("squ_{}", random.letters(HEX, 40)),
        "dckr" => format!("dckr_pat_{}", random.letters(URL_SAFE, 27)),
        "newrelic" => format!("NRAK-{}", random.letters(&upper, 27)),
        "dynatrace" => {
            format!("dt0c01.{}.{}", random.letters(base32, 24), random.letters(base32, 64))
        }
        "azpat" => format!(
            "{}JQQJ99BB{}AZDO{}",
            random.letters(ALNUM, 52),
            random.letters(&upper, 18),
            random.letters(ALNUM, 4)
        ),
        "tfc" => format!("{}.atlasv1.{}", random.letters(ALNUM, 14), random.letters(URL_SAFE, 67)),
        "age" => {
            format!("AGE-SECRET-KEY-1{}", random.letters("023456789ACDEFGHJKLMNPQRSTUVWXYZ", 58))
        }
        "nuget" => format!("oy2{}", random.letters(&lower, 43)),
        _ => panic!("no issuer {name}"),
    }
}
