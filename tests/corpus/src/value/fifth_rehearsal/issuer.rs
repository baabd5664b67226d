//! Tokens that name their issuer, as the fifth part of the rehearsal set has them.

use crate::fill::Source;
use crate::value::{ALNUM, DIGITS, HEX, LOWER, UPPER, URL_SAFE};

/// Tokens of services whose first letters name them.
pub(super) fn coined(name: &str, source: &mut Source<'_>) -> String {
    let upper = format!("{UPPER}{DIGITS}");
    let lower = format!("{LOWER}{DIGITS}");
    let base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let random = &mut *source.random;
    match name {
        "ghp" => format!("ghp_{}", random.letters(ALNUM, 36)),
        "ghs" => format!("ghs_{}", random.letters(ALNUM, 36)),
        "gho" => format!("gho_{}", random.letters(ALNUM, 36)),
        "ghu" => format!("ghu_{}", random.letters(ALNUM, 36)),
        "ghfine" => {
            format!("github_pat_11{}_{}", random.letters(&upper, 20), random.letters(ALNUM, 59))
        }
        "glpat" => format!("glpat-{}", random.letters(URL_SAFE, 20)),
        "glptt" => format!("glptt-{}", random.letters(HEX, 40)),
        "glcbt" => format!("glcbt-64_{}", random.letters(URL_SAFE, 20)),
        "glrt" => format!("glrt-{}", random.letters(URL_SAFE, 20)),
        "xoxb" => format!(
            "xoxb-{}-{}-{}",
            random.letters(DIGITS, 11),
            random.letters(DIGITS, 13),
            random.letters(ALNUM, 24)
        ),
        "slackhook" => format!(
            "T{}/B{}/{}",
            random.letters(&upper, 10),
            random.letters(&upper, 10),
            random.letters(ALNUM, 24)
        ),
        "akia" => format!("AKIA{}", random.letters(base32, 16)),
        "asia" => format!("ASIA{}", random.letters(base32, 16)),
        "npm" => format!("npm_{}", random.letters(ALNUM, 36)),
        "stripe" => format!("sk_live_{}", random.letters(ALNUM, 24)),
        "rk" => format!("rk_live_51{}", random.letters(ALNUM, 97)),
        "sendgrid" => {
            format!("SG.{}.{}", random.letters(URL_SAFE, 22), random.letters(URL_SAFE, 43))
        }
        "vault" => format!("hvs.{}", random.letters(ALNUM, 24)),
        "batch" => format!("hvb.AAAAAQ{}", random.letters(URL_SAFE, 130)),
        "grafana" => format!("glsa_{}_{}", random.letters(ALNUM, 32), random.letters(HEX, 8)),
        "dapi" => format!("dapi{}", random.letters(HEX, 32)),
        "hf" => format!("hf_{}", random.letters(ALNUM, 34)),
        "gkey" => format!("AIzaSy{}", random.letters(URL_SAFE, 33)),
        "anthropic" => format!("sk-ant-api03-{}AA", random.letters(URL_SAFE, 93)),
        "openai" => format!("sk-{}", random.letters(ALNUM, 48)),
        "sonar" => format!("sqp_{}", random.letters(HEX, 40)),
        "dckr" => format!("dckr_pat_{}", random.letters(URL_SAFE, 27)),
        "nrak" => format!("NRAK-{}", random.letters(&upper, 27)),
        "dynatrace" => {
            format!("dt0c01.{}.{}", random.letters(base32, 24), random.letters(base32, 64))
        }
        "digitalocean" => format!("dop_v1_{}", random.letters(HEX, 64)),
        "linear" => format!("lin_api_{}", random.letters(ALNUM, 40)),
        "tfc" => format!("{}.atlasv1.{}", random.letters(ALNUM, 14), random.letters(URL_SAFE, 67)),
        "pmak" => format!("PMAK-{}-{}", random.letters(HEX, 24), random.letters(HEX, 34)),
        "figma" => format!("figd_{}", random.letters(URL_SAFE, 40)),
        "rubygems" => format!("rubygems_{}", random.letters(HEX, 48)),
        "nuget" => format!("oy2{}", random.letters(&lower, 43)),
        "goclient" => format!("GOCSPX-{}", random.letters(URL_SAFE, 28)),
        _ => panic!("no issuer {name}"),
    }
}
