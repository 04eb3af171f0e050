//! What a question is about: a name of the mesh in any of its forms, something beside those that is nobody else's business, or a
//! name that other servers know.

use eastway_core::MeshHost;
use eastway_core::name::CLUSTERSET_SUFFIX;
use eastway_core::resource::Protocol;

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A service, wherever it is or in one cluster.
    Host(MeshHost),
    /// The ports of a service on which this is spoken (RFC 2782): `_http._tcp.SERVICE.NAMESPACE.SUFFIX`.
    Ports(MeshHost, Protocol),
    /// The domain itself, a namespace or a cluster: there are names below it, and nothing at it. That it does not exist would be
    /// taken to mean that nothing below it does (RFC 8020).
    Above,
    /// A name under the mesh's domain that nothing can have; also one to which a resolver has appended a search domain.
    Nothing,
    /// A name outside the mesh.
    Outside,
}

/// What `name` asks for, which is in lower case and without its trailing dot, where names of the mesh end in `suffix`.
pub(super) fn read(name: &str, suffix: &str) -> Asked {
    if let Some(below) = below(name, suffix) {
        return of_labels(below, true);
    }
    if let Some(below) = below(name, CLUSTERSET_SUFFIX) {
        return of_labels(below, false);
    }
    let searched = |domain: &str| name.starts_with(&format!("{domain}.")) || name.contains(&format!(".{domain}."));
    if searched(suffix) || searched(CLUSTERSET_SUFFIX) { Asked::Nothing } else { Asked::Outside }
}

/// What stands before `domain` in `name`; `None` if it lies elsewhere.
fn below<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    match name.strip_suffix(domain)? {
        "" => Some(""),
        rest => rest.strip_suffix('.'),
    }
}

fn of_labels(below: &str, with_clusters: bool) -> Asked {
    let labels: Vec<&str> = below.split('.').filter(|label| !label.is_empty()).collect();
    let host = |labels| MeshHost::from_labels(labels).filter(|host| with_clusters || host.cluster.is_none());
    match labels[..] {
        [] | [_] => Asked::Above,
        [protocol, "_tcp", ref rest @ ..] => match (spoken(protocol), host(rest)) {
            (Some(protocol), Some(host)) => Asked::Ports(host, protocol),
            _ => Asked::Nothing,
        },
        ["_tcp", ref rest @ ..] if host(rest).is_some() => Asked::Above,
        _ => host(&labels).map_or(Asked::Nothing, Asked::Host),
    }
}

/// The protocol that a label of a service record names.
fn spoken(label: &str) -> Option<Protocol> {
    match label {
        "_http" => Some(Protocol::Http),
        "_grpc" => Some(Protocol::Grpc),
        "_tcp" => Some(Protocol::Tcp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> Asked {
        read(name, "mesh.internal")
    }

    fn host(text: &str) -> MeshHost {
        text.parse().expect("a name")
    }

    #[test]
    fn a_service_has_a_name_for_all_clusters_one_for_each_and_an_alias() {
        assert_eq!(asked("payments.shop.mesh.internal"), Asked::Host(host("shop/payments")));
        assert_eq!(asked("payments.shop.eu-west.mesh.internal"), Asked::Host(host("shop/payments/eu-west")));
        assert_eq!(asked("payments.shop.svc.clusterset.local"), Asked::Host(host("shop/payments")));
        assert_eq!(read("a.b.corp.example", "corp.example"), Asked::Host(host("b/a")));
    }

    #[test]
    fn ports_are_asked_for_by_what_is_spoken_there() {
        let eu = || host("shop/payments/eu-west");
        assert_eq!(asked("_http._tcp.payments.shop.eu-west.mesh.internal"), Asked::Ports(eu(), Protocol::Http));
        assert_eq!(asked("_tcp._tcp.payments.shop.eu-west.mesh.internal"), Asked::Ports(eu(), Protocol::Tcp));
        let wide = Asked::Ports(host("shop/payments"), Protocol::Grpc);
        assert_eq!(asked("_grpc._tcp.payments.shop.svc.clusterset.local"), wide);
        assert_eq!(asked("_tcp.payments.shop.mesh.internal"), Asked::Above);
        for name in [
            "_smtp._tcp.payments.shop.mesh.internal",
            "_http._udp.payments.shop.mesh.internal",
            "_http._tcp.x.mesh.internal",
        ] {
            assert_eq!(asked(name), Asked::Nothing, "{name}");
        }
    }

    #[test]
    fn above_the_names_there_is_nothing_which_is_not_that_they_do_not_exist() {
        for name in ["mesh.internal", "shop.mesh.internal", "svc.clusterset.local", "shop.svc.clusterset.local"] {
            assert_eq!(asked(name), Asked::Above, "{name}");
        }
    }

    #[test]
    fn no_name_of_the_mesh_is_anybody_elses_whatever_is_appended_to_it() {
        for name in [
            "payments.shop.mesh.internal.corp.example",
            "payments.shop.eu-west.mesh.internal.svc.cluster.local",
            "mesh.internal.corp.example",
            "payments.shop.svc.clusterset.local.corp.example",
            "a.b.c.d.mesh.internal",
            "payments.shop.eu-west.svc.clusterset.local",
            "pay_ments.shop.mesh.internal",
        ] {
            assert_eq!(asked(name), Asked::Nothing, "{name}");
        }
        for name in
            ["example.com", "xmesh.internal", "internal", "clusterset.local", "mesh.internals", "", "amesh.internal.x"]
        {
            assert_eq!(asked(name), Asked::Outside, "{name}");
        }
    }
}
