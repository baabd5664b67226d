use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;
use crate::envelope::sha256;

fn header() -> Header {
    Header::new("0a1b-cluster", "MX-1001", [7; 32], "8f14e45f-ceea").unwrap()
}

fn key() -> FileKey {
    FileKey::from_bytes([42; 32])
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

fn seal(header: &Header, plain: &[u8]) -> Vec<Vec<u8>> {
    let mut sealer = Sealer::new(&key(), header).unwrap();
    let mut segments = vec![];
    sealer.push(plain, &mut segments).unwrap();
    segments.push(sealer.finish().unwrap());
    segments
}

fn open(header: &Header, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut opener = Opener::new(&key(), header).unwrap();
    let mut out = vec![];
    opener.push(sealed, &mut out)?;
    opener.finish(&mut out)?;
    Ok(out)
}

#[test]
fn bodies_around_the_segment_size_come_back() {
    for len in [
        0,
        1,
        SEGMENT_PLAINTEXT - 1,
        SEGMENT_PLAINTEXT,
        SEGMENT_PLAINTEXT + 1,
        3 * SEGMENT_PLAINTEXT,
    ] {
        let plain = plaintext(len);
        let segments = seal(&header(), &plain);
        assert_eq!(segments.len(), len.div_ceil(SEGMENT_PLAINTEXT).max(1), "{len}");
        assert!(segments.iter().all(|s| s.len() <= MAX_SNAPSHOT_CHUNK));
        assert_eq!(open(&header(), &segments.concat()).unwrap(), plain, "{len}");
    }
}

#[test]
fn a_body_cut_at_a_segment_boundary_is_not_complete() {
    let segments = seal(&header(), &plaintext(3 * SEGMENT_PLAINTEXT + 5));
    for kept in 0..segments.len() {
        assert!(open(&header(), &segments[..kept].concat()).is_err(), "{kept}");
    }
}

#[test]
fn reordered_repeated_and_appended_segments_are_found() {
    let segments = seal(&header(), &plaintext(2 * SEGMENT_PLAINTEXT + 5));
    for order in [[1, 0, 2].as_slice(), &[0, 0, 2], &[0, 2], &[0, 1, 2, 2], &[0, 1, 1, 2]] {
        let body: Vec<u8> = order.iter().flat_map(|&i| segments[i].clone()).collect();
        assert!(open(&header(), &body).is_err(), "{order:?}");
    }
}

#[test]
fn an_empty_segment_after_a_full_one_is_a_second_spelling_and_refused() {
    let cipher = key().cipher().unwrap();
    let bytes = header().to_bytes();
    let mut first = plaintext(SEGMENT_PLAINTEXT);
    cipher.seal_in_place_append_tag(nonce(0, false), Aad::from(&bytes), &mut first).unwrap();
    let mut last = vec![];
    cipher.seal_in_place_append_tag(nonce(1, true), Aad::from(&bytes), &mut last).unwrap();
    assert_eq!(open(&header(), &[first, last].concat()), Err(SealError::Segment { segment: 1 }));
}

#[test]
fn every_field_of_the_header_is_bound_to_body_and_key() {
    let segments = seal(&header(), b"line\n").concat();
    let (public, private) = generate_recipient_keypair().unwrap();
    let wrapped = wrap_key(&key(), &header(), &public).unwrap();
    let others = [
        Header::new("other", "MX-1001", [7; 32], "8f14e45f-ceea").unwrap(),
        Header::new("0a1b-cluster", "MX-1002", [7; 32], "8f14e45f-ceea").unwrap(),
        Header::new("0a1b-cluster", "MX-1001", [8; 32], "8f14e45f-ceea").unwrap(),
        Header::new("0a1b-cluster", "MX-1001", [7; 32], "8f14e45f-ceeb").unwrap(),
    ];
    for other in others {
        assert!(open(&other, &segments).is_err());
        assert_eq!(unwrap_key(&wrapped, &other, &private).unwrap_err(), SealError::WrappedKey);
    }
}

#[test]
fn the_wrapped_key_opens_for_its_recipient_alone() {
    let (public, private) = generate_recipient_keypair().unwrap();
    let (_, stranger) = generate_recipient_keypair().unwrap();
    let wrapped = wrap_key(&key(), &header(), &public).unwrap();
    assert_eq!(wrapped.encapsulated_key.len(), ENCAPSULATED_KEY);
    assert_eq!(wrapped.wrapped_key.len(), WRAPPED_KEY);
    assert_eq!(unwrap_key(&wrapped, &header(), &private).unwrap().0, key().0);
    assert!(unwrap_key(&wrapped, &header(), &stranger).is_err());
    let mut altered = wrapped;
    altered.wrapped_key[0] ^= 1;
    assert!(unwrap_key(&altered, &header(), &private).is_err());
}

#[test]
fn recipient_keys_that_anybody_could_open_are_refused() {
    let zero = STANDARD.encode([0; 32]);
    let mut one = [0; 32];
    one[0] = 1;
    for bad in [zero.as_str(), &STANDARD.encode(one), &STANDARD.encode([9; 31]), "no base64", ""] {
        assert_eq!(RecipientPublicKey::from_base64(bad), Err(SealError::Recipient), "{bad}");
    }
    let (public, _) = generate_recipient_keypair().unwrap();
    assert_eq!(RecipientPublicKey::from_base64(&public.to_base64()), Ok(public));
}

#[test]
fn a_header_has_one_spelling() {
    let bytes = header().to_bytes();
    assert_eq!(Header::parse(&bytes).unwrap(), header());
    let text = String::from_utf8(bytes).unwrap();
    for other in [
        text.replacen(':', ": ", 1),
        text.replace("0707", "0A07"),
        text.replace("\"version\":1", "\"version\":2"),
        format!("{text}\n"),
        text.replace("MX-1001", "../etc"),
    ] {
        assert!(Header::parse(other.as_bytes()).is_err(), "{other}");
    }
    assert!(Header::new("a", "b/c", [0; 32], "d").is_err());
    assert!(Header::new("a", "", [0; 32], "d").is_err());
}

#[test]
fn keys_do_not_show_in_debug_output() {
    assert_eq!(format!("{:?}", key()), "FileKey(..)");
    assert!(!format!("{:?}", Sealer::new(&key(), &header()).unwrap()).contains("2a"));
}

#[derive(serde::Deserialize)]
struct Vectors {
    bodies: Vec<Body>,
    wrapped_keys: Vec<Wrapped>,
}

#[derive(serde::Deserialize)]
struct Body {
    name: String,
    header: String,
    file_key: String,
    /// The plaintext is byte `i % 251` for each `i` below this.
    plaintext_len: usize,
    sealed_len: usize,
    sealed_sha256: String,
    /// The whole sealed body, where it is short.
    sealed: Option<String>,
}

#[derive(serde::Deserialize)]
struct Wrapped {
    name: String,
    header: String,
    recipient_private_key: String,
    recipient_public_key: String,
    encapsulated_key: String,
    wrapped_key: String,
    file_key: String,
}

fn bytes32(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

#[test]
fn the_published_vectors_hold() {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../../../../proto/vectors/seal-v1.json")).unwrap();
    assert!(vectors.bodies.len() >= 4 && !vectors.wrapped_keys.is_empty());
    for body in vectors.bodies {
        let header = Header::parse(body.header.as_bytes()).unwrap();
        let file_key = FileKey::from_bytes(bytes32(&body.file_key));
        let mut sealer = Sealer::new(&file_key, &header).unwrap();
        let mut segments = vec![];
        sealer.push(&plaintext(body.plaintext_len), &mut segments).unwrap();
        segments.push(sealer.finish().unwrap());
        let sealed = segments.concat();
        assert_eq!(sealed.len(), body.sealed_len, "{}", body.name);
        assert_eq!(hex::encode(sha256(&sealed)), body.sealed_sha256, "{}", body.name);
        if let Some(expected) = body.sealed {
            assert_eq!(hex::encode(&sealed), expected, "{}", body.name);
        }
    }
    for wrapped in vectors.wrapped_keys {
        let header = Header::parse(wrapped.header.as_bytes()).unwrap();
        let private = RecipientPrivateKey::from_bytes(&bytes32(&wrapped.recipient_private_key));
        assert!(RecipientPublicKey::from_base64(&wrapped.recipient_public_key).is_ok());
        let key = WrappedKey {
            encapsulated_key: hex::decode(&wrapped.encapsulated_key).unwrap(),
            wrapped_key: hex::decode(&wrapped.wrapped_key).unwrap(),
        };
        let file_key = unwrap_key(&key, &header, &private).unwrap();
        assert_eq!(hex::encode(*file_key.0), wrapped.file_key, "{}", wrapped.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_cut_of_input_and_output_gives_the_same_body(
        len in 0usize..200_000,
        write in 1usize..100_000,
        read in 1usize..100_000,
    ) {
        let plain = plaintext(len);
        let mut sealer = Sealer::new(&key(), &header()).unwrap();
        let mut segments = vec![];
        for piece in plain.chunks(write) {
            sealer.push(piece, &mut segments).unwrap();
        }
        segments.push(sealer.finish().unwrap());
        prop_assert_eq!(&segments, &seal(&header(), &plain));
        let mut opener = Opener::new(&key(), &header()).unwrap();
        let mut out = vec![];
        for piece in segments.concat().chunks(read) {
            opener.push(piece, &mut out).unwrap();
        }
        opener.finish(&mut out).unwrap();
        prop_assert_eq!(out, plain);
    }

    #[test]
    fn any_flipped_bit_and_any_truncation_is_found(
        len in 1usize..150_000,
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let sealed = seal(&header(), &plaintext(len)).concat();
        let at = at.index(sealed.len());
        let mut flipped = sealed.clone();
        flipped[at] ^= 1 << bit;
        prop_assert!(open(&header(), &flipped).is_err());
        prop_assert!(open(&header(), &sealed[..at]).is_err());
    }
}
