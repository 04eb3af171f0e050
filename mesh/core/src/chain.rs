//! Errors with their causes, for logs: `Display` of an error tells one level only.

use std::error::Error;
use std::fmt;

/// Shows an error and everything that caused it, on one line.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_level_is_told_once() {
        assert_eq!(Chain(&Outer(std::io::Error::other("inner"))).to_string(), "outer: inner");
    }
}
