//! Phase 6: the answer to the application. Nothing else answers it.

use std::rc::Rc;

use eastway_core::Reason;
use eastway_http::reserved::MESH_PREFIX;
use eastway_http::{Body, Edits, refuse};
use http::{Response, Version};

use crate::exchange;
use crate::record::RequestRecord;
use crate::worker::Worker;

/// Passes an endpoint's response on; the record goes with it to its end.
pub(super) fn answer(worker: &Rc<Worker>, record: RequestRecord, mut response: Response<Body>) -> Response<Body> {
    let mut edits = Edits::new();
    edits.drop_prefix(MESH_PREFIX);
    edits.apply(response.headers_mut());
    if worker.node.config.outbound.via {
        let version = response.version();
        exchange::add_via(response.headers_mut(), version);
    }
    exchange::answered(record, response)
}

/// Refuses the request, and says why, to a caller that speaks gRPC or not in the version of its request.
pub(super) fn refuse(
    worker: &Rc<Worker>,
    mut record: RequestRecord,
    reason: Reason,
    (is_grpc, version): (bool, Version),
) -> Response<Body> {
    tracing::debug!(reason = reason.code(), "refused");
    record.refused(reason);
    refuse::response(reason, &worker.node.name, is_grpc, version)
}
