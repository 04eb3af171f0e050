//! What is checked of a `Mesh`.

use eastway_core::resource::Mesh;
use eastway_documents::Checks;

use crate::policy::{self, Said};

pub(crate) fn alone(checks: &mut Checks<'_>, name: &str, mesh: &Mesh) {
    if name != Mesh::NAME {
        checks.problem("metadata.name", format!("`{name}` is no name for it: there is one Mesh, `{}`", Mesh::NAME));
    }
    let Mesh { balancing, breaker, retries, timeouts, .. } = mesh;
    policy::check(checks, Said { balancing, breaker, retries, timeouts });
}
