//! What is given on the command line: `NAME=VALUE` words, each read by the load that knows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;

/// The words after the verb.
#[derive(Debug, Default)]
pub(crate) struct Arguments(BTreeMap<String, String>);

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("`{word}` is not NAME=VALUE")),
        };
        words.map(pair).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn required<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let value = self.text(name).ok_or_else(|| format!("{name}=… is missing"))?;
        value.parse().map_err(|_| format!("{name}: `{value}` cannot be read"))
    }

    pub(crate) fn or<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        if self.text(name).is_some() { self.required(name) } else { Ok(default) }
    }

    pub(crate) fn address(&self) -> Result<SocketAddr, String> {
        self.required("address")
    }
}

#[test]
fn words_are_read_and_mistakes_are_named() {
    let words = |words: &[&str]| Arguments::parse(words.iter().map(|word| (*word).to_owned()));
    let arguments = words(&["address=127.0.0.1:80", "rate=5"]).expect("two pairs");
    assert_eq!(arguments.address(), Ok(SocketAddr::from(([127, 0, 0, 1], 80))));
    assert_eq!((arguments.required("rate"), arguments.or("seconds", 2)), (Ok(5), Ok(2)));
    assert!(arguments.required::<u64>("count").is_err());
    assert!(words(&["rate=x"]).and_then(|arguments| arguments.or("rate", 1)).is_err());
    assert!(words(&["rate"]).is_err());
}
