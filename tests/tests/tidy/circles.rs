//! Modules that lie beside one another use one another in one direction only: there are no circles.
//!
//! A module counts together with everything below it. What lies below a module and what it lies in may use one another.

use std::collections::{BTreeMap, BTreeSet};

use super::assert_none;
use super::scan::{Text, code, files};

/// A module's path, from the crate on: `mesh/http`, `client`, `pool`.
type Path = Vec<String>;

/// The crate and the path of a file's module; `None` for what is no module of a crate.
fn module_of(file: &str) -> Option<(String, Path)> {
    let (folder, inside) = file.split_once("/src/")?;
    let mut path: Path = inside.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if path == ["lib"] || path == ["main"] {
        path.clear();
    }
    Some((folder.to_owned(), path))
}

/// What is compiled outside of tests, and the names of the modules that are declared for tests only.
fn without_tests(text: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let code = code(text);
    let mut parts = code.split(MARK);
    let (mut kept, mut modules) = (parts.next().unwrap_or_default().to_owned(), Vec::new());
    for part in parts {
        let end = item_end(part);
        let name = part[..end].trim_end_matches(';').split_once("mod ").map(|(_, name)| name.trim().to_owned());
        modules.extend(name.filter(|_| part[..end].ends_with(';')));
        kept.push_str(&part[end..]);
    }
    (kept, modules)
}

/// Where the first item of `text` ends: at its semicolon, or where its braces close.
fn item_end(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// The paths that `text`, the code of the module at `here`, names within its crate.
fn named(text: &str, here: &[String]) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    for start in ["crate", "super", "self"] {
        for (at, _) in text.match_indices(&format!("{start}::")) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let mut paths = Vec::new();
            tree(&text[at..], &[], &mut paths);
            found.extend(paths.into_iter().filter_map(|path| absolute(&path, here)));
        }
    }
    found
}

/// Collects the paths of a tree of names such as `a::{b, c::{d, e}}`, and returns what follows it.
fn tree<'a>(text: &'a str, before: &[String], paths: &mut Vec<Path>) -> &'a str {
    let mut path = before.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut inner) = rest.strip_prefix('{') {
            loop {
                inner = tree(inner, &path, paths).trim_start();
                match inner.strip_prefix(',') {
                    Some(next) => inner = next,
                    None => return inner.strip_prefix('}').unwrap_or(inner),
                }
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
        }
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(next) if end > 0 => rest = next,
            _ => break,
        }
    }
    paths.push(path);
    match rest.trim_start().strip_prefix("as ") {
        Some(alias) => alias.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
        None => rest,
    }
}

/// `path`, as written in the module at `here`, from the crate's root on.
fn absolute(path: &[String], here: &[String]) -> Option<Path> {
    let (first, mut rest) = path.split_first()?;
    let mut base = here.to_vec();
    match first.as_str() {
        "crate" => base.clear(),
        "super" => drop(base.pop()),
        _ => {}
    }
    while let Some((next, further)) = rest.split_first().filter(|(next, _)| *next == "super") {
        let _ = next;
        base.pop();
        rest = further;
    }
    base.extend(rest.iter().filter(|part| *part != "self").cloned());
    Some(base)
}

/// For each module that others lie in, which of those use which.
fn uses(files: &[Text]) -> BTreeMap<(String, Path), BTreeMap<String, BTreeSet<String>>> {
    let mut modules: BTreeMap<(String, Path), String> = BTreeMap::new();
    let mut tests: Vec<(String, Path)> = Vec::new();
    for file in files {
        let Some((folder, path)) = module_of(&file.path) else { continue };
        let (text, only_tests) = without_tests(&file.text);
        tests.extend(only_tests.into_iter().map(|name| (folder.clone(), [path.clone(), vec![name]].concat())));
        modules.insert((folder, path), text);
    }
    modules.retain(|(folder, path), _| !tests.iter().any(|(of, test)| of == folder && path.starts_with(test)));
    let mut uses: BTreeMap<_, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for ((folder, here), text) in &modules {
        for named in named(text, here) {
            let target = (0..=named.len())
                .rev()
                .map(|n| &named[..n])
                .find(|path| modules.contains_key(&(folder.clone(), path.to_vec())));
            let Some(target) = target else { continue };
            let shared = here.iter().zip(target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (here.get(shared), target.get(shared)) {
                let level = uses.entry((folder.clone(), here[..shared].to_vec())).or_default();
                level.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    uses
}

/// A module from which a way leads back to it, with the way.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn reach(edges: &BTreeMap<String, BTreeSet<String>>, way: &mut Vec<String>, seen: &mut BTreeSet<String>) -> bool {
        for next in edges.get(&way[way.len() - 1]).into_iter().flatten() {
            if *next == way[0] {
                way.push(next.clone());
                return true;
            }
            if seen.insert(next.clone()) {
                way.push(next.clone());
                if reach(edges, way, seen) {
                    return true;
                }
                way.pop();
            }
        }
        false
    }
    edges.keys().find_map(|start| {
        let mut way = vec![start.clone()];
        reach(edges, &mut way, &mut BTreeSet::new()).then_some(way)
    })
}

fn complaints(files: &[Text]) -> Vec<String> {
    let all = uses(files).into_iter();
    all.filter_map(|((folder, path), edges)| {
        let place = [vec![folder], path].concat().join("::");
        circle(&edges).map(|way| format!("{place}: {}", way.join(" -> ")))
    })
    .collect()
}

#[test]
fn modules_use_one_another_in_one_direction() {
    let files = files("rs");
    assert!(uses(&files).len() > 15, "the crates have moved");
    assert_none("circles between modules; move what both need into a module below them", complaints(&files));
}

#[test]
fn each_circle_is_found_and_what_lies_inside_is_none() {
    let world = |files: &[(&str, &str)]| {
        let text =
            |(path, text): &(&str, &str)| Text { path: format!("mesh/a/src/{path}.rs"), text: (*text).to_owned() };
        complaints(&files.iter().map(text).collect::<Vec<_>>())
    };
    let lib = ("lib", "mod b; mod c; mod d;");
    assert_eq!(world(&[lib, ("b", "use crate::c::C;"), ("c", "fn f() -> crate::b::B {}")]), ["mesh/a: b -> c -> b"]);
    let three =
        [lib, ("b", "use super::{c::{C, E}, X};"), ("c", "use crate::d as x;"), ("d/e", "use crate::b;"), ("d", "")];
    assert_eq!(world(&three), ["mesh/a: b -> c -> d -> b"]);
    let inside = [lib, ("d", "mod e; mod f;"), ("d/e", "use super::f::F;"), ("d/f", "use crate::d::e::E;")];
    assert_eq!(world(&inside), ["mesh/a::d: e -> f -> e"]);
    for fine in [
        &[lib, ("b", "use crate::c::C;"), ("c", "use crate::b_like::B; // crate::b")][..],
        &[lib, ("d", "mod e; use e::E;"), ("d/e", "use super::D; use crate::d::D;")],
        &[lib, ("b", "use crate::c::C;"), ("c", "fn c() {}\n#[cfg(test)]\nmod tests { use crate::b::B; }")],
        &[lib, ("b", "use crate::c::C;"), ("c/tests", "use crate::b::B;"), ("c", "#[cfg(test)]\nmod tests;")],
        &[lib, ("b", "use crate::c::C;"), ("c", "#[cfg(test)]\nuse crate::b::B;\nfn c() {}")],
    ] {
        assert_eq!(world(fine), Vec::<String>::new());
    }
}
