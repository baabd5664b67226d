//! Choices out of bytes. What is missing reads as zero, so that every input means something.

pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn word(&mut self) -> u16 {
        let mut out = [0; 2];
        let bytes = self.take(2);
        out[..bytes.len()].copy_from_slice(bytes);
        u16::from_le_bytes(out)
    }

    pub(crate) fn long(&mut self) -> u64 {
        let mut out = [0; 8];
        let bytes = self.take(8);
        out[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(out)
    }

    /// At most `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(length.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// Bytes with their length in two bytes before them.
    pub(crate) fn framed(&mut self) -> &'a [u8] {
        let length = self.word();
        self.take(length.into())
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
