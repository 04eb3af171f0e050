//! The declared resources in the form that deciding needs: looked up by name, bundles read.

use std::collections::BTreeMap;

use eastway_core::ServiceName;
use eastway_core::resource::{Mesh, Peer, Service};
use eastway_core::view::{InboundRules, ServiceSpec};

/// What the operator declared. Replaced as a whole when the files change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// The declared services.
    pub services: BTreeMap<ServiceName, Service>,
    /// The peers, by the name of their cluster.
    pub peers: BTreeMap<String, PeerPolicy>,
    /// What is said of all services.
    pub mesh: Mesh,
}

/// A declared peer, with its files read.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerPolicy {
    /// As declared.
    pub peer: Peer,
    /// The trust domain that its identities must lie in.
    pub trust_domain: String,
    /// The pinned CA certificates, in DER.
    pub trust_bundle: Vec<Vec<u8>>,
}

impl Resources {
    /// How the service is reached in this cluster: as declared, else by the defaults.
    pub fn spec(&self, name: &ServiceName) -> ServiceSpec {
        let undeclared = Service::default();
        let service = self.services.get(name).unwrap_or(&undeclared);
        ServiceSpec {
            ports: service.ports_or_default(),
            accounts: service.accounts_for(name).into(),
            locality_weights: service.locality_weights.clone(),
            failover: service.failover.clone(),
            policy: service.policy(&self.mesh).shared(),
            export: None,
        }
    }

    /// What the service's sidecars in this cluster hold callers to.
    pub fn inbound(&self, name: &ServiceName) -> InboundRules {
        let undeclared = Service::default();
        let service = self.services.get(name).unwrap_or(&undeclared);
        InboundRules { ports: service.ports_or_default(), export: service.export.clone() }
    }

    /// Whether a workload under `account` may serve `name`.
    pub fn admits(&self, name: &ServiceName, account: &str) -> bool {
        match self.services.get(name) {
            Some(service) if !service.accounts.is_empty() => service.accounts.iter().any(|listed| listed == account),
            _ => account == &*name.service,
        }
    }

    /// Whether `name` is offered to the peer cluster `cluster`.
    pub fn exports(&self, name: &ServiceName, cluster: &str) -> bool {
        self.services.get(name).is_some_and(|service| service.exports_to(cluster))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::sync::Arc;

    use eastway_core::policy::{RetryRules, ServicePolicy, ServiceTimeouts};
    use eastway_core::resource::{Protocol, ServicePort};

    use super::*;

    #[test]
    fn an_undeclared_service_is_served_by_the_account_of_its_name_alone() {
        let resources = Resources::default();
        let payments = ServiceName::new("shop", "payments");
        assert!(resources.admits(&payments, "payments"));
        assert!(!resources.admits(&payments, "cart"));
        assert_eq!(*resources.spec(&payments).accounts, ["payments"]);
        assert!(
            Arc::ptr_eq(&resources.spec(&payments).policy, &ServicePolicy::unset()),
            "there are thousands of these"
        );
        assert!(!resources.exports(&payments, "eu-west"));
    }

    #[test]
    fn a_sidecar_lets_in_what_its_own_cluster_declares() {
        let payments = ServiceName::new("shop", "payments");
        let undeclared = Resources::default().inbound(&payments);
        assert_eq!(undeclared.protocol(80), Some(Protocol::Http));
        assert!(undeclared.protocol(9000).is_none() && !undeclared.exports_to("eu-west"));
        let ports = vec![ServicePort::new(9000, Protocol::Tcp)];
        let service = Service { ports, export: vec!["eu-west".to_owned()], ..Service::default() };
        let resources = Resources { services: BTreeMap::from([(payments.clone(), service)]), ..Resources::default() };
        let declared = resources.inbound(&payments);
        assert_eq!((declared.protocol(80), declared.protocol(9000)), (None, Some(Protocol::Tcp)));
        assert!(declared.exports_to("eu-west") && !declared.exports_to("ap-south"));
    }

    #[test]
    fn what_the_mesh_says_holds_where_a_service_says_nothing() {
        let retries = |attempts| RetryRules { attempts: Some(attempts), ..RetryRules::default() };
        let timeouts = ServiceTimeouts { request: Some("2s".into()) };
        let mesh = Mesh { retries: retries(3), timeouts, ..Mesh::default() };
        let payments = ServiceName::new("shop", "payments");
        let service = Service { retries: retries(5), ..Service::default() };
        let services = BTreeMap::from([(payments.clone(), service)]);
        let resources = Resources { services, mesh, ..Resources::default() };
        let said = |name| {
            let policy = resources.spec(name).policy;
            (policy.retries.attempts, policy.timeouts.request)
        };
        let two_seconds = Some(Duration::from_secs(2));
        assert_eq!(said(&payments), (Some(5), two_seconds));
        assert_eq!(said(&ServiceName::new("shop", "undeclared")), (Some(3), two_seconds));
    }

    #[test]
    fn declared_accounts_replace_the_default() {
        let payments = ServiceName::new("shop", "payments");
        let service = Service { accounts: vec!["pay-v2".to_owned()], ..Service::default() };
        let resources = Resources { services: BTreeMap::from([(payments.clone(), service)]), ..Resources::default() };
        assert!(resources.admits(&payments, "pay-v2"));
        assert!(!resources.admits(&payments, "payments"));
    }
}
