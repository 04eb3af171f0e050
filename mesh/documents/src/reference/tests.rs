use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;
use eastway_core::text::DurationText;

/// A document.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Sample {
    /// Its name.
    name: String,
    /// How long it
    /// may take.
    #[serde(default)]
    #[schemars(extend("x-reload" = "at once"))]
    limit: Limits,
    /// Which.
    variant: Option<Variant>,
    /// All of them.
    all: Vec<Item>,
    /// By name.
    labels: BTreeMap<String, Item>,
}

/// Limits.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Limits {
    /// A time.
    time: DurationText,
    /// A count.
    #[schemars(range(min = 1, max = 9))]
    count: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: "1s".into(), count: 2 }
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Variant {
    /// Here | there.
    Here(Item),
    /// Far away.
    There(Item),
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Item {
    /// How many.
    n: Option<i64>,
}

#[test]
fn tables_tell_types_defaults_and_what_is_required() {
    let expected = "\
| Key | Type | Default | Meaning |
|---|---|---|---|
| `name` | text | required | Its name. |

### `all`

All of them. Required.

| Key | Type | Default | Meaning |
|---|---|---|---|
| `all[].n` | number | none | How many. |

### `labels`

By name. Required.

| Key | Type | Default | Meaning |
|---|---|---|---|
| `labels.NAME.n` | number | none | How many. |

### `limit`

How long it may take.

| Key | Type | Default | Meaning |
|---|---|---|---|
| `limit.count` | number, 1 to 9 | `2` | A count. |
| `limit.time` | duration | `1s` | A time. |

### `variant`

Which.

| Key | Type | Default | Meaning |
|---|---|---|---|
| `variant.here` | section | one of these | Here \\| there. |
| `variant.here.n` | number | none | How many. |
| `variant.there` | section | one of these | Far away. |
| `variant.there.n` | number | none | How many. |
";
    assert_eq!(tables_of::<Sample>(), expected);
}

#[test]
fn what_is_not_current_is_said_and_parts_are_found() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("a.md");
    fs::write(&file, "before\n<!-- BEGIN x -->\n\nold\n\n<!-- END x -->\nafter\n").expect("written");
    keep_part_current(&file, "x", "old\n").expect("current");
    assert!(keep_part_current(&file, "y", "old\n").expect_err("no such part").to_string().contains("no part `y`"));
    if env::var_os("UPDATE").is_none() {
        let error = keep_part_current(&file, "x", "new\n").expect_err("not current");
        assert!(error.to_string().contains("UPDATE=1"), "{error}");
    }
}

#[test]
fn fields_that_nobody_reads_are_found() {
    let folder = tempfile::tempdir().expect("folder");
    let config = folder.path().join("config.rs");
    fs::write(&config, "pub struct A {\n    /// Doc.\n    pub used: u8,\n    pub unused: u8,\n    private: u8,\n}\n")
        .expect("written");
    let source = folder.path().join("src");
    fs::create_dir(&source).expect("created");
    fs::write(source.join("a.rs"), "fn f(a: A) { a\n.used; a.unused_twin; }").expect("written");
    assert_eq!(unread_fields(&config, &[&source]).expect("readable"), ["unused"]);
}
