//! Documents: every relative link leads somewhere, also to the heading that it names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use eastway_tests::protogen::root;

use super::assert_none;
use super::scan::files;

/// Markdown without its code, in which brackets mean something else.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.extend(line.split('`').step_by(2).flat_map(|part| [part, " "]));
        }
        prose.push('\n');
    }
    prose
}

/// The targets of a document's links: `[text](target)` and `[name]: target`.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let inline = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let reference = |line: &str| {
        let (name, target) = line.strip_prefix('[')?.split_once("]:")?;
        (!name.contains(']')).then(|| target.trim().to_owned())
    };
    let inline = inline.map(|target| target.split_whitespace().next().unwrap_or_default().to_owned());
    inline.chain(prose.lines().filter_map(reference)).collect()
}

/// The anchors of a document's headings, as they are made from their text.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let Some(title) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| !fenced && line.starts_with('#'))
        else {
            continue;
        };
        let kept = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
            .collect::<String>();
        let anchor = kept.replace(' ', "-");
        let numbered = (0..).map(|n| if n == 0 { anchor.clone() } else { format!("{anchor}-{n}") });
        let free = numbered.into_iter().find(|candidate| !anchors.contains(candidate));
        anchors.extend(free);
    }
    anchors
}

/// Where a link of the document at `from` leads, without leaving the repository.
fn resolve(from: &str, target: &str) -> Option<PathBuf> {
    let mut path = if target.starts_with('/') { PathBuf::new() } else { Path::new(from).parent()?.to_owned() };
    for part in Path::new(target.trim_start_matches('/')).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => path = path.parent()?.to_owned(),
            _ => {}
        }
    }
    Some(path)
}

fn complaints(path: &str, text: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for link in links(text).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
        let (target, anchor) =
            link.split_once('#').map_or((link.as_str(), None), |(target, anchor)| (target, Some(anchor)));
        let found =
            if target.is_empty() { Some(text.to_owned()) } else { resolve(path, target).and_then(|to| read(&to)) };
        match (found, anchor) {
            (None, _) => complaints.push(format!("{path}: `{link}` leads nowhere")),
            (Some(found), Some(anchor))
                if !anchors(&found).contains(anchor) && (target.is_empty() || target.ends_with(".md")) =>
            {
                complaints.push(format!("{path}: `{link}` names no heading"));
            }
            _ => {}
        }
    }
    complaints
}

#[test]
fn links_lead_somewhere() {
    let read = |path: &Path| {
        let path = root().join(path);
        // A folder is a target as well; it has no headings.
        if path.is_dir() {
            Some(String::new())
        } else {
            fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        }
    };
    assert_none("documents", files("md").iter().flat_map(|file| complaints(&file.path, &file.text, read)).collect());
}

#[test]
fn the_documents_that_everybody_looks_for_are_there() {
    let wanted = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "LICENSE",
        "terraform/README.md",
    ];
    assert_none(
        "missing",
        wanted.iter().filter(|path| !root().join(path).is_file()).map(|path| (*path).to_owned()).collect(),
    );
}

#[test]
fn each_dead_link_is_found() {
    let read = |path: &Path| match path.to_str() {
        Some("docs/b.md") => Some("# Two words, `here`\n## Two words, here\n".to_owned()),
        Some("docs") => Some(String::new()),
        _ => None,
    };
    for text in
        ["[x](c.md)", "[x](../docs/c.md)", "[x](../../b.md)", "[x](b.md#three)", "[x](#here)", "[x]\n\n[x]: c.md"]
    {
        assert_eq!(complaints("docs/a.md", text, read).len(), 1, "{text}");
    }
    for text in [
        "[x](b.md) [y](b.md#two-words-here) [z](b.md#two-words-here-1)",
        "[x](../docs) [y](/docs/b.md) [w](b.md \"title\")",
        "# Here\n[x](#here)",
        "[x](https://example.com/c.md) `[x](c.md)`\n```\n[x](c.md)\n```\n",
        "[x]\n\n[x]: b.md",
    ] {
        assert_eq!(complaints("docs/a.md", text, read), Vec::<String>::new(), "{text}");
    }
}
