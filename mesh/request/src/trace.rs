//! W3C Trace Context in heads: the trace that a request belongs to, and what the next hop is told of it.

use eastway_core::head::{Edits, Fields};
use eastway_core::trace::{TraceContext, TraceParent};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// The same between sidecars, for a trace that the mesh began and does not record: see [`TraceContext::announced`].
const MESH_TRACEPARENT: &str = "eastway-traceparent";

/// The trace that a request says it belongs to. One that states it twice, or not in the proper form, belongs to none, and
/// what vendors added to it means nothing any more.
pub(crate) fn stated(fields: &dyn Fields, edits: &mut Edits) -> Option<TraceParent> {
    let once = fields.count(TRACEPARENT) == 1;
    let parent = fields.text(TRACEPARENT).filter(|_| once).and_then(TraceParent::parse);
    if parent.is_none() && (fields.count(TRACEPARENT) > 0 || fields.count(TRACESTATE) > 0) {
        edits.drop(TRACEPARENT).drop(TRACESTATE);
    }
    parent
}

/// The trace of which only the calling sidecar told.
pub(crate) fn of_mesh(fields: &dyn Fields) -> Option<TraceParent> {
    fields.text(MESH_TRACEPARENT).and_then(TraceParent::parse)
}

/// Tells the next hop the trace. An application is not told of one that the mesh began and does not record.
pub(crate) fn pass_on(trace: &TraceContext, edits: &mut Edits) {
    let name = if trace.announced().is_some() { TRACEPARENT } else { MESH_TRACEPARENT };
    edits.set(name, trace.traceparent().to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_that_is_stated_twice_or_in_a_wrong_form_is_none_and_takes_its_state_along() {
        let state: (&str, &[u8]) = ("tracestate", b"vendor=1");
        for fields in [
            &[("traceparent", PARENT), ("traceparent", PARENT), state][..],
            &[("traceparent", b"00-x"), state],
            &[state],
        ] {
            let mut edits = Edits::new();
            assert_eq!(stated(&fields, &mut edits), None, "{fields:?}");
            let mut expected = Edits::new();
            expected.drop("traceparent").drop("tracestate");
            assert_eq!(edits, expected);
        }
        let mut edits = Edits::new();
        assert!(stated(&&[("traceparent", PARENT), state][..], &mut edits).is_some() && edits.is_empty());
        assert!(stated(&(), &mut edits).is_none() && edits.is_empty(), "there is nothing to remove");
    }

    #[test]
    fn an_application_is_not_told_of_a_trace_that_the_mesh_began_and_does_not_record() {
        let told = |parent, sampled| {
            let trace = TraceContext::begin(parent, sampled, sampled, &mut fastrand::Rng::with_seed(1));
            let mut edits = Edits::new();
            pass_on(&trace, &mut edits);
            let mut expected = Edits::new();
            let name = if parent.is_some() || sampled { "traceparent" } else { "eastway-traceparent" };
            expected.set(name, trace.traceparent().to_string());
            assert_eq!(edits, expected);
        };
        let parent = TraceParent::parse(std::str::from_utf8(PARENT).expect("text"));
        told(parent, true);
        told(parent, false);
        told(None, true);
        told(None, false);
    }
}
