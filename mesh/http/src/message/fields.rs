//! Header fields, one behind the other in one buffer.

use std::fmt;
use std::slice::SliceIndex;

use eastway_core::head::{Edit, Edits, Fields, folds_onto};

use super::texts::{Span, Texts, give_back, rent};
use crate::names::is_hop_by_hop;

/// Header fields in order, and the other texts of their head. Names are found in any case; what is written of them is as it was
/// read.
#[derive(Default)]
pub struct FieldList {
    texts: Texts,
}

/// Bytes that a node adds to a head, more or less.
const ADDED: usize = 256;

/// With room for what a node adds: a head is copied to be changed.
impl Clone for FieldList {
    fn clone(&self) -> Self {
        let Texts { line, bytes, places } = &self.texts;
        let mut copy = Self::with_room(bytes.len());
        copy.texts.line.push_str(line);
        copy.texts.bytes.extend_from_slice(bytes);
        copy.texts.places.extend_from_slice(places);
        copy
    }
}

impl FieldList {
    /// No fields, and room for so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { texts: rent(bytes + ADDED) }
    }

    /// Writes the first line, of these parts.
    pub(super) fn begin(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.texts.line.push_str(part));
    }

    /// The first line ends in this from `start` on.
    pub(super) fn end_line(&mut self, start: usize, part: &str) {
        self.texts.line.truncate(start);
        self.texts.line.push_str(part);
    }

    /// A part of the first line.
    pub(super) fn line(&self, part: impl SliceIndex<str, Output = str>) -> &str {
        self.texts.line.get(part).unwrap_or_default()
    }

    /// Keeps a text beside the fields.
    pub(super) fn keep(&mut self, text: &[u8]) -> Span {
        // Heads are far shorter than 4 GiB.
        let start = self.texts.bytes.len() as u32;
        self.texts.bytes.extend_from_slice(text);
        Span { start, end: self.texts.bytes.len() as u32 }
    }

    pub(super) fn kept(&self, span: Span) -> &[u8] {
        self.texts.bytes.get(span.range()).unwrap_or_default()
    }

    /// The fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.texts.places.iter().map(|(name, value)| (self.kept(*name), self.kept(*value)))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.texts.places.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.texts.places.is_empty()
    }

    /// The first field of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Adds a field, which is known to be one.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        let place = (self.keep(name), self.keep(value));
        self.texts.places.push(place);
    }

    /// Adds a field at the end; nothing that is no field.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        if is_field(name, value) {
            self.push(name.as_bytes(), value);
        }
    }

    /// Replaces all fields of the name by one; nothing that is no field.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        if is_field(name, value) {
            self.remove(name);
            self.push(name.as_bytes(), value);
        }
    }

    /// Takes out all fields of the name.
    pub fn remove(&mut self, name: &str) {
        self.retain(|known| !known.eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Keeps the fields with such a name.
    pub(crate) fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let Texts { bytes, places, .. } = &mut self.texts;
        places.retain(|(name, _)| keep(bytes.get(name.range()).unwrap_or_default()));
    }

    /// Makes the changes that decisions want, in order. What would be no field is left out.
    pub fn apply(&mut self, edits: &Edits) {
        for edit in edits.iter() {
            match edit {
                Edit::Drop(name) => self.remove(name),
                Edit::DropPrefix(prefix) => self.retain(|name| !folds_onto(name, prefix)),
                Edit::Set(name, value) => self.set(name, value.as_bytes()),
                Edit::Append(name, value) => self.append(name, value.as_bytes()),
            }
        }
    }
}

/// A byte that may stand in a name.
const TOKEN: u8 = 1;
/// A byte that may stand in a value.
const VISIBLE: u8 = 2;

/// What each byte may be.
const CLASSES: [u8; 256] = {
    let mut classes = [VISIBLE; 256];
    let mut byte = 0;
    while byte < 256 {
        let ascii = byte as u8;
        if (ascii < b' ' && ascii != b'\t') || ascii == 0x7f {
            classes[byte] = 0;
        }
        if ascii.is_ascii_alphanumeric() {
            classes[byte] |= TOKEN;
        }
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        classes[others[at] as usize] |= TOKEN;
        at += 1;
    }
    classes
};

fn all(text: &[u8], class: u8) -> bool {
    text.iter().fold(class, |so_far, byte| so_far & CLASSES[usize::from(*byte)]) != 0
}

/// Whether this can be a field of a head: what comes from a decision may quote a caller, and must not frame a message.
fn is_field(name: &str, value: &[u8]) -> bool {
    let frames = is_hop_by_hop(name) || name.eq_ignore_ascii_case("content-length");
    !frames && !name.is_empty() && all(name.as_bytes(), TOKEN) && all(value, VISIBLE)
}

impl Fields for FieldList {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.get(name)
    }

    fn count(&self, name: &str) -> usize {
        self.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).count()
    }
}

impl Drop for FieldList {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.texts));
    }
}

impl PartialEq for FieldList {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for FieldList {}

/// Only their names: values hold credentials.
impl fmt::Debug for FieldList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}
