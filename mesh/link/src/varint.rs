//! Numbers of one to eight bytes, as QUIC writes them (RFC 9000, section 16).
//!
//! The two highest bits of the first byte say how many bytes there are. Only the shortest form is accepted, so that one
//! value has one encoding.

/// The greatest number that can be written.
pub(crate) const MAX: u64 = (1 << 62) - 1;

/// Appends `value`; a greater one than [`MAX`] is written as [`MAX`].
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value.min(MAX) | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Appends a text with its length before it.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front of a slice. Every method answers `None` if the bytes end too early.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*bytes)
    }

    /// A number in its shortest form.
    #[inline]
    pub(crate) fn number(&mut self) -> Option<u64> {
        let first = *self.rest.first()?;
        match first >> 6 {
            0 => self.byte().map(u64::from),
            1 => self.array().map(|bytes| u64::from(u16::from_be_bytes(bytes) & 0x3fff)).filter(|value| *value >= 0x40),
            2 => self
                .array()
                .map(|bytes| u64::from(u32::from_be_bytes(bytes) & 0x3fff_ffff))
                .filter(|value| *value >= 0x4000),
            _ => self.array().map(|bytes| u64::from_be_bytes(bytes) & MAX).filter(|value| *value >= 0x4000_0000),
        }
    }

    /// Bytes with their length before them.
    #[inline]
    pub(crate) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_in_as_few_bytes_as_they_need() {
        for (value, length) in
            [(0, 1), (63, 1), (64, 2), (16_383, 2), (16_384, 4), (0x3fff_ffff, 4), (0x4000_0000, 8), (MAX, 8)]
        {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out.len(), length, "{value}");
            let mut reader = Reader::new(&out);
            assert_eq!((reader.number(), reader.rest.len()), (Some(value), 0));
            assert_eq!(Reader::new(&out[..length - 1]).number(), None, "{value} cut short");
        }
        let mut out = Vec::new();
        put(&mut out, u64::MAX);
        assert_eq!(Reader::new(&out).number(), Some(MAX));
    }

    #[test]
    fn a_longer_form_than_needed_is_no_number() {
        for bytes in [&[0x40, 0x3f][..], &[0x80, 0, 0x3f, 0xff], &[0xc0, 0, 0, 0, 0x3f, 0xff, 0xff, 0xff]] {
            assert_eq!(Reader::new(bytes).number(), None, "{bytes:?}");
        }
    }

    #[test]
    fn lengths_that_exceed_what_is_there_are_refused() {
        let mut out = Vec::new();
        put_bytes(&mut out, b"abc");
        assert_eq!(Reader::new(&out).prefixed(), Some(b"abc".as_slice()));
        assert_eq!(Reader::new(&out[..3]).prefixed(), None);
        assert_eq!(Reader::new(&[0xff; 8]).prefixed(), None);
    }
}
