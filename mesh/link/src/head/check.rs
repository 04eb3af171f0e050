//! Which characters may stand where, and which fields may not be passed on.

use super::HeadError;

/// Fields that are said in another way (`host`, `content-length`), that concern one connection only, or that change how
/// HTTP/1.1 frames a message.
const FORBIDDEN: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Checks a name that was spelt out: a lower-case token, and not forbidden.
#[inline]
pub(super) fn literal_name(name: &[u8]) -> Result<(), HeadError> {
    if name.is_empty() || !name.iter().all(|byte| is(*byte, NAME)) {
        return Err(HeadError::FieldName);
    }
    if FORBIDDEN.iter().any(|forbidden| forbidden.as_bytes() == name) {
        return Err(HeadError::FieldForbidden);
    }
    Ok(())
}

/// Checks a value: no control characters but tabs, and no white space at its ends.
#[inline]
pub(super) fn value(value: &[u8]) -> Result<(), HeadError> {
    // Without an early end, so that the compiler takes many bytes at once.
    let controls =
        value.iter().fold(false, |found, byte| found | ((*byte < 0x20) & (*byte != b'\t')) | (*byte == 0x7f));
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if controls || blank(value.first()) || blank(value.last()) { Err(HeadError::FieldValue) } else { Ok(()) }
}

/// Checks method and target together.
pub(super) fn method_and_target(method: &str, target: &str, upgrades: bool) -> Result<(), HeadError> {
    if method.is_empty() || !method.bytes().all(|byte| is(byte, TOKEN)) {
        return Err(HeadError::Method);
    }
    // Beyond ASCII is what applications sometimes write there although they should not; it cannot end a line.
    let fits = match target.as_bytes().first() {
        None => method == "CONNECT" && !upgrades,
        Some(b'/') => method != "CONNECT" || upgrades,
        Some(b'*') => method == "OPTIONS" && target.len() == 1,
        Some(_) => false,
    };
    if !fits || target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(HeadError::Target);
    }
    Ok(())
}

/// Checks an authority: not empty, and nothing that could end it or hide a part of it.
pub(super) fn authority(authority: &str) -> Result<(), HeadError> {
    if authority.is_empty() || !authority.bytes().all(|byte| is(byte, AUTHORITY)) {
        return Err(HeadError::Authority);
    }
    Ok(())
}

/// Checks the name of a protocol (a token, and a version after a slash).
pub(super) fn check_upgrade(protocol: &str) -> Result<(), HeadError> {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| is(byte, TOKEN));
    let fits = match protocol.split_once('/') {
        Some((name, version)) => part(name) && part(version),
        None => part(protocol),
    };
    if fits { Ok(()) } else { Err(HeadError::Upgrade) }
}

/// Fields that trailers may not have beside the others: they would speak of the head.
pub(super) fn trailer_name(name: &str) -> Result<(), HeadError> {
    if matches!(name, "te" | "trailer") { Err(HeadError::FieldForbidden) } else { Ok(()) }
}

/// Of a method or protocol.
const TOKEN: u8 = 1;
/// Of a field's name: a token without capitals.
const NAME: u8 = 2;
/// Of an authority.
const AUTHORITY: u8 = 4;

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// What each byte may stand in.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_usize;
    while byte < 128 {
        let character = byte as u8;
        let token = character.is_ascii_alphanumeric()
            || matches!(character, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        if token {
            classes[byte] |= TOKEN;
        }
        if token && !character.is_ascii_uppercase() {
            classes[byte] |= NAME;
        }
        if character.is_ascii_graphic()
            && !matches!(character, b'/' | b'\\' | b'?' | b'#' | b'@' | b',' | b'"' | b'<' | b'>')
        {
            classes[byte] |= AUTHORITY;
        }
        byte += 1;
    }
    classes
};
