//! The proof that a request for a first certificate comes from the agent's pod: its projected
//! ServiceAccount token, checked against the keys with which its cluster signs such tokens.
//!
//! The keys are registered along with the cluster; the cluster is not called. A cluster whose keys are
//! registered must show a token.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Whom the token has to be for.
pub const AUDIENCE: &str = "mendix-control-plane";
/// Whose it has to be.
pub const SUBJECT: &str = "system:serviceaccount:mendix-agent:mendix-agent";
/// Longest token.
pub(crate) const MAX_TOKEN: usize = 16 * 1024;
/// Longest key set.
const MAX_JWKS: usize = 64 * 1024;
/// How far clocks may differ.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// How a cluster signs ServiceAccount tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIssuer {
    /// What its tokens name as `iss`; on AKS the OIDC issuer URL.
    issuer: String,
    /// Its public keys.
    keys: Vec<Key>,
}

/// A public key as RFC 7517 writes it. Others than RSA and P-256 are left out when a set is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    kid: Option<String>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Material {
    /// Modulus and exponent, big-endian, base64url.
    Rsa { n: String, e: String },
    /// Coordinates, base64url.
    P256 { x: String, y: String },
}

/// Why a key set or a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttestationError {
    /// The key set can't be read.
    #[error("the issuer's key set: {0}")]
    KeySet(String),
    /// No token was sent.
    #[error(
        "this cluster's enrolment needs the agent's ServiceAccount token (audience {AUDIENCE}), and \
         none was sent"
    )]
    Missing,
    /// It is no token.
    #[error("the ServiceAccount token can't be read: {0}")]
    Malformed(&'static str),
    /// Its signature is not one of the registered keys'.
    #[error(
        "the ServiceAccount token is not signed by a registered key of this cluster; register its \
         key set again if the keys were rotated"
    )]
    Signature,
    /// It says something else than it must.
    #[error("the ServiceAccount token's {claim} is {found}, not {expected}")]
    Claim {
        /// The claim.
        claim: &'static str,
        /// What it says.
        found: String,
        /// What it has to say.
        expected: String,
    },
    /// It is not valid now.
    #[error("the ServiceAccount token is valid from {from} to {until}, and now it is {now}")]
    Time {
        /// From when on it is valid.
        from: String,
        /// Until when.
        until: String,
        /// The control plane's clock.
        now: String,
    },
}

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// Name of the pod; empty for a token that is bound to none.
    pub pod: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Bound,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Default, Deserialize)]
struct Bound {
    #[serde(default)]
    pod: Pod,
}

#[derive(Default, Deserialize)]
struct Pod {
    #[serde(default)]
    name: String,
}

