//! The text of a token: a version, and what it says in one word that can be copied.
//!
//! `eastway-peer-1.` and, in base64url, a JSON object and the first bytes of its SHA-256: a token that was cut off or changed on
//! the way is told from one that is wrong.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use eastway_identity::sha256;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const PREFIX: &str = "eastway-peer-";
const VERSION: &str = "1";
/// Bytes of the hash at the end.
const CHECK: usize = 4;
/// The longest text that is read.
const MAX: usize = 16 << 10;
/// Addresses that are dialled at most.
const MAX_GATEWAYS: usize = 64;

/// What a token says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// The cluster that issued it.
    pub(crate) cluster: String,
    /// The trust domain of that.
    pub(crate) trust_domain: String,
    /// Where its gateways are reached.
    pub(crate) gateways: Vec<String>,
    /// The hash of its trust bundle.
    pub(crate) bundle: [u8; 32],
    /// Who knows it, may join.
    pub(crate) secret: Zeroizing<[u8; 32]>,
    /// Until when it is valid.
    pub(crate) expires_ms: u64,
    /// Rules of import that the cluster suggests to whoever joins.
    pub(crate) offers: Vec<String>,
}

/// Its JSON form.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    cluster: String,
    trust_domain: String,
    gateways: Vec<String>,
    bundle: String,
    secret: String,
    expires_ms: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    offers: Vec<String>,
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is something else.
    #[error("this is no token: one begins with `{PREFIX}{VERSION}.`, as `eastway peer token` printed it")]
    Foreign,
    /// Another release made it.
    #[error(
        "this token is of another version than {VERSION}, which this release reads: update the older one of the two clusters"
    )]
    Version,
    /// It is not as it was issued.
    #[error("this token is not whole: it was cut off or changed when it was copied; copy all of it")]
    Damaged,
}

impl Token {
    pub(crate) fn to_text(&self) -> String {
        let form = Form {
            cluster: self.cluster.clone(),
            trust_domain: self.trust_domain.clone(),
            gateways: self.gateways.clone(),
            bundle: BASE64URL_NOPAD.encode(&self.bundle),
            secret: BASE64URL_NOPAD.encode(&*self.secret),
            expires_ms: self.expires_ms,
            offers: self.offers.clone(),
        };
        // String keys and plain values cannot fail.
        let mut bytes = Zeroizing::new(serde_json::to_vec(&form).unwrap_or_default());
        let check = sha256(&bytes);
        bytes.extend_from_slice(&check[..CHECK]);
        format!("{PREFIX}{VERSION}.{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// Reads a text, whatever space it was wrapped with.
    ///
    /// # Errors
    /// It is no whole token that this release knows.
    pub(crate) fn read(text: &str) -> Result<Self, TokenError> {
        let text: Zeroizing<String> = Zeroizing::new(text.chars().filter(|c| !c.is_whitespace()).take(MAX).collect());
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::Foreign)?;
        let (version, body) = rest.split_once('.').ok_or(TokenError::Damaged)?;
        if version != VERSION {
            return Err(TokenError::Version);
        }
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| TokenError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let (json, check) = bytes.split_at_checked(bytes.len().saturating_sub(CHECK)).ok_or(TokenError::Damaged)?;
        if sha256(json)[..CHECK] != *check {
            return Err(TokenError::Damaged);
        }
        let form: Form = serde_json::from_slice(json).map_err(|_| TokenError::Damaged)?;
        let key = |text: &str| {
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
            <[u8; 32]>::try_from(bytes.as_slice()).ok()
        };
        Ok(Self {
            bundle: key(&form.bundle).ok_or(TokenError::Damaged)?,
            secret: key(&form.secret).map(Zeroizing::new).ok_or(TokenError::Damaged)?,
            cluster: form.cluster,
            trust_domain: form.trust_domain,
            gateways: form.gateways.into_iter().take(MAX_GATEWAYS).collect(),
            expires_ms: form.expires_ms,
            offers: form.offers,
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("cluster", &self.cluster)
            .field("gateways", &self.gateways)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            cluster: "us-east".to_owned(),
            trust_domain: "us-east.mesh.internal".to_owned(),
            gateways: vec!["10.1.0.1:15443".to_owned(), "gw.us.example:15443".to_owned()],
            bundle: [7; 32],
            secret: Zeroizing::new([9; 32]),
            expires_ms: 1_790_000_000_000,
            offers: vec!["shop/*".to_owned()],
        }
    }

    #[test]
    fn what_is_written_is_read_back_however_it_was_wrapped() {
        let text = token().to_text();
        assert!(text.starts_with("eastway-peer-1.") && text.is_ascii(), "{text}");
        assert_eq!(Token::read(&text), Ok(token()));
        let (one, two) = text.split_at(80);
        assert_eq!(Token::read(&format!("  {one}\n{two}\n")), Ok(token()));
    }

    #[test]
    fn a_token_that_was_cut_off_or_changed_anywhere_is_told() {
        let text = token().to_text();
        for length in 0..text.len() {
            let error = Token::read(&text[..length]).expect_err("cut off");
            let expected = if length < PREFIX.len() { TokenError::Foreign } else { TokenError::Damaged };
            assert_eq!(error, expected, "{length}");
        }
        for at in "eastway-peer-1.".len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(Token::read(&changed), Err(TokenError::Damaged), "{at}");
        }
        assert_eq!(Token::read(&format!("{text}A")), Err(TokenError::Damaged));
    }

    #[test]
    fn what_is_no_token_and_what_is_of_another_version_is_told() {
        assert_eq!(Token::read("hunter2"), Err(TokenError::Foreign));
        assert_eq!(Token::read(&token().to_text().replace("peer-1.", "peer-2.")), Err(TokenError::Version));
    }

    #[test]
    fn a_token_is_not_shown() {
        let shown = format!("{:?}", token());
        assert!(shown.contains("us-east") && !shown.contains('9'), "{shown}");
    }
}
