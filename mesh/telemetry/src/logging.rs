//! The process's log: one JSON object a line on standard error.
//!
//! Field names are stable: `timestamp`, `level`, `message`, `target`, and the event's own fields beside them.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// What is logged, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A level, or directives such as `info,eastway_transport=debug`. Default `info`.
    pub filter: String,
    /// JSON lines (the default), or text for people.
    pub json: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: true }
    }
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is neither a level nor a list of directives.
    #[error(
        "`{filter}` is not a log filter: write a level such as info, or directives such as info,eastway_http=debug"
    )]
    Filter {
        /// What was written.
        filter: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process logs already.
    #[error("logging was started before")]
    Started(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts the process's log. Called once, before the first event.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub fn init(options: &LogOptions) -> Result<(), LogError> {
    subscriber(options, io::stderr, io::stderr().is_terminal())?.try_init().map_err(LogError::Started)
}

/// Says where a listener is bound: one line each, which scripts and tests read.
pub fn listening(listener: &str, address: SocketAddr) {
    tracing::info!(listener, %address, "listening");
}

/// The subscriber that [`init`] installs, over any writer.
fn subscriber<W>(
    options: &LogOptions,
    writer: W,
    colours: bool,
) -> Result<impl Subscriber + Send + Sync + 'static, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let asked = options.filter.parse().map_err(|source| LogError::Filter { filter: options.filter.clone(), source })?;
    let filter = without_chatter(asked);
    let lines = fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if options.json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter).boxed()
    } else {
        lines.compact().with_ansi(colours).with_filter(filter).boxed()
    };
    Ok(Registry::default().with(lines))
}

/// The libraries that write lines at `info` for each request, where others write them at `debug`.
const CHATTY: [&str; 1] = ["hickory_server"];

/// What was asked for, without the lines per request that no one wants at `info`. A directive that names the library,
/// and `debug`, bring them back.
fn without_chatter(asked: Targets) -> Targets {
    if asked.default_level() != Some(LevelFilter::INFO) {
        return asked;
    }
    let quiet = CHATTY.map(|library| (library, LevelFilter::WARN));
    Targets::new().with_default(LevelFilter::INFO).with_targets(quiet).with_targets(asked)
}

#[cfg(test)]
mod tests;