impl TokenIssuer {
    /// Reads a key set (RFC 7517), as the cluster serves it at `/openid/v1/jwks`.
    ///
    /// # Errors
    /// [`AttestationError::KeySet`], also when it has no key that can be used.
    pub fn new(issuer: &str, jwks: &[u8]) -> Result<Self, AttestationError> {
        let problem = |text: String| AttestationError::KeySet(text);
        if issuer.is_empty() {
            return Err(problem("an issuer is needed besides the keys".into()));
        }
        if jwks.len() > MAX_JWKS {
            return Err(problem(format!("more than {MAX_JWKS} bytes")));
        }
        let set: KeySet = serde_json::from_slice(jwks).map_err(|e| problem(e.to_string()))?;
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::new).collect();
        if keys.is_empty() {
            return Err(problem("it has no RSA or P-256 key".into()));
        }
        Ok(Self { issuer: issuer.to_owned(), keys })
    }

    /// Checks a token: signature, issuer, subject, audience and time.
    ///
    /// # Errors
    /// [`AttestationError`]; it says what is wrong and never repeats the token.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Attested, AttestationError> {
        use AttestationError::Malformed;
        if token.is_empty() {
            return Err(AttestationError::Missing);
        }
        if token.len() > MAX_TOKEN {
            return Err(Malformed("it is too long"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Malformed("it has no parts"))?;
        let (header, claims) = signed.split_once('.').ok_or(Malformed("it has two parts"))?;
        let decode = |part: &str| {
            BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed("it is not base64url"))
        };
        let header: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| Malformed("its header is not one"))?;
        let signature = decode(signature)?;
        let mut keys = self.keys.iter().filter(|key| match (&key.kid, &header.kid) {
            (Some(key), Some(wanted)) => key == wanted,
            _ => true,
        });
        if !keys.any(|key| key.signed(&header.alg, signed.as_bytes(), &signature)) {
            return Err(AttestationError::Signature);
        }
        let claims: Claims = serde_json::from_slice(&decode(claims)?)
            .map_err(|_| Malformed("its claims are not those of a ServiceAccount"))?;
        self.check(&claims, now)?;
        Ok(Attested { pod: claims.kubernetes.pod.name })
    }

    fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), AttestationError> {
        let wrong = |claim, found: &str, expected: &str| {
            let (found, expected) = (found.chars().take(128).collect(), expected.to_owned());
            Err(AttestationError::Claim { claim, found, expected })
        };
        if claims.iss != self.issuer {
            return wrong("issuer", &claims.iss, &self.issuer);
        }
        if claims.sub != SUBJECT {
            return wrong("subject", &claims.sub, SUBJECT);
        }
        let audiences = match &claims.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Several(several) => several.as_slice(),
        };
        if !audiences.iter().any(|audience| audience == AUDIENCE) {
            return wrong("audience", &audiences.join(" "), AUDIENCE);
        }
        let time = |at: i64| Timestamp::from_second(at).unwrap_or(Timestamp::MAX);
        let (from, until) = (time(claims.nbf), time(claims.exp));
        if until.duration_since(now) < -TOLERANCE || from.duration_since(now) > TOLERANCE {
            let (from, until, now) = (from.to_string(), until.to_string(), now.to_string());
            return Err(AttestationError::Time { from, until, now });
        }
        Ok(())
    }
}

