//! Tokens that name their issuer, as the third part of the rehearsal set has them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::fill::Source;
use crate::value::{ALNUM, DIGITS, HEX, LOWER, UPPER, URL_SAFE};

/// Tokens of services whose first letters name them.
pub(super) fn issued(name: &str, source: &mut Source<'_>) -> String {
    let upper = format!("{UPPER}{DIGITS}");
    let lower = format!("{LOWER}{DIGITS}");
    let random = &mut *source.random;
    match name {
        "github" => format!("ghp_{}", random.letters(ALNUM, 36)),
        "fine" => {
            format!("github_pat_11{}_{}", random.letters(&upper, 20), random.letters(ALNUM, 59))
        }
        "gitlab" => format!("glpat-{}", random.letters(URL_SAFE, 20)),
        "gitlabci" => format!("glcbt-64_{}", random.letters(URL_SAFE, 20)),
        "slack" => format!(
            "xoxb-{}-{}-{}",
            random.letters(DIGITS, 11),
            random.letters(DIGITS, 13),
            random.letters(ALNUM, 24)
        ),
        "akid" => format!("AKIA{}", random.letters(&upper, 16)),
        "npm" => format!("npm_{}", random.letters(ALNUM, 36)),
        "pypi" => format!("pypi-AgEIcHlwaS5vcmc{}", random.letters(URL_SAFE, 150)),
        "nuget" => format!("oy2{}", random.letters(&lower, 43)),
        "sonar" => format!("{}_{}", random.pick(&["squ", "sqp", "sqa"]), random.letters(HEX, 40)),
        "anthropic" => format!("sk-ant-api03-{}AA", random.letters(URL_SAFE, 93)),
        "openai" => {
            format!("sk-{}T3BlbkFJ{}", random.letters(ALNUM, 20), random.letters(ALNUM, 20))
        }
        "vault" => format!("hvs.{}", random.letters(URL_SAFE, 92)),
        "vaultold" => format!("s.{}", random.letters(ALNUM, 24)),
        "grafana" => format!("glsa_{}_{}", random.letters(ALNUM, 32), random.letters(HEX, 8)),
        "stripe" => format!("sk_live_{}", random.letters(ALNUM, 24)),
        "sendgrid" => {
            format!("SG.{}.{}", random.letters(URL_SAFE, 22), random.letters(URL_SAFE, 43))
        }
        "telegram" => {
            format!("{}:AA{}", random.letters("123456789", 10), random.letters(URL_SAFE, 33))
        }
        "mailgun" => format!("key-{}", random.letters(HEX, 32)),
        "tailscale" => {
            format!("tskey-auth-{}CNTRL-{}", random.letters(ALNUM, 9), random.letters(ALNUM, 32))
        }
        "figma" => format!("figd_{}", random.letters(URL_SAFE, 40)),
        "jfrog" => format!("AKCp{}", random.letters(ALNUM, 69)),
        "gapi" => format!("AIzaSy{}", random.letters(URL_SAFE, 33)),
        "dockerhub" => format!("dckr_pat_{}", random.letters(URL_SAFE, 27)),
        "hook" => format!(
            "T{}/B{}/{}",
            random.letters(&upper, 8),
            random.letters(&upper, 10),
            random.letters(ALNUM, 24)
        ),
        "ado" => format!(
            "{}JQQJ99{}AAAAAAAAAAAAASAZDO{}",
            random.letters(ALNUM, 52),
            random.letters(&upper, 6),
            random.letters(ALNUM, 4)
        ),
        "acr" => format!("{}+ACR{}", random.letters(ALNUM, 42), random.letters(ALNUM, 6)),
        "azfunc" => {
            format!("{}AzFu{}==", random.letters(URL_SAFE, 44), random.letters(URL_SAFE, 6))
        }
        "age" => {
            format!("AGE-SECRET-KEY-1{}", random.letters("023456789ACDEFGHJKLMNPQRSTUVWXYZ", 58))
        }
        "adyen" => {
            format!("AQE{}-{}", STANDARD.encode(random.bytes(60)), random.letters(ALNUM, 16))
        }
        "mollie" => format!("live_{}", random.letters(ALNUM, 30)),
        "circleci" => format!("CCIPAT_{}_{}", random.letters(ALNUM, 22), random.letters(HEX, 40)),
        _ => panic!("no issuer {name}"),
    }
}
