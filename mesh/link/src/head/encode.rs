//! Writing heads. Each function appends one head to a buffer, or leaves the buffer as it was.

use super::{HeadError, HeaderField, HttpVersion, OpaqueHead, RequestHead, ResponseHead, check, table};
use crate::varint;

/// In the first byte of a head: a length follows.
pub(super) const HAS_LENGTH: u8 = 0x04;
/// In the first byte of a head: a protocol to change to follows.
pub(super) const HAS_UPGRADE: u8 = 0x08;

/// What counts for a head beside its texts. At least what the encoding has beside them.
pub(super) const HEAD_COST: usize = 32;
/// What counts for a field beside its texts.
pub(super) const FIELD_COST: usize = 16;

/// Appends the head of a request.
pub(crate) fn encode_request(
    head: RequestHead<'_, impl IntoIterator<Item: HeaderField>>,
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), HeadError> {
    check::method_and_target(head.method, head.target, head.upgrade.is_some())?;
    check::authority(head.authority)?;
    let bodiless = head.method == "CONNECT" || head.upgrade.is_some();
    if head.length.is_some_and(|length| bodiless || length > varint::MAX) {
        return Err(HeadError::Length);
    }
    let mut size = Size::new(max);
    size.add(HEAD_COST + head.method.len() + head.target.len() + head.authority.len())?;
    let start = out.len();
    out.push(shape(version_bits(head.version), head.length, head.upgrade));
    let code = table::method_code(head.method);
    out.push(code);
    if code == 0 {
        varint::put_bytes(out, head.method.as_bytes());
    }
    varint::put_bytes(out, head.authority.as_bytes());
    varint::put_bytes(out, head.target.as_bytes());
    let rest = put_length_and_upgrade(head.length, head.upgrade, &mut size, out)
        .and_then(|()| put_fields(head.fields, false, &mut size, out));
    rest.inspect_err(|_| out.truncate(start))
}

/// Appends what opens an opaque stream.
pub(crate) fn encode_opaque(
    head: OpaqueHead<'_, impl IntoIterator<Item: HeaderField>>,
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), HeadError> {
    check::authority(head.authority)?;
    let mut size = Size::new(max);
    size.add(HEAD_COST + head.authority.len())?;
    let start = out.len();
    varint::put_bytes(out, head.authority.as_bytes());
    put_fields(head.fields, false, &mut size, out).inspect_err(|_| out.truncate(start))
}

/// Appends the head of a response, final or interim.
pub(crate) fn encode_response(
    head: ResponseHead<'_, impl IntoIterator<Item: HeaderField>>,
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), HeadError> {
    check_response(head.status, head.length, head.upgrade)?;
    let mut size = Size::new(max);
    size.add(HEAD_COST)?;
    let start = out.len();
    out.push(shape(0, head.length, head.upgrade));
    out.extend_from_slice(&head.status.to_be_bytes());
    let rest = put_length_and_upgrade(head.length, head.upgrade, &mut size, out)
        .and_then(|()| put_fields(head.fields, false, &mut size, out));
    rest.inspect_err(|_| out.truncate(start))
}

/// Appends trailers.
pub(crate) fn encode_trailers(
    fields: impl IntoIterator<Item: HeaderField>,
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), HeadError> {
    let mut size = Size::new(max);
    size.add(HEAD_COST)?;
    let start = out.len();
    put_fields(fields, true, &mut size, out).inspect_err(|_| out.truncate(start))
}

/// What holds for the parts of a response's head together, beside its fields.
pub(super) fn check_response(status: u16, length: Option<u64>, upgrade: Option<&str>) -> Result<(), HeadError> {
    if !(100..=999).contains(&status) {
        return Err(HeadError::Status);
    }
    let bodiless = status < 200 || status == 204;
    if length.is_some_and(|length| bodiless || length > varint::MAX) {
        return Err(HeadError::Length);
    }
    match upgrade {
        Some(_) if status != 101 => Err(HeadError::Upgrade),
        _ => Ok(()),
    }
}

fn put_length_and_upgrade(
    length: Option<u64>,
    upgrade: Option<&str>,
    size: &mut Size,
    out: &mut Vec<u8>,
) -> Result<(), HeadError> {
    if let Some(length) = length {
        varint::put(out, length);
    }
    if let Some(protocol) = upgrade {
        check::check_upgrade(protocol)?;
        size.add(protocol.len())?;
        varint::put_bytes(out, protocol.as_bytes());
    }
    Ok(())
}

fn put_fields(
    fields: impl IntoIterator<Item: HeaderField>,
    trailers: bool,
    size: &mut Size,
    out: &mut Vec<u8>,
) -> Result<(), HeadError> {
    for field in fields {
        let (name, value) = (field.name(), trim(field.value()));
        size.add(FIELD_COST + name.len() + value.len())?;
        put_field(name, value, trailers, out)?;
    }
    Ok(())
}

#[inline]
fn put_field(name: &[u8], value: &[u8], trailers: bool, out: &mut Vec<u8>) -> Result<(), HeadError> {
    let code = table::name_code(name);
    if code == 0 {
        return put_literal(name, value, trailers, out);
    }
    let pair = table::pair_code(code, value);
    if pair != 0 {
        out.push(pair);
        return Ok(());
    }
    check::value(value)?;
    out.push(code);
    varint::put_bytes(out, value);
    Ok(())
}

fn put_literal(name: &[u8], value: &[u8], trailers: bool, out: &mut Vec<u8>) -> Result<(), HeadError> {
    out.push(0);
    varint::put(out, name.len() as u64);
    let start = out.len();
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    let lower = out.get(start..).unwrap_or_default();
    check::literal_name(lower)?;
    check::value(value)?;
    if trailers {
        check::trailer_name(std::str::from_utf8(lower).unwrap_or_default())?;
    } else if lower == b"te" {
        if !value.eq_ignore_ascii_case(b"trailers") {
            return Err(HeadError::FieldForbidden);
        }
        // The code, and the two numbers of the name that stand there already, give way to one code.
        out.truncate(start - 2);
        out.push(table::TE_TRAILERS);
        return Ok(());
    }
    varint::put_bytes(out, value);
    Ok(())
}

/// Takes off the blanks around a value, which do not belong to it (RFC 9110, section 5.5). Nothing else is taken off, so that no
/// line feed goes unnoticed.
#[inline]
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn shape(version: u8, length: Option<u64>, upgrade: Option<&str>) -> u8 {
    let length = if length.is_some() { HAS_LENGTH } else { 0 };
    let upgrade = if upgrade.is_some() { HAS_UPGRADE } else { 0 };
    version | length | upgrade
}

const fn version_bits(version: HttpVersion) -> u8 {
    match version {
        HttpVersion::Http10 => 0,
        HttpVersion::Http11 => 1,
        HttpVersion::Http2 => 2,
    }
}

/// The size of a head so far.
pub(super) struct Size {
    left: usize,
}

impl Size {
    pub(super) const fn new(max: usize) -> Self {
        Self { left: max }
    }

    #[inline]
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), HeadError> {
        self.left = self.left.checked_sub(bytes).ok_or(HeadError::TooLarge)?;
        Ok(())
    }
}
