//! A message as everybody must read it, for comparing what two ways made of the same bytes.

use crate::framing::{Length, ResponseLength};
use crate::wire::{Decoded, Decoder, Step};

/// One message, in the one form that two ways must agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The method and the target, or the status.
    pub line: String,
    /// The fields but those that frame the message, in lower case and in order of their names.
    pub fields: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Vec<String>,
    /// Whether the body is there to its end.
    pub whole: bool,
    /// Bytes that the message takes.
    pub length: usize,
}

impl Message {
    /// The request at the front of `bytes`; `None` while its head is not there.
    pub fn request(bytes: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; 512];
        let mut parsed = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = parsed.parse(bytes) else { return None };
        let line = format!("{} {}", parsed.method?, parsed.path?);
        let chunked = field(parsed.headers, "transfer-encoding").is_some();
        let known = field(parsed.headers, "content-length").and_then(|digits| digits.parse().ok());
        let body = if chunked { Length::Chunked } else { known.map_or(Length::Unstated, Length::Known) };
        Some(Self::read(line, parsed.headers, Decoder::of_request(body), bytes, length))
    }

    /// The response at the front of `bytes`, to a HEAD or to something else.
    pub fn response(bytes: &[u8], head: bool) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; 512];
        let mut parsed = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = parsed.parse(bytes) else { return None };
        let code = parsed.code?;
        let chunked = field(parsed.headers, "transfer-encoding").is_some();
        let known = field(parsed.headers, "content-length").and_then(|digits| digits.parse().ok());
        let body = match known {
            _ if head || code < 200 || code == 204 || code == 304 => ResponseLength::Nothing,
            _ if chunked => ResponseLength::Chunked,
            known => known.map_or(ResponseLength::UntilClose, ResponseLength::Known),
        };
        Some(Self::read(code.to_string(), parsed.headers, Decoder::of_response(body), bytes, length))
    }

    /// The responses that `bytes` consist of, interim ones included.
    pub fn responses(mut bytes: &[u8], head: bool) -> Vec<Self> {
        let mut all = Vec::new();
        while let Some(message) = Self::response(bytes, head) {
            bytes = bytes.get(message.length..).unwrap_or_default();
            all.push(message);
        }
        all
    }

    /// The code of the reason that a refusal of ours states.
    pub fn refusal(&self) -> Option<&str> {
        let status = self.fields.iter().find_map(|field| field.strip_prefix("proxy-status: "))?;
        status.split("details=\"").nth(1)?.split('"').next()
    }

    fn read(line: String, fields: &[httparse::Header<'_>], decoder: Decoder, bytes: &[u8], length: usize) -> Self {
        let mut message = Self { line, fields: lines(fields), length, ..Self::default() };
        message.read_body(decoder, bytes);
        message
    }

    fn read_body(&mut self, mut decoder: Decoder, bytes: &[u8]) {
        let until_close = decoder == Decoder::UntilClose;
        while let Ok(Decoded { skip, step }) = decoder.step(&bytes[self.length..]) {
            self.length += skip;
            match step {
                Step::Data(len) => self.body.extend_from_slice(&bytes[self.length..self.length + len]),
                Step::Trailers(len) => self.read_trailers(&bytes[self.length..self.length + len]),
                Step::End | Step::More => {
                    self.whole = step == Step::End || until_close;
                    return;
                }
            }
            let (Step::Data(len) | Step::Trailers(len)) = step else { return };
            decoder.taken(len);
            self.length += len;
        }
    }

    fn read_trailers(&mut self, bytes: &[u8]) {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        if let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(bytes, &mut fields) {
            self.trailers = lines(fields);
        }
    }
}

fn field<'a>(fields: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(field.value).ok()
}

/// All but what frames the message, what only one way adds, and the words of `Connection`. Cookies are one line.
fn lines(fields: &[httparse::Header<'_>]) -> Vec<String> {
    let apart = ["transfer-encoding", "content-length", "connection", "date"];
    let mut lines: Vec<(String, String)> = Vec::new();
    for field in fields {
        let (name, value) = (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned());
        let cookies = lines.iter_mut().find(|(other, _)| name == "cookie" && other == "cookie");
        if let Some((_, cookies)) = cookies {
            cookies.push_str("; ");
            cookies.push_str(&value);
        } else if !apart.contains(&name.as_str()) {
            lines.push((name, value));
        }
    }
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    lines.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
}
