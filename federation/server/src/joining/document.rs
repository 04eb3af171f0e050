//! The `Peer` that is taken for a cluster that joined, or was joined.

use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

/// What becomes known of the other cluster.
#[derive(Clone, Debug)]
pub(super) struct Other {
    pub(super) cluster: String,
    pub(super) trust_domain: String,
    pub(super) bundle: Vec<CertificateDer<'static>>,
    pub(super) gateways: Vec<String>,
}

impl Other {
    /// Its `Peer`, over what is applied for it so far; `imports` replace those.
    pub(super) fn document(&self, applied: Option<&Value>, imports: Option<&[String]>) -> Value {
        let name = &self.cluster;
        let new = || json!({ "apiVersion": eastway_core::resource::API_VERSION, "kind": "Peer", "metadata": { "name": name }, "spec": {} });
        let mut document = applied.cloned().unwrap_or_else(new);
        let spec = &mut document["spec"];
        spec["gateways"] = json!(self.gateways);
        spec["follow"] = json!(true);
        spec["trustBundle"] = json!(to_pem(&self.bundle));
        if self.trust_domain != format!("{name}.mesh.internal") {
            spec["trustDomain"] = json!(self.trust_domain);
        }
        if let Some(imports) = imports {
            spec["imports"] = json!(imports);
        }
        document
    }
}

/// Certificates as people and files write them.
fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = BASE64.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = more;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use eastway_identity::{Ca, certificates_from_pem};

    use super::*;

    fn other() -> Other {
        let ca = Ca::create("eu.example", Duration::from_secs(3600)).expect("a CA");
        Other {
            cluster: "eu-west".to_owned(),
            trust_domain: "eu.example".to_owned(),
            bundle: vec![ca.certificate().clone(), ca.certificate().clone()],
            gateways: vec!["10.2.0.1:15443".to_owned()],
        }
    }

    #[test]
    fn the_bundle_is_read_back_as_it_was() {
        let pem = to_pem(&other().bundle);
        assert_eq!(certificates_from_pem(pem.as_bytes()).expect("certificates").len(), 2);
        let other = other();
        assert_eq!(certificates_from_pem(to_pem(&other.bundle).as_bytes()).expect("certificates"), other.bundle);
    }

    #[test]
    fn what_an_operator_changed_since_stays_but_for_what_is_known_better() {
        let first = other().document(None, Some(&["shop/*".to_owned()]));
        assert_eq!(first["spec"]["trustDomain"], "eu.example");
        let mut changed = first.clone();
        changed["spec"]["region"] = json!("eu");
        changed["spec"]["imports"] = json!(["shop/pay"]);
        let moved = Other { gateways: vec!["10.2.0.9:15443".to_owned()], ..other() };
        let again = moved.document(Some(&changed), None);
        assert_eq!(again["spec"]["gateways"], json!(["10.2.0.9:15443"]));
        assert_eq!((&again["spec"]["region"], &again["spec"]["imports"]), (&json!("eu"), &json!(["shop/pay"])));
    }
}
