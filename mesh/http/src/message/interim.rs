//! Interim responses (1xx): hints that come before the response, and are passed on as they come (RFC 9110, section 15.2).

use std::fmt;
use std::rc::Rc;

use eastway_core::head::{MESH_PREFIX, folds_onto};
use eastway_transport::link::Stream;

use super::ResponseHead;

/// So many interim responses may precede a response.
pub(crate) const MAX_INTERIM: u8 = eastway_link::MAX_INTERIM;

/// Where the interim responses to a request go: to its caller.
#[derive(Clone)]
pub struct Interim(To);

#[derive(Clone)]
enum To {
    Here(Rc<dyn TakesInterim>),
    Link(Stream, SendsInterim),
}

/// How an interim response goes over a link.
type SendsInterim = fn(&Stream, &ResponseHead);

/// What can bear interim responses before the response.
pub(crate) trait TakesInterim {
    /// Sends it, unless the response has begun.
    fn interim(&self, head: &ResponseHead);
}

impl Interim {
    pub(crate) fn to(caller: Rc<dyn TakesInterim>) -> Self {
        Self(To::Here(caller))
    }

    /// Over the link that the request came by.
    pub(crate) fn over(stream: Stream, send: SendsInterim) -> Self {
        Self(To::Link(stream, send))
    }

    /// Passes one on. Nothing in it may pass for a word of the mesh; whether a body is wanted is said by other means.
    pub(crate) fn pass(&self, mut head: ResponseHead) {
        if head.status == CONTINUE {
            return;
        }
        head.fields.retain(|name| !folds_onto(name, MESH_PREFIX));
        match &self.0 {
            To::Here(caller) => caller.interim(&head),
            To::Link(stream, send) => send(stream, &head),
        }
    }
}

/// The status that asks for a body.
pub(crate) const CONTINUE: u16 = 100;

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interim")
    }
}
