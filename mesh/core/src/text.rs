//! Texts with a meaning, as they stand in a file. They are kept as written; who loads the file checks them, so that every
//! mistake is told with its place.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Declares a text type: its name in the reference, what a wrong value is told, and the pattern for other validators.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expects:literal, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "x-type": $kind, "x-expects": $expects, "pattern": $pattern })
            }
        }
    };
}

text_type! {
    /// A length of time, such as `250ms`, `1s`, `5m` or `1h 30m`.
    DurationText, "duration", "a duration such as 250ms, 30s or 5m", r"^[0-9]+ ?[a-zµ]+( ?[0-9]+ ?[a-zµ]+)*$"
}

text_type! {
    /// An IP address and a port, such as `127.0.0.1:15080` or `[::1]:15080`.
    AddressText, "address", "an address such as 127.0.0.1:8080 or [::1]:8080", r"^(\[[0-9A-Fa-f:.%]+\]|[0-9.]+):[0-9]{1,5}$"
}

text_type! {
    /// A file or folder; relative to the folder of the configuration file.
    FileText, "path", "a path", r"^.+$"
}

impl DurationText {
    /// The length of time.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn duration(&self) -> Result<Duration, humantime::DurationError> {
        humantime::parse_duration(&self.0)
    }
}
