//! A gateway on an etcd that wants TLS with certificates from its clients, and a user with a password.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use eastway_tests::lab::{Lab, StoreKind, reaches};
use eastway_tests::process::{Process, required};
use eastway_tests::{check, eventually};

use crate::curl::curl;

/// The user that the gateway is, and its password.
const USER: (&str, &str) = ("gateway", "correct horse");

/// An etcd for one cluster of a lab, and what its clients need, as files of the lab's folder.
struct Secured {
    ip: Ipv4Addr,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    process: Option<Process>,
}

impl Secured {
    /// Starts it, and closes it to everybody but the gateway's user.
    fn start(lab: &mut Lab) -> Self {
        let ip = lab.host();
        let [ca, certificate, key] =
            ["ca.pem", "client.pem", "client.key"].map(|name| lab.path(&format!("etcd-{name}")));
        let mut secured = Self { ip, ca, certificate, key, process: None };
        secured.run(lab);
        secured.close();
        secured
    }

    /// Runs it with certificates of a new CA, for itself and its clients, in the place of those that there were.
    fn run(&mut self, lab: &Lab) {
        drop(self.process.take());
        let (ip, issuer) = (self.ip, Issuer::new());
        lab.write("etcd-ca.pem", &issuer.ca);
        for name in ["server", "client"] {
            let (certificate, key) = issuer.issue(name, ip);
            lab.write(&format!("etcd-{name}.pem"), &certificate);
            lab.write(&format!("etcd-{name}.key"), &key);
        }
        let (clients, peers) = (format!("https://{ip}:2379"), format!("http://{ip}:2380"));
        let mut command = Command::new(required("etcd", "etcd-server"));
        command.args(["--name", "secured", "--data-dir"]).arg(lab.path("etcd-data")).arg("--client-cert-auth");
        for (flag, file) in [("trusted-ca", "ca.pem"), ("cert", "server.pem"), ("key", "server.key")] {
            command.arg(format!("--{flag}-file")).arg(lab.path(&format!("etcd-{file}")));
        }
        command
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("secured={peers}")]);
        self.process = Some(Process::start("secured-etcd", command, &lab.path("etcd.log")));
    }

    fn close(&self) {
        let (user, password) = USER;
        eventually("etcd answers", || self.ask("auth/role/add", r#"{"name":"mesh"}"#));
        // Everything that begins with `/eastway/`, and nothing else.
        let keys = r#"{"permType":"READWRITE","key":"L2Vhc3R3YXkv","range_end":"L2Vhc3R3YXkw"}"#;
        for (what, body) in [
            ("auth/role/grant", format!(r#"{{"name":"mesh","perm":{keys}}}"#)),
            ("auth/user/add", format!(r#"{{"name":"{user}","password":"{password}"}}"#)),
            ("auth/user/grant", format!(r#"{{"user":"{user}","role":"mesh"}}"#)),
            ("auth/user/add", r#"{"name":"root","password":"another"}"#.to_owned()),
            ("auth/role/add", r#"{"name":"root"}"#.to_owned()),
            ("auth/user/grant", r#"{"user":"root","role":"root"}"#.to_owned()),
            ("auth/enable", "{}".to_owned()),
        ] {
            self.ask(what, &body).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let refused = self.ask("kv/put", r#"{"key":"L2Vhc3R3YXkv","value":"eA=="}"#);
        assert!(refused.is_err(), "it takes something from anybody: {refused:?}");
    }

    fn ask(&self, what: &str, body: &str) -> Result<(), String> {
        let url = format!("https://{}:2379/v3/{what}", self.ip);
        let files = [("--cacert", &self.ca), ("--cert", &self.certificate), ("--key", &self.key)];
        let files = files.into_iter().flat_map(|(flag, file)| [flag.to_owned(), file.display().to_string()]);
        let got = curl(files.chain(["--data".to_owned(), body.to_owned(), url]))?;
        if got.status == 200 { Ok(()) } else { Err(format!("{got:?}")) }
    }
}

/// A CA of etcd's own: it has nothing to do with the mesh's identities.
struct Issuer {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    ca: String,
}

impl Issuer {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        // With the subject that all of these have by default, its certificates would look signed by themselves.
        params.distinguished_name.push(rcgen::DnType::CommonName, "etcd's CA");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
        let ca = params.self_signed(&key).expect("signed").pem();
        Self { issuer: rcgen::Issuer::new(params, key), ca }
    }

    /// A certificate for `ip`, for both sides of TLS, and its key.
    fn issue(&self, name: &str, ip: Ipv4Addr) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.subject_alt_names.push(rcgen::SanType::IpAddress(IpAddr::V4(ip)));
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }
}

#[test]
fn a_gateway_uses_an_etcd_that_wants_a_certificate_and_a_password_and_takes_new_ones_without_a_restart() {
    let mut lab = Lab::new();
    let mut etcd = Secured::start(&mut lab);
    // As if it had none of its own: the lab starts no etcd, and this one is written in afterwards.
    lab.plan("us-east", StoreKind::Embedded, "");
    lab.resources("us-east", &[]);
    lab.write("etcd-password", USER.1);
    let file = lab.configure_gateway("us-east");
    let text = std::fs::read_to_string(&file).expect("just written");
    let store = format!(
        "etcd: {{ endpoints: ['https://{}:2379'], username: {}, passwordFile: etcd-password, \
         tls: {{ ca: etcd-ca.pem, certificate: etcd-client.pem, key: etcd-client.key }} }}",
        etcd.ip, USER.0
    );
    let secured = text.replace("embedded: { path: us-east-gateway-state }", &store);
    assert_ne!(secured, text);
    lab.write("us-east-gateway.yaml", &secured);
    lab.start_gateway("us-east");
    lab.payments("us-east", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");
    // It is really there that the state is: the next life finds it.
    let (gateway, epoch) = (lab.gateway("us-east"), |status: &serde_json::Value| status["epoch"].as_u64());
    let status =
        || eastway_tests::client::get(gateway.at(15000), "/status").expect("an answer").json()["federation"].clone();
    let before = status();
    lab.kill("us-east-gateway");
    lab.start_gateway("us-east");
    let after = status();
    assert_eq!(after["cluster_uid"], before["cluster_uid"], "{after:#}");
    assert!(epoch(&before).is_some() && epoch(&after) > epoch(&before), "{after:#}");
    assert_eq!((after["store"]["kind"].as_str(), after["store"]["healthy"].as_bool()), (Some("etcd"), Some(true)));
    reaches(storefront.proxy(), "us-east/a");
    // All its certificates are replaced, and the CA: a running gateway shows the new one, and believes the new CA.
    etcd.run(&lab);
    lab.payments("us-east", "b", "payments-2");
    eventually("the gateway stores again", || {
        let store = &status()["store"];
        check(store["healthy"] == true && store["age_seconds"].as_f64() < Some(2.0), || store.to_string())?;
        let range = r#"{"key":"L2Vhc3R3YXkv","range_end":"L2Vhc3R3YXkw"}"#;
        etcd.ask("kv/range", range).map_or_else(|_| Ok(()), |()| Err("read without a password".to_owned()))
    });
}
