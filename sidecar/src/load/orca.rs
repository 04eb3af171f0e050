//! What an application says of its own load: the response header `endpoint-load-metrics` of the Open Request Cost
//! Aggregation format, as text or JSON. Only the utilisation is read; a header that cannot be read says nothing.

use std::str::FromStr;

/// The name of the header.
pub(crate) const HEADER: &str = "endpoint-load-metrics";

/// The utilisation that a header's value states: the application's own measure, else that of its processor.
pub(crate) fn utilisation(value: &str) -> Option<f64> {
    let value = value.trim();
    let (format, rest) = value.split_once(' ').unwrap_or(("", value));
    let read = match format {
        "JSON" => json(rest),
        "TEXT" => text(rest),
        _ if value.starts_with('{') => json(value),
        _ => text(value),
    };
    read.filter(|utilisation| utilisation.is_finite() && *utilisation >= 0.0)
}

const NAMES: [&str; 2] = ["application_utilization", "cpu_utilization"];

fn text(value: &str) -> Option<f64> {
    let stated = |name: &str| {
        let found = value.split(',').filter_map(|pair| pair.split_once('=')).find(|(key, _)| key.trim() == name);
        found.and_then(|(_, number)| f64::from_str(number.trim()).ok())
    };
    first(NAMES.map(stated))
}

fn json(value: &str) -> Option<f64> {
    let report: serde_json::Map<String, serde_json::Value> = serde_json::from_str(value).ok()?;
    first(NAMES.map(|name| report.get(name).and_then(serde_json::Value::as_f64)))
}

/// The first that is not zero, which is what an application says that does not measure; else zero, if that was said.
fn first(stated: [Option<f64>; 2]) -> Option<f64> {
    let known = || stated.into_iter().flatten();
    known().find(|number| *number != 0.0).or_else(|| known().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_header_is_read() {
        for (value, expected) in [
            ("TEXT cpu_utilization=0.3,mem_utilization=0.8,rps_fractional=10.0", Some(0.3)),
            ("TEXT cpu_utilization=0.3, application_utilization = 0.7", Some(0.7)),
            ("cpu_utilization=1.5", Some(1.5)),
            (r#"JSON {"cpu_utilization": 0.3, "application_utilization": 0.7}"#, Some(0.7)),
            (r#"{"cpu_utilization": 0.25}"#, Some(0.25)),
            ("TEXT application_utilization=0,cpu_utilization=0.4", Some(0.4)),
            ("TEXT cpu_utilization=0", Some(0.0)),
            (r#"JSON {"cpu_utilization": 0}"#, Some(0.0)),
        ] {
            assert_eq!(utilisation(value), expected, "{value}");
        }
        for value in [
            "",
            "TEXT",
            "TEXT mem_utilization=0.8",
            "JSON {",
            "JSON []",
            "TEXT cpu_utilization=lots",
            "TEXT cpu_utilization=-1",
            "TEXT cpu_utilization=NaN",
            "BIN AAAA",
        ] {
            assert_eq!(utilisation(value), None, "{value}");
        }
    }
}
