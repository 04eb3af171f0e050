//! A whole connection: whatever comes in, what each upstream receives is one strict, unambiguous request.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eastway_http::fuzzing::exchange(bytes));
