//! Heads of a link, and those of messages.

use eastway_core::Reason;
use eastway_link::{OpaqueBuf, RequestBuf, RequestHead as LinkRequest, ResponseBuf, ResponseHead as LinkResponse};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::framing;
use crate::message::{RequestHead, ResponseHead};
use crate::names::is_dropped_trailer;

/// Trailers as they go over a link.
pub(crate) fn trailers(trailers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let sent = trailers.iter().filter(|(name, _)| !is_dropped_trailer(name));
    sent.map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Trailers that came over a link. What the `http` crate does not take is left out.
pub(crate) fn received_trailers(fields: eastway_link::Fields<'_>) -> HeaderMap {
    let kept = fields.filter(|(name, _)| !is_dropped_trailer(name));
    kept.filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
    })
    .collect()
}

/// The head of a request whose body has the `length`, or with which it ends, to be sent.
pub(crate) fn request(
    head: &RequestHead,
    length: Option<u64>,
    end: bool,
) -> LinkRequest<'_, impl Iterator<Item = (&[u8], &[u8])>> {
    let expects = (head.expects_continue && !end).then_some((&b"expect"[..], &b"100-continue"[..]));
    LinkRequest {
        version: head.version,
        method: head.method(),
        authority: head.authority(),
        target: head.target(),
        length,
        upgrade: protocol(head.upgrade()),
        fields: head.fields.iter().chain(expects),
    }
}

/// The head of a response whose body has the `length`, to be sent.
pub(crate) fn response(
    head: &ResponseHead,
    length: Option<u64>,
) -> LinkResponse<'_, impl Iterator<Item = (&[u8], &[u8])>> {
    LinkResponse { status: head.status, length, upgrade: protocol(head.upgrade()), fields: head.fields.iter() }
}

/// A protocol to change to. The name of one is text wherever it was read; another is sent as none that there is, and refused.
fn protocol(upgrade: Option<&[u8]>) -> Option<&str> {
    upgrade.map(|protocol| std::str::from_utf8(protocol).unwrap_or_default())
}

/// A request that was received.
///
/// # Errors
/// The reason to refuse it with.
pub(crate) fn received(received: &RequestBuf) -> Result<RequestHead, Reason> {
    let view = received.view();
    let path = (!view.target.is_empty()).then_some(view.target);
    let authority = framing::judge_target(view.method, path, view.authority)?;
    let room = view.fields.map(|(name, value)| name.len() + value.len()).sum();
    let upgrade = view.upgrade.map(str::as_bytes);
    let mut head = RequestHead::with_room(view.version, view.method, view.target, (authority, upgrade), room);
    head.length = view.length;
    for (name, value) in view.fields {
        if name == "expect" && value.eq_ignore_ascii_case(b"100-continue") {
            head.expects_continue = true;
        } else {
            head.fields.push(name.as_bytes(), value);
        }
    }
    Ok(head)
}

/// What opened an opaque stream, as the CONNECT that it stands for.
///
/// # Errors
/// The reason to refuse it with.
pub(crate) fn opened(opened: &OpaqueBuf) -> Result<RequestHead, Reason> {
    let view = opened.view();
    let authority = framing::judge_target("CONNECT", None, view.authority)?;
    let mut head = RequestHead::new(eastway_link::HttpVersion::Http11, "CONNECT", "", authority);
    for (name, value) in view.fields {
        head.fields.push(name.as_bytes(), value);
    }
    Ok(head)
}

/// A response that was received.
pub(crate) fn answered(received: &ResponseBuf) -> ResponseHead {
    let view = received.view();
    let room = view.fields.map(|(name, value)| name.len() + value.len()).sum();
    let mut head = ResponseHead::with_room(view.status, view.upgrade.map(str::as_bytes), room);
    head.length = view.length;
    for (name, value) in view.fields {
        head.fields.push(name.as_bytes(), value);
    }
    head
}
