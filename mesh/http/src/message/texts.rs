//! The buffers that a head is in, which a thread keeps from one message to the next.

use std::cell::RefCell;

/// Where something is in the buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    pub(super) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The texts of one head.
#[derive(Default)]
pub(super) struct Texts {
    /// What a request's first line says.
    pub(super) line: String,
    pub(super) bytes: Vec<u8>,
    /// Names and values of fields, in order.
    pub(super) places: Vec<(Span, Span)>,
}

/// Buffers that a thread keeps while no head needs them: those of two heads for each of 128 requests at a time.
const KEPT: usize = 256;
/// Bytes and fields of a head that are kept room for: more than most have.
const LARGE: (usize, usize) = (4096, 64);
/// Fields for which there is room at first.
const FIELDS: usize = 16;

thread_local! {
    static TEXTS: RefCell<Vec<Texts>> = const { RefCell::new(Vec::new()) };
}

/// Empty buffers, with room for so many bytes of fields.
pub(super) fn rent(bytes: usize) -> Texts {
    let kept = TEXTS.try_with(|kept| kept.borrow_mut().pop());
    let mut texts = kept.ok().flatten().unwrap_or_default();
    texts.bytes.reserve(bytes);
    texts.places.reserve(FIELDS);
    texts
}

/// Keeps the buffers for another head.
pub(super) fn give_back(mut texts: Texts) {
    let Texts { line, bytes, places } = &mut texts;
    let (held, fields) = (line.capacity() + bytes.capacity(), places.capacity());
    if held == 0 || held > LARGE.0 || fields > LARGE.1 {
        return;
    }
    line.clear();
    bytes.clear();
    places.clear();
    // A thread that is ending keeps nothing.
    let _ = TEXTS.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT {
            kept.push(texts);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> usize {
        TEXTS.with(|kept| kept.borrow().len())
    }

    #[test]
    fn what_comes_back_is_rented_again_empty() {
        let mut texts = rent(100);
        texts.line.push_str("GET");
        texts.bytes.extend_from_slice(b"authorization");
        let room = texts.bytes.as_ptr();
        give_back(texts);
        let again = rent(50);
        assert_eq!(again.bytes.as_ptr(), room);
        assert!(again.line.is_empty() && again.bytes.is_empty() && again.places.is_empty());
    }

    #[test]
    fn no_more_is_kept_than_has_a_use() {
        give_back(Texts::default());
        give_back(rent(LARGE.0 + 1));
        assert_eq!(kept(), 0);
        let heads: Vec<_> = (0..KEPT + 10).map(|_| rent(10)).collect();
        heads.into_iter().for_each(give_back);
        assert_eq!(kept(), KEPT);
    }
}
