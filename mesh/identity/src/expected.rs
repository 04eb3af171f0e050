//! Who may be on the other side of a connection.

use std::fmt;

use eastway_core::SpiffeId;

/// Whom a node accepts on the other side. What is a gateway's is never a workload's, and the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// One of these workloads: the accounts that may serve the service which was asked for.
    Workloads(Vec<SpiffeId>),
    /// Any workload of a trust domain whose CA is known; the caller checks further.
    AnyWorkload,
    /// A gateway of this trust domain.
    Gateway {
        /// The trust domain.
        trust_domain: String,
    },
    /// A gateway of any known trust domain.
    AnyGateway,
    /// An operator of this trust domain.
    Operator {
        /// The trust domain.
        trust_domain: String,
    },
    /// Any identity of a known trust domain; the caller asks [`crate::peer_id`] and decides.
    Any,
}

impl Expected {
    /// Whether `id` may be on the other side.
    pub fn admits(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Workloads(ids) => id.is_workload() && ids.contains(id),
            Self::AnyWorkload => id.is_workload(),
            Self::Gateway { trust_domain } => id.is_gateway() && id.trust_domain == *trust_domain,
            Self::AnyGateway => id.is_gateway(),
            Self::Operator { trust_domain } => id.operator().is_some() && id.trust_domain == *trust_domain,
            Self::Any => true,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workloads(ids) if ids.is_empty() => f.write_str("nobody (the service lists no account)"),
            Self::Workloads(ids) => {
                for (index, id) in ids.iter().take(SHOWN).enumerate() {
                    write!(f, "{}{id}", if index == 0 { "" } else { " or " })?;
                }
                match ids.len().saturating_sub(SHOWN) {
                    0 => Ok(()),
                    more => write!(f, " or {more} more"),
                }
            }
            Self::AnyWorkload => f.write_str("a workload"),
            Self::Gateway { trust_domain } => write!(f, "a gateway of {trust_domain}"),
            Self::AnyGateway => f.write_str("a gateway"),
            Self::Operator { trust_domain } => write!(f, "an operator of {trust_domain}"),
            Self::Any => f.write_str("any identity of the mesh"),
        }
    }
}

/// How many accounts a message lists.
const SHOWN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(account: &str) -> SpiffeId {
        SpiffeId::workload("us.mesh.internal", "shop", account)
    }

    #[test]
    fn a_gateway_is_never_a_workload_even_if_listed() {
        let gateway = SpiffeId::gateway("us.mesh.internal", "gw-1");
        assert!(!Expected::Workloads(vec![gateway.clone()]).admits(&gateway));
        assert!(!Expected::AnyWorkload.admits(&gateway));
        assert!(Expected::AnyGateway.admits(&gateway));
        assert!(Expected::Any.admits(&gateway));
    }

    #[test]
    fn an_operator_is_one_of_the_own_trust_domain() {
        let operators = Expected::Operator { trust_domain: "us.mesh.internal".into() };
        let operator = |domain: &str| SpiffeId::operator_of(domain, "ann");
        assert!(operators.admits(&operator("us.mesh.internal")) && !operators.admits(&operator("eu.mesh.internal")));
        assert!(
            !operators.admits(&workload("ann")) && !operators.admits(&SpiffeId::gateway("us.mesh.internal", "ann"))
        );
        assert!(!Expected::AnyWorkload.admits(&operator("us.mesh.internal")));
    }

    #[test]
    fn a_workload_is_never_a_gateway() {
        let id = workload("gateway");
        assert!(!Expected::AnyGateway.admits(&id));
        assert!(!Expected::Gateway { trust_domain: "us.mesh.internal".into() }.admits(&id));
        assert!(Expected::AnyWorkload.admits(&id));
    }

    #[test]
    fn accounts_and_trust_domains_must_match() {
        let expected = Expected::Workloads(vec![workload("payments")]);
        assert!(expected.admits(&workload("payments")));
        assert!(!expected.admits(&workload("orders")));
        assert!(!expected.admits(&SpiffeId::workload("eu.mesh.internal", "shop", "payments")));
        let eu = Expected::Gateway { trust_domain: "eu.mesh.internal".into() };
        assert!(!eu.admits(&SpiffeId::gateway("us.mesh.internal", "gw-1")));
        assert!(eu.admits(&SpiffeId::gateway("eu.mesh.internal", "gw-1")));
    }

    #[test]
    fn an_operator_is_neither() {
        let id: SpiffeId = "spiffe://us.mesh.internal/eastway/operator/alice".parse().expect("valid");
        assert!(!Expected::AnyWorkload.admits(&id) && !Expected::AnyGateway.admits(&id));
        assert!(Expected::Any.admits(&id));
    }

    #[test]
    fn messages_stay_short() {
        let many = Expected::Workloads((0..9).map(|n| workload(&format!("a{n}"))).collect());
        assert!(many.to_string().ends_with("or 5 more"), "{many}");
        assert!(Expected::Workloads(Vec::new()).to_string().contains("nobody"));
    }
}
