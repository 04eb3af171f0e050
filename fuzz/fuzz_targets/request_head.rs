//! Raw request heads: what the strict judge lets through keeps its promises, and hyper's path agrees.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eastway_http::fuzzing::request_head(bytes));
