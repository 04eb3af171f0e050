//! The verbs as they are typed, and the files that they leave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Parser;
use eastway_identity::{Identity, IdentityFiles};

use super::{CaCommand, Certified, Initialised, Report, Verb};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    ca: CaCommand,
}

fn parse(line: &str) -> Result<CaCommand, clap::Error> {
    Line::try_parse_from(format!("ca {line}").split_whitespace()).map(|line| line.ca)
}

fn init(dir: &Path, more: &str) -> anyhow::Result<Initialised> {
    let line = format!("init --cluster us-east --out {} {more}", dir.display());
    match parse(&line)?.verb {
        Verb::Init(init) => init.run(),
        Verb::Issue(_) => unreachable!("init was typed"),
    }
}

fn issue(ca: &Path, out: &Path, more: &str) -> anyhow::Result<Certified> {
    match parse(&format!("issue --ca {} --out {} {more}", ca.display(), out.display()))?.verb {
        Verb::Issue(issue) => issue.run(),
        Verb::Init(_) => unreachable!("issue was typed"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("written").permissions().mode() & 0o777
}

#[test]
fn a_ca_and_its_certificates_end_as_identities() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (ca, out) = (dir.path().join("ca"), dir.path().join("certificates"));
    let made = init(&ca, "").expect("made");
    assert_eq!(made.trust_domain, "us-east.mesh.internal");
    assert_eq!(mode(&made.key), 0o600);
    for (subject, name, id) in [
        ("--workload shop/payments", "payments", "spiffe://us-east.mesh.internal/ns/shop/sa/payments"),
        ("--gateway gw-1", "gw-1", "spiffe://us-east.mesh.internal/eastway/gateway/gw-1"),
        ("--operator alice", "alice", "spiffe://us-east.mesh.internal/eastway/operator/alice"),
        ("--workload shop/orders --name o1", "o1", "spiffe://us-east.mesh.internal/ns/shop/sa/orders"),
    ] {
        let issued = issue(&ca, &out, subject).expect(subject);
        assert_eq!(issued.id, id);
        assert_eq!(issued.key, out.join(format!("{name}.key")));
        assert_eq!(mode(&issued.key), 0o600);
        let identity = Identity::load(&IdentityFiles::named(&out, name)).expect("an identity");
        assert_eq!(identity.id().to_string(), id);
    }
}

#[test]
fn what_exists_stays_unless_forced() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let made = init(dir.path(), "").expect("made");
    let before = fs::read(&made.key).expect("there");
    let refused = init(dir.path(), "").expect_err("there already").to_string();
    assert!(refused.contains("--force") && refused.contains("ca.crt"), "{refused}");
    assert_eq!(fs::read(&made.key).expect("there"), before);
    issue(dir.path(), dir.path(), "--gateway gw-1").expect("issued");
    let refused = issue(dir.path(), dir.path(), "--gateway gw-1").expect_err("there already").to_string();
    assert!(refused.contains("--force") && refused.contains("--name"), "{refused}");
    issue(dir.path(), dir.path(), "--gateway gw-1 --force").expect("renewed");
    init(dir.path(), "--force").expect("replaced");
    assert_ne!(fs::read(&made.key).expect("there"), before);
}

#[test]
fn a_certificate_says_when_its_ca_cut_it_short() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let made = init(dir.path(), "--validity 1h --trust-domain example.org").expect("made");
    assert_eq!(made.trust_domain, "example.org");
    let long = issue(dir.path(), dir.path(), "--gateway long").expect("issued");
    assert!(long.shortened && long.not_after == made.not_after);
    assert!(Report::Issue(long).text().contains("when its CA ends"));
    let short = issue(dir.path(), dir.path(), "--gateway short --validity 5m").expect("issued");
    assert!(!short.shortened && short.not_after < made.not_after);
}

#[test]
fn mistakes_are_told_before_anything_is_written() {
    for (line, told) in [
        ("init --out x", "--cluster"),
        ("init --cluster US --out x", "lower-case"),
        ("init --cluster us --out x --validity soon", "--validity"),
        ("issue --ca x --out y", "--workload"),
        ("issue --ca x --out y --gateway a --operator b", "cannot be used with"),
        ("issue --ca x --out y --workload payments", "NAMESPACE/ACCOUNT"),
        ("issue --ca x --out y --workload shop/Payments", "NAMESPACE/ACCOUNT"),
        ("issue --ca x --out y --gateway ../up", "lower-case"),
        ("issue --ca x --out y --gateway a -o xml", "json"),
    ] {
        let error = parse(line).expect_err(line).to_string();
        assert!(error.contains(told), "{line}: {error}");
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let refused = issue(&dir.path().join("none"), dir.path(), "--gateway gw-1").expect_err("no CA");
    assert!(format!("{refused:#}").contains("eastway ca init"), "{refused:#}");
    assert!(init(dir.path(), "--trust-domain Bad/Domain").is_err());
    assert!(init(dir.path(), "--validity 0s").is_err());
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
}

#[test]
fn programs_read_what_was_written() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let made = serde_json::to_value(Report::Init(init(dir.path(), "-o json").expect("made"))).expect("JSON");
    assert_eq!(made["certificate"], dir.path().join("ca.crt").display().to_string());
    assert_eq!(made["cluster"], "us-east");
    let issued = issue(dir.path(), dir.path(), "--gateway gw-1 -o json").expect("issued");
    let issued = serde_json::to_value(Report::Issue(issued)).expect("JSON");
    assert_eq!(issued["bundle"], dir.path().join("bundle.crt").display().to_string());
    assert!(issued["not_after"].as_str().is_some_and(|text| text.ends_with('Z')), "{issued}");
    parse("issue --ca x --out y --operator alice -o json").expect("the flag goes after the verb");
    parse("-o json issue --ca x --out y --operator alice").expect("and before it");
}
