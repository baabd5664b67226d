//! Signed envelopes: nothing but what the pinned key signed comes through.

use mendix_agent_core::envelope::{self, KeyRing, Signed, SigningKey};
use serde_json::Value;

use crate::input::Input;

const TYPE: &str = "application/vnd.mendix.fuzz.v1+json";
const LIMIT: usize = 4096;
/// The only payload that a committed seed signs; respelled envelopes may still carry it.
pub(crate) const SIGNED: &[u8] = b"{\"signed\":true}";

/// The key of the target; its seeds are signed with it.
pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

/// An envelope as it came, or one that was signed and then tampered with.
pub fn envelope(bytes: &[u8]) -> bool {
    let ring = KeyRing::new(&[key().pinned()]).unwrap();
    let verify =
        |bytes: &[u8]| -> Result<Signed<Value>, _> { envelope::verify(bytes, TYPE, LIMIT, &ring) };
    let mut input = Input::new(bytes);
    let at = input.word();
    let flip = input.byte();
    let rest = input.rest();

    let raw = verify(rest);
    if let Ok(signed) = &raw {
        assert_eq!(
            **signed,
            serde_json::from_slice::<Value>(SIGNED).unwrap(),
            "nobody signed this"
        );
        assert_eq!(signed.keyid(), key().keyid());
    }

    let mut envelope = key().sign(TYPE, rest);
    let value = serde_json::from_slice::<Value>(rest).ok();
    let fits = envelope.len() <= LIMIT;
    assert_eq!(
        verify(&envelope).ok().map(|signed| Value::clone(&signed)),
        value.clone().filter(|_| fits)
    );
    let at = usize::from(at) % envelope.len();
    envelope[at] ^= flip;
    if let Ok(signed) = verify(&envelope) {
        assert_eq!(Some(&*signed), value.as_ref(), "an altered payload came through");
    }
    assert!(verify(&key().sign("another/type", rest)).is_err());
    raw.is_ok()
}

/// A seed: choices and an envelope that is in order.
pub(crate) fn seed() -> Vec<u8> {
    [&[0, 0, 0][..], &key().sign(TYPE, SIGNED)].concat()
}
