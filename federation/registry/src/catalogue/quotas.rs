//! How much one identity may register.

use super::{Catalogue, RegisterError};
use crate::registration::Registration;

impl Catalogue {
    /// Whether the account of `registration`, whose endpoint is new here, may have one more at this gateway. Endpoints whose
    /// streams were lost count, too: who registers and drops would otherwise never reach any limit.
    pub(super) fn check_quota(&self, registration: &Registration) -> Result<(), RegisterError> {
        let Registration { service, account, .. } = registration;
        let of_namespace = self.services.iter().filter(|(name, _)| name.namespace == service.namespace);
        let own = of_namespace.flat_map(|(_, known)| known.endpoints.values()).filter_map(|known| known.own.as_ref());
        let count = own.filter(|own| own.registration.account == *account).count();
        if count < self.options.max_per_account {
            return Ok(());
        }
        Err(RegisterError::Quota { account: format!("{}/{account}", service.namespace), count })
    }
}
