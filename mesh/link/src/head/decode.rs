//! Reading heads, without copying.
//!
//! A head is checked once, when its frame arrives; reading it again from the same bytes ([`super::RequestBuf::view`]) only finds
//! where its parts are.

use super::encode::{FIELD_COST, HAS_LENGTH, HAS_UPGRADE, HEAD_COST, Size, check_response};
use super::{HeadError, HttpVersion, OpaqueHead, RequestHead, ResponseHead, check, table};
use crate::varint::Reader;

impl<'a> RequestHead<'a> {
    /// Reads and checks a head whose size must not exceed `max` bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &'a [u8], max: usize) -> Result<Self, HeadError> {
        let head = Self::read(bytes)?;
        check::method_and_target(head.method, head.target, head.upgrade.is_some())?;
        check::authority(head.authority)?;
        if head.length.is_some() && (head.method == "CONNECT" || head.upgrade.is_some()) {
            return Err(HeadError::Length);
        }
        let upgrade = check_protocol(head.upgrade)?;
        let texts = head.method.len() + head.target.len() + head.authority.len() + upgrade;
        head.fields.check(texts, false, max)?;
        Ok(head)
    }

    /// Finds the parts without checking their characters.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, HeadError> {
        let mut reader = Reader::new(bytes);
        let shape = reader.byte().ok_or(HeadError::Encoding)?;
        let version = match shape & !(HAS_LENGTH | HAS_UPGRADE) {
            0 => HttpVersion::Http10,
            1 => HttpVersion::Http11,
            2 => HttpVersion::Http2,
            _ => return Err(HeadError::Encoding),
        };
        let method = match reader.byte().ok_or(HeadError::Encoding)? {
            0 => text(&mut reader, HeadError::Method)?,
            code => table::method(code).ok_or(HeadError::Encoding)?,
        };
        let authority = text(&mut reader, HeadError::Authority)?;
        let target = text(&mut reader, HeadError::Target)?;
        let (length, upgrade) = length_and_upgrade(shape, &mut reader)?;
        Ok(Self { version, method, authority, target, length, upgrade, fields: Fields { reader } })
    }
}

impl<'a> ResponseHead<'a> {
    /// Reads and checks a head whose size must not exceed `max` bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &'a [u8], max: usize) -> Result<Self, HeadError> {
        let head = Self::read(bytes)?;
        check_response(head.status, head.length, head.upgrade)?;
        let upgrade = check_protocol(head.upgrade)?;
        head.fields.check(upgrade, false, max)?;
        Ok(head)
    }

    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, HeadError> {
        let mut reader = Reader::new(bytes);
        let shape = reader.byte().ok_or(HeadError::Encoding)?;
        if shape & !(HAS_LENGTH | HAS_UPGRADE) != 0 {
            return Err(HeadError::Encoding);
        }
        let status = u16::from_be_bytes(reader.array().ok_or(HeadError::Encoding)?);
        let (length, upgrade) = length_and_upgrade(shape, &mut reader)?;
        Ok(Self { status, length, upgrade, fields: Fields { reader } })
    }
}

impl<'a> OpaqueHead<'a> {
    /// Reads and checks what opens an opaque stream, whose size must not exceed `max` bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &'a [u8], max: usize) -> Result<Self, HeadError> {
        let head = Self::read(bytes)?;
        check::authority(head.authority)?;
        head.fields.check(head.authority.len(), false, max)?;
        Ok(head)
    }

    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, HeadError> {
        let mut reader = Reader::new(bytes);
        let authority = text(&mut reader, HeadError::Authority)?;
        Ok(Self { authority, fields: Fields { reader } })
    }
}

/// Reads a response's head, and refuses it if it is interim and should not be, or the other way round.
pub(crate) fn decode_interim(bytes: &[u8], interim: bool, max: usize) -> Result<ResponseHead<'_>, HeadError> {
    let head = ResponseHead::decode(bytes, max)?;
    if head.is_interim() == interim { Ok(head) } else { Err(HeadError::Status) }
}

/// Reads and checks trailers.
pub(crate) fn decode_trailers(bytes: &[u8], max: usize) -> Result<Fields<'_>, HeadError> {
    let fields = Fields::new(bytes);
    fields.check(0, true, max)?;
    Ok(fields)
}

/// The fields of a head or of trailers, in order: names in lower case, values as they were written.
///
/// It is an iterator and cheap to clone; each clone begins where the original stands.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes) }
    }

    /// The value of the first field of this name, which must be in lower case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    fn check(mut self, texts: usize, trailers: bool, max: usize) -> Result<(), HeadError> {
        let mut size = Size::new(max);
        size.add(HEAD_COST + texts)?;
        while !self.reader.rest.is_empty() {
            let spelt_out = self.reader.rest.first() == Some(&0);
            let whole = self.reader.rest.first().is_some_and(|code| *code >= table::FIRST_PAIR);
            let (name, value) = self.field()?;
            if spelt_out {
                check::literal_name(name.as_bytes())?;
            }
            if !whole {
                check::value(value)?;
            }
            if trailers {
                check::trailer_name(name)?;
            } else if spelt_out && name == "te" && !value.eq_ignore_ascii_case(b"trailers") {
                return Err(HeadError::FieldForbidden);
            }
            size.add(FIELD_COST + name.len() + value.len())?;
        }
        Ok(())
    }

    #[inline]
    fn field(&mut self) -> Result<(&'a str, &'a [u8]), HeadError> {
        let code = self.reader.byte().ok_or(HeadError::Encoding)?;
        if code >= table::FIRST_PAIR {
            let (name, value) = table::pair(code).ok_or(HeadError::Encoding)?;
            return Ok((name, value.as_bytes()));
        }
        let name = match code {
            0 => text(&mut self.reader, HeadError::FieldName)?,
            code => table::name(code).ok_or(HeadError::Encoding)?,
        };
        Ok((name, self.reader.prefixed().ok_or(HeadError::Encoding)?))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // What is shown was checked before; there is no error left to report.
        self.field().ok()
    }
}

impl PartialEq for Fields<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.into_iter().eq(*other)
    }
}

impl Eq for Fields<'_> {}

fn text<'a>(reader: &mut Reader<'a>, otherwise: HeadError) -> Result<&'a str, HeadError> {
    let bytes = reader.prefixed().ok_or(HeadError::Encoding)?;
    std::str::from_utf8(bytes).map_err(|_| otherwise)
}

fn length_and_upgrade<'a>(shape: u8, reader: &mut Reader<'a>) -> Result<(Option<u64>, Option<&'a str>), HeadError> {
    let length = if shape & HAS_LENGTH == 0 { None } else { Some(reader.number().ok_or(HeadError::Encoding)?) };
    let upgrade = if shape & HAS_UPGRADE == 0 { None } else { Some(text(reader, HeadError::Upgrade)?) };
    Ok((length, upgrade))
}

/// Checks a protocol, and says how long its name is.
fn check_protocol(protocol: Option<&str>) -> Result<usize, HeadError> {
    let Some(protocol) = protocol else { return Ok(0) };
    check::check_upgrade(protocol)?;
    Ok(protocol.len())
}