impl Key {
    fn new(jwk: Jwk) -> Option<Self> {
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Material::Rsa { n: jwk.n?, e: jwk.e? },
            ("EC", Some("P-256")) => Material::P256 { x: jwk.x?, y: jwk.y? },
            _ => return None,
        };
        let key = Self { kid: jwk.kid, material };
        // A key that can't be read would refuse later, and nobody would know why.
        key.bytes().map(|_| key)
    }

    /// Both numbers of the key.
    fn bytes(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (Material::Rsa { n: a, e: b } | Material::P256 { x: a, y: b }) = &self.material;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        Some((decode(a)?, decode(b)?))
    }

    /// The algorithm is the key's to choose; what the token says has to agree with it.
    fn signed(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let Some((a, b)) = self.bytes() else { return false };
        match (&self.material, algorithm) {
            (Material::Rsa { .. }, "RS256") => RsaPublicKeyComponents { n: &a, e: &b }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            (Material::P256 { .. }, "ES256") if a.len() <= 32 && b.len() <= 32 => {
                let mut point = vec![4; 65];
                point[1..].fill(0);
                point[33 - a.len()..33].copy_from_slice(&a);
                point[65 - b.len()..].copy_from_slice(&b);
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature)
                    .is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        rsa::{KeyPair as RsaKeyPair, KeySize},
        signature::{
            ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        },
    };
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://oidc.example/cluster";

    enum Signer {
        Rsa(RsaKeyPair),
        P256(EcdsaKeyPair),
    }

    impl Signer {
        fn p256() -> Self {
            Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        fn rsa() -> Self {
            Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
        }

        fn jwk(&self) -> Value {
            let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
            match self {
                Self::Rsa(pair) => {
                    let public = pair.public_key();
                    let n = text(public.modulus().big_endian_without_leading_zero());
                    let e = text(public.exponent().big_endian_without_leading_zero());
                    json!({ "kty": "RSA", "kid": "r", "alg": "RS256", "use": "sig", "n": n, "e": e })
                }
                Self::P256(pair) => {
                    let point = pair.public_key().as_ref();
                    json!({ "kty": "EC", "crv": "P-256", "kid": "e",
                            "x": text(&point[1..33]), "y": text(&point[33..]) })
                }
            }
        }

        fn token(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = match self {
                Self::Rsa(pair) => {
                    let mut signature = vec![0; pair.public_modulus_len()];
                    let random = SystemRandom::new();
                    pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature)
                        .unwrap();
                    signature
                }
                Self::P256(pair) => {
                    pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
                }
            };
            format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn claims() -> Value {
        json!({
            "iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE],
            "iat": now().as_second() - 10, "nbf": now().as_second() - 10,
            "exp": now().as_second() + 3600,
            "kubernetes.io": { "namespace": "mendix-agent", "pod": { "name": "mendix-agent-x" } },
        })
    }

    fn issuer(signers: &[&Signer]) -> TokenIssuer {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        TokenIssuer::new(ISSUER, json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn tokens_of_both_kinds_of_keys_are_accepted() {
        let (rsa, p256) = (Signer::rsa(), Signer::p256());
        let issuer = issuer(&[&rsa, &p256]);
        for (signer, alg, kid) in [(&rsa, "RS256", "r"), (&p256, "ES256", "e")] {
            let token = signer.token(&json!({ "alg": alg, "kid": kid }), &claims());
            assert_eq!(issuer.verify(&token, now()).unwrap().pod, "mendix-agent-x");
            let token = signer.token(&json!({ "alg": alg }), &claims());
            issuer.verify(&token, now()).unwrap();
        }
    }

    #[test]
    fn each_wrong_claim_is_refused_by_name() {
        let signer = Signer::p256();
        let issuer = issuer(&[&signer]);
        for (claim, value, says) in [
            ("iss", json!("https://elsewhere"), "issuer"),
            ("sub", json!("system:serviceaccount:default:mendix-agent"), "subject"),
            ("aud", json!(["https://kubernetes.default.svc"]), "audience"),
            ("aud", json!("https://kubernetes.default.svc"), "audience"),
            ("exp", json!(now().as_second() - 120), "valid from"),
            ("nbf", json!(now().as_second() + 120), "valid from"),
        ] {
            let mut claims = claims();
            claims[claim] = value;
            let token = signer.token(&json!({ "alg": "ES256" }), &claims);
            let refused = issuer.verify(&token, now()).unwrap_err().to_string();
            assert!(refused.contains(says) && !refused.contains(&token), "{claim}: {refused}");
        }
        assert_eq!(issuer.verify("", now()), Err(AttestationError::Missing));
    }

    #[test]
    fn a_token_of_another_key_or_of_none_is_refused() {
        let (ours, theirs) = (Signer::p256(), Signer::p256());
        let issuer = issuer(&[&ours]);
        let token = theirs.token(&json!({ "alg": "ES256", "kid": "e" }), &claims());
        assert_eq!(issuer.verify(&token, now()), Err(AttestationError::Signature));
        let mut changed = ours.token(&json!({ "alg": "ES256" }), &claims()).into_bytes();
        let dot = changed.iter().rposition(|byte| *byte == b'.').unwrap();
        changed[dot + 5] = if changed[dot + 5] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(issuer.verify(&changed, now()), Err(AttestationError::Signature));
        for alg in ["none", "HS256", "RS256", "es256"] {
            let token = ours.token(&json!({ "alg": alg }), &claims());
            assert_eq!(issuer.verify(&token, now()), Err(AttestationError::Signature), "{alg}");
        }
        for token in ["x", "a.b", "a.b.c", "..", &"x".repeat(MAX_TOKEN + 1)] {
            assert!(issuer.verify(token, now()).is_err(), "{token:.20}");
        }
    }

    #[test]
    fn a_key_set_without_a_usable_key_is_refused_when_it_is_registered() {
        for jwks in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
            assert!(TokenIssuer::new(ISSUER, jwks.as_bytes()).is_err(), "{jwks}");
        }
    }
}
