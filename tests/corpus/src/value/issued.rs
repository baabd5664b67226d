//! What services hand out: tokens that name their issuer, session cookies, codes, keys in files.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::credential::pem;
use super::{ALNUM, DIGITS, HEX, UPPER, length, ordinary};
use crate::fill::Source;

const UNPADDED: &str = super::URL_SAFE;

/// The value of a generator of issued secrets, or `None` if there is none of that name.
pub(crate) fn value(name: &str, argument: &str, source: &mut Source<'_>) -> Option<String> {
    Some(match name {
        "ghapp" => format!(
            "{}{}",
            source.random.pick(&["ghu_", "ghs_", "ghr_"]),
            source.random.letters(ALNUM, 36)
        ),
        "gljob" => match source.random.below(3) {
            0 => format!(
                "glcbt-{}_{}",
                source.random.letters(HEX, 2),
                source.random.letters(UNPADDED, 20)
            ),
            1 => format!("glptt-{}", source.random.letters(HEX, 40)),
            _ => format!("gloas-{}", source.random.letters(HEX, 64)),
        },
        "slackhook" => format!(
            "T{}/B{}/{}",
            source.random.letters(&(UPPER.to_owned() + DIGITS), 10),
            source.random.letters(&(UPPER.to_owned() + DIGITS), 10),
            source.random.letters(ALNUM, 24)
        ),
        "stripe" => format!(
            "{}{}",
            source.random.pick(&["sk_live_", "rk_live_", "sk_test_", "whsec_"]),
            source.random.letters(ALNUM, 32)
        ),
        "vault" => format!("hvs.CAESI{}", source.random.letters(UNPADDED, 88)),
        "google" => format!("AIza{}", source.random.letters(UNPADDED, 35)),
        "sendgrid" => format!(
            "SG.{}.{}",
            source.random.letters(UNPADDED, 22),
            source.random.letters(UNPADDED, 43)
        ),
        "grafana" => {
            format!("glsa_{}_{}", source.random.letters(ALNUM, 32), source.random.letters(HEX, 8))
        }
        "awssession" => {
            format!("IQoJb3JpZ2luX2Vj{}", STANDARD.encode(source.random.bytes(300)))
        }
        "base32" => {
            let n = length(argument, source, (32, 32));
            source.random.letters("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", n)
        }
        "serial" => {
            let alphabet = UPPER.to_owned() + DIGITS;
            let parts: Vec<_> = (0..4).map(|_| source.random.letters(&alphabet, 4)).collect();
            parts.join("-")
        }
        "ntlm" => {
            let n = source.random.between(40, 220);
            format!("TlRMTVNTUAAD{}", STANDARD.encode(source.random.bytes(n)))
        }
        "bcrypt" => {
            format!("admin:$2y$10${}", source.random.letters(&format!("./{ALNUM}"), 53))
        }
        // Session cookies of servlet containers, ASP.NET, Express and Laravel.
        "jsession" => {
            let id = source.random.letters("0123456789ABCDEF", 32);
            if source.random.percent(40) {
                format!("{id}.node{}", source.random.below(4))
            } else {
                id
            }
        }
        "aspcookie" => {
            let n = source.random.between(150, 400);
            format!("CfDJ8{}", source.random.letters(UNPADDED, n))
        }
        "connectsid" => {
            let (id, signature) =
                (source.random.letters(UNPADDED, 32), source.random.letters(ALNUM, 43));
            format!("s%3A{id}.{signature}")
        }
        "laravel" => {
            let mut piece = |n| STANDARD.encode(source.random.bytes(n));
            let json = format!(r#"{{"iv":"{}","value":"{}","mac":""}}"#, piece(16), piece(96));
            STANDARD.encode(json).replace('=', "%3D")
        }
        // Codes of Keycloak and Google.
        "kccode" => {
            let (code, session) = (ordinary::uuid(source), ordinary::uuid(source));
            format!("{code}.{session}.{}", ordinary::uuid(source))
        }
        "googlecode" => format!("4/0A{}", source.random.letters(UNPADDED, 70)),
        "samlxml" => saml(source),
        "b64lines" => {
            let lines = length(argument, source, (4, 12));
            let text = STANDARD.encode(source.random.bytes(57 * lines));
            let lines: Vec<_> = text.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
            lines.join("\n")
        }
        "jks" => {
            let n = source.random.between(300, 900);
            let magic = [0xfe_u8, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1];
            STANDARD.encode([&magic[..], &source.random.bytes(n)].concat())
        }
        "fernet" => URL_SAFE.encode(source.random.bytes(32)),
        "agekey" => source.random.letters("023456789ACDEFGHJKLMNPQRSTUVWXYZ", 58),
        "pemb64" => {
            let kind = *source.random.pick(&["PRIVATE", "RSA PRIVATE", "EC PRIVATE"]);
            let body = pem("4-26", source);
            STANDARD
                .encode(format!("-----BEGIN {kind} KEY-----\n{body}\n-----END {kind} KEY-----\n"))
        }
        _ => return None,
    })
}

/// A SAML response in Base64, as the browser posts it.
fn saml(source: &mut Source<'_>) -> String {
    let (id, request) = (source.random.letters(HEX, 32), source.random.letters(HEX, 32));
    let signature = STANDARD.encode(source.random.bytes(256));
    let name = source.word("last");
    STANDARD.encode(format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_{id}" InResponseTo="_{request}" Version="2.0"><ds:SignatureValue>{signature}</ds:SignatureValue><saml:Assertion><saml:NameID>{name}</saml:NameID></saml:Assertion></samlp:Response>"#
    ))
}
