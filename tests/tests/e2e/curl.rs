//! curl, as a client that none of us wrote.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use eastway_tests::process::required;

/// What curl got: the status and version that it reports, and the body.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) version: String,
    pub(crate) body: String,
}

/// Runs curl with `arguments`.
///
/// # Errors
/// What curl says when it gets no answer.
pub(crate) fn curl<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Result<Got, String> {
    let output = Command::new(required("curl", "curl"))
        .args(["--silent", "--show-error", "--max-time", "30", "--noproxy", ""])
        .args(["--write-out", "\n%{http_code} %{http_version}"])
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, last) = text.rsplit_once('\n').ok_or("curl reports nothing")?;
    let (status, version) = last.split_once(' ').ok_or("curl reports too little")?;
    let status = status.parse().map_err(|_| format!("no status: {last}"))?;
    Ok(Got { status, version: version.to_owned(), body: body.to_owned() })
}

/// Calls `url` at a node that wants mutual TLS, with the certificate and key `NAME.crt` and `NAME.key` of `folder`.
///
/// # Errors
/// What curl says when it gets no answer.
pub(crate) fn with_certificate(folder: &Path, name: &str, url: &str, more: &[&str]) -> Result<Got, String> {
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    // Whether the server is who it should be is not what these calls ask: its name is a SPIFFE id, which curl cannot check.
    let fixed = ["--insecure".as_ref(), "--cert".as_ref(), certificate.as_os_str(), "--key".as_ref(), key.as_os_str()];
    let more = more.iter().map(OsStr::new);
    curl(fixed.into_iter().chain(more).chain([OsStr::new(url)]))
}
