//! What the operator's commands share: naming a service, asking a node's administration server, printing.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use eastway_core::name::{Authority, DEFAULT_SUFFIX, is_label};
use eastway_core::{ServiceName, ZoneId};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::context::Context;

/// Where a node's administration server listens by default.
pub(crate) const ADMIN: &str = "127.0.0.1:15000";
/// For a whole exchange with a node.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that is read of an answer.
const MAX_ANSWER: usize = 64 << 20;

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Which node is asked: one on this machine, or a gateway of a cluster elsewhere.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// The administration server of a gateway, or of a sidecar as far as that knows.
    #[arg(long, value_name = "HOST:PORT", default_value = ADMIN, value_parser = host_and_port)]
    pub(crate) admin: String,
    /// A cluster elsewhere, by its name in the file of contexts.
    #[arg(long, value_name = "NAME", conflicts_with = "admin")]
    context: Option<String>,
    /// The file of contexts [default: ~/.config/eastway/contexts.yaml].
    #[arg(long, value_name = "FILE", requires = "context")]
    contexts: Option<PathBuf>,
}

impl Target {
    /// The same node by the address of its administration server.
    #[cfg(test)]
    pub(crate) fn at(admin: &str) -> Self {
        Self { admin: admin.to_owned(), context: None, contexts: None }
    }

    /// The answer to `GET path`, as JSON.
    ///
    /// # Errors
    /// There is no such node, or it has no answer: with its own words, and what to do.
    pub(crate) fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = self.exchange(Method::GET, path, Bytes::new())?;
        self.answer(status, &body)
    }

    /// The answer to `POST path` with a body of JSON.
    ///
    /// # Errors
    /// There is no such node.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<(StatusCode, Bytes)> {
        self.exchange(Method::POST, path, serde_json::to_vec(body)?.into())
    }

    /// An answer of JSON.
    ///
    /// # Errors
    /// It is a refusal: with the node's own words.
    pub(crate) fn answer(&self, status: StatusCode, body: &[u8]) -> anyhow::Result<Value> {
        if status != StatusCode::OK {
            let words = String::from_utf8_lossy(body);
            bail!("{}", words.trim());
        }
        serde_json::from_slice(body)
            .with_context(|| format!("what {self} answered is not JSON: is it a node of the mesh?"))
    }

    fn exchange(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let context = self.context.as_deref().map(|name| Context::find(name, self.contexts.as_deref())).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exchange = async {
            match &context {
                Some(context) => send(context.connect().await?, context.name(), method, path, body).await,
                None => send(self.connect().await?, &self.admin, method, path, body).await,
            }
        };
        let sent = runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
        sent.with_context(|| format!("{self} did not answer within {PATIENCE:?}"))?
    }

    async fn connect(&self) -> anyhow::Result<tokio::net::TcpStream> {
        let admin = &self.admin;
        tokio::net::TcpStream::connect(admin).await.with_context(|| {
            format!(
                "no node's administration server at {admin}: name one with --admin (its `admin.listen`; see its log)"
            )
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.context.as_deref().unwrap_or(&self.admin))
    }
}

/// Which node is asked, and how its answer is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Node {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Node {
    /// The node's answer to `GET path`.
    ///
    /// # Errors
    /// There is no such node, or it has no answer.
    pub(crate) fn ask(&self, path: &str) -> anyhow::Result<Value> {
        self.target.ask(path)
    }

    /// What a gateway says of itself.
    ///
    /// # Errors
    /// There is no such node, or it is no gateway: then it cannot answer `what`.
    pub(crate) fn ask_gateway(&self, what: &str) -> anyhow::Result<Value> {
        let status = self.ask("/status")?;
        if status["federation"].is_object() {
            return Ok(status);
        }
        let cluster = status["cluster"].as_str().unwrap_or("its cluster");
        bail!(
            "{} is the administration server of a sidecar, which knows nothing of {what}: ask a gateway of {cluster} on its machine, \
             with --admin unless it listens at {ADMIN}",
            self.target
        )
    }

    /// Prints `answer` for programs, or what `write` makes of it for people.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn print(
        &self,
        answer: &Value,
        write: impl FnOnce(&mut String, &Value) -> fmt::Result,
    ) -> anyhow::Result<()> {
        let mut text = String::new();
        match self.output {
            Output::Json => text = serde_json::to_string_pretty(answer)? + "\n",
            Output::Table => write(&mut text, answer)?,
        }
        print(&text)
    }
}

/// What an operator asks about: a running service, or a scenario.
#[derive(Debug, clap::Args)]
pub(crate) struct Subject {
    /// NAMESPACE/SERVICE, SERVICE.NAMESPACE, or SERVICE.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    service: Option<String>,
    /// The zone that calls, CLUSTER/ZONE. A sidecar knows its own zone's view only, a gateway every zone of its cluster.
    #[arg(long, value_name = "CLUSTER/ZONE", conflicts_with = "file")]
    from: Option<ZoneId>,
    #[command(flatten)]
    target: Target,
    /// Ask about a scenario instead of a running service.
    #[arg(long, value_name = "SCENARIO.yaml")]
    pub(crate) file: Option<PathBuf>,
}

impl Subject {
    /// What the node answers to `verb` about the service, with these parameters.
    ///
    /// # Errors
    /// There is no such node, service or zone.
    pub(crate) fn ask(&self, verb: &str, mut parameters: Vec<(&str, String)>) -> anyhow::Result<Value> {
        let service = service(self.service.as_deref().unwrap_or_default(), &self.target)?;
        parameters.extend(self.from.iter().map(|zone| ("from", zone.to_string())));
        let encoded = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value)));
        let path = format!("/{verb}/{service}?{}", encoded.collect::<Vec<_>>().join("&"));
        self.target.ask(&path).with_context(|| format!("cannot {verb} {service}"))
    }
}

