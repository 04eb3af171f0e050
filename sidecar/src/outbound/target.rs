//! What a name's own address stands for.

use std::rc::Rc;

use eastway_core::Authority;
use eastway_http::RequestHead;

use crate::virtuals::Lead;

/// The port of `http://` where none is written.
const HTTP: u16 = 80;

/// Where the requests at an address lead, whatever host they name.
pub(super) struct Target {
    pub(super) lead: Lead,
    pub(super) text: Rc<str>,
    pub(super) suffix: String,
}

impl Target {
    pub(super) fn new(lead: Lead, suffix: &str) -> Self {
        let text = lead.target.to_text(suffix).into();
        Self { lead, text, suffix: suffix.to_owned() }
    }

    /// Sees to it that the request names what it leads to. The host that its client wrote is kept as `x-forwarded-host`.
    pub(super) fn direct(&self, head: &mut RequestHead) {
        if !self.is_named_by(head.authority()) {
            let written = head.authority().to_owned();
            head.set_authority(&self.text);
            if head.fields.get(FORWARDED_HOST).is_none() {
                head.fields.append(FORWARDED_HOST, written.as_bytes());
            }
        }
    }

    fn is_named_by(&self, written: &str) -> bool {
        Authority::parse(written, &self.suffix).is_ok_and(|named| {
            let Authority { service, cluster, port } = &self.lead.target;
            named.service == *service && named.cluster == *cluster && named.port.or(Some(HTTP)) == *port
        })
    }
}

const FORWARDED_HOST: &str = "x-forwarded-host";

#[cfg(test)]
mod tests {
    use eastway_core::head::HttpVersion;
    use eastway_core::resource::Protocol;

    use super::*;

    fn directed(target: &str, written: &str) -> (String, Option<String>) {
        let target = Authority::parse(target, "mesh.internal").expect("a target");
        let lead = Lead { target, protocol: Protocol::Http, used: Default::default(), verdict: Default::default() };
        let target = Target::new(lead, "mesh.internal");
        let mut head = RequestHead::new(HttpVersion::Http11, "GET", "/a", written);
        target.direct(&mut head);
        assert_eq!((head.method(), head.target()), ("GET", "/a"));
        let forwarded = head.fields.get(FORWARDED_HOST).map(|host| String::from_utf8_lossy(host).into_owned());
        (head.authority().to_owned(), forwarded)
    }

    #[test]
    fn a_request_names_what_its_address_stands_for() {
        let written = |host: &str| Some(host.to_owned());
        for host in
            ["payments.shop.mesh.internal", "Payments.Shop.mesh.internal:80", "payments.shop.svc.clusterset.local"]
        {
            assert_eq!(directed("payments.shop.mesh.internal:80", host), (host.to_owned(), None), "it does already");
        }
        let named = |host: &str| directed("payments.shop.eu-west.mesh.internal:8080", host);
        for host in [
            "payments",
            "127.64.1.7:8080",
            "payments.shop.mesh.internal:8080",
            "ledger.shop.eu-west.mesh.internal:8080",
        ] {
            assert_eq!(named(host), ("payments.shop.eu-west.mesh.internal:8080".to_owned(), written(host)));
        }
    }
}
