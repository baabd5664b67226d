//! Tokens and keys that name who handed them out, as the evaluation set has them.

use crate::fill::Source;
use crate::value::{ALNUM, DIGITS, HEX, LOWER, UPPER, URL_SAFE};

/// Tokens of services whose first letters name them.
pub(super) fn minted(name: &str, source: &mut Source<'_>) -> String {
    let upper = format!("{UPPER}{DIGITS}");
    let lower = format!("{LOWER}{DIGITS}");
    let base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let random = &mut *source.random;
    match name {
        "github" => format!(
            "{}{}",
            random.pick(&["ghp_", "ghp_", "gho_", "ghs_", "ghu_"]),
            random.letters(ALNUM, 36)
        ),
        "githubfine" => {
            format!("github_pat_11{}_{}", random.letters(&upper, 20), random.letters(ALNUM, 59))
        }
        "gitlab" => format!("glpat-{}", random.letters(URL_SAFE, 20)),
        "gitlabrouted" => {
            format!("glpat-{}.01.{}", random.letters(URL_SAFE, 27), random.letters(&lower, 9))
        }
        "gitlabjob" => format!("glcbt-{}_{}", random.letters(HEX, 2), random.letters(URL_SAFE, 20)),
        "gitlabrunner" => format!("glrt-{}", random.letters(URL_SAFE, 20)),
        "gitlabdeploy" => format!("gldt-{}", random.letters(URL_SAFE, 20)),
        "slackbot" => format!(
            "xoxb-{}-{}-{}",
            random.letters(DIGITS, 12),
            random.letters(DIGITS, 13),
            random.letters(ALNUM, 24)
        ),
        "slackapp" => format!(
            "xapp-1-A{}-{}-{}",
            random.letters(&upper, 10),
            random.letters(DIGITS, 13),
            random.letters(HEX, 64)
        ),
        "slackpath" => format!(
            "T{}/B{}/{}",
            random.letters(&upper, 8),
            random.letters(&upper, 10),
            random.letters(ALNUM, 24)
        ),
        "npm" => format!("npm_{}", random.letters(ALNUM, 36)),
        "stripe" => format!(
            "{}{}",
            random.pick(&["sk_live_51", "rk_live_51", "sk_test_51"]),
            random.letters(ALNUM, 97)
        ),
        "stripehook" => format!("whsec_{}", random.letters(ALNUM, 32)),
        "sendgrid" => {
            format!("SG.{}.{}", random.letters(URL_SAFE, 22), random.letters(URL_SAFE, 43))
        }
        "vault" => format!("hvs.{}", random.letters(ALNUM, 24)),
        "vaultlong" => format!("hvs.CAESI{}", random.letters(URL_SAFE, 90)),
        "grafana" => format!("glsa_{}_{}", random.letters(ALNUM, 32), random.letters(HEX, 8)),
        "databricks" => format!("dapi{}-2", random.letters(HEX, 32)),
        "google" => format!("AIzaSy{}", random.letters(URL_SAFE, 33)),
        "googlesecret" => format!("GOCSPX-{}", random.letters(URL_SAFE, 28)),
        "openai" => {
            format!("sk-proj-{}T3BlbkFJ{}", random.letters(ALNUM, 58), random.letters(ALNUM, 58))
        }
        "anthropic" => format!("sk-ant-api03-{}AA", random.letters(URL_SAFE, 93)),
        "sonar" => format!("{}{}", random.pick(&["sqa_", "squ_", "sqp_"]), random.letters(HEX, 40)),
        "dockerpat" => format!("dckr_pat_{}", random.letters(URL_SAFE, 27)),
        "newrelic" => format!("NRAK-{}", random.letters(&upper, 27)),
        "newrelicingest" => format!("eu01xx{}NRAL", random.letters(HEX, 30)),
        "dynatrace" => {
            format!("dt0c01.{}.{}", random.letters(base32, 24), random.letters(base32, 64))
        }
        "terraform" => {
            format!("{}.atlasv1.{}", random.letters(ALNUM, 14), random.letters(URL_SAFE, 67))
        }
        "atlassian" => format!("ATATT3xFfGF0{}", random.letters(URL_SAFE, 172)),
        "sentry" => {
            format!("sntrys_eyJ{}_{}", random.letters(ALNUM, 110), random.letters(ALNUM, 43))
        }
        "nuget" => format!("oy2{}", random.letters(&lower, 43)),
        "pypi" => format!("pypi-AgEIcHlwaS5vcmc{}", random.letters(URL_SAFE, 150)),
        _ => panic!("no issuer {name}"),
    }
}

/// Keys of Azure services, with the letters that name the service and a checksum behind.
pub(super) fn azure(name: &str, source: &mut Source<'_>) -> String {
    let base64 = format!("{ALNUM}+/");
    let random = &mut *source.random;
    let (alphabet, front, mark, behind, end) = match name {
        "storage" => (&*base64, 76, "+ASt", 5, &["A==", "Q==", "g==", "w=="][..]),
        "cosmos" => (&*base64, 76, "ACDb", 5, &["A==", "Q==", "g==", "w=="][..]),
        "bus" => (&*base64, 33, "+ASb", 5, SIXTEEN),
        "hubs" => (&*base64, 33, "+AEh", 5, SIXTEEN),
        "relay" => (&*base64, 33, "+ARm", 5, SIXTEEN),
        "iot" => (&*base64, 33, "AIoT", 5, SIXTEEN),
        "redis" => (&*base64, 33, "AzCa", 5, SIXTEEN),
        "registry" => (&*base64, 42, "+ACR", 6, &[""][..]),
        "search" => (ALNUM, 42, "AzSe", 6, &[""][..]),
        "functions" => (ALNUM, 44, "AzFu", 5, &["A==", "Q==", "g==", "w=="][..]),
        "cognitive" => (ALNUM, 52, "JQQJ99B", 25, &[""][..]),
        _ => panic!("no service {name}"),
    };
    let body = random.letters(alphabet, front);
    let behind =
        format!("{}{}", random.letters("ABCDEFGHIJKLMNOP", 1), random.letters(ALNUM, behind - 1));
    format!("{body}{mark}{behind}{}", random.pick(end))
}

/// How 32 bytes end in Base64: four bits of the last letter are theirs.
const SIXTEEN: &[&str] = &[
    "A=", "E=", "I=", "M=", "Q=", "U=", "Y=", "c=", "g=", "k=", "o=", "s=", "w=", "0=", "4=", "8=",
];
