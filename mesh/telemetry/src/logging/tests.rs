use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(options: &LogOptions, log: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = subscriber(options, move || writer.clone(), false).expect("valid filter");
    tracing::subscriber::with_default(subscriber, log);
    let bytes = lines.0.lock().clone();
    String::from_utf8(bytes).expect("text")
}

#[test]
fn a_listener_is_one_json_line_with_stable_names() {
    let text = logged(&LogOptions::default(), || listening("outbound", "127.0.0.1:1234".parse().expect("address")));
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(line["message"], "listening");
    assert_eq!(line["listener"], "outbound");
    assert_eq!(line["address"], "127.0.0.1:1234");
    assert_eq!(line["level"], "INFO");
    assert!(line["timestamp"].is_string() && line["target"].is_string(), "{line}");
}

#[test]
fn directives_choose_what_is_logged() {
    let options = LogOptions { filter: "warn,loud=debug".to_owned(), json: true };
    let text = logged(&options, || {
        tracing::info!("hidden");
        tracing::debug!(target: "loud", "shown");
    });
    assert!(text.contains("shown") && !text.contains("hidden"), "{text}");
}

#[test]
fn a_question_to_the_dns_server_is_a_line_only_for_those_who_ask() {
    let questions = |filter: &str| {
        logged(&LogOptions { filter: filter.to_owned(), json: true }, || {
            tracing::info!(target: "hickory_server::server", "query");
            tracing::warn!(target: "hickory_server::server", "refused");
            tracing::info!("ours");
        })
        .lines()
        .count()
    };
    assert_eq!(questions("info"), 2);
    assert_eq!(questions("info,eastway_sidecar=debug"), 2);
    assert_eq!(questions("info,hickory_server=info"), 3);
    assert_eq!(questions("debug"), 3);
    assert_eq!(questions("error"), 0);
}

#[test]
fn text_for_people_has_no_braces_and_no_colour_when_piped() {
    let text = logged(&LogOptions { json: false, ..LogOptions::default() }, || tracing::info!(port = 7, "ready"));
    assert!(text.contains("ready") && text.contains("port=7"), "{text}");
    assert!(!text.contains('{') && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_broken_filter_is_refused_with_an_example() {
    let options = LogOptions { filter: "eastway=shout".to_owned(), json: true };
    let error = subscriber(&options, io::sink, false).err().expect("refused");
    assert!(error.to_string().contains("eastway=shout"), "{error}");
}
