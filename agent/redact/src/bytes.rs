//! Kinds of bytes that runs are made of, as tables: one look for each byte, where a chain of comparisons
//! would take several. For the runs that are long or that nearly every line has.

/// A set of bytes.
pub(super) struct Bytes([bool; 256]);

impl Bytes {
    /// Letters and digits of ASCII, and `more`.
    const fn letters_and(more: &[u8]) -> Self {
        Self::range_and(b'a', b'z', Self::range_and(b'A', b'Z', Self::digits_and(more)))
    }

    const fn digits_and(more: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut at = 0;
        while at < more.len() {
            set[more[at] as usize] = true;
            at += 1;
        }
        Self::range_and(b'0', b'9', Self(set))
    }

    const fn range_and(first: u8, last: u8, more: Self) -> Self {
        let mut set = more.0;
        let mut byte = first;
        while byte <= last {
            set[byte as usize] = true;
            byte += 1;
        }
        Self(set)
    }

    #[inline(always)]
    pub(super) fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }
}

/// Names of keys.
pub(super) static KEY: Bytes = Bytes::letters_and(b"_-.");
/// Base64, without and with its padding, and that for URLs as well.
pub(super) static BASE64_LETTERS: Bytes = Bytes::letters_and(b"+/");
pub(super) static BASE64: Bytes = Bytes::letters_and(b"+/=");
pub(super) static ANY_BASE64: Bytes = Bytes::letters_and(b"+/=-_");
/// Addresses of IPv6.
pub(super) static ADDRESS: Bytes = Bytes::digits_and(b"abcdefABCDEF:.");
