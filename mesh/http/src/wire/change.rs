//! Changes of a head on its way through, as whoever decides about the message asks for them.

use eastway_core::head::{Edit, folds_onto};

use crate::framing;

/// One change of a head. Later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// All fields of the name go.
    Drop(&'a str),
    /// All fields go whose name starts so, or folds onto one that does ([`folds_onto`]).
    DropPrefix(&'a str),
    /// Exactly one field of the name, with this value.
    Set(&'a str, &'a [u8]),
    /// One more field of the name.
    Append(&'a str, &'a [u8]),
}

impl<'a> From<&'a Edit> for Change<'a> {
    fn from(edit: &'a Edit) -> Self {
        match edit {
            Edit::Drop(name) => Self::Drop(name),
            Edit::DropPrefix(prefix) => Self::DropPrefix(prefix),
            Edit::Set(name, value) => Self::Set(name, value.as_bytes()),
            Edit::Append(name, value) => Self::Append(name, value.as_bytes()),
        }
    }
}

/// A change that would break the message: a name or a value that is none, or a field that frames the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change of the head is not possible")]
pub struct BadChange;

impl Change<'_> {
    /// Whether the change takes fields of this name out.
    pub(super) fn drops(self, name: &str) -> bool {
        match self {
            Self::Drop(gone) | Self::Set(gone, _) => name.eq_ignore_ascii_case(gone),
            Self::DropPrefix(prefix) => folds_onto(name, prefix),
            Self::Append(..) => false,
        }
    }

    /// The field that the change adds.
    pub(super) const fn adds(&self) -> Option<(&str, &[u8])> {
        match self {
            Self::Set(name, value) | Self::Append(name, value) => Some((name, value)),
            Self::Drop(_) | Self::DropPrefix(_) => None,
        }
    }
}

/// Writes what `changes` add to a head.
pub(super) fn write_added<'c>(
    out: &mut Vec<u8>,
    changes: impl Iterator<Item = Change<'c>> + Clone,
) -> Result<(), BadChange> {
    let mut later = changes;
    while let Some(change) = later.next() {
        let Some((name, value)) = change.adds() else { continue };
        if later.clone().any(|change| change.drops(name)) {
            continue;
        }
        if !is_possible(name, value) {
            return Err(BadChange);
        }
        write_field(out, name.as_bytes(), value);
    }
    Ok(())
}

/// Writes one field.
pub(super) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What comes from a decision is checked like what comes from a caller: it may quote him.
fn is_possible(name: &str, value: &[u8]) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let visible = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let frames = framing::is_hop_by_hop(name) || name.eq_ignore_ascii_case("content-length");
    !frames && !name.is_empty() && name.bytes().all(token) && value.iter().all(visible)
}
