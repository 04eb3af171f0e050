//! Response heads: one length, nothing of one hop only.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eastway_http::fuzzing::response_head(bytes));
