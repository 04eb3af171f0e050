//! How long a stream to a port may carry nothing.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How long a stream to a port may carry nothing: whole seconds, or `off` for as long as it wants. As small as can be: a view
/// has one for each port of each service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Idle(NonZeroU32);

/// What is said for no limit.
const OFF: &str = "off";

impl Idle {
    /// No limit.
    pub const OFF: Self = Self(NonZeroU32::MAX);

    /// So many seconds, or no limit for the greatest number that there is; `None` for 0.
    pub fn from_seconds(seconds: u32) -> Option<Self> {
        NonZeroU32::new(seconds).map(Self)
    }

    /// The seconds, as [`Idle::from_seconds`] takes them.
    pub const fn seconds(self) -> u32 {
        self.0.get()
    }

    /// The limit; without one, longer than anything runs.
    pub const fn limit(self) -> Duration {
        Duration::from_secs(self.0.get() as u64)
    }
}

impl FromStr for Idle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == OFF {
            return Ok(Self::OFF);
        }
        let wrong = || format!("`{text}`: `off` or a duration of at least 1s is expected, such as 30m");
        let duration = humantime::parse_duration(text).map_err(|_| wrong())?;
        u32::try_from(duration.as_secs()).ok().and_then(Self::from_seconds).ok_or_else(wrong)
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::OFF { f.write_str(OFF) } else { humantime::format_duration(self.limit()).fmt(f) }
    }
}

impl Serialize for Idle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Idle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Idle {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Idle".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "x-type": "duration",
            "x-expects": "`off`, or a duration such as 30m",
            "pattern": r"^(off|[0-9]+ ?[a-zµ]+( ?[0-9]+ ?[a-zµ]+)*)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        for (text, seconds) in [("off", u32::MAX), ("30m", 1_800), ("1s", 1)] {
            let idle: Idle = text.parse().expect("valid");
            assert_eq!((idle.seconds(), idle.to_string().as_str()), (seconds, text));
            assert_eq!(serde_json::to_string(&idle).ok().as_deref(), Some(format!("\"{text}\"").as_str()));
        }
        for wrong in ["", "0s", "10ms", "on", "200years"] {
            assert!(wrong.parse::<Idle>().is_err(), "{wrong}");
        }
        assert_eq!(Idle::from_seconds(0), None);
        assert_eq!(size_of::<Option<Idle>>(), 4);
    }
}
