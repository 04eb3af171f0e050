//! What an upstream says, through hyper's code and through our own: what both pass on is the same answer to the caller.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eastway_http::fuzzing::both_ways_back(bytes));
