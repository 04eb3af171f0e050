//! Fields as places in the bytes that they were read from.
//!
//! A raw head outlives the call that parsed it: the forwarder waits for an answer, and may have to send the head again. It
//! keeps the bytes and where each field stands in them, and borrows only while somebody looks.

/// Where one field is in the bytes of its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    name: Span,
    value: Span,
}

/// A part of a head's bytes. Heads are far shorter than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part` is in `whole`, of which it must be a slice; else empty.
    pub(crate) fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        let end = start.wrapping_add(part.len());
        if start > end || end > whole.len() {
            return Self::default();
        }
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            _ => Self::default(),
        }
    }

    /// The part itself.
    pub(crate) fn slice(self, whole: &[u8]) -> &[u8] {
        whole.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The part, if it is text.
    pub(crate) fn text(self, whole: &[u8]) -> &str {
        std::str::from_utf8(self.slice(whole)).unwrap_or_default()
    }
}

impl Place {
    /// Where `field`, whose slices are of `bytes`, stands in them.
    pub(crate) fn of(bytes: &[u8], field: &httparse::Header<'_>) -> Self {
        Self { name: Span::of(bytes, field.name.as_bytes()), value: Span::of(bytes, field.value) }
    }
}

/// The fields of a raw head, in the order of the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    places: &'a [Place],
}

/// One field of a raw head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The name, as written.
    pub name: &'a str,
    /// The value, without the white space around it.
    pub value: &'a [u8],
    /// All of the line: name, colon, white space and value; no end of line.
    pub text: &'a [u8],
}

impl<'a> Lines<'a> {
    /// The fields at `places` of `bytes`.
    pub const fn new(bytes: &'a [u8], places: &'a [Place]) -> Self {
        Self { bytes, places }
    }

    /// The fields, in order.
    pub fn iter(self) -> impl Iterator<Item = Line<'a>> {
        let Self { bytes, places } = self;
        places.iter().map(move |place| {
            let value = place.value.slice(bytes);
            // The colon follows the name at once. An empty value may stand anywhere, and is then left out with its white space.
            let end = if value.is_empty() { place.name.end + 1 } else { place.value.end };
            let text = Span { start: place.name.start, end }.slice(bytes);
            Line { name: place.name.text(bytes), value, text }
        })
    }
}
