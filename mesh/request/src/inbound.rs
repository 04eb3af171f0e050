//! The inbound side: a call from another node of the mesh, to the application beside this sidecar.
//!
//! A caller's verified identity goes to the application as `eastway-source`; whatever a caller wrote under that prefix
//! does not, on whichever way it comes: a CONNECT carries bytes only to a port that this cluster declares for them, and
//! requests to any other. Nothing here retries: the calling sidecar does.

mod rules;

use std::sync::Arc;

use eastway_core::head::{Edits, HttpVersion, MESH_PREFIX, RequestHead, ResponseHead};
use eastway_core::resource::ServicePort;
use eastway_core::view::{InboundRules, MeshView};
use eastway_core::{Authority, Reason, ServiceName, SpiffeId, Timestamp};

use crate::answer::Answer;
use crate::outbound::SPOKEN;
use crate::record::{Recorder, RequestRecord};
use eastway_core::Refusal;
use rules::Carried;

/// The verified identity of the caller.
const SOURCE: &str = "eastway-source";
/// This endpoint's load, for the caller's next choice.
const LOAD: &str = "eastway-load";

/// What holds for all calls of one node.
#[derive(Clone, Debug)]
pub struct InboundOptions {
    /// The domain of the mesh's names.
    pub suffix: String,
    /// The service that the workload serves.
    pub service: Option<ServiceName>,
    /// The own trust domain.
    pub trust_domain: String,
}

/// Where a request was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// On the caller's connection.
    Connection,
    /// Inside the stream of a CONNECT, which holds no other CONNECT.
    Connected,
}

/// What to do next.
#[derive(Debug)]
pub enum InboundStep {
    /// Find what this cluster declares of the workload's service, and tell with [`Inbound::ruled`].
    Rules,
    /// Send the request to the application, with these changes of its head, in this version if the application speaks
    /// several. Tell with [`Inbound::answered`] or [`Inbound::failed`].
    Forward(Edits, HttpVersion),
    /// Connect to the application, for bytes. Tell with [`Inbound::opened`] or [`Inbound::failed`].
    Stream,
    /// The same, but if the caller speaks first and speaks HTTP, as [`InboundStep::Serve`]: nobody may be told in plain bytes what only
    /// the mesh says of a caller.
    Either,
    /// Serve the requests in the stream that the caller opens ([`Layer::Connected`]). Tell with [`Inbound::opened`].
    Serve,
    /// Refuse the request. The record knows.
    Refuse(Refusal),
}

/// An inbound request, from its head to its answer.
#[derive(Debug)]
pub struct Inbound<R: Recorder> {
    caller: Arc<SpiffeId>,
    record: RequestRecord<R>,
    next: Next,
    is_own: bool,
    edits: Edits,
    spoken: HttpVersion,
    port: Option<ServicePort>,
}

#[derive(Debug)]
enum Next {
    Rules {
        target: Authority,
        connect: bool,
        layer: Layer,
    },
    Forward,
    Stream,
    Either,
    Serve,
    Refuse(Reason),
    /// It is the shell's turn.
    Told,
}

impl<R: Recorder> Inbound<R> {
    /// A request of `caller` whose head has just been read.
    pub fn begin(
        recorder: &R,
        options: &InboundOptions,
        (caller, layer): (&Arc<SpiffeId>, Layer),
        head: &RequestHead<'_>,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let mut edits = Edits::new();
        let stated = crate::trace::stated(head.fields, &mut edits);
        let trace = recorder.sample(stated.or_else(|| crate::trace::of_mesh(head.fields)), rng);
        let trace = if stated.is_some() { trace } else { trace.unannounced() };
        edits.drop_prefix(MESH_PREFIX).set(SOURCE, caller.to_string());
        if trace.announced().is_some() {
            crate::trace::pass_on(&trace, &mut edits);
        }
        let record = RequestRecord::begin(recorder, head, trace, options.service.as_ref(), now);
        let is_own = caller.trust_domain == options.trust_domain;
        let next = match admit(options, head) {
            Ok(_) if is_own && !head.is_connect() && !head.upgrade => Next::Forward,
            Ok(target) => Next::Rules { target, connect: head.is_connect(), layer },
            Err(reason) => Next::Refuse(reason),
        };
        let spoken = if head.fields.first(SPOKEN).is_some() { HttpVersion::Http11 } else { head.version };
        Self { caller: Arc::clone(caller), record, next, is_own, edits, spoken, port: None }
    }

