use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sample {
    name: String,
    listen: AddressText,
}

fn load_text(text: &str) -> Result<Loaded<Sample>, Problems> {
    parse(Path::new("conf/node.yaml"), text)
}

fn shown(text: &str) -> String {
    load_text(text).map(|_| ()).expect_err("invalid").to_string()
}

#[test]
fn a_value_and_its_lines() {
    let loaded = load_text("# first\nname: a\nlisten: 127.0.0.1:1\n").expect("valid");
    assert_eq!((loaded.value.name.as_str(), loaded.value.listen.as_str()), ("a", "127.0.0.1:1"));
    assert_eq!((loaded.source.line("name"), loaded.source.line("listen")), (2, 3));
    assert_eq!(loaded.source.resolve("keys/a.key"), Path::new("conf/keys/a.key"));
    assert_eq!(loaded.source.resolve("/keys/a.key"), Path::new("/keys/a.key"));
}

#[test]
fn every_problem_in_the_order_of_lines() {
    let text = "nmae: a\nlisten: 7\nextra: 1\nlisten: 8\n";
    assert_eq!(
        shown(text),
        "conf/node.yaml:1: nmae: unknown key `nmae`; did you mean `name`?\n\
         conf/node.yaml:1: name: missing\n\
         conf/node.yaml:2: listen: expected an address such as 127.0.0.1:8080 or [::1]:8080, found the number 7\n\
         conf/node.yaml:3: extra: unknown key `extra`; known: listen, name\n\
         conf/node.yaml:4: listen: given twice: first on line 2"
    );
}

#[test]
fn files_without_a_document_or_with_two() {
    assert_eq!(shown(""), "conf/node.yaml: the file is empty");
    assert_eq!(shown("# nothing\n"), "conf/node.yaml: the file is empty");
    let two = shown("name: a\nlisten: 127.0.0.1:1\n---\nname: b\n");
    assert_eq!(two, "conf/node.yaml:4: there must be only one document in this file");
}

#[test]
fn broken_syntax_is_one_problem() {
    let problems = load_text("name: [a\nlisten: x\n").map(|_| ()).expect_err("broken");
    assert_eq!(problems.len(), 1, "{problems}");
    assert!(problems.to_string().starts_with("conf/node.yaml:"), "{problems}");
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("folder");
    let missing = folder.path().join("missing.yaml");
    let text = load::<Sample>(&missing).map(|_| ()).expect_err("missing").to_string();
    assert!(text.starts_with(&format!("{}: cannot be read: ", missing.display())), "{text}");
    assert!(load::<Sample>(folder.path()).is_err(), "a folder");
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).expect("written");
    assert!(load::<Sample>(&binary).is_err(), "not UTF-8");
    // An endless device ends at the limit.
    let endless = load::<Sample>(Path::new("/dev/zero")).map(|_| ()).expect_err("endless").to_string();
    assert!(endless.contains("larger than 4 MiB"), "{endless}");
}

#[test]
fn checks_collect_what_no_schema_can_say() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("present"), "x").expect("written");
    let file = folder.path().join("node.yaml");
    let text = "name: Bad_Name\nlisten: localhost:80\n";
    let source = parse::<Sample>(&file, text).expect("well-formed").source;
    let mut checks = Checks::new(&source);
    let second = std::time::Duration::from_secs(1);
    checks.label("name", "Bad_Name");
    checks.listen("listen", &"localhost:80".into());
    checks.listen("a.listen", &"127.0.0.1:80".into());
    checks.listen_locally("b.listen", &"0.0.0.0:80".into(), "it must not be reached");
    checks.target("c", &"0.0.0.0:80".into());
    checks.target("d", &"10.0.0.1:0".into());
    assert_eq!(checks.duration("e", &"900ms".into(), second / 2..=second), second * 9 / 10);
    checks.duration("f", &"2s".into(), second / 2..=second);
    checks.duration("g", &"soon".into(), second / 2..=second);
    assert_eq!(checks.file("h", &"present".into()), folder.path().join("present"));
    checks.file("i", &"absent".into());
    checks.file("j", &".".into());
    checks.folder("k", &"present/below".into());
    checks.folder("l", &"new/below".into());
    checks.output("m", &"new/file".into());
    checks.output("n", &"file".into());
    checks.url("o", "http://collector:4317/", &["http"]);
    checks.url("p", "https://collector:4317", &["http"]);
    checks.domain("q", "mesh..internal");
    checks.trust_domain("r", "Trust");
    let problems = checks.finish(()).expect_err("many");
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let mut sorted = paths.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        ["b.listen", "b.listen", "c", "d", "f", "g", "i", "j", "k", "listen", "m", "name", "p", "q", "r"]
    );
    let text = problems.to_string();
    for part in [
        "node.yaml:1: name: `Bad_Name` is not a name",
        "node.yaml:2: listen: `localhost:80` is not an address",
        "conflicts with a.listen",
        "is not a loopback address: it must not be reached",
        "`2s` is out of range: from 500ms to 1s",
        "`soon` is not a duration",
        "it is a folder",
        "present` is a file",
        "its folder does not exist",
        "`https://collector:4317` is not http://HOST:PORT",
    ] {
        assert!(text.contains(part), "{part}\n--\n{text}");
    }
}
