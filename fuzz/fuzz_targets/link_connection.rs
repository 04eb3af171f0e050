//! A connection of the link protocol: whatever a peer sends, memory stays bounded and answers are well-formed.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eastway_link::fuzzing::connection(bytes));
