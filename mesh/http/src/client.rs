//! Calling upstreams: connections over any byte stream, and a pool of those that can be used again.
//!
//! A connection is a handle plus a task on the same worker that drives it; the task ends with the connection, or once
//! the handle is dropped and nothing is under way. A failed [`H1::send`] says what failed, whether the request can
//! have reached the other side, and gives the request back when it surely did not.
//!
//! Nothing here dials, chooses an endpoint or retries: that is the sidecar's business.

mod error;
mod expect;
mod h1;
mod h2;
mod link;
mod options;
mod pool;
mod tunnel;

pub use error::{Failure, SendError};
pub use h1::H1;
pub use h2::H2;
pub use link::Link;
pub use options::ClientOptions;
pub use pool::{Leased, Pool, PoolOptions};
pub use tunnel::{ConnectError, Connected, connect};

pub use crate::h2_options::{H2Options, Ping};

use std::cell::Cell;
use std::rc::Rc;

use eastway_core::Reason;
use http::{Method, Request, Response, StatusCode, response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use crate::body::{Body, End, Observer};
use crate::framing;

/// Remembers how a request's body fared, because hyper's error does not always say whose fault it was.
#[derive(Clone, Default)]
struct Fault(Rc<Cell<Option<Reason>>>);

impl Fault {
    /// Watches the body of `request`; without a body there is nothing to watch.
    fn watch(request: Request<Body>) -> (Request<Body>, Option<Self>) {
        if request.body().is_end_stream() {
            return (request, None);
        }
        let fault = Self::default();
        let observer = Box::new(fault.clone());
        (request.map(|body| body.observe(observer)), Some(fault))
    }
}

impl Observer for Fault {
    fn end(&mut self, end: &End<'_>) {
        if let End::Failed(error) = end {
            self.0.set(Some(error.request_reason()));
        }
    }
}

/// What a request asked for, as far as it says how its response is to be read.
#[derive(Clone, Copy)]
struct Asked {
    head: bool,
    upgrade: bool,
    /// It waits for 100 (Continue) with its body.
    expects: bool,
}

impl Asked {
    fn by(request: &mut Request<Body>) -> Self {
        if request.body().is_end_stream() {
            request.extensions_mut().remove::<framing::ExpectsContinue>();
        }
        let extensions = request.extensions();
        Self {
            head: request.method() == Method::HEAD,
            upgrade: extensions.get::<crate::head::UpgradeTo>().is_some(),
            expects: extensions.get::<framing::ExpectsContinue>().is_some(),
        }
    }

    /// Whether a response with this status has no body, whatever length its head states (RFC 9110, section 6.4.1).
    fn is_bodiless(self, status: StatusCode) -> bool {
        self.head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || status.is_informational()
    }
}

/// Judges what came back: the same for both versions.
fn received(response: Response<Incoming>, asked: Asked, reused: bool) -> Result<Response<Body>, SendError> {
    let (mut parts, incoming): (response::Parts, _) = response.into_parts();
    // Nobody asked to change the protocol: whoever reads on would take what follows for another message.
    let unasked = parts.status == StatusCode::SWITCHING_PROTOCOLS && !asked.upgrade;
    if unasked || framing::admit_response(&mut parts).is_err() {
        return Err(SendError::new(Failure::Protocol, reused));
    }
    let bodiless = asked.is_bodiless(parts.status);
    Ok(Response::from_parts(parts, Body::answered(incoming, bodiless)))
}

fn failed(mut error: TrySendError<Request<Body>>, fault: Option<&Fault>, reused: bool) -> SendError {
    let request = error.take_message().map(unsealed);
    let fault = fault.and_then(|fault| fault.0.get());
    SendError::classified(error.into_error(), request, fault, reused)
}

/// Undoes [`framing::seal_request`], so that the request can be sent over another connection.
fn unsealed(request: Request<Body>) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    // What was sealed had been admitted before, so there is no refusal to expect; the form is then left as it is.
    let _ = framing::admit_request(&mut parts);
    Request::from_parts(parts, body)
}

#[cfg(test)]
mod tests;
