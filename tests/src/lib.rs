//! The test harness: what the end-to-end scenarios and the rule checks share.

pub mod protogen;