/// The text, if it is a host or an address with a port; the host is looked up when it is asked.
pub(crate) fn host_and_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let bare = host.is_empty() || host.contains(':') && !host.starts_with('[');
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !bare => Ok(text.to_owned()),
        _ => Err(format!("write HOST:PORT, for example {ADMIN}, localhost:15000 or [::1]:15000")),
    }
}

/// Sends a request to `host` over `io`, and reads its answer.
async fn send(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let driver = tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(path).header("host", host);
    let request = request.header("content-type", "application/json").body(Full::new(body))?;
    let response = sender.send_request(request).await.with_context(|| {
        format!("{host} broke the connection off: if it is a cluster elsewhere, it may not take this operator's certificate (see its log)")
    })?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| anyhow::anyhow!(error))?;
    driver.abort();
    Ok((status, body.to_bytes()))
}

/// The service that an operator means: `NAMESPACE/SERVICE`, `SERVICE.NAMESPACE`, a whole mesh name, or `SERVICE` alone if
/// the node knows one of that name only.
///
/// # Errors
/// It is none of these, several are called so, or it means one cluster's part of a service: answers are about all of it.
pub(crate) fn service(text: &str, target: &Target) -> anyhow::Result<ServiceName> {
    const FORMS: &str = "write NAMESPACE/SERVICE or SERVICE.NAMESPACE, each of lower-case letters, digits and `-`";
    if text.contains('/') {
        return Ok(text.parse()?);
    }
    match text.split('.').collect::<Vec<_>>()[..] {
        [service, namespace] if is_label(service) && is_label(namespace) => {
            return Ok(ServiceName::new(namespace, service));
        }
        [service] if is_label(service) => {}
        _ => {
            let Ok(Authority { service, cluster, .. }) = Authority::parse(text, DEFAULT_SUFFIX) else {
                bail!("`{text}` is no service of the mesh: {FORMS}");
            };
            let Some(cluster) = cluster else { return Ok(service) };
            bail!(
                "`{text}` is the part of {service} that is in {cluster}, and answers are about all of it: ask about {service}; \
                 its localities {cluster}/ZONE are that part, and `what-if {service} --lose cluster={cluster}` tells what becomes \
                 of the rest without it"
            );
        }
    }
    let known: Vec<String> = serde_json::from_value(target.ask("/services")?)?;
    let named: Vec<&str> =
        known.iter().map(String::as_str).filter(|name| name.split('/').nth(1) == Some(text)).collect();
    match named[..] {
        [only] => Ok(only.parse()?),
        [] if known.is_empty() => bail!("{target} knows no service yet; name it NAMESPACE/{text}"),
        [] => bail!("{target} knows no service `{text}`; it knows {}", known.join(", ")),
        _ => bail!("several services are called `{text}`: {}", named.join(", ")),
    }
}

/// A text as it stands in a query.
fn encode(text: &str) -> impl fmt::Display {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}

/// Prints what a command found out, all of it at once. Whoever reads may have seen enough: a closed pipe is no failure.
///
/// # Errors
/// It cannot be written, for example to a full disk.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write_to(&mut io::stdout().lock(), text)
}

fn write_to(out: &mut impl Write, text: &str) -> anyhow::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the result to the standard output: make room there, or send it elsewhere")
        }
        _ => Ok(()),
    }
}

/// Columns of text, as wide as they need to be; numbers are aligned to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether the column has nothing but numbers below its head; an empty cell and a dash stand for none.
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(column));
        cells.all(|cell| cell.is_empty() || cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit()))
    }

    /// Writes it, each row after `indent`.
    pub(crate) fn write(&self, out: &mut impl fmt::Write, indent: &str) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = width(column).unwrap_or_default();
                match () {
                    () if self.is_numeric(column) => format!("{cell:>width$}"),
                    () if column + 1 == columns => cell.clone(),
                    () => format!("{cell:<width$}"),
                }
            });
            writeln!(out, "{indent}{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_by_every_way_of_writing_them() {
        let nowhere = &Target::at("localhost:9");
        let payments = ServiceName::new("shop", "payments");
        for text in
            ["shop/payments", "payments.shop", "payments.shop.mesh.internal", "payments.shop.svc.clusterset.local"]
        {
            assert_eq!(service(text, nowhere).expect("a service"), payments, "{text}");
        }
        for text in ["payments.shop.foo.bar", "pay ments", "shop/pay ments", "shop/", "Payments", "a/b/c", ".shop", ""]
        {
            let error = service(text, nowhere).expect_err("no service").to_string();
            assert!(error.contains("write NAMESPACE/SERVICE"), "{text}: {error}");
        }
        let error = service("payments.shop.eu-west.mesh.internal", nowhere).expect_err("a part").to_string();
        assert!(error.contains("ask about shop/payments") && error.contains("--lose cluster=eu-west"), "{error}");
        let error = service("payments", nowhere).expect_err("nobody to ask").to_string();
        assert!(error.contains("--admin"), "{error}");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        drop(reader);
        write_to(&mut writer, "seen enough\n").expect("quiet");
        let mut full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let error = write_to(&mut full, "too much\n").expect_err("no room");
        assert!(format!("{error:#}").contains("cannot write the result to the standard output"), "{error:#}");
        assert!(format!("{error:#}").contains("No space left"), "{error:#}");
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("zone=us-east/a b&").to_string(), "zone%3Dus%2Deast%2Fa%20b%26");
    }
}
