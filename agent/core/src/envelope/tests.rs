use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const KIND: &str = "application/vnd.example.greeting.v1+json";
const LIMIT: usize = 4096;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Greeting {
    hello: String,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn ring(keys: &[&SigningKey]) -> KeyRing {
    let pinned: Vec<_> = keys.iter().map(|key| key.pinned()).collect();
    KeyRing::new(&pinned).unwrap()
}

fn open(envelope: &[u8], keys: &KeyRing) -> Result<Signed<Greeting>, EnvelopeError> {
    verify(envelope, KIND, LIMIT, keys)
}

fn edited(envelope: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(envelope).unwrap();
    edit(&mut value);
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn pre_authentication_encoding_is_the_one_of_the_specification() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    // Lengths count bytes, not characters.
    assert_eq!(pae("t", "é".as_bytes()), "DSSEv1 1 t 2 é".as_bytes());
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
}

#[test]
fn a_signed_payload_comes_back_with_its_signer_and_hash() {
    let envelope = key(1).sign(KIND, br#"{"hello":"world"}"#);
    let signed = open(&envelope, &ring(&[&key(2), &key(1)])).unwrap();
    assert_eq!(*signed, Greeting { hello: "world".into() });
    assert_eq!(signed.keyid(), key(1).keyid());
    assert_eq!(signed.envelope_sha256(), &sha256(&envelope));
}

#[test]
fn a_key_that_is_not_pinned_signs_nothing() {
    let envelope = key(1).sign(KIND, br#"{"hello":"world"}"#);
    let refused = open(&envelope, &ring(&[&key(2)])).unwrap_err();
    assert!(matches!(refused, EnvelopeError::NotSigned { .. }), "{refused}");
}

#[test]
fn a_signature_under_another_pinned_keys_name_does_not_count() {
    let envelope = key(1).sign(KIND, br#"{"hello":"world"}"#);
    let renamed = edited(&envelope, |v| v["signatures"][0]["keyid"] = json!(key(2).keyid()));
    let refused = open(&renamed, &ring(&[&key(1), &key(2)])).unwrap_err();
    assert!(matches!(refused, EnvelopeError::NotSigned { .. }), "{refused}");
}

#[test]
fn a_foreign_signature_beside_a_valid_one_does_no_harm() {
    let envelope = key(1).sign(KIND, br#"{"hello":"world"}"#);
    let both = edited(&envelope, |v| {
        let other = json!({"keyid": "0000000000000000", "sig": "bm9uZQ=="});
        v["signatures"].as_array_mut().unwrap().insert(0, other);
    });
    assert!(open(&both, &ring(&[&key(1)])).is_ok());
}

#[test]
fn unknown_duplicate_and_trailing_content_is_refused() {
    let keys = ring(&[&key(1)]);
    let good = key(1).sign(KIND, br#"{"hello":"world"}"#);
    let text = String::from_utf8(good.clone()).unwrap();
    let cases = [
        edited(&good, |v| v["extra"] = json!(1)),
        edited(&good, |v| v["signatures"][0]["cert"] = json!("x")),
        text.replacen('{', r#"{"payloadType":"x","#, 1).into_bytes(),
        format!("{text}{text}").into_bytes(),
        format!("{text}x").into_bytes(),
        b"[]".to_vec(),
        b"".to_vec(),
    ];
    for case in cases {
        let refused = open(&case, &keys).unwrap_err();
        assert!(matches!(refused, EnvelopeError::Malformed(_)), "{refused}");
    }
    for payload in [
        br#"{"hello":"a","hello":"b"}"#.as_slice(),
        br#"{"hello":"a","more":1}"#,
        br#"{"hello":"a"} {}"#,
    ] {
        let refused = open(&key(1).sign(KIND, payload), &keys).unwrap_err();
        assert!(matches!(refused, EnvelopeError::Payload { .. }), "{refused}");
    }
}

#[test]
fn another_payload_type_is_refused_even_when_signed() {
    let envelope = key(1).sign("application/other", br#"{"hello":"world"}"#);
    let refused = open(&envelope, &ring(&[&key(1)])).unwrap_err();
    assert!(matches!(refused, EnvelopeError::PayloadType { .. }), "{refused}");
    let relabelled = edited(&envelope, |v| v["payloadType"] = json!(KIND));
    let refused = open(&relabelled, &ring(&[&key(1)])).unwrap_err();
    assert!(matches!(refused, EnvelopeError::NotSigned { .. }), "{refused}");
}

#[test]
fn size_and_number_of_signatures_are_bounded() {
    let envelope = key(1).sign(KIND, br#"{"hello":"world"}"#);
    let keys = ring(&[&key(1)]);
    let refused = verify::<Greeting>(&envelope, KIND, envelope.len() - 1, &keys).unwrap_err();
    assert!(matches!(refused, EnvelopeError::TooLarge { .. }), "{refused}");
    let many = edited(&envelope, |v| {
        let one = v["signatures"][0].clone();
        v["signatures"] = json!(vec![one; MAX_SIGNATURES + 1]);
    });
    let none = edited(&envelope, |v| v["signatures"] = json!([]));
    for case in [many, none] {
        let refused = open(&case, &keys).unwrap_err();
        assert!(matches!(refused, EnvelopeError::SignatureCount { .. }), "{refused}");
    }
}

#[test]
fn pinned_keys_must_carry_the_name_that_follows_from_them() {
    let good = key(1).pinned();
    let renamed = PinnedKey { keyid: key(2).keyid(), ..good.clone() };
    assert!(matches!(KeyRing::new(&[renamed]), Err(KeyError::Name { .. })));
    let short = PinnedKey { ed25519: STANDARD.encode([1; 31]), ..good.clone() };
    assert!(matches!(KeyRing::new(&[short]), Err(KeyError::Encoding { .. })));
    let twice = KeyRing::new(&[good.clone(), good]);
    assert!(matches!(twice, Err(KeyError::Duplicate { .. })));
}

#[test]
fn a_key_survives_its_pkcs8_form() {
    let pkcs8 = SigningKey::generate_pkcs8().unwrap();
    let key = SigningKey::from_pkcs8(&pkcs8).unwrap();
    let envelope = key.sign(KIND, br#"{"hello":"world"}"#);
    assert!(open(&envelope, &ring(&[&key])).is_ok());
    assert!(!format!("{key:?}").contains("seed"));
}

proptest! {
    #[test]
    fn any_changed_byte_of_the_envelope_is_refused(at in 0usize..400, flip in 1u8..=255) {
        let mut envelope = key(1).sign(KIND, br#"{"hello":"world"}"#);
        let at = at % envelope.len();
        envelope[at] ^= flip;
        prop_assert!(open(&envelope, &ring(&[&key(1)])).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_verify(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(open(&bytes, &ring(&[&key(1)])).is_err());
    }
}
