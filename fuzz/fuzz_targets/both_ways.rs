//! A whole connection, through hyper's code and through our own: what both let through is the same request upstream.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eastway_http::fuzzing::both_ways(bytes));
