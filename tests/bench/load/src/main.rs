//! `eastway-load`: the loads of `make bench` that no packaged tool makes, and the application that takes them.
//!
//! For: requests at a fixed rate, opaque streams (plain TCP, or by CONNECT), downloads, crowds of endpoints. Every load is bounded by a count or by a
//! time, and prints one line of JSON. Never: part of a product. Called by `tests/bench/peers`, or by hand:
//! `eastway-load open address=127.0.0.1:19000 rate=2000 seconds=2`.

mod arguments;
mod crowd;
mod http;
mod opaque;
mod open;
mod sink;

use std::process::ExitCode;

use arguments::Arguments;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let outcome = Arguments::parse(words).and_then(|arguments| match verb.as_str() {
        "open" => open::run(&arguments),
        "download" => http::download(&arguments),
        "bulk" => opaque::bulk(&arguments),
        "connections" => opaque::connections(&arguments),
        "crowd" => crowd::run(&arguments),
        "sink" => sink::run(&arguments),
        _ => Err(format!("`{verb}` is none of open, download, bulk, connections, crowd, sink")),
    });
    match outcome {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("eastway-load: {error}");
            ExitCode::FAILURE
        }
    }
}
