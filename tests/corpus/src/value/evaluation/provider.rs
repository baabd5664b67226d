//! What identity providers, the cluster's among them, sign and hand out, as the evaluation set has it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::fill::Source;
use crate::value::credential::random_mixed;
use crate::value::{DIGITS, HEX, URL_SAFE, ordinary};

/// A signed token of an identity provider or of an application's own.
pub(super) fn signed_token(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 27);
    let header = match source.random.below(6) {
        0 | 1 => format!(r#"{{"typ":"JWT","alg":"RS256","kid":"{kid}"}}"#),
        2 => {
            format!(r#"{{"typ":"JWT","nonce":"{kid}","alg":"RS256","x5t":"{kid}","kid":"{kid}"}}"#)
        }
        3 => format!(r#"{{"alg":"RS256","typ" : "JWT","kid" : "{kid}"}}"#),
        4 => r#"{"alg":"HS512"}"#.to_owned(),
        _ => r#"{"alg":"HS256","typ":"JWT"}"#.to_owned(),
    };
    let (subject, tenant) = (ordinary::uuid(source), ordinary::uuid(source));
    let (time, user) = (source.random.letters(DIGITS, 8), source.word("user"));
    let claims = match source.random.below(3) {
        0 => format!(
            r#"{{"aud":"{subject}","iss":"https://login.microsoftonline.com/{tenant}/v2.0","iat":17{time},"nbf":17{time},"exp":17{time},"azp":"{subject}","oid":"{tenant}","tid":"{tenant}","ver":"2.0"}}"#
        ),
        1 => format!(
            r#"{{"exp":17{time},"iat":17{time},"jti":"{subject}","iss":"https://id.duinrand.example/realms/staff","aud":"account","sub":"{tenant}","typ":"Bearer","azp":"claims-web","preferred_username":"{user}"}}"#
        ),
        _ => format!(r#"{{"sub":"{user}","roles":["USER"],"iat":17{time},"exp":17{time}}}"#),
    };
    let n = *source.random.pick(&[32_usize, 64, 256, 256]);
    let signature = source.random.bytes(n);
    let coded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", coded(&header), coded(&claims), URL_SAFE_NO_PAD.encode(signature))
}

/// A ServiceAccount's token, as kubelets mount it; some as controllers stored them in Secrets.
pub(super) fn mounted_token(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 43);
    let (namespace, account) = (source.word("ns"), source.word("app"));
    let (id, time) = (ordinary::uuid(source), source.random.letters(DIGITS, 8));
    let claims = match source.random.below(5) {
        0 => format!(
            r#"{{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"{namespace}","kubernetes.io/serviceaccount/secret.name":"{account}-token","kubernetes.io/serviceaccount/service-account.name":"{account}","sub":"system:serviceaccount:{namespace}:{account}"}}"#
        ),
        _ => format!(
            r#"{{"aud":["https://kubernetes.default.svc"],"exp":17{time},"iat":17{time},"iss":"https://kubernetes.default.svc","jti":"{id}","kubernetes.io":{{"namespace":"{namespace}","pod":{{"name":"{account}-0","uid":"{id}"}},"serviceaccount":{{"name":"{account}","uid":"{id}"}},"warnafter":17{time}}},"nbf":17{time},"sub":"system:serviceaccount:{namespace}:{account}"}}"#
        ),
    };
    let signature = source.random.bytes(256);
    let coded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = coded(&format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#));
    format!("{header}.{}.{}", coded(&claims), URL_SAFE_NO_PAD.encode(signature))
}

/// What a client presents behind `Bearer`: signed tokens mostly, else opaque ones.
pub(super) fn presented(source: &mut Source<'_>) -> String {
    match source.random.below(8) {
        0..6 => signed_token(source),
        6 => random_mixed(source, 43),
        _ => source.random.letters(HEX, 40),
    }
}

/// A response with its assertion, in Base64, as a browser posts it.
pub(super) fn saml_response(source: &mut Source<'_>) -> String {
    let (id, request) = (ordinary::uuid(source), source.random.letters(HEX, 40));
    let digest = STANDARD.encode(source.random.bytes(32));
    let signature = STANDARD.encode(source.random.bytes(256));
    let user = source.word("user");
    STANDARD.encode(format!(
        r#"<samlp:Response ID="_{id}" Version="2.0" Destination="https://claims.duinrand.example/SSO/assertion" InResponseTo="_{request}" xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"><Issuer xmlns="urn:oasis:names:tc:SAML:2.0:assertion">https://sts.windows.net/{id}/</Issuer><DigestValue>{digest}</DigestValue><SignatureValue>{signature}</SignatureValue><Assertion><Subject><NameID>{user}</NameID></Subject></Assertion></samlp:Response>"#
    ))
}
