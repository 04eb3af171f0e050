//! Heads of the link protocol: what is accepted has one meaning, and can be sent on.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eastway_link::fuzzing::heads(bytes));
