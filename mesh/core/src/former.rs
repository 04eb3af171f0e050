//! Names that JSON had in earlier releases. Whoever reads them goes on finding them, for one release, beside the present ones.
//!
//! What files called differently is marked in their types (`x-formerly` in the schema), and read by either name.

use serde::Serialize;
use serde_json::{Map, Value};

/// Each present name with the former one.
const NAMES: [(&str, &str); 5] = [
    ("active_requests", "rif"),
    ("level", "tier"),
    ("localities", "lanes"),
    ("locality", "lane"),
    ("priorities", "tiers"),
];

/// `value` as JSON, in which each renamed part stands a second time, as it was called before, with everything inside of it
/// called as before.
///
/// # Errors
/// As [`serde_json::to_value`].
pub fn with_former_names<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Value> {
    serde_json::to_value(value).map(doubled)
}

fn doubled(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(doubled).collect(),
        Value::Object(members) => {
            let mut all = Map::new();
            for (name, value) in members {
                match former(&name) {
                    Some(was) => {
                        all.insert(was.to_owned(), renamed(value.clone()));
                        all.insert(name, value);
                    }
                    None => {
                        // A former name that stands here already belongs to a present one beside it.
                        let value = if is_former(&name) { value } else { doubled(value) };
                        all.insert(name, value);
                    }
                }
            }
            Value::Object(all)
        }
        plain => plain,
    }
}

fn renamed(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(renamed).collect(),
        Value::Object(members) => {
            let member = |(name, value): (String, Value)| {
                let name = former(&name).map(str::to_owned).unwrap_or(name);
                (name, renamed(value))
            };
            Value::Object(members.into_iter().map(member).collect())
        }
        plain => plain,
    }
}

fn former(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|(present, _)| *present == name).map(|(_, former)| *former)
}

fn is_former(name: &str) -> bool {
    NAMES.iter().any(|(_, former)| *former == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_renamed_stands_there_by_both_names_and_each_of_them_is_whole() {
        let present = json!({
            "mode": "native",
            "priorities": [{ "level": 1, "localities": [{ "name": "us/a", "endpoints": [{ "active_requests": 3 }] }] }],
            "shares": [{ "locality": "us/a", "share": 4 }],
        });
        let both = with_former_names(&present).expect("JSON");
        let former = json!([{ "tier": 1, "lanes": [{ "name": "us/a", "endpoints": [{ "rif": 3 }] }] }]);
        assert_eq!(both["tiers"], former);
        assert_eq!(both["priorities"], present["priorities"]);
        assert_eq!(both["shares"], json!([{ "locality": "us/a", "lane": "us/a", "share": 4 }]));
        assert_eq!(with_former_names(&both).expect("JSON"), both, "twice is once");
    }
}
