//! The sections that the roles' configurations share: identity files, listeners, telemetry.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use eastway_documents::{AddressText, Checks, DurationText, FileText};

/// The node's identity, in PEM files.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawIdentity {
    /// The certificate, followed by its intermediates if there are any.
    #[schemars(extend("x-reload" = "when the file changes"))]
    pub certificate: FileText,
    /// The certificate's private key.
    #[schemars(extend("x-reload" = "when the file changes"))]
    pub key: FileText,
    /// The CA certificates of the own trust domain.
    #[schemars(extend("x-reload" = "when the file changes"))]
    pub bundle: FileText,
}

/// The files of [`RawIdentity`]: each can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityPaths {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs.
    pub bundle: PathBuf,
}

impl RawIdentity {
    /// Checks the files, under `identity`.
    pub fn check(&self, checks: &mut Checks<'_>) -> IdentityPaths {
        IdentityPaths {
            certificate: checks.file("identity.certificate", &self.certificate),
            key: checks.file("identity.key", &self.key),
            bundle: checks.file("identity.bundle", &self.bundle),
        }
    }
}

/// The exporter of traces.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawOtlp {
    /// The collector, spoken to by OTLP over gRPC: `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoint: String,
    /// Spans that may wait to be exported. More are dropped and counted.
    #[serde(default = "default_queue")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: u32,
    /// How long one export may take.
    #[serde(default = "default_export_timeout")]
    pub timeout: DurationText,
}

fn default_queue() -> u32 {
    8_192
}

fn default_export_timeout() -> DurationText {
    "10s".into()
}

/// The exporter of traces, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// The collector's URL.
    pub endpoint: String,
    /// The part of traces that begin here and are recorded, from 0 to 1.
    pub sampling: f64,
    /// Spans that may wait.
    pub queue: usize,
    /// The limit of one export.
    pub timeout: Duration,
}

/// The log, on standard error.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawLog {
    /// The least level that is written.
    pub level: LogLevel,
    /// How lines are written.
    pub format: LogFormat,
}

/// The level of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed that should not.
    Error,
    /// Something is odd, and the process copes.
    Warn,
    /// The life of the process.
    #[default]
    Info,
    /// Every connection.
    Debug,
}

impl LogLevel {
    /// As log filters write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// The log, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least level.
    pub level: LogLevel,
    /// Whether lines are JSON.
    pub json: bool,
}

impl RawLog {
    /// Nothing can be wrong with it beyond its shape.
    pub fn check(self) -> Log {
        Log { level: self.level, json: self.format == LogFormat::Json }
    }
}

/// The part of new traces that are recorded if `sampling` does not say.
pub const DEFAULT_SAMPLING: f64 = 0.01;

/// Checks `telemetry.otlp` and `telemetry.sampling`, which means nothing without the former.
pub fn otlp(checks: &mut Checks<'_>, otlp: Option<&RawOtlp>, sampling: Option<f64>) -> Option<Otlp> {
    let Some(raw) = otlp else {
        if sampling.is_some() {
            checks
                .problem("telemetry.sampling", "has no effect without `telemetry.otlp`: add a collector, or remove it");
        }
        return None;
    };
    Some(Otlp {
        endpoint: checks.url("telemetry.otlp.endpoint", &raw.endpoint, &["http", "https"]),
        sampling: sampling.unwrap_or(DEFAULT_SAMPLING),
        queue: raw.queue as usize,
        timeout: checks.duration(
            "telemetry.otlp.timeout",
            &raw.timeout,
            Duration::from_millis(100)..=Duration::from_secs(300),
        ),
    })
}

/// The administration server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawAdmin {
    /// Where it listens. It has no authentication, so only loopback addresses are accepted.
    pub listen: AddressText,
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:15000".into() }
    }
}

impl RawAdmin {
    /// Checks the address, under `admin`.
    pub fn check(&self, checks: &mut Checks<'_>) -> std::net::SocketAddr {
        checks.listen_locally("admin.listen", &self.listen, "the admin API has no authentication")
    }
}

/// The server for scrapers and probes: `/metrics`, `/live`, `/ready`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawMetrics {
    /// Where it listens.
    pub listen: AddressText,
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self { listen: "0.0.0.0:15020".into() }
    }
}

impl RawMetrics {
    /// Checks the address, under `metrics`.
    pub fn check(&self, checks: &mut Checks<'_>) -> std::net::SocketAddr {
        checks.listen("metrics.listen", &self.listen)
    }
}
