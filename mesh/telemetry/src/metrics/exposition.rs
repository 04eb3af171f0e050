//! The text formats that a scraper may ask for.
//!
//! The registry writes OpenMetrics. The older text format of Prometheus, which `promtool` and most other tools read, names a
//! counter's family by its samples, and knows no units and no end marker.

use std::fmt::Write;

/// A text format for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text format 0.0.4: what whoever asks for nothing in particular gets.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that a request's `Accept` prefers; OpenMetrics only if it names it.
    pub(super) fn accepted(accept: Option<&str>) -> Self {
        let ranges = accept.unwrap_or_default().split(',').map(range);
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        for (media, version, weight) in ranges {
            match media.as_str() {
                "application/openmetrics-text" if matches!(version.as_deref(), None | Some("1.0.0" | "0.0.1")) => {
                    open = open.max(weight);
                }
                "text/plain" => text = text.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its media type.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What the registry wrote, in this format.
    pub(super) fn convert(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Prometheus => prometheus(&open_metrics),
        }
    }
}

/// One range of `Accept`: its media type in lower case, its `version`, and its weight.
fn range(text: &str) -> (String, Option<String>, f32) {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (mut version, mut weight) = (None, 1.0);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim() {
            "version" => version = Some(value.trim().trim_matches('"').to_owned()),
            "q" => weight = value.trim().parse().unwrap_or(0.0),
            _ => {}
        }
    }
    (media, version, weight)
}

fn prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    // The help of a family stands before its type, which decides on its name.
    let mut help = None;
    for line in open_metrics.lines() {
        // Writing into a string cannot fail.
        let _ = match line.strip_prefix("# ").and_then(|comment| comment.split_once(' ')) {
            Some(("HELP", rest)) => {
                help = rest.split_once(' ');
                Ok(())
            }
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                let suffix = if kind == "counter" { "_total" } else { "" };
                let help = help.take().map_or("", |(_, words)| words);
                writeln!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}")
            }
            Some(_) => Ok(()),
            None if line.starts_with('#') => Ok(()),
            None => writeln!(text, "{line}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (None, Format::Prometheus),
            (Some("*/*"), Format::Prometheus),
            (Some("text/html, text/plain"), Format::Prometheus),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some(prometheus), Format::OpenMetrics),
            (Some("text/plain;version=0.0.4;q=0.5, application/openmetrics-text;q=0.1"), Format::Prometheus),
            (Some("application/openmetrics-text;q=0"), Format::Prometheus),
            (Some("application/openmetrics-text; version=9.0.0"), Format::Prometheus),
            (Some(";;;=,q=x"), Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn the_older_format_names_counters_by_their_samples_and_has_no_end_marker() {
        let open = "# HELP a_b Bytes.\n# TYPE a_b counter\n# UNIT a_b bytes\na_b_total{x=\"# y\"} 3\n# HELP c D.\n# TYPE c gauge\nc 1\n# EOF\n";
        let expected = "# HELP a_b_total Bytes.\n# TYPE a_b_total counter\na_b_total{x=\"# y\"} 3\n# HELP c D.\n# TYPE c gauge\nc 1\n";
        assert_eq!(prometheus(open), expected);
    }
}