    /// What to do next.
    pub fn step(&mut self) -> InboundStep {
        match std::mem::replace(&mut self.next, Next::Told) {
            Next::Rules { target, connect, layer } => {
                self.next = Next::Rules { target, connect, layer };
                InboundStep::Rules
            }
            Next::Forward => InboundStep::Forward(std::mem::take(&mut self.edits), self.spoken),
            Next::Stream => InboundStep::Stream,
            Next::Either => InboundStep::Either,
            Next::Serve => InboundStep::Serve,
            Next::Refuse(reason) => self.refuse(reason),
            // The shell asks although it has something to tell, which is a fault of ours.
            Next::Told => self.refuse(Reason::Internal),
        }
    }

    fn refuse(&mut self, reason: Reason) -> InboundStep {
        let refusal = Refusal::from(reason);
        self.record.refused(reason, refusal.status, refusal.grpc_status);
        InboundStep::Refuse(refusal)
    }

    /// What this cluster declares of the service was found, or why it was not.
    pub fn ruled(&mut self, found: Result<Arc<InboundRules>, Reason>, mesh: &MeshView) {
        let Next::Rules { target, connect, layer } = std::mem::replace(&mut self.next, Next::Told) else { return };
        if let Ok(rules) = &found {
            self.port = rules.port(target.port.unwrap_or(HTTP)).cloned();
        }
        if self.is_own && !connect {
            // A further protocol, whose stream lasts; nothing more is asked of the own cluster.
            self.next = Next::Forward;
            return;
        }
        let allowed = found.and_then(|rules| {
            if !self.is_own {
                rules::let_in(&rules, mesh, &self.caller)?;
            }
            match (connect, layer) {
                (false, _) => Ok(Next::Forward),
                (true, Layer::Connected) => Err(Reason::MalformedRequest),
                (true, Layer::Connection) => Ok(match rules::carried(&rules, target.port)? {
                    Carried::Bytes => Next::Stream,
                    Carried::Either => Next::Either,
                    Carried::Http => Next::Serve,
                }),
            }
        });
        self.next = allowed.unwrap_or_else(Next::Refuse);
    }

    /// The application did not answer.
    pub fn failed(&mut self, reason: Reason) {
        self.next = Next::Refuse(reason);
    }

    /// The service's port that it came for, where that was looked at: of streams.
    pub const fn port(&self) -> Option<&ServicePort> {
        self.port.as_ref()
    }

    /// The record of the request.
    pub fn record(&self) -> &RequestRecord<R> {
        &self.record
    }

    /// The application's answer passes to the caller, with these changes of its head: it bears this endpoint's `load`, and
    /// nothing in it may pass for a word of the mesh.
    pub fn answered(&mut self, head: &ResponseHead<'_>, load: Option<String>) -> (Edits, Answer<R>) {
        let mut edits = Edits::new();
        edits.drop_prefix(MESH_PREFIX).drop("proxy-status");
        if let Some(load) = load {
            edits.set(LOAD, load);
        }
        self.record.answered(head.status);
        if let Some(code) = head.grpc_status() {
            self.record.grpc_status(code);
        }
        (edits, Answer::inbound(self.record.take()))
    }

    /// The stream to the application, or into the requests in it, is open.
    pub fn opened(&mut self) -> Answer<R> {
        self.record.answered(OK);
        Answer::inbound(self.record.take())
    }
}

/// A request must be for the service that this workload serves: a stale caller must not reach whoever took the address over.
fn admit(options: &InboundOptions, head: &RequestHead<'_>) -> Result<Authority, Reason> {
    let wanted = Authority::parse(head.authority, &options.suffix).map_err(|_| Reason::ForeignHost)?;
    if Some(&wanted.service) == options.service.as_ref() { Ok(wanted) } else { Err(Reason::UnknownService) }
}

const OK: u16 = 200;
/// The port of `http://` where none is written.
const HTTP: u16 = 80;

#[cfg(test)]
mod tests;
