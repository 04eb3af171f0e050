//! Where news of the mesh goes.

use std::sync::Arc;

use eastway_core::view::{EndpointView, MeshView, ServiceView};
use eastway_core::{EndpointId, LoadReport, ServiceName};

/// Takes news of the mesh. The methods are called one at a time, in order, from a task that must not be blocked: swap a
/// snapshot, and return.
pub trait Sink: Send + Sync + 'static {
    /// The mesh around the services: first of all, and after each change.
    fn mesh(&self, mesh: &Arc<MeshView>);

    /// A service is new or changed. Ages in the view are as of now.
    fn service(&self, service: &Arc<ServiceView>);

    /// A service is as `service` says now, and of that nothing but `endpoints` is new or changed.
    fn endpoints(&self, service: &Arc<ServiceView>, _endpoints: &[Arc<EndpointView>]) {
        self.service(service);
    }

    /// Endpoints of a service reported their load: all that are known after [`Sink::service`] introduced the service,
    /// later those that changed.
    fn loads(&self, service: &ServiceName, loads: &[(EndpointId, LoadReport)]);

    /// No cluster known here offers the service, or not any more.
    fn unknown(&self, service: &ServiceName);

    /// The service was not used for long, and is no longer followed.
    fn unused(&self, _service: &ServiceName) {}
}
